"""Gauss-Newton steps on batches of poses. Letters: B poses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .observation import Observation
from .priors import add_bends, add_prediction, prediction_spread
from .surface import Pose, Subject
from .terms import Stage, picture_system

DAMPING = 1e-3
LARGEST_TURN, LARGEST_MOVE = 0.35, 0.3  # radians and metres per step
STILL = 0.002


@dataclass(frozen=True)
class Pull:
    """What a fit is pulled to besides the picture."""

    bends: float = 1.0  # weight of the prior of bends
    expected: Pose | None = None
    turn: Tensor | float = 0.12  # spread in radians, a number or (J,)
    move: float = 0.06


def fit_poses(
    subject: Subject, seen: Observation, frame: Tensor, pose: Pose, stage: Stage, steps: int, pull: Pull
) -> Pose:
    """At most `steps` iterations for poses (B) of frames (B,)."""
    for _ in range(steps):
        system = picture_system(subject, seen, frame, pose, stage)
        information, slope = system.information, system.slope
        add_bends(information, slope, pose, pull.bends)
        if pull.expected is not None:
            add_prediction(information, slope, pose, pull.expected, pull.turn, pull.move)
        step = damped_step(information, slope)
        pose = pose.moved(step)
        if float(step.abs().max()) < STILL:
            break
    return pose


def damped_step(information: Tensor, slope: Tensor) -> Tensor:
    """Solves and clamps -> (B, 75)."""
    damped = information + torch.diag_embed(DAMPING * information.diagonal(dim1=1, dim2=2) + 1e-6)
    step = -torch.cholesky_solve(slope[..., None], torch.linalg.cholesky(damped)).squeeze(-1)
    return clamp_step(step)


def clamp_step(step: Tensor) -> Tensor:
    """(..., 75)"""
    turn = step[..., 3:].unflatten(-1, (-1, 3))
    turn = turn * (LARGEST_TURN / turn.norm(dim=-1, keepdim=True).clamp_min(1e-9)).clamp_max(1)
    move = step[..., :3]
    move = move * (LARGEST_MOVE / move.norm(dim=-1, keepdim=True).clamp_min(1e-9)).clamp_max(1)
    return torch.cat([move, turn.flatten(-2)], -1)


def expecting(pose: Pose, scale: float = 1.0, bends: float = 1.0, move: float = 0.06) -> Pull:
    """A pull to a predicted pose, with each joint's own pace."""
    return Pull(bends, pose, prediction_spread(scale), move * scale)
