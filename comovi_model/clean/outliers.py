"""Poses that jump away for a few frames and back: found joint by joint, replaced by what lies around them.

Letters: F frames, J = 24 joints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..body.motion import BodyMotion
from ..body.rotations import rotation_angle, slerp
from ..errors import ComoviError
from .gaps import fill_joints, neighbours, valid_frames
from .history import noted


@dataclass(frozen=True)
class OutlierSettings:
    """What counts as a jump: a change within one frame that quick people do not make, undone soon after."""

    degrees_per_second: float = 900.0  # the arms of a jump reach 700
    min_degrees: float = 15.0  # at high frame rates; smaller deviations are left to smoothing
    metres_per_second: float = 2.5  # of the root
    min_metres: float = 0.08
    times_usual: float = 6.0  # of the joint's usual deviation from its two neighbours (median over the clip)
    longest_seconds: float = 0.2  # what stays away for longer is taken for movement


@dataclass(frozen=True)
class Outliers:
    joints: Tensor  # (F, J) bool
    path: Tensor  # (F,) bool

    @property
    def count(self) -> int:
        """How many frames have any."""
        return int((self.joints.any(1) | self.path).sum())


def reject_outliers(motion: BodyMotion, settings: OutlierSettings | None = None) -> BodyMotion:
    """Outlying joint rotations and root positions replaced by interpolation between the frames around them."""
    found = find_outliers(motion, settings)
    if not found.count:
        return motion
    valid = valid_frames(motion)
    rotations = fill_joints(motion.rotations, ~found.joints & valid[:, None])
    path = motion.transl
    known = ~found.path & valid
    if bool(known.any()):
        before, after, share = neighbours(known)
        between = path[before] + share[:, None].float() * (path[after] - path[before])
        path = torch.where(found.path[:, None], between, path)
    rotations = torch.where(valid[:, None, None, None], rotations, motion.rotations)  # gaps stay gaps
    note = {"outliers": found.count, "joint_rotations": int(found.joints.sum())}
    return noted(replace(motion, rotations=rotations, transl=path), note)


def find_outliers(motion: BodyMotion, settings: OutlierSettings | None = None) -> Outliers:
    """Runs of up to longest_seconds, every frame of which is far from the way between the frames around the run.

    A quick movement has frames on its way out and back; a jump has none. Frames that are not valid are left out.
    """
    settings = settings or OutlierSettings()
    if min(settings.min_degrees, settings.min_metres, settings.longest_seconds, settings.times_usual) <= 0:
        raise ComoviError("the limits for outliers must be positive numbers.")
    kept = valid_frames(motion).nonzero()[:, 0]
    joints = torch.zeros(motion.rotations.shape[:2], dtype=torch.bool)
    path = torch.zeros(len(motion), dtype=torch.bool)
    longest = max(1, math.floor(settings.longest_seconds * motion.fps + 1e-6))
    if len(kept) < 4:
        return Outliers(joints, path)
    degrees = max(settings.min_degrees, settings.degrees_per_second / motion.fps)
    metres = max(settings.min_metres, settings.metres_per_second / motion.fps)
    rotations, places = motion.rotations[kept].double(), motion.transl[kept].double()[:, None]
    joints[kept] = _jumps(rotations, math.radians(degrees), settings.times_usual, longest, _turn_between)
    path[kept] = _jumps(places, metres, settings.times_usual, longest, _metres_between)[:, 0]
    return Outliers(joints, path)


Deviation = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _turn_between(start: Tensor, end: Tensor, share: Tensor, values: Tensor) -> Tensor:
    """Angle (N,) of values (N, 3, 3) from the way start -> end at share (N,)."""
    return rotation_angle(slerp(start, end, share).transpose(-1, -2) @ values)


def _metres_between(start: Tensor, end: Tensor, share: Tensor, values: Tensor) -> Tensor:
    return (start + share[:, None] * (end - start) - values).norm(dim=-1)


def _jumps(values: Tensor, limit: float, times_usual: float, longest: int, deviation: Deviation) -> Tensor:
    """values (F, J, ...) -> (F, J) bool."""
    num_frames, num_joints = values.shape[:2]

    def away(start: Tensor, end: Tensor, share: Tensor, frame: Tensor, joint: Tensor) -> Tensor:
        """Deviation (N,) of frames from the way between two others, for N triples of one joint each."""
        return deviation(values[start, joint], values[end, joint], share, values[frame, joint])

    frame, joint = (index.flatten() for index in torch.meshgrid(
        torch.arange(num_frames - 1), torch.arange(num_joints), indexing="ij"
    ))  # fmt: skip
    nowhere = torch.zeros(len(frame), dtype=torch.float64)
    steps = away(frame, frame, nowhere, frame + 1, joint).unflatten(0, (-1, num_joints))  # (F - 1, J)
    inner = frame < num_frames - 2
    middle = torch.full((int(inner.sum()),), 0.5, dtype=torch.float64)
    spikes = away(frame[inner], frame[inner] + 2, middle, frame[inner] + 1, joint[inner])
    needed = (times_usual * spikes.unflatten(0, (-1, num_joints)).median(0).values).clamp_min(limit)  # (J,)

    sudden = steps > needed / 2
    jumps = torch.zeros(num_frames, num_joints, dtype=torch.bool)
    for length in range(1, min(longest, num_frames - 3) + 1):
        start, joint = (sudden[: num_frames - 1 - length] & sudden[length:]).nonzero().unbind(1)
        far = torch.ones(len(start), dtype=torch.bool)
        for k in range(1, length + 1):
            share = torch.full((len(start),), k / (length + 1), dtype=torch.float64)
            far &= away(start, start + length + 1, share, start + k, joint) > needed[joint]
            far &= ~jumps[start + k, joint]  # a shorter run explains a jump best
        far &= ~(jumps[start, joint] | jumps[start + length + 1, joint])
        for k in range(1, length + 1):
            jumps[start[far] + k, joint[far]] = True
    return jumps | _jumps_at_the_ends(steps, needed, longest)


def _jumps_at_the_ends(steps: Tensor, needed: Tensor, longest: int) -> Tensor:
    """Up to `longest` first or last frames, cut off by a step (F - 1, J) of twice the need with calm behind it.

    Nothing shows the way back there, so more is asked for.
    """
    num_frames = len(steps) + 1
    jumps = torch.zeros(num_frames, steps.shape[1], dtype=torch.bool)
    for length in range(1, min(longest, num_frames - 3) + 1):
        calm, other = steps[length : length + 2] < needed / 4, steps[num_frames - 3 - length : num_frames - 1 - length]
        jumps[:length] |= (steps[length - 1] > 2 * needed) & calm.all(0)
        jumps[num_frames - length :] |= (steps[num_frames - 1 - length] > 2 * needed) & (other < needed / 4).all(0)
    return jumps
