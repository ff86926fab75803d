"""Motions as JSON: everything a web page or a script needs to draw the skeleton, without a library.

Letters: F frames, J = 24 joints. Y up, metres; quaternions are (x, y, z, w), as three.js has them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..body.motion import NUM_BETAS, BodyMotion
from ..body.parts import NUM_JOINTS, PARENTS
from ..body.rotations import continuous_quaternions, matrix_to_quaternion, quaternion_to_matrix
from ..body.smpl import BodyModel, pose_joints, rest_joints
from ..errors import ComoviError
from ..files import atomic_path
from .limits import check_frames
from .names import preset_names
from .place import placed
from .smpl_fields import number, numbers

FORMAT = "comovi-motion-json-1"


def save_json(
    path: str | Path, motion: BodyMotion, model: BodyModel, *, names: str = "smpl", root: str = "centred"
) -> None:
    text = json.dumps(json_of(motion, model, names=names, root=root), separators=(",", ":"), allow_nan=False)
    with atomic_path(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_of(motion: BodyMotion, model: BodyModel, *, names: str = "smpl", root: str = "centred") -> dict[str, Any]:
    """Keys: joints, parents, rest (J, 3), rotations (F, J, 4), pelvis (F, 3), positions (F, J, 3), and the facts."""
    model = model.to("cpu")
    motion = placed(motion.to("cpu"), model, "yup", root)
    rest = rest_joints(model, motion.betas).numpy()
    quaternions = continuous_quaternions(matrix_to_quaternion(motion.rotations.double()))[..., [1, 2, 3, 0]].numpy()
    positions = pose_joints(model, motion.rotations, motion.betas, motion.transl).numpy()
    assert motion.valid is not None
    return {
        "format": FORMAT,
        "fps": motion.fps,
        "frames": len(motion),
        "up": "y",
        "unit": "metre",
        "joints": list(preset_names(names)),
        "parents": list(PARENTS),
        "rest": _rounded(rest),
        "rotations": _rounded(quaternions, 7),
        "pelvis": _rounded(rest[0] + motion.transl.numpy()),
        "positions": _rounded(positions, 5),
        "valid": motion.valid.tolist(),
        "body_model": motion.body_model,
        "betas": motion.betas.tolist(),
    }


def _rounded(values: np.ndarray, digits: int = 6) -> list:
    return np.round(values.astype(np.float64), digits).tolist()


def motion_from_json(tree: dict[str, Any]) -> tuple[BodyMotion, list[str]]:
    """Reads what save_json wrote; needs no body."""
    rotations, rest = numbers(tree.get("rotations"), "rotations"), numbers(tree.get("rest"), "rest")
    if rotations.ndim != 3 or rotations.shape[1:] != (NUM_JOINTS, 4) or rest.shape != (NUM_JOINTS, 3):
        raise ComoviError(
            f"rotations must be (frames, 24, 4) and rest (24, 3), got {rotations.shape} and {rest.shape}."
        )
    check_frames(len(rotations))
    if np.abs(np.linalg.norm(rotations, axis=-1) - 1).max() > 0.01:
        raise ComoviError("rotations must be unit quaternions (x, y, z, w).")
    pelvis, betas = numbers(tree.get("pelvis"), "pelvis"), numbers(tree.get("betas"), "betas")
    if pelvis.shape != (len(rotations), 3) or betas.shape != (NUM_BETAS,):
        raise ComoviError(f"pelvis must be ({len(rotations)}, 3) and betas (10,), got {pelvis.shape}, {betas.shape}.")
    valid = numbers(tree["valid"], "valid").astype(bool) if "valid" in tree else None
    motion = BodyMotion(
        rotations=quaternion_to_matrix(torch.from_numpy(rotations[..., [3, 0, 1, 2]].copy())),
        betas=torch.from_numpy(betas),
        transl=torch.from_numpy(pelvis - rest[0]),
        frame="yup",
        fps=number(tree.get("fps"), "fps"),
        body_model=str(tree.get("body_model", "unknown")),
        valid=None if valid is None else torch.from_numpy(valid),
    )
    return motion, [f"{len(motion)} frames at {motion.fps:.6g} per second, metres, axes 'yup' (stated by the file)"]
