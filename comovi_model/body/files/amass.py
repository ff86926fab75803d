"""Motions as AMASS npz files, which the SMPL add-ons of Blender, aitviewer and most training code read.

Letters: F frames, J = 24 joints. An AMASS file of SMPL+H has z up and the keys
    poses (F, 156)  axis-angle of 22 body joints and 30 finger joints     trans (F, 3)     betas (16,)
    dmpls (F, 8)    gender    mocap_framerate (some tools: mocap_frame_rate, fps)    surface_model_type
The hands of SMPL (joints 22, 23) have no counterpart there and are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ...errors import ComoviError
from ..frames import in_frame, on_floor
from ..motion import NUM_BETAS, BodyMotion, load_arrays, save_arrays
from ..parts import NUM_JOINTS
from ..rotations import axis_angle_to_matrix, matrix_to_axis_angle
from ..smpl import BodyModel
from ..upright import levelled

NUM_SHARED_JOINTS = 22  # SMPL, SMPL+H and SMPL-X agree on these
POSE_LENGTHS = {66: "SMPL body", 72: "SMPL", 156: "SMPL+H", 165: "SMPL-X"}
RATE_KEYS = ("mocap_framerate", "mocap_frame_rate", "fps")
MORE_RATE_KEYS = ("frame_rate", "framerate", "mocap_fps", "frameRate", "frame_time")  # read, not written


def amass_arrays(motion: BodyMotion, model: BodyModel, floor: bool = True) -> dict[str, np.ndarray]:
    """The AMASS keys of a motion. floor=True shifts the clip onto z = 0 with the first pelvis above the origin.

    A camera frame is set upright; it counts as level unless the motion says where up is.
    """
    model, motion = model.to("cpu"), motion.to("cpu")
    upright = in_frame(levelled(motion, model), model, "zup")
    upright = on_floor(upright, model) if floor else upright
    poses = np.zeros((len(motion), 156), np.float32)
    axis_angle = matrix_to_axis_angle(upright.rotations[:, :NUM_SHARED_JOINTS])
    poses[:, : 3 * NUM_SHARED_JOINTS] = axis_angle.flatten(1).numpy()
    betas = np.zeros(16, np.float32)
    betas[:NUM_BETAS] = motion.betas.numpy()
    rate = np.array(motion.fps)
    return {
        "poses": poses,
        "trans": upright.transl.numpy(),
        "betas": betas,
        "dmpls": np.zeros((len(motion), 8), np.float32),
        "gender": np.array("neutral"),
        "surface_model_type": np.array("smplh"),
        **dict.fromkeys(RATE_KEYS, rate),
        "mocap_time_length": np.array(len(motion) / motion.fps),
    }


def save_amass(path: str | Path, motion: BodyMotion, model: BodyModel, floor: bool = True) -> None:
    """Writes a plain AMASS file, with the name of our body model added: its betas mean nothing to other bodies."""
    save_arrays(path, {**amass_arrays(motion, model, floor), "body_model": np.array(motion.body_model)})


def smplx_arrays(motion: BodyMotion, model: BodyModel, floor: bool = True) -> dict[str, np.ndarray]:
    """The keys of AMASS's SMPL-X files: poses (F, 165) whole and in its pieces, z up."""
    smplh = amass_arrays(motion, model, floor)
    poses = np.zeros((len(motion), 165), np.float32)
    poses[:, :66] = smplh["poses"][:, :66]
    pieces = {"root_orient": (0, 3), "pose_body": (3, 66), "pose_jaw": (66, 69), "pose_eye": (69, 75)}
    shared = ("trans", "betas", "gender", "mocap_time_length", *RATE_KEYS)
    return {
        "poses": poses,
        **{name: poses[:, start:end] for name, (start, end) in pieces.items()},
        "pose_hand": poses[:, 75:],
        "surface_model_type": np.array("smplx"),
        **{name: smplh[name] for name in shared},
    }


def save_smplx(path: str | Path, motion: BodyMotion, model: BodyModel, floor: bool = True) -> None:
    """Writes a file of SMPL-X keys, with the name of our body model added."""
    save_arrays(path, {**smplx_arrays(motion, model, floor), "body_model": np.array(motion.body_model)})


