"""The 24 joints of SMPL and the 24 body parts whose order fixes the colours of the motion map.

Letters: J = 24 joints, R = 24 parts, V vertices.
"""

from __future__ import annotations

import colorsys
import json
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ComoviError

JOINT_NAMES = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle",
    "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hand", "right_hand",
)  # fmt: skip
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
NUM_JOINTS = len(JOINT_NAMES)

# Part r gets the colour code of r (Eq. 1), so this order is part of the format of every motion map.
PART_NAMES = (
    "rightHand", "rightUpLeg", "leftArm", "leftLeg", "leftToeBase", "leftFoot", "spine1", "spine2",
    "leftShoulder", "rightShoulder", "rightFoot", "head", "rightArm", "leftHandIndex1", "rightLeg",
    "rightHandIndex1", "leftForeArm", "rightForeArm", "neck", "rightToeBase", "spine", "leftUpLeg",
    "leftHand", "hips",
)  # fmt: skip
NUM_PARTS = len(PART_NAMES)

# The part that each joint moves; joints and parts are in bijection.
_PART_NAME_OF_JOINT = (
    "hips", "leftUpLeg", "rightUpLeg", "spine", "leftLeg", "rightLeg", "spine1", "leftFoot", "rightFoot",
    "spine2", "leftToeBase", "rightToeBase", "neck", "leftShoulder", "rightShoulder", "head", "leftArm",
    "rightArm", "leftForeArm", "rightForeArm", "leftHand", "rightHand", "leftHandIndex1", "rightHandIndex1",
)  # fmt: skip
PART_OF_JOINT = tuple(PART_NAMES.index(name) for name in _PART_NAME_OF_JOINT)
JOINT_OF_PART = tuple(PART_OF_JOINT.index(part) for part in range(NUM_PARTS))


def part_palette() -> list[tuple[int, int, int]]:
    """A colour (red, green, blue, 0..255) per part, for people to look at; the motion map has its own codes.

    Hues run round the circle from joint to joint in golden-angle steps, so neighbours differ; the left side is
    lighter than the right.
    """
    palette = []
    for part, name in enumerate(PART_NAMES):
        saturation, value = (0.35, 0.95) if name.startswith("left") else (0.55, 0.80)
        red, green, blue = colorsys.hsv_to_rgb(JOINT_OF_PART[part] * 0.381966 % 1.0, saturation, value)
        palette.append((round(255 * red), round(255 * green), round(255 * blue)))
    return palette


def parts_from_weights(weights: Tensor) -> Tensor:
    """Skinning weights (V, J) -> part of each vertex (V,) int64: the part of the strongest joint.

    Against the published segmentation of SMPL this agrees on about 94 % of the vertices; the rest are
    one-ring bands at the joints, and the thumb, which that segmentation gives to the hand.
    """
    return torch.tensor(PART_OF_JOINT, device=weights.device)[weights.argmax(1)]


def parts_from_segmentation(path: Path, num_vertices: int) -> Tensor:
    """`smpl_vert_segmentation.json` {part name: [vertex, ...]} -> part of each vertex (V,) int64.

    Loops of vertices between two parts are listed in both (496 of SMPL's 6890). The reference renderer
    lets the later name of the file overwrite the earlier one, so we do too.
    """
    segmentation = _read_segmentation(path)
    part_of_vertex = torch.full((num_vertices,), -1, dtype=torch.int64)
    for name, members in segmentation.items():
        index = torch.tensor(members, dtype=torch.int64)
        if index.numel() and (index.min() < 0 or index.max() >= num_vertices):
            raise ComoviError(f"{path}: part {name} lists vertices outside 0..{num_vertices - 1} of this body model.")
        part_of_vertex[index] = PART_NAMES.index(name)
    missing = int((part_of_vertex < 0).sum())
    if missing:
        raise ComoviError(f"{path}: {missing} of {num_vertices} vertices belong to no part; use the file of this body.")
    return part_of_vertex


def _read_segmentation(path: Path) -> dict[str, list[int]]:
    try:
        segmentation = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ComoviError(f"{path}: expected JSON of part names with lists of vertex numbers, got {error}.") from None
    if not isinstance(segmentation, dict) or set(segmentation) != set(PART_NAMES):
        raise ComoviError(f"{path}: expected the {NUM_PARTS} part names {', '.join(PART_NAMES)}; replace or remove it.")
    for name, members in segmentation.items():
        if not isinstance(members, list) or not all(type(member) is int for member in members):
            raise ComoviError(f"{path}: part {name} must be a list of vertex numbers; replace or remove the file.")
    return segmentation
