"""HumanML3D's 263 features of a motion, and back to joints and to our body.

Letters: F frames, 22 joints. Y up, 20 frames per second; F frames give F - 1 rows:

    [0] turn of the root per frame, half the angle     [1:3] root velocity in root axes     [3] root height
    [4:67] 21 joints relative to the root, facing +z    [67:193] 21 x 6D (columns) of bone directions, no twist
    [193:259] velocity of 22 joints in root axes        [259:263] contacts: left ankle, foot, right ankle, foot

The data set itself first rescales every skeleton to that of one subject; `target` does the same when it is given.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from ..body.motion import BodyMotion
from ..body.smpl import BodyModel, pose_joints
from ..clean.time_base import resample
from ..errors import ComoviError
from ..files import atomic_path
from .joint_fit import motion_from_joints
from .place import placed

RATE = 20.0
JOINTS = 22
WIDTH = 263
CONTACT = 0.002  # square metres per frame: below, a foot stands
FACING = (2, 1, 17, 16)  # right hip, left hip, right shoulder, left shoulder
SMOOTHING = 20  # frames, of the facing direction
CHAINS = ((0, 2, 5, 8, 11), (0, 1, 4, 7, 10), (0, 3, 6, 9, 12, 15), (9, 14, 17, 19, 21), (9, 13, 16, 18, 20))
# What HumanML3D calls a bone's direction at rest; 6D rotations are counted from these.
DIRECTIONS = np.array([
    [0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, -1, 0], [0, 1, 0], [0, -1, 0], [0, -1, 0], [0, 1, 0],
    [0, 0, 1], [0, 0, 1], [0, 1, 0], [1, 0, 0], [-1, 0, 0], [0, 0, 1], [0, -1, 0], [0, -1, 0], [0, -1, 0], [0, -1, 0],
    [0, -1, 0], [0, -1, 0],
], float)  # fmt: skip


def save_humanml3d(path: str | Path, motion: BodyMotion, model: BodyModel, *, target: np.ndarray | None = None) -> None:
    """Writes the features at 20 frames per second; target (22, 3): joints of the subject to rescale to."""
    model, motion = model.to("cpu"), resample(motion.to("cpu"), RATE, interpolation="slerp")
    upright = placed(motion, model, "yup", "absolute")
    joints = pose_joints(model, upright.rotations, upright.betas, upright.transl)[:, :JOINTS].double().numpy()
    features = features_of(joints, target)
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
        np.save(file, features.astype(np.float32))


def features_of(joints: np.ndarray, target: np.ndarray | None = None) -> np.ndarray:
    """joints (F, 22, 3) in metres, y up -> (F - 1, 263)."""
    if joints.ndim != 3 or joints.shape[1:] != (JOINTS, 3) or len(joints) < 2:
        raise ComoviError(f"HumanML3D needs at least two frames of 22 joints, got {joints.shape}.")
    if target is not None:
        joints = _rescaled(joints, np.asarray(target, float))
    joints = joints.copy()
    joints[..., 1] -= joints[..., 1].min()
    joints -= joints[0, 0] * np.array([1.0, 0, 1])
    joints = _turn(_facing_turn(joints[:1], smooth=False)[0], joints)
    moved = ((joints[1:] - joints[:-1]) ** 2).sum(-1)
    contacts = (moved[:, [7, 10, 8, 11]] < CONTACT).astype(float)
    facing = _facing_turn(joints, smooth=True)  # (F, 4)
    facing[0] = (1, 0, 0, 0)
    local = _bone_rotations(joints, facing)
    root = joints[:, 0]
    velocity = _turn(facing[1:], root[1:] - root[:-1])
    spin = _multiply(facing[1:], _inverse(facing[:-1]))
    spin *= np.where(spin[:, :1] < 0, -1, 1)  # the published code turns the wrong way where a person passes backwards
    beside = _turn(facing[:, None], joints - root[:, None] * np.array([1.0, 0, 1]))
    speeds = _turn(facing[:-1, None], joints[1:] - joints[:-1])
    return np.concatenate([
        np.arcsin(np.clip(spin[:, 2:3], -1, 1)), velocity[:, [0, 2]], beside[:-1, 0, 1:2],
        beside[:-1, 1:].reshape(len(speeds), -1), _columns(local[:-1, 1:]).reshape(len(speeds), -1),
        speeds.reshape(len(speeds), -1), contacts,
    ], 1)  # fmt: skip


def joints_of(features: np.ndarray) -> np.ndarray:
    """(F, 263) -> joints (F, 22, 3): first root above the origin, facing +z."""
    if features.ndim != 2 or features.shape[1] != WIDTH or not np.isfinite(features).all():
        raise ComoviError(f"HumanML3D features must be finite numbers (frames, 263), got {features.shape}.")
    features = features.astype(np.float64)
    angle = np.concatenate([[0], np.cumsum(features[:-1, 0])])
    zero = np.zeros_like(angle)
    back = _inverse(np.stack([np.cos(angle), zero, np.sin(angle), zero], 1))
    steps = np.zeros((len(features), 3))
    steps[1:, [0, 2]] = features[:-1, 1:3]
    root = np.cumsum(_turn(back, steps), 0)
    root[:, 1] = features[:, 3]
    others = _turn(back[:, None], features[:, 4:67].reshape(-1, JOINTS - 1, 3)) + root[:, None] * np.array([1.0, 0, 1])
    return np.concatenate([root[:, None], others], 1)


def motion_from_features(
    features: np.ndarray, body: BodyModel, *, fps: float | None = None, betas: torch.Tensor | None = None
) -> tuple[BodyMotion, list[str]]:
    """-> motion of `body` in frame "yup", notes."""
    positions = np.zeros((len(features), 24, 3))
    positions[:, :JOINTS] = joints_of(features)
    rate = fps or RATE
    motion, notes = motion_from_joints(positions, body, frame="yup", fps=rate, present=range(JOINTS), betas=betas)
    return motion, [
        f"metres, axes 'yup', {rate:g} frames per second ({'given' if fps else 'as the format has it'})",
        *notes,
    ]


def _facing_turn(joints: np.ndarray, smooth: bool) -> np.ndarray:
    """(F, 4): the turn about y that takes the direction in which the body faces to +z.

    The published code, which made the data set, subtracts the hips from the shoulders where it smooths, and adds them
    where it does not. Features are only comparable if ours do the same.
    """
    right_hip, left_hip, right_shoulder, left_shoulder = FACING
    hips = joints[:, right_hip] - joints[:, left_hip]
    across = joints[:, right_shoulder] - joints[:, left_shoulder] + (-hips if smooth else hips)
    forward = np.cross(np.array([0.0, 1, 0]), _unit(across))
    if smooth:
        forward = _gaussian(forward, SMOOTHING)
    return _between(_unit(forward), np.array([0.0, 0, 1]))


def _gaussian(values: np.ndarray, sigma: int) -> np.ndarray:
    """Along the frames, cut off at four sigma, ends repeated."""
    reach = 4 * sigma
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(values, ((reach, reach), (0, 0)), "edge")
    return np.stack([np.convolve(column, kernel / kernel.sum(), "valid") for column in padded.T], 1)


def _bone_rotations(joints: np.ndarray, facing: np.ndarray) -> np.ndarray:
    """(F, 22, 4): for each joint the turn of the bone that ends there, relative to the bone before."""
    local = np.zeros((len(joints), JOINTS, 4))
    local[:, 0] = facing
    for chain in CHAINS:
        turned = facing
        for start, end in pairwise(chain):
            bone = _between(
                np.broadcast_to(DIRECTIONS[end], joints[:, end].shape), _unit(joints[:, end] - joints[:, start])
            )
            local[:, end] = _multiply(_inverse(turned), bone)
            turned = _multiply(turned, local[:, end])
    return local


def _rescaled(joints: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The same bone directions with the bones of `target` (22, 3), the path scaled by the length of the legs."""
    if target.shape != (JOINTS, 3) or not np.isfinite(target).all():
        raise ComoviError(f"target must be the 22 joint positions of one pose, got {target.shape}.")
    parents = {end: start for chain in CHAINS for start, end in pairwise(chain)}

    def lengths(pose: np.ndarray) -> dict[int, float]:
        return {end: float(np.linalg.norm(pose[end] - pose[start])) for end, start in parents.items()}

    theirs, ours = lengths(target), lengths(joints[0])
    result = np.empty_like(joints)
    result[:, 0] = joints[:, 0] * (theirs[5] + theirs[8]) / max(ours[5] + ours[8], 1e-9)
    for chain in CHAINS:
        for start, end in pairwise(chain):
            result[:, end] = result[:, start] + theirs[end] * _unit(joints[:, end] - joints[:, start])
    return result


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Unit vectors -> the quaternion (w, x, y, z) of the smallest turn; half turns go about x or y."""
    start, end = np.broadcast_arrays(start, end)
    quaternion = np.concatenate([1 + (start * end).sum(-1, keepdims=True), np.cross(start, end)], -1)
    opposite = np.linalg.norm(quaternion, axis=-1, keepdims=True) < 1e-6
    upright = np.abs(start[..., 1:2]) < 0.9
    half = np.where(upright, np.array([0.0, 0, 1, 0]), np.array([0.0, 1, 0, 0]))
    return _unit(np.where(opposite, half, quaternion))


def _multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    w, x, y, z = np.moveaxis(a, -1, 0)
    p, q, r, s = np.moveaxis(b, -1, 0)
    parts = [w * p - x * q - y * r - z * s, w * q + x * p + y * s - z * r, w * r - x * s + y * p + z * q]
    return np.stack([*parts, w * s + x * r - y * q + z * p], -1)


def _inverse(quaternion: np.ndarray) -> np.ndarray:
    return quaternion * np.array([1.0, -1, -1, -1])


def _turn(quaternion: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    shape = np.broadcast_shapes(quaternion.shape[:-1], vectors.shape[:-1])
    quaternion = np.broadcast_to(quaternion, (*shape, 4))
    vectors = np.broadcast_to(vectors, (*shape, 3))
    axis = quaternion[..., 1:]
    twice = 2 * np.cross(axis, vectors)
    return vectors + quaternion[..., :1] * twice + np.cross(axis, twice)


def _columns(quaternion: np.ndarray) -> np.ndarray:
    """(..., 4) -> the first two columns of the matrix (..., 6)."""
    return np.concatenate([_turn(quaternion, np.array([1.0, 0, 0])), _turn(quaternion, np.array([0.0, 1, 0]))], -1)
