"""Results of pose estimators: GVHMR, WHAM, TRAM, CameraHMR, 4DHumans, CoMoVi's own data, told apart by their keys.

Letters: F frames. Each reader gets the tree of the file (pickles.py) and a `Wish`, and answers with a motion and notes.
Camera axes are OpenCV's (x right, y down, z away); GVHMR's and WHAM's world has y up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..body.motion import BodyMotion
from ..errors import ComoviError
from .limits import by_number, check_frames
from .smpl_fields import camera_of, field, focal_camera, number, numbers, smpl_motion

SPACES = ("world", "camera")
PHALP_FOCAL = 5000.0  # pixels; 4DHumans places people before a camera of this focal length
RELEASE_RATE = 16.0  # frames per second of CoMoVi's clips


@dataclass(frozen=True)
class Wish:
    """What the user said: None is unsaid."""

    fps: float | None = None
    person: str | int | None = None
    space: str | None = None  # "world" or "camera", where a file has both
    up: str | None = None


Reader = Callable[[Any, Wish], tuple[BodyMotion, list[str]]]


def recognise(tree: Any) -> str | None:
    """The name in FORMATS of what the keys say, or None."""
    if isinstance(tree, list):
        first = tree[0] if tree else None
        if not isinstance(first, dict):
            return None
        return "camerahmr" if "smpls" in first else "comovi_smpl" if "global_orient" in first else None
    if not isinstance(tree, dict) or not tree:
        return None
    keys = tree.keys()
    if "smpl_params_global" in keys or "smpl_params_incam" in keys:
        return "gvhmr"
    if "pred_rotmat" in keys:
        return "tram"
    if "smpls" in keys:
        return "camerahmr"
    if "smpl" in keys and isinstance(tree["smpl"], (list, dict)):
        return "comovi_smpl"
    if "frames" in keys and ("image_size" in keys or "faces" in keys):
        return "mhr"
    if {"poses", "trans"} <= keys:
        return "smplx" if str(tree.get("surface_model_type", "")) == "smplx" else "amass"
    if "global_orient" in keys or {"root_orient", "pose_body"} <= keys:
        return "smpl"
    if {"pose", "trans"} <= keys or {"pose_world", "trans_world"} <= keys:
        return "wham"
    first = next(iter(tree.values()))
    if isinstance(first, dict):
        if "pose_world" in first or {"pose", "trans"} <= first.keys():
            return "wham"
        if "smpl" in first and first.keys() & {"tracked_ids", "tid", "camera"}:
            return "4dhumans"
    return None


def _fps(wish: Wish, record: Mapping[Any, Any], default: float, notes: list[str]) -> float:
    if wish.fps is not None:
        notes.append(f"{wish.fps:.6g} frames per second (given)")
        return wish.fps
    stated = field(record, "fps", "mocap_framerate", "mocap_frame_rate", "frame_rate", "framerate")
    if stated is not None:
        rate = number(stated, "fps")
        notes.append(f"{rate:.6g} frames per second (stated by the file)")
        return rate
    notes.append(f"{default:g} frames per second (assumed: the file does not say; give fps)")
    return default


def _space(wish: Wish, world: bool, camera: bool, notes: list[str]) -> str:
    if wish.space is not None and wish.space not in SPACES:
        raise ComoviError(f"space must be one of {', '.join(SPACES)}, got {wish.space!r}.")
    chosen = wish.space or ("world" if world else "camera")
    if not (world if chosen == "world" else camera):
        raise ComoviError(f"the file holds no motion in the {chosen} frame.")
    notes.append(f"axes: the {chosen} frame" + (" (the file also holds the other)" if world and camera else ""))
    return chosen


def _frame(wish: Wish, default: str, notes: list[str]) -> str:
    frame = {"y": "yup", "z": "zup"}.get(wish.up or "", wish.up) or default
    notes.append(f"metres, axes {frame!r}" + (" (given)" if wish.up else " (as this program writes them)"))
    return frame


def read_gvhmr(tree: Any, wish: Wish) -> tuple[BodyMotion, list[str]]:
    notes: list[str] = []
    world, camera = tree.get("smpl_params_global"), tree.get("smpl_params_incam")
    space = _space(wish, isinstance(world, dict), isinstance(camera, dict), notes)
    record = world if space == "world" else camera
    frame = _frame(wish, "yup" if space == "world" else "camera", notes)
    fps = _fps(wish, tree, 30.0, notes)
    root = field(record, "global_orient")
    frames = max(1, numbers(root, "global_orient").size // 3)
    view = None
    if space == "camera" and tree.get("K_fullimg") is not None:
        view = camera_of(tree["K_fullimg"], None, None, frames, notes)
    motion = smpl_motion(
        root, field(record, "body_pose"), field(record, "transl"), field(record, "betas"),
        frame=frame, fps=fps, body_model="SMPL-X neutral", notes=notes, camera=view,
    )  # fmt: skip
    return motion, notes


def read_wham(tree: Any, wish: Wish) -> tuple[BodyMotion, list[str]]:
    notes: list[str] = []
    record = tree if "pose" in tree or "pose_world" in tree else _person(tree, wish, notes)
    space = _space(wish, "pose_world" in record, "pose" in record, notes)
    pose, place = ("pose_world", "trans_world") if space == "world" else ("pose", "trans")
    frame = _frame(wish, "yup" if space == "world" else "camera", notes)
    fps = _fps(wish, tree, 30.0, notes)
    angles = numbers(record[pose], pose)
    if angles.ndim < 1 or angles.shape[-1] != 72:
        raise ComoviError(f"{pose} must be (frames, 72) axis-angle, got {angles.shape}.")
    angles = angles.reshape(-1, 72)
    source = _source(record, "frame_ids", len(angles), notes)
    motion = smpl_motion(
        angles[:, :3], angles[:, 3:], field(record, place), field(record, "betas"),
        frame=frame, fps=fps, body_model="SMPL neutral", notes=notes, **source,
    )  # fmt: skip
    return motion, notes


def _person(tree: dict, wish: Wish, notes: list[str]) -> dict:
    """The person asked for, else the one with most frames."""
    people = {key: value for key, value in tree.items() if isinstance(value, dict)}
    if wish.person is not None:
        for key, value in people.items():
            if str(key) == str(wish.person):
                return value
        raise ComoviError(
            f"person {wish.person} is not in the file; it holds {', '.join(map(str, list(people)[:12]))}."
        )
    key = max(people, key=lambda key: _length(people[key]))
    if len(people) > 1:
        notes.append(f"person {key} of {', '.join(map(str, list(people)[:12]))}: the one with most frames")
    return people[key]


def _length(record: dict) -> int:
    return max((len(value) for value in record.values() if isinstance(value, np.ndarray) and value.ndim), default=0)


def _source(record: Mapping[Any, Any], name: str, frames: int, notes: list[str]) -> dict[str, Any]:
    """Frame numbers in the source video, as fields of BodyMotion."""
    if record.get(name) is None:
        return {}
    index = numbers(record[name], name).ravel()
    if len(index) != frames:
        return {}
    if (np.diff(index) != 1).any():
        notes.append("some frames of the video are missing between the frames of the file; fill them if need be")
    return {"source_index": torch.from_numpy(index.astype(np.int64))}


def read_tram(tree: Any, wish: Wish) -> tuple[BodyMotion, list[str]]:
    notes: list[str] = ["the camera of TRAM moves; its track is in camera.npy, which is not read"]
    matrices = numbers(tree["pred_rotmat"], "pred_rotmat")
    if matrices.ndim != 4 or matrices.shape[1:] != (24, 3, 3):
        raise ComoviError(f"pred_rotmat must be (frames, 24, 3, 3), got {matrices.shape}.")
    motion = smpl_motion(
        matrices[:, 0], matrices[:, 1:], field(tree, "pred_trans"), field(tree, "pred_shape"),
        frame=_frame(wish, "camera", notes), fps=_fps(wish, tree, 30.0, notes), body_model="SMPL neutral", notes=notes,
        **_source(tree, "frame", len(matrices), notes),
    )  # fmt: skip
    return motion, notes


def read_camerahmr(tree: Any, wish: Wish) -> tuple[BodyMotion, list[str]]:
    """One record or the list of a folder; frames without a person are missing there."""
    notes: list[str] = []
    records = tree if isinstance(tree, list) else [tree]
    check_frames(len(records))
    poses = [record["smpls"] if isinstance(record, dict) else None for record in records]
    if not all(isinstance(pose, dict) and "body_pose" in pose and "global_orient" in pose for pose in poses):
        raise ComoviError("a record of CameraHMR lacks smpls with global_orient and body_pose.")
    view = None
    first = records[0]
    if {"scaled_focal_length", "render_res"} <= first.keys():
        width, height = numbers(first["render_res"], "render_res").ravel()[:2]
        focal = np.array([number(record.get("scaled_focal_length"), "scaled_focal_length") for record in records])
        view = focal_camera(np.median(focal), width, height)
        if np.ptp(focal) > 1e-3 * focal.mean():
            notes.append("the focal length differs from frame to frame; its median is used")
    motion = smpl_motion(
        _stacked(poses, "global_orient"), _stacked(poses, "body_pose"), _stacked(records, "cam_t"),
        _stacked(poses, "betas"), frame=_frame(wish, "camera", notes), fps=_fps(wish, first, 30.0, notes),
        body_model="SMPL neutral", notes=notes, camera=view,
    )  # fmt: skip
    return motion, notes


def _stacked(records: list[Any], name: str) -> np.ndarray | None:
    """The field of all records, (F, ...), or None where one lacks it."""
    values = [record.get(name) if isinstance(record, dict) else None for record in records]
    if any(value is None for value in values):
        return None
    arrays = [numbers(value, name) for value in values]
    if len({array.shape for array in arrays}) != 1:
        raise ComoviError(f"{name} has different shapes in different frames.")
    return np.stack(arrays)


def read_comovi_smpl(tree: Any, wish: Wish) -> tuple[BodyMotion, list[str]]:
    """{"smpl": [{global_orient (1, 1, 3, 3), body_pose (1, 23, 3, 3), betas (1, 10), camera}]} or the list itself."""
    notes: list[str] = []
    outer = tree if isinstance(tree, dict) else {}
    records = outer.get("smpl", tree)
    if isinstance(records, dict):
        return read_smpl({**{key: value for key, value in outer.items() if key != "smpl"}, **records}, wish)
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise ComoviError("smpl must be a list of records with global_orient and body_pose.")
    check_frames(len(records))
    if any("global_orient" not in record or "body_pose" not in record for record in records):
        raise ComoviError("a record of smpl lacks global_orient or body_pose.")
    transl = _stacked(records, "transl")
    transl = _stacked(records, "cam_t") if transl is None else transl
    if transl is None:
        camera = _stacked(records, "camera")
        transl = camera if camera is not None and camera.size == 3 * len(records) else None
        if transl is not None:
            notes.append("`camera` is taken as the translation in the camera frame")
    motion = smpl_motion(
        _stacked(records, "global_orient"), _stacked(records, "body_pose"), transl, _stacked(records, "betas"),
        frame=_frame(wish, "camera", notes), fps=_fps(wish, outer, RELEASE_RATE, notes), body_model="SMPL neutral",
        notes=notes,
    )  # fmt: skip
    return motion, notes


def read_4dhumans(tree: Any, wish: Wish) -> tuple[BodyMotion, list[str]]:
    """Tracks of PHALP: per frame lists of people."""
    notes: list[str] = []
    ordered = sorted(tree.items(), key=lambda pair: by_number(str(pair[0])))
    frames = [record for _, record in ordered if isinstance(record, dict)]
    tracks: dict[int, dict[int, tuple[dict, Any, bool]]] = {}
    size = None
    for index, record in enumerate(frames):
        people, poses, places = _listed(record, "tid"), _listed(record, "smpl"), _listed(record, "camera")
        unseen = _listed(record, "tracked_time")  # frames since the person was last seen; PHALP predicts those
        size = size or next(iter(_listed(record, "size")), None)
        for slot, person in enumerate(people):
            if slot < len(poses) and isinstance(poses[slot], dict):
                place = places[slot] if slot < len(places) else None
                seen = slot >= len(unseen) or number(unseen[slot], "tracked_time") == 0
                tracks.setdefault(int(number(person, "tid")), {})[index] = (poses[slot], place, seen)
    if not tracks:
        raise ComoviError("the tracks of 4DHumans hold nobody with SMPL parameters.")
    if wish.person is not None and str(wish.person) not in {str(key) for key in tracks}:
        raise ComoviError(
            f"person {wish.person} is not in the file; it holds {', '.join(map(str, list(tracks)[:12]))}."
        )
    chosen = max(tracks, key=lambda key: len(tracks[key]))
    chosen = next((key for key in tracks if str(key) == str(wish.person)), chosen)
    if len(tracks) > 1:
        notes.append(f"person {chosen} of {', '.join(map(str, sorted(tracks)[:12]))}")
    track = tracks[chosen]
    records = [record for record, _, _ in track.values()]
    places = [{"camera": place} for _, place, _ in track.values()]
    valid = torch.tensor([seen for _, _, seen in track.values()])
    if not valid.all():
        notes.append(f"the person was not seen in {int((~valid).sum())} frames; they are marked as not valid")
    view = None
    if size is not None and numbers(size, "size").size >= 2:
        height, width = numbers(size, "size").ravel()[:2]
        view = focal_camera(PHALP_FOCAL, width, height)
    notes.append(f"depth is as seen by a camera of {PHALP_FOCAL:g} pixels focal length, which PHALP assumes")
    motion = smpl_motion(
        _stacked(records, "global_orient"), _stacked(records, "body_pose"), _stacked(places, "camera"),
        _stacked(records, "betas"), frame=_frame(wish, "camera", notes), fps=_fps(wish, {}, 30.0, notes),
        body_model="SMPL neutral", notes=notes, camera=view, valid=valid,
        **_source({"index": np.array(list(track))}, "index", len(track), notes),
    )  # fmt: skip
    return motion, notes


def _listed(record: dict, name: str) -> list:
    value = record.get(name, [])
    if not isinstance(value, (list, np.ndarray)) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return []
    check_frames(max(1, len(value)))
    return list(value)


def read_smpl(tree: Any, wish: Wish) -> tuple[BodyMotion, list[str]]:
    """global_orient, body_pose, transl, betas under their usual names; CoMoVi's released samples among them."""
    notes: list[str] = []
    root, body = field(tree, "global_orient", "root_orient"), field(tree, "body_pose", "pose_body")
    if root is None or body is None:
        raise ComoviError(f"body_pose is missing beside global_orient; found {', '.join(map(str, list(tree)[:12]))}.")
    transl = field(tree, "transl", "trans", "cam_t", "translation")
    shape = np.shape(numbers(body, "body_pose"))
    matrices = shape[-2:] == (3, 3)
    kind = "SMPL-X neutral" if shape[-1] == 63 or (len(shape) > 1 and shape[-2] == 21) else "SMPL neutral"
    stated = tree.get("frame")
    default = stated if isinstance(stated, str) and stated in ("camera", "yup", "zup") else "camera"
    if "pose_body" in tree:
        default = "zup"
    fps = _fps(wish, tree, RELEASE_RATE if matrices else 30.0, notes)
    view = None
    if field(tree, "K_fullimg", "K", "camera_K") is not None:
        size = field(tree, "image_size")
        width, height = numbers(size, "image_size").ravel()[:2] if size is not None else (None, None)
        view = camera_of(field(tree, "K_fullimg", "K", "camera_K"), width, height, len(numbers(root, "root")), notes)
    name = tree.get("body_model")
    motion = smpl_motion(
        root, body, transl, field(tree, "betas", "shape"), frame=_frame(wish, default, notes), fps=fps,
        body_model=str(name) if name is not None else kind, notes=notes, camera=view,
    )  # fmt: skip
    return motion, notes


READERS: dict[str, Reader] = {
    "gvhmr": read_gvhmr, "wham": read_wham, "tram": read_tram, "camerahmr": read_camerahmr, "smpl": read_smpl,
    "comovi_smpl": read_comovi_smpl, "4dhumans": read_4dhumans,
}  # fmt: skip
