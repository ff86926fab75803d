"""Motion files of every kind that we read, made by formula as the other programs write them."""

from __future__ import annotations

import base64
import gzip
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.rotations import matrix_to_axis_angle, slerp
from comfyui_comovi.comovi_model.body.smpl import BodyModel, pose_joints
from comfyui_comovi.comovi_model.body.toy import random_rotations
from comfyui_comovi.comovi_model.motion_io import write_motion
from comfyui_comovi.comovi_model.motion_io.mhr import MHR_JOINTS

FRAMES = 5


def smooth_motion(body: BodyModel, frames: int = 30, seed: int = 0, angle: float = 0.5, **changes) -> BodyMotion:
    """Slerped between random poses one every eight frames, walking about; frame "yup"."""
    generator = torch.Generator().manual_seed(seed)
    keys = random_rotations(frames // 8 + 3, 24, seed=seed, angle=angle)
    time = torch.arange(frames) / 8
    rotations = slerp(keys[time.long()], keys[time.long() + 1], (time % 1)[:, None])
    transl = torch.cumsum(0.02 * torch.randn(frames, 3, generator=generator), 0)
    betas = torch.randn(10, generator=generator)
    fields = {"rotations": rotations, "betas": betas, "transl": transl, "frame": "yup", "body_model": body.name}
    return BodyMotion(**{**fields, **changes})


def axis_angles(motion: BodyMotion) -> np.ndarray:
    """(F, 72) float32."""
    return matrix_to_axis_angle(motion.rotations).flatten(1).numpy()


def saved_torch(tree: object, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(tree, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def saved_npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def saved_npy(value: object) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


class JoblibWriter(pickle._Pickler):
    """joblib.dump without joblib: each array is a wrapper in the pickle, its numbers follow in the stream."""

    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.file = file

    def save(self, obj, save_persistent_id=True):
        if type(obj) is np.ndarray and not obj.dtype.hasobject:
            wrapper = type("NumpyArrayWrapper", (), {"__module__": "joblib.numpy_pickle"})()
            order = "F" if obj.flags.f_contiguous and not obj.flags.c_contiguous else "C"
            wrapper.__dict__.update(subclass=np.ndarray, shape=obj.shape, order=order, dtype=obj.dtype, allow_mmap=True)
            wrapper.__dict__["numpy_array_alignment_bytes"] = 16
            super().save(wrapper, save_persistent_id)
            padding = 16 - (self.file.tell() + 1) % 16
            self.write(struct.pack("B", padding) + b"\xff" * padding + obj.tobytes(order))
            return None
        return super().save(obj, save_persistent_id)

    def save_global(self, obj, name=None):
        module, name = ("joblib.numpy_pickle", "NumpyArrayWrapper") if "joblib" in obj.__module__ else (None, None)
        if module:
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
            self.memoize(obj)
        else:
            super().save_global(obj)

    dispatch = dict(pickle._Pickler.dispatch)
    dispatch[type] = save_global


def saved_joblib(tree: object) -> bytes:
    file = io.BytesIO()
    JoblibWriter(file).dump(tree)
    return file.getvalue()


def gvhmr(motion: BodyMotion) -> dict:
    angles, count = torch.from_numpy(axis_angles(motion)), len(motion)
    camera = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]).expand(count, 3, 3).contiguous()
    part = {
        "body_pose": angles[:, 3:66], "betas": motion.betas.expand(count, 10), "global_orient": angles[:, :3],
        "transl": motion.transl,
    }  # fmt: skip
    incam = {**part, "transl": motion.transl + torch.tensor([0.0, 0, 5])}
    return {
        "smpl_params_global": part, "smpl_params_incam": incam, "K_fullimg": camera,
        "net_outputs": {"static_conf_logits": torch.zeros(1, count, 6)},
    }  # fmt: skip


def wham(motion: BodyMotion, frames_of_second: int = 2) -> dict:
    angles, place = axis_angles(motion), motion.transl.numpy()
    betas = np.tile(motion.betas.numpy(), (len(motion), 1))

    def person(count: int) -> dict:
        return {
            "pose": angles[:count], "trans": place[:count] + np.float32(5), "pose_world": angles[:count],
            "trans_world": place[:count], "betas": betas[:count], "frame_ids": np.arange(count) + 3,
            "verts": np.zeros((count, 11, 3), np.float32),
        }  # fmt: skip

    return {0: person(len(motion)), 3: person(frames_of_second)}


def tram(motion: BodyMotion) -> dict:
    return {
        "pred_cam": torch.zeros(len(motion), 3), "pred_rotmat": motion.rotations,
        "pred_shape": motion.betas.expand(len(motion), 10).contiguous(), "pred_trans": motion.transl[:, None],
        "frame": torch.arange(len(motion)),
    }  # fmt: skip


def camerahmr_record(motion: BodyMotion, frame: int) -> dict:
    rotations = motion.rotations[frame].numpy()
    return {
        "verts": np.zeros((1, 9, 3), np.float32), "cam_t": motion.transl[frame : frame + 1].numpy(),
        "render_res": np.array([352.0, 640.0]), "scaled_focal_length": np.float32(700),
        "smpls": {
            "global_orient": rotations[None, None, 0], "body_pose": rotations[None, 1:],
            "betas": motion.betas[None].numpy(),
        },
    }  # fmt: skip


def comovi_smpl(motion: BodyMotion) -> list[dict]:
    return [
        {**camerahmr_record(motion, frame)["smpls"], "camera": motion.transl[frame].numpy()}
        for frame in range(len(motion))
    ]


def phalp(motion: BodyMotion) -> dict:
    tracks = {}
    for frame in range(len(motion)):
        rotations = motion.rotations[frame].numpy()
        smpl = {"global_orient": rotations[None, 0], "body_pose": rotations[1:], "betas": motion.betas.numpy()}
        tracks[f"outputs/img/{frame + 1:06d}.jpg"] = {
            "time": frame, "tid": [4, 7] if frame < 2 else [4], "tracked_time": [int(frame == 3), 0],
            "tracked_ids": [4], "size": [[640, 352]],
            "smpl": [smpl, smpl], "camera": [motion.transl[frame].numpy() + np.float32(9)] * 2,
        }  # fmt: skip
    return tracks


def mhr(motion: BodyMotion, body: BodyModel) -> dict:
    frames = []
    for joints in pose_joints(body, motion.rotations, motion.betas, motion.transl).numpy():
        points = np.zeros((127, 3), np.float32)
        points[list(MHR_JOINTS)] = joints - joints[0]
        frames.append([{"pred_joint_coords": points, "pred_cam_t": joints[0], "focal_length": np.float32(500)}])
    return {"frames": frames, "image_size": (640, 352), "faces": np.zeros((2, 3), np.int64)}


def as_lists(value: object) -> object:
    """Arrays as lists, for JSON."""
    if isinstance(value, dict):
        return {str(key): as_lists(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_lists(item) for item in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic, torch.Tensor)) else value


def gltf_with_data_uri(glb: bytes) -> bytes:
    size = struct.unpack_from("<I", glb, 12)[0]
    document = json.loads(glb[20 : 20 + size])
    document["buffers"][0]["uri"] = (
        "data:application/octet-stream;base64," + base64.b64encode(glb[28 + size :]).decode()
    )
    return json.dumps(document).encode()


def result_trees(body: BodyModel) -> list[object]:
    """What the files of estimators hold, before it is packed."""
    motion = smooth_motion(body, FRAMES)
    fields = {"global_orient": axis_angles(motion)[:, :3], "body_pose": axis_angles(motion)[:, 3:]}
    amass = {"poses": axis_angles(motion), "trans": motion.transl.numpy(), "fps": 30, "gender": "male"}
    numbers = {key: value.numpy() for key, value in gvhmr(motion)["smpl_params_global"].items()}
    return [
        {"smpl_params_global": numbers, "K_fullimg": np.eye(3)}, wham(motion),
        {key: value.numpy() for key, value in tram(motion).items()}, camerahmr_record(motion, 0),
        {"smpl": comovi_smpl(motion)}, phalp(motion), mhr(motion, body), {**fields, "fps": 30}, amass,
    ]  # fmt: skip


def corpus(body: BodyModel, folder: Path) -> dict[str, tuple[str, bytes]]:
    """name -> (format that read_motion must say, content): one file or more of every importer."""
    motion = smooth_motion(body, FRAMES)
    camera = smooth_motion(body, FRAMES, frame="camera", transl=torch.tensor([[0.0, 0, 4]]).repeat(FRAMES, 1))
    angles = axis_angles(motion)
    files: dict[str, tuple[str, bytes]] = {}
    for name in ("comovi", "amass", "smplx", "bvh", "glb", "usda", "obj", "pc2", "json", "humanml3d", "joints"):
        files[f"{name}"] = (name, write_motion(folder / name, motion, body, name).read_bytes())
    place, betas = motion.transl.numpy(), motion.betas.numpy()
    smpl_fields = {"global_orient": angles[:, :3], "body_pose": angles[:, 3:], "transl": place, "betas": betas}
    released = {
        "global_orient": motion.rotations[:, :1].numpy(), "body_pose": motion.rotations[:, 1:].numpy(),
        "betas": betas[None],
    }  # fmt: skip
    amass = {"poses": angles, "trans": place, "betas": np.zeros(10), "gender": np.array(b"male")}
    amass["mocap_frame_rate"] = np.array(120.0)
    make: dict[str, tuple[str, Callable[[], bytes]]] = {
        "gltf": ("glb", lambda: gltf_with_data_uri(files["glb"][1])),
        "gvhmr_pt": ("gvhmr", lambda: saved_torch(gvhmr(motion))),
        "gvhmr_old_pt": ("gvhmr", lambda: saved_torch(gvhmr(motion), zipped=False)),
        "gvhmr_pkl": ("gvhmr", lambda: pickle.dumps(gvhmr(motion))),
        "wham_joblib": ("wham", lambda: saved_joblib(wham(motion))),
        "wham_gzip": ("wham", lambda: gzip.compress(saved_joblib(wham(motion)))),
        "wham_pkl": ("wham", lambda: pickle.dumps(wham(motion), protocol=2)),
        "tram": ("tram", lambda: saved_npy(tram(motion))),
        "camerahmr": ("camerahmr", lambda: saved_npy(camerahmr_record(camera, 0))),
        "4dhumans": ("4dhumans", lambda: saved_joblib(phalp(motion))),
        "comovi_smpl_npz": ("comovi_smpl", lambda: saved_npz(smpl=np.array(comovi_smpl(camera), object))),
        "comovi_smpl_json": ("comovi_smpl", lambda: json.dumps({"smpl": as_lists(comovi_smpl(camera))}).encode()),
        "smpl_npz": ("smpl", lambda: saved_npz(**smpl_fields, fps=np.array(25.0))),
        "released_npz": ("smpl", lambda: saved_npz(**released)),
        "mhr_json": ("mhr", lambda: json.dumps(as_lists(mhr(camera, body))).encode()),
        "mhr_pt": ("mhr", lambda: saved_torch(mhr(camera, body))),
        "amass_smpl": ("amass", lambda: saved_npz(**amass)),
    }  # fmt: skip
    files.update({name: (kind, build()) for name, (kind, build) in make.items()})
    return files


def zip_with(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()
