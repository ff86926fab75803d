"""What is known before looking: how joints bend, and that motion is smooth. Letters: B poses, J = 24 joints."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ..body.parts import JOINT_NAMES, NUM_JOINTS
from ..body.rotations import matrix_to_axis_angle
from .surface import UNKNOWNS, Pose, log_derivative

# Rotation vectors in radians of the left joints and the middle: mean, spread; the right ones are mirrored.
BENDS = {
    "hip": ((-0.2, 0.0, 0.0), (0.8, 0.4, 0.45)),
    "knee": ((0.4, 0.0, 0.0), (0.8, 0.2, 0.15)),
    "ankle": ((0.0, 0.0, 0.0), (0.4, 0.25, 0.25)),
    "foot": ((0.0, 0.0, 0.0), (0.15, 0.15, 0.15)),
    "spine1": ((0.0, 0.0, 0.0), (0.3, 0.25, 0.2)),
    "spine2": ((0.0, 0.0, 0.0), (0.3, 0.25, 0.2)),
    "spine3": ((0.0, 0.0, 0.0), (0.3, 0.25, 0.2)),
    "neck": ((0.0, 0.0, 0.0), (0.3, 0.3, 0.3)),
    "head": ((0.0, 0.0, 0.0), (0.3, 0.3, 0.3)),
    "collar": ((0.0, 0.0, 0.0), (0.15, 0.2, 0.2)),
    "shoulder": ((0.0, 0.0, -1.0), (0.6, 0.8, 0.9)),
    "elbow": ((0.0, -0.6, 0.0), (0.5, 0.9, 0.3)),
    "wrist": ((0.0, 0.0, 0.0), (0.4, 0.4, 0.4)),
    "hand": ((0.0, 0.0, 0.0), (0.15, 0.15, 0.15)),
}
# How much faster or slower than others a joint turns.
PACE = {
    "pelvis": 1.0, "spine": 0.5, "collar": 0.7, "neck": 0.8, "head": 0.8, "shoulder": 1.4, "elbow": 1.6, "wrist": 1.3,
    "hand": 0.6, "hip": 1.2, "knee": 1.5, "ankle": 1.2, "foot": 0.6,
}  # fmt: skip
TURN_SPREAD, MOVE_SPREAD = 0.12, 0.06  # radians and metres from a prediction


def _kind(joint: str) -> str:
    return joint.removeprefix("left_").removeprefix("right_")


@cache
def bends() -> tuple[Tensor, Tensor]:
    """Means (J, 3) and spreads (J, 3) of the rotation vectors; joint 0 is free."""
    mean, spread = torch.zeros(NUM_JOINTS, 3), torch.full((NUM_JOINTS, 3), torch.inf)
    for number, name in enumerate(JOINT_NAMES[1:], start=1):
        middle, width = BENDS[_kind(name)]
        # The mirror x -> -x keeps rotations about x and turns those about y and z round.
        sign = torch.tensor([1.0, -1.0, -1.0]) if name.startswith("right_") else torch.ones(3)
        mean[number], spread[number] = torch.tensor(middle) * sign, torch.tensor(width)
    return mean, spread


@cache
def paces() -> Tensor:
    """(J,)"""
    names = [_kind(name).rstrip("123") for name in JOINT_NAMES]
    return torch.tensor([PACE[name] for name in names])


def add_bends(information: Tensor, slope: Tensor, pose: Pose, weight: float) -> None:
    """Adds the prior of bends to normal equations (B, 75, 75), (B, 75)."""
    mean, spread = (value.to(information) for value in bends())
    vector = matrix_to_axis_angle(pose.rotations).double()
    certainty = weight / spread.square()  # (J, 3), 0 for the pelvis
    _add(information, slope, vector - mean, log_derivative(vector), certainty.expand_as(vector), 0)


def add_prediction(
    information: Tensor, slope: Tensor, pose: Pose, expected: Pose, turn: Tensor | float, move: float
) -> None:
    """Adds a pull to poses `expected` (B): turn is the spread in radians, a number or (J,), move in metres."""
    vector = matrix_to_axis_angle(expected.rotations.transpose(-1, -2) @ pose.rotations).double()
    spread = torch.as_tensor(turn, dtype=torch.float64, device=information.device).expand(NUM_JOINTS)
    certainty = (1 / spread.square())[None, :, None].expand_as(vector)
    _add(information, slope, vector, log_derivative(vector), certainty, 0)
    diagonal = torch.arange(3, device=information.device)
    information[:, diagonal, diagonal] += 1 / move**2
    slope[:, :3] += (pose.transl - expected.transl).double() / move**2


def prediction_spread(scale: float = 1.0) -> Tensor:
    """(J,) radians"""
    return scale * TURN_SPREAD * paces()


def _add(information: Tensor, slope: Tensor, value: Tensor, change: Tensor, certainty: Tensor, start: int) -> None:
    """Residuals (B, J, 3) with derivatives (B, J, 3, 3) to their own joint's step and certainties (B, J, 3)."""
    weighted = change.transpose(-1, -2) * certainty[..., None, :]
    block = weighted @ change  # (B, J, 3, 3)
    own = 3 + start + torch.arange(UNKNOWNS - 3, device=value.device).view(NUM_JOINTS, 3)
    information[:, own[:, :, None], own[:, None, :]] += block
    slope[:, own] += (weighted @ value[..., None]).squeeze(-1)
