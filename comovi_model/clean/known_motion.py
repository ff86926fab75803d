"""Motions whose truth is known, and the same with noise of known size: what the cleaning is measured on.

Letters: F frames, J = 24 joints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..body.motion import BodyMotion
from ..body.rotations import axis_angle_to_matrix
from ..body.smpl import BodyModel, rest_joints, shaped_vertices
from ..nano.actions import ACTION_NAMES, ACTIONS, SPEEDS, ActionRequest, perform


def synthetic_motion(model: BodyModel, action: str, seed: int, fps: float = 30.0, seconds: float = 2.6) -> BodyMotion:
    """One of the nano model's actions on this body, y up, standing on the floor; the seed varies size and speed.

    Within 2.6 s the quickest walk has not used up its seven steps."""
    rng = np.random.default_rng([seed, 0xC1EA])
    betas = torch.zeros(10)
    betas[:2] = torch.from_numpy(rng.uniform(-0.5, 0.5, 2)).float()
    number = ACTION_NAMES.index(action)
    side = ("left", "right")[int(rng.integers(2))] if ACTIONS[number].sided else ""
    request = ActionRequest(number, side, tuple(SPEEDS)[int(rng.integers(3))])
    rest = rest_joints(model, betas).double().numpy()
    ground = float(shaped_vertices(model, betas)[:, 1].min())
    local, pelvis = perform(request, rest, ground, int(seconds * fps) + 1, fps, rng)
    return BodyMotion(
        rotations=torch.from_numpy(local).float(),
        betas=betas,
        transl=torch.from_numpy(pelvis - rest[0]).float(),
        frame="yup",
        fps=fps,
        body_model=model.shape_space,
        provenance={"synthetic": action, "seed": seed},
    )


@dataclass(frozen=True)
class Noise:
    """Errors as estimators make them: a part that changes with every frame, and a part that wanders."""

    degrees: float = 2.0  # per axis of every joint, independent from frame to frame
    wander_degrees: float = 2.5  # per axis, lasting for about wander_seconds
    millimetres: float = 8.0  # of the root, likewise
    wander_millimetres: float = 20.0
    wander_seconds: float = 0.5


SHAKING = Noise(3.0, 0.0, 10.0, 0.0)  # only what changes with every frame, and so can be smoothed away
# Mean joint errors of about 37, 68 and 115 mm, root included.
LEVELS = {
    "mild": Noise(1.0, 1.5, 4.0, 10.0),
    "medium": Noise(),
    "strong": Noise(3.5, 4.0, 15.0, 35.0),
}


def noisy(motion: BodyMotion, noise: Noise, seed: int) -> BodyMotion:
    """The motion with `noise` on every joint and on the root's path."""
    generator = torch.Generator().manual_seed(seed)
    frames, joints = motion.rotations.shape[:2]
    turn = noise.degrees * torch.randn(frames, joints, 3, generator=generator, dtype=torch.float64)
    turn = turn + noise.wander_degrees * _wander(frames, joints * 3, motion.fps, noise, generator).unflatten(1, (-1, 3))
    shift = noise.millimetres * torch.randn(frames, 3, generator=generator, dtype=torch.float64)
    shift = shift + noise.wander_millimetres * _wander(frames, 3, motion.fps, noise, generator)
    rotations = motion.rotations.double() @ axis_angle_to_matrix(turn.deg2rad())
    return replace(motion, rotations=rotations.float(), transl=motion.transl + shift.float() / 1000)


def _wander(frames: int, columns: int, fps: float, noise: Noise, generator: torch.Generator) -> Tensor:
    """(F, columns) of standard deviation 1: white noise under a bell, as errors that last for wander_seconds."""
    sigma = noise.wander_seconds * fps / 2
    reach = max(1, round(3 * sigma))
    bell = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2)
    fresh = torch.randn(columns, 1, frames + 2 * reach, generator=generator, dtype=torch.float64)
    return torch.nn.functional.conv1d(fresh, (bell / bell.norm())[None, None])[:, 0].T
