"""Motions as BVH: the skeleton with true offsets, end sites and angles; and foreign BVH onto our body.

Letters: F frames, J = 24 joints of SMPL. Written: root OFFSET 0 and the pelvis as root position, every other OFFSET the
bone at the clip's betas, y up, degrees; rotations are unwound, so that curves do not jump by 360 degrees.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..body.motion import BodyMotion
from ..body.parts import NUM_JOINTS, PARENTS
from ..body.smpl import BodyModel, rest_joints, shaped_vertices
from ..errors import ComoviError
from ..files import atomic_path
from .bvh_text import AXES, BvhText, format_bvh, parse_bvh
from .names import preset_names
from .place import placed
from .skeleton import UNITS, Skeleton, in_our_axes, retarget

ORDERS = ("ZXY", "ZYX", "XYZ", "XZY", "YXZ", "YZX")
# Depth first, as readers expect: the columns of the table follow the tree.
DEPTH_FIRST = (0, 1, 4, 7, 10, 2, 5, 8, 11, 3, 6, 9, 12, 15, 13, 16, 18, 20, 22, 14, 17, 19, 21, 23)
_TIP_DIRECTIONS = {10: (0, 0, 1), 11: (0, 0, 1), 15: (0, 1, 0), 22: (1, 0, 0), 23: (-1, 0, 0)}


def save_bvh(
    path: str | Path,
    motion: BodyMotion,
    model: BodyModel,
    *,
    names: str = "smpl",
    units: str = "cm",
    order: str = "ZXY",
    root: str = "centred",
) -> None:
    """Writes the motion; order is the order of the rotation channels, root as in place.py."""
    text = format_bvh(bvh_of(motion, model, names=names, units=units, order=order, root=root))
    with atomic_path(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def bvh_of(
    motion: BodyMotion, model: BodyModel, *, names: str = "smpl", units: str = "cm", order: str = "ZXY",
    root: str = "centred",
) -> BvhText:  # fmt: skip
    if units not in UNITS:
        raise ComoviError(f"units must be one of {', '.join(UNITS)}, got {units!r}.")
    if order.upper() not in ORDERS:
        raise ComoviError(f"the order of rotations must be one of {', '.join(ORDERS)}, got {order!r}.")
    order = order.upper()
    labels = [name.replace(" ", "_") for name in preset_names(names)]
    model, motion = model.to("cpu"), placed(motion.to("cpu"), model, "yup", root)
    factor = 1 / UNITS[units]
    joints = rest_joints(model, motion.betas).double().numpy()
    place = {joint: number for number, joint in enumerate(DEPTH_FIRST)}
    offsets = np.array([joints[j] - joints[PARENTS[j]] if PARENTS[j] >= 0 else np.zeros(3) for j in DEPTH_FIRST])
    angles = euler_angles(motion.rotations.double().numpy()[:, DEPTH_FIRST], order)  # (F, J, 3)
    positions = (joints[0] + motion.transl.double().numpy()) * factor
    turning = tuple(f"{axis.lower()}r" for axis in order)
    tips = {place[joint]: factor * tip for joint, tip in end_sites(model, motion.betas).items()}
    return BvhText(
        names=tuple(labels[joint] for joint in DEPTH_FIRST),
        parents=tuple(place[PARENTS[joint]] if PARENTS[joint] >= 0 else -1 for joint in DEPTH_FIRST),
        offsets=offsets * factor,
        tips=tips,
        channels=(("xp", "yp", "zp", *turning), *[turning] * (NUM_JOINTS - 1)),
        frame_time=1 / motion.fps,
        values=np.concatenate([positions, angles.reshape(len(angles), -1)], 1),
    )


def end_sites(model: BodyModel, betas: torch.Tensor) -> dict[int, np.ndarray]:
    """Leaf joint -> from it to the tip (3,) in metres: the furthest vertex that it moves (toes, crown, finger tips)."""
    vertices = shaped_vertices(model, betas).double().numpy()
    joints = rest_joints(model, betas).double().numpy()
    owner = model.weights.argmax(1).numpy()
    tips = {}
    for joint, direction in _TIP_DIRECTIONS.items():
        own = vertices[owner == joint] - joints[joint]
        far = own[(own @ np.array(direction, float)).argmax()] if len(own) else np.zeros(3)
        tips[joint] = far if np.linalg.norm(far) > 1e-3 else 0.05 * np.array(direction, float)
    return tips


def euler_angles(rotations: np.ndarray, order: str) -> np.ndarray:
    """(F, ..., 3, 3) -> angles (F, ..., 3) in degrees with R = R_a R_b R_c for order "ABC", unwound over F.

    Where the middle angle is 90 degrees only the sum of the other two counts; the last one is then 0.
    """
    first, second, third = (AXES.index(axis) for axis in order.lower())
    sign = 1.0 if (second - first) % 3 == 1 else -1.0
    sine = sign * rotations[..., first, third]
    cosine = np.hypot(rotations[..., first, first], rotations[..., first, second])
    middle = np.arctan2(sine, cosine)
    locked = cosine < 1e-7
    start = np.arctan2(-sign * rotations[..., second, third], rotations[..., third, third])
    end = np.arctan2(-sign * rotations[..., first, second], rotations[..., first, first])
    locked_start = np.arctan2(sign * rotations[..., third, second], rotations[..., second, second])
    start, end = np.where(locked, locked_start, start), np.where(locked, 0.0, end)
    return np.degrees(_unwound(np.stack([start, middle, end], -1)))


def _unwound(angles: np.ndarray) -> np.ndarray:
    """Of the two triples that make the same rotation, and their turns by 360 degrees, the one nearest to the last."""
    result = angles.copy()
    other = np.stack([angles[..., 0] + np.pi, np.pi - angles[..., 1], angles[..., 2] + np.pi], -1)
    for frame in range(1, len(angles)):
        before = result[frame - 1]
        choices = [a + 2 * np.pi * np.round((before - a) / (2 * np.pi)) for a in (angles[frame], other[frame])]
        ways = [np.abs(choice - before).sum(-1) for choice in choices]
        result[frame] = np.where((ways[1] < ways[0] - 1e-9)[..., None], choices[1], choices[0])
    return result


def read_bvh(
    text: str,
    body: BodyModel,
    *,
    fps: float | None = None,
    units: str | float | None = None,
    up: str | None = None,
    handedness: str | None = None,
    mapping: Mapping[str, str] | None = None,
    **shape: Any,
) -> tuple[BodyMotion, list[str]]:
    """Any BVH with the joints of a person -> motion of `body` in frame "yup", and notes."""
    bvh = parse_bvh(text)
    skeleton, axes = in_our_axes(skeleton_of(bvh, fps), units=units, up=up, handedness=handedness, mapping=mapping)
    motion, notes = retarget(skeleton, body, mapping=mapping, **shape)
    return motion, [f"{len(bvh.names)} joints, {motion.fps:.6g} frames per second", *axes, *bvh.notes, *notes]


def skeleton_of(bvh: BvhText, fps: float | None = None) -> Skeleton:
    """Joint rotations and positions in the world; in BVH the rest pose is the one with all angles 0."""
    positions, rotations = bvh.local()
    turns, places = np.empty_like(rotations), np.empty_like(positions)
    rest = np.zeros_like(bvh.offsets)
    for joint, parent in enumerate(bvh.parents):
        if parent < 0:
            turns[:, joint], places[:, joint], rest[joint] = (
                rotations[:, joint],
                positions[:, joint],
                bvh.offsets[joint],
            )
        else:
            turns[:, joint] = turns[:, parent] @ rotations[:, joint]
            places[:, joint] = places[:, parent] + (turns[:, parent] @ positions[:, joint, :, None])[..., 0]
            rest[joint] = rest[parent] + bvh.offsets[joint]
    return Skeleton(bvh.names, bvh.parents, rest, turns, places, fps or round(1 / bvh.frame_time, 9))
