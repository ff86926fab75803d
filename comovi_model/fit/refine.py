"""Fits all frames of a clip together: the picture terms of every frame, and accelerations that stay small.

Letters: F frames, J = 24 joints. Acceleration of a joint: log(R_t^T R_t+1) - log(R_t-1^T R_t).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..body.parts import NUM_JOINTS
from ..body.rotations import matrix_to_axis_angle, slerp
from .banded import solve_banded
from .observation import Observation
from .priors import add_bends, paces
from .solve import DAMPING, clamp_step
from .surface import UNKNOWNS, Pose, Subject, log_derivative
from .terms import Stage, picture_system

TURN_ACCELERATION, MOVE_ACCELERATION = 0.10, 0.02  # radians and metres per frame squared
ABRUPT = 3.0  # accelerations beyond so many times the usual one are taken for real ones, and resisted less
GROUP = 16  # frames whose pictures are compared at once


def refine_clip(
    subject: Subject, seen: Observation, pose: Pose, stage: Stage, trust: Tensor, steps: int, bends: float = 0.3
) -> Pose:
    """All poses (F) together; trust (F,) weights the picture of each frame, 0 where there is no person."""
    for _ in range(steps):
        information, slope = [], []
        for start in range(0, len(pose), GROUP):
            piece = slice(start, min(start + GROUP, len(pose)))
            frame = torch.arange(piece.start, piece.stop, device=trust.device)
            system = picture_system(subject, seen, frame, pose[piece], stage)
            weight = trust[piece].double()
            information.append(system.information * weight[:, None, None])
            slope.append(system.slope * weight[:, None])
        diagonal, right = torch.cat(information), torch.cat(slope)
        add_bends(diagonal, right, pose, bends)
        next_one, next_two = add_smoothness(diagonal, right, pose)
        damped = diagonal + torch.diag_embed(DAMPING * diagonal.diagonal(dim1=1, dim2=2) + 1e-6)
        pose = pose.moved(clamp_step(-solve_banded(damped, next_one, next_two, right)))
    return pose


def bridge(pose: Pose, known: Tensor) -> Pose:
    """Poses (F) with those that are not known (F,) put between their neighbours, or on the only neighbour."""
    index = torch.arange(len(pose), device=known.device)
    if bool(known.all()) or not bool(known.any()):
        return pose
    before = torch.where(known, index, -1).cummax(0).values
    after = torch.where(known, index, len(pose)).flip(0).cummin(0).values.flip(0)
    before = torch.where(before < 0, after, before)
    after = torch.where(after == len(pose), before, after)
    part = ((index - before) / (after - before).clamp_min(1)).to(pose.transl)
    rotations = slerp(pose.rotations[before], pose.rotations[after], part[:, None].expand(-1, NUM_JOINTS))
    return Pose(
        torch.where(known[:, None, None, None], pose.rotations, rotations),
        torch.where(known[:, None], pose.transl, torch.lerp(pose.transl[before], pose.transl[after], part[:, None])),
    )


def add_smoothness(diagonal: Tensor, slope: Tensor, pose: Pose) -> tuple[Tensor, Tensor]:
    """Adds accelerations to normal equations (F, 75, 75), (F, 75); -> couplings (F-1, 75, 75), (F-2, 75, 75)."""
    frames = len(pose)
    next_one = diagonal.new_zeros(max(frames - 1, 0), UNKNOWNS, UNKNOWNS)
    next_two = diagonal.new_zeros(max(frames - 2, 0), UNKNOWNS, UNKNOWNS)
    if frames < 3:
        if frames == 2:  # nothing to accelerate, but the two stay near each other
            _couple_two(diagonal, slope, next_one, pose)
        return next_one, next_two
    step = matrix_to_axis_angle(pose.rotations[:-1].transpose(-1, -2) @ pose.rotations[1:]).double()  # (F-1, J, 3)
    right_hand, left_hand = log_derivative(step), log_derivative(step, left=True)
    turn = (right_hand[1:], -left_hand[1:] - right_hand[:-1], left_hand[:-1])  # of frames t+1, t, t-1
    value = step[1:] - step[:-1]  # (F-2, J, 3)
    spread = (TURN_ACCELERATION * paces().to(value)).expand(frames - 2, -1)
    # Robust (Cauchy): a fist that flies out must not be held back.
    spread = (spread.square() + (value.square().sum(-1) / ABRUPT**2)).sqrt()  # (F-2, J)
    jacobian = value.new_zeros(frames - 2, 3, UNKNOWNS, UNKNOWNS)  # of frames t+1, t, t-1
    residual = value.new_zeros(frames - 2, UNKNOWNS)
    own = 3 + torch.arange(UNKNOWNS - 3, device=value.device).view(NUM_JOINTS, 3)
    for which in range(3):
        jacobian[:, which, own[:, :, None], own[:, None, :]] = turn[which] / spread[..., None, None]
    residual[:, own] = value / spread[..., None]
    axis = torch.arange(3, device=value.device)
    for which, factor in enumerate((1.0, -2.0, 1.0)):
        jacobian[:, which, axis, axis] = factor / MOVE_ACCELERATION
    residual[:, :3] = pose.transl.double().diff(n=2, dim=0) / MOVE_ACCELERATION
    after, here, before = jacobian.unbind(1)
    for offset, first in ((0, before), (1, here), (2, after)):
        diagonal[offset : frames - 2 + offset] += first.transpose(1, 2) @ first
        slope[offset : frames - 2 + offset] += (first.transpose(1, 2) @ residual[..., None]).squeeze(-1)
    next_one[: frames - 2] += before.transpose(1, 2) @ here
    next_one[1:] += here.transpose(1, 2) @ after
    next_two += before.transpose(1, 2) @ after
    return next_one, next_two


def _couple_two(diagonal: Tensor, slope: Tensor, next_one: Tensor, pose: Pose) -> None:
    step = matrix_to_axis_angle(pose.rotations[:1].transpose(-1, -2) @ pose.rotations[1:]).double().flatten(1)
    certainty = torch.full((UNKNOWNS,), 1 / TURN_ACCELERATION**2, dtype=torch.float64, device=step.device)
    certainty[:3] = 1 / MOVE_ACCELERATION**2
    value = torch.cat([pose.transl.double().diff(dim=0), step], 1)[0] * certainty
    diagonal += torch.diag(certainty)
    next_one -= torch.diag(certainty)
    slope += torch.stack([-value, value])
