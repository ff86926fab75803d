"""Rotations of our body from joint positions: every bone is laid along the bone seen, from the pelvis outwards.

Letters: F frames, J = 24 joints of SMPL. Where three joints hang on one (pelvis, chest) the turn is the best of all;
where one does, it is the smallest that brings the bone into place, and a bent knee or elbow tells how thigh and upper
arm are twisted, as both are hinges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..body.motion import BodyMotion
from ..body.parts import NUM_JOINTS, PARENTS
from ..body.smpl import BodyModel, pose_joints, rest_joints
from ..errors import ComoviError
from .limits import check_frames
from .shape_fit import RIGID_PAIRS, shape_of_lengths

# joint -> (end of its bone, end of the next bone, axis of the hinge in the rest pose)
_HINGES = {
    1: (4, 7, (1.0, 0, 0)), 2: (5, 8, (1.0, 0, 0)), 16: (18, 20, (0, -1.0, 0)), 17: (19, 21, (0, 1.0, 0)),
}  # fmt: skip
BENT = (0.17, 0.5)  # radians of bend between which the hinge gains its full say


def motion_from_joints(
    positions: np.ndarray,
    body: BodyModel,
    *,
    frame: str,
    fps: float,
    present: Sequence[int] = tuple(range(NUM_JOINTS)),
    betas: torch.Tensor | None = None,
) -> tuple[BodyMotion, list[str]]:
    """positions (F, J, 3) in metres in `frame`; joints not in `present` may hold anything -> motion, notes."""
    if positions.ndim != 3 or positions.shape[1:] != (NUM_JOINTS, 3) or not np.isfinite(positions).all():
        raise ComoviError(f"joint positions must be finite numbers (frames, 24, 3), got {positions.shape}.")
    check_frames(len(positions))
    notes = []
    if betas is None:
        pairs = [(a, b) for a, b in RIGID_PAIRS if a in present and b in present]
        apart = np.stack([np.linalg.norm(positions[:, a] - positions[:, b], axis=1) for a, b in pairs], 1)
        betas, note = shape_of_lengths(pairs, np.median(apart, axis=0), body)
        notes = [note] if note else []
    rest = rest_joints(body, betas).double().cpu().numpy()
    rotations = torch.from_numpy(fit_rotations(positions, rest, present))
    still = pose_joints(body, rotations.float(), betas.float()).double().cpu().numpy()
    away = (positions - still)[:, list(present)]
    motion = BodyMotion(
        rotations=rotations,
        betas=betas.float().cpu(),
        transl=torch.from_numpy(away.mean(1)),
        frame=frame,
        fps=fps,
        body_model=body.name,
    )
    left = 1000 * np.linalg.norm(away - away.mean(1, keepdims=True), axis=-1).mean()
    notes.append(f"rotations found from joint positions; joints differ by {left:.1f} mm on average")
    return motion, notes


def fit_rotations(positions: np.ndarray, rest: np.ndarray, present: Sequence[int]) -> np.ndarray:
    """positions (F, J, 3), rest (J, 3) -> local rotations (F, J, 3, 3)."""
    frames = len(positions)
    world = np.empty((frames, NUM_JOINTS, 3, 3))
    local = np.empty_like(world)
    for joint, parent in enumerate(PARENTS):
        above = world[:, parent] if parent >= 0 else np.tile(np.eye(3), (frames, 1, 1))
        ends = _ends(joint, present)
        if joint not in present or not ends:
            world[:, joint] = above
        elif len(ends) == 1:
            bone = rest[ends[0]] - rest[joint]
            seen = _unit(positions[:, ends[0]] - positions[:, joint])
            world[:, joint] = _swings(above @ _unit(bone), seen) @ above
            if joint in _HINGES and set(_HINGES[joint][:2]) <= set(present):
                world[:, joint] = _twisted(world[:, joint], positions, joint)
        else:
            bones = _unit(np.array([rest[end] - rest[joint] for end in ends]))
            seen = _unit(np.stack([positions[:, end] - positions[:, joint] for end in ends], 1))
            world[:, joint] = _best(bones, seen, above)
        local[:, joint] = above.transpose(0, 2, 1) @ world[:, joint] if parent >= 0 else world[:, joint]
    return local


def _ends(joint: int, present: Sequence[int]) -> list[int]:
    """Joints that hang on this one; where one is missing, what hangs on that."""
    ends = []
    for child, parent in enumerate(PARENTS):
        if parent == joint:
            ends += [child] if child in present else _ends(child, present)
    return ends


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _swings(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Unit vectors (F, 3) -> the smallest rotations (F, 3, 3) that take start to end."""
    cosine = (start * end).sum(-1)
    side = _unit(np.cross(start, np.eye(3)[np.abs(start).argmin(-1)]))
    half_turn = 2 * side[:, :, None] * side[:, None, :] - np.eye(3)
    skew = _skew(np.cross(start, end))
    usual = np.eye(3) + skew + skew @ skew / np.maximum(1 + cosine, 1e-9)[:, None, None]
    return np.where((cosine < -1 + 1e-7)[:, None, None], half_turn, usual)


def _skew(vectors: np.ndarray) -> np.ndarray:
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)


def _best(bones: np.ndarray, seen: np.ndarray, like: np.ndarray) -> np.ndarray:
    """bones (n, 3), seen (F, n, 3) -> (F, 3, 3) by Kabsch; `like` decides what they leave open."""
    outer = np.einsum("fni,nj->fij", seen, bones) + 1e-6 * like
    left, _, right = np.linalg.svd(outer)
    left[:, :, 2] *= np.sign(np.linalg.det(left @ right))[:, None]
    return left @ right


def _twisted(world: np.ndarray, positions: np.ndarray, joint: int) -> np.ndarray:
    """Turns a thigh or an upper arm about itself, so that its hinge lies across the bend."""
    end, next_end, axis = _HINGES[joint]
    bone, after = positions[:, end] - positions[:, joint], positions[:, next_end] - positions[:, end]
    along = _unit(bone)
    across = np.cross(along, _unit(after))
    sine = np.linalg.norm(across, axis=1)
    hinge = world @ np.array(axis)
    hinge -= (hinge * along).sum(1, keepdims=True) * along
    wanted = _unit(across)
    angle = np.arctan2((np.cross(hinge, wanted) * along).sum(1), (hinge * wanted).sum(1))
    bend = np.arctan2(sine, (along * _unit(after)).sum(1))
    say = np.clip((bend - BENT[0]) / (BENT[1] - BENT[0]), 0, 1)
    angle = np.clip(angle, -2.0, 2.0) * say * say * (3 - 2 * say)
    skew = _skew(along)
    turn = np.eye(3) + np.sin(angle)[:, None, None] * skew + (1 - np.cos(angle))[:, None, None] * (skew @ skew)
    return turn @ world