def save_motion(path: str | Path, motion: BodyMotion, model: BodyModel) -> None:
    """Writes one file that is both: ours (BodyMotion.load gives the motion back exactly) and AMASS.

    The two sets of keys meet in `fps`, which is the same, and in `betas`, which has AMASS's length 16: our ten
    numbers and six zeros.
    """
    save_arrays(path, {**motion.to_arrays(), **amass_arrays(motion, model)})


def load_motion(path: str | Path, fps: float | None = None) -> BodyMotion:
    """Reads our npz form or an AMASS file; fps is needed only for AMASS files that do not state it."""
    arrays = load_arrays(path)
    if "global_orient" in arrays and "body_pose" in arrays:
        return BodyMotion.from_arrays(arrays, str(path))
    if "poses" in arrays:
        return motion_from_amass(arrays, str(path), fps)
    raise ComoviError(
        f"{path}: expected a motion with global_orient and body_pose (ours) or poses and trans (AMASS), "
        f"got the arrays {sorted(arrays)}."
    )


def motion_from_amass(arrays: Mapping[str, np.ndarray], origin: str, fps: float | None = None) -> BodyMotion:
    """From AMASS keys (SMPL, SMPL+H or SMPL-X, z up). Fingers, jaw, eyes and soft tissue are left out."""
    poses, trans = _numbers(arrays, "poses", origin), _numbers(arrays, "trans", origin)
    if poses.ndim != 2 or poses.shape[1] not in POSE_LENGTHS or trans.shape != (len(poses), 3):
        lengths = ", ".join(f"{length} ({name})" for length, name in POSE_LENGTHS.items())
        raise ComoviError(
            f"{origin}: expected poses (frames, n) with n one of {lengths} and trans (frames, 3), "
            f"got {poses.shape} and {trans.shape}."
        )
    axis_angle = np.zeros((len(poses), NUM_JOINTS, 3))
    kept = NUM_JOINTS if poses.shape[1] == 72 else NUM_SHARED_JOINTS
    axis_angle[:, :kept] = poses[:, : 3 * kept].reshape(-1, kept, 3)
    betas = np.zeros(NUM_BETAS)
    given = _numbers(arrays, "betas", origin).ravel() if "betas" in arrays else betas
    betas[: min(len(given), NUM_BETAS)] = given[:NUM_BETAS]
    kind = POSE_LENGTHS[poses.shape[1]]
    try:
        return BodyMotion(
            rotations=axis_angle_to_matrix(torch.from_numpy(axis_angle)),
            betas=torch.from_numpy(betas),
            transl=torch.from_numpy(trans),
            frame="zup",
            fps=_rate(arrays, origin) if fps is None else fps,
            body_model=str(arrays["body_model"]) if "body_model" in arrays else f"{kind} {_gender(arrays)}",
            provenance={"imported": "AMASS", "betas_left_out": given[NUM_BETAS:].tolist()},
        )
    except ComoviError as error:
        raise ComoviError(f"{origin}: {error}") from None


def _numbers(arrays: Mapping[str, np.ndarray], name: str, origin: str) -> np.ndarray:
    if name not in arrays:
        raise ComoviError(f"{origin}: array {name!r} is missing, so this is no AMASS motion; found {sorted(arrays)}.")
    if arrays[name].dtype.kind not in "fiu":
        raise ComoviError(f"{origin}: {name} must be numbers, got {arrays[name].dtype}.")
    return arrays[name].astype(np.float64)


def _rate(arrays: Mapping[str, np.ndarray], origin: str) -> float:
    for key in (*RATE_KEYS, *MORE_RATE_KEYS):
        if key in arrays and arrays[key].size == 1 and arrays[key].dtype.kind in "fiu":
            value = float(arrays[key].reshape(()))
            return 1 / value if key == "frame_time" and value > 0 else value
    raise ComoviError(f"{origin}: none of {', '.join(RATE_KEYS)} states the frame rate; give fps.")


def _gender(arrays: Mapping[str, np.ndarray]) -> str:
    """AMASS has it as str, bytes or a 0-d array of either."""
    value = arrays["gender"].reshape(-1)[:1].tolist() if "gender" in arrays else []
    gender = value[0] if value else "neutral"
    return gender.decode("latin1") if isinstance(gender, bytes) else str(gender)
