"""Frame rates as exact fractions, and motions at another rate or speed.

Letters: F frames, J = 24 joints. Frame i of a clip is at i / fps seconds.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import torch
from torch import Tensor

from ..body.motion import BodyMotion
from ..body.rotations import slerp
from ..errors import ComoviError
from .gaps import MOST_FRAMES, valid_frames
from .history import noted
from .manifold import relative_log, step_from

BROADCAST = tuple(Fraction(1000 * rate, 1001) for rate in (24, 30, 48, 60, 120))  # 23.976, 29.97, ...
INTERPOLATIONS = ("slerp", "cubic")
SLOWEST = Fraction(1, 100)  # frames per second


def exact_fps(fps: float | int | str | Fraction) -> Fraction:
    """29.97, "29.97" and "30000/1001" are all 30000/1001; 16 is 16; other numbers are the nearest n/d, d <= 1001."""
    try:
        rate = Fraction(fps)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        raise ComoviError(f"frames per second must be a number, as 30, 29.97 or 30000/1001, got {fps!r}.") from None
    if not SLOWEST <= rate <= 1000:
        raise ComoviError(f"frames per second must lie between {float(SLOWEST)} and 1000, got {fps}.")
    nearest = min(BROADCAST, key=lambda known: abs(known - rate))
    if abs(nearest / rate - 1) < Fraction(2, 10_000):  # also the spelling 23.98
        return nearest
    return rate.limit_denominator(1001)


def resample(
    motion: BodyMotion, fps: float | str | Fraction, interpolation: str = "cubic", speed: float = 1.0
) -> BodyMotion:
    """The motion at another frame rate, `speed` times as fast, sampled inside its span.

    New frame j lies at source frame j * (speed * old rate / new rate), computed in whole numbers: 30 -> 16 -> 30 finds
    the old times again, and no drift builds up in long clips. The clip ends at the last new frame that has source
    on both sides. "slerp" joins poses by turns of constant speed; "cubic" passes through them without kinks, which
    brings 30 -> 16 -> 30 back to 0.5 mm instead of 1.5 (mean of joints, docs/clean.md).
    """
    if interpolation not in INTERPOLATIONS:
        raise ComoviError(f"unknown interpolation {interpolation!r}; choose {' or '.join(INTERPOLATIONS)}.")
    if not 0.01 <= speed <= 100:
        raise ComoviError(f"the speed must be a factor between 0.01 and 100, got {speed}.")
    old, new = exact_fps(motion.fps), exact_fps(fps)
    stride = Fraction(speed).limit_denominator(10_000) * old / new  # source frames per new frame
    if stride == 1:
        return replace(motion, fps=float(new))
    count = math.floor((len(motion) - 1) / stride) + 1
    if count > MOST_FRAMES:
        raise ComoviError(f"the motion would have {count} frames, at most {MOST_FRAMES} are made; choose fewer.")
    places = [divmod(j * stride.numerator, stride.denominator) for j in range(count)]
    before = torch.tensor([whole for whole, _ in places])
    share = torch.tensor([rest / stride.denominator for _, rest in places], dtype=torch.float64)
    note = {"resample": str(new), "from": str(old), "interpolation": interpolation, "speed": speed}
    return noted(replace(sample(motion, before, share, interpolation), fps=float(new)), note)


def sample(motion: BodyMotion, before: Tensor, share: Tensor, interpolation: str = "cubic") -> BodyMotion:
    """The motion at source positions before (F',) int64 + share (F',) in 0..1, both inside its frames."""
    after = (before + (share > 0)).clamp_max(len(motion) - 1)
    rotations, path = motion.rotations.double(), motion.transl.double()
    if interpolation == "cubic" and len(motion) > 2:
        turned, moved = _cubic(motion, before, after, share)
    else:
        turned = slerp(rotations[before], rotations[after], share[:, None])
        moved = _mix(path[before], path[after], share)
    exact = share == 0  # those frames are there already
    turned = torch.where(exact[:, None, None, None], rotations[before], turned)
    valid = valid_frames(motion)
    camera = motion.camera
    if camera is not None and camera.K.dim() == 3:
        camera = replace(camera, K=_mix(camera.K.double()[before], camera.K.double()[after], share).float())
    assert motion.source_index is not None
    return replace(
        motion,
        rotations=turned.float(),
        transl=moved.float(),
        camera=camera,
        valid=valid[before] & valid[after],
        source_index=motion.source_index[torch.where(share < 0.5, before, after)],
    )


def _mix(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    return start + share.reshape(-1, *[1] * (start.dim() - 1)) * (end - start)


def _cubic(motion: BodyMotion, before: Tensor, after: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Curves through the frames with the mean speed of the neighbours at each of them (Catmull-Rom).

    As Bezier curves by de Casteljau's construction, where for rotations each mixing of two points is a slerp. Frames
    that are not valid say nothing about speed.
    """
    rotations, path, valid = motion.rotations.double(), motion.transl.double(), valid_frames(motion)
    last = len(path) - 1
    frames = torch.arange(last + 1)
    previous, following = (frames - 1).clamp_min(0), (frames + 1).clamp_max(last)
    previous = torch.where(valid[previous], previous, frames)
    following = torch.where(valid[following], following, frames)
    span = (following - previous).clamp_min(1).double()
    velocity = (path[following] - path[previous]) / span[:, None]  # per frame
    turn = relative_log(rotations, rotations[following]) - relative_log(rotations, rotations[previous])
    turn = turn / span[:, None, None]
    points = [path[before], path[before] + velocity[before] / 3, path[after] - velocity[after] / 3, path[after]]
    start, end = rotations[before], rotations[after]
    turns = [start, step_from(start, turn[before] / 3), step_from(end, -turn[after] / 3), end]
    while len(turns) > 1:
        turns = [slerp(a, b, share[:, None]) for a, b in pairwise(turns)]
        points = [_mix(a, b, share) for a, b in pairwise(points)]
    return turns[0], points[0]
