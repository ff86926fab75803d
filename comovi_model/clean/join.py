"""One motion after another: the second is carried to where the first ends, and the seam is blended.

Letters: F frames, J = 24 joints, O overlapping frames.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..body.frames import check_same_body, pelvis_at_rest
from ..body.motion import BodyMotion
from ..body.rotations import axis_angle_to_matrix, slerp
from ..body.smpl import BodyModel
from ..errors import ComoviError
from .feet import to_yup
from .history import noted
from .shape import with_betas
from .time_base import exact_fps, resample

MANNERS = ("overlap", "bridge")


def join(
    first: BodyMotion,
    second: BodyMotion,
    model: BodyModel,
    blend_seconds: float = 0.3,
    manner: str = "overlap",
    align: bool = True,
) -> BodyMotion:
    """`first`, then `second` at its frame rate, in its axes and with its betas.

    "overlap" lets the last blend_seconds of one play together with the first of the other (at least one frame, which
    the two then share); "bridge" makes up blend_seconds of movement between them and loses no frame.
    With `align` the second is turned about the vertical and shifted along the floor so that it goes on from where the
    first ends; heights are never changed. Without it both stay where they are.
    """
    if manner not in MANNERS:
        raise ComoviError(f"unknown way of joining {manner!r}; choose {' or '.join(MANNERS)}.")
    if not 0 <= blend_seconds <= 60:
        raise ComoviError(f"the blend must take from 0 to 60 seconds, got {blend_seconds}.")
    check_same_body(model, first)
    second = _in_axes_of(first, resample(second, exact_fps(first.fps)), model)
    if not torch.equal(second.betas, first.betas):
        second = with_betas(second, model, first.betas)
    frames = round(blend_seconds * first.fps)
    if manner == "overlap":
        frames = min(max(frames, 1), len(first), len(second))
        if align:
            second = _aligned(first, second, model, frames)
        joined = _overlapped(first, second, frames)
    else:
        if align:
            second = _aligned(first, second, model, 1)
            second = _stepped_on(first, second, frames)
        joined = _bridged(first, second, frames)
    note = {"join": [len(first), len(second)], "blend_frames": frames, "manner": manner, "align": align}
    return noted(joined, note)


def _in_axes_of(first: BodyMotion, second: BodyMotion, model: BodyModel) -> BodyMotion:
    """The second in the first's axes; up stays up, also where the first was seen by a tilted camera."""
    if second.frame == first.frame != "camera":
        return second
    turn = (to_yup(first).T @ to_yup(second)).float()
    turned = second.moved(turn, torch.zeros(3), pelvis_at_rest(model, second))
    return replace(turned, frame=first.frame, camera=first.camera if first.frame == "camera" else None)


def _aligned(first: BodyMotion, second: BodyMotion, model: BodyModel, overlap: int) -> BodyMotion:
    """The second moved rigidly, upright, so that the overlapping frames lie on each other as well as they can."""
    level = to_yup(first).float()
    end, start = first.rotations[-overlap:, 0], second.rotations[:overlap, 0]
    # The turn Y about the vertical that brings `start` closest to `end`: greatest trace(end^T Y start), summed.
    together = (level @ (end @ start.transpose(-1, -2)).sum(0) @ level.T).double()
    angle = math.atan2(float(together[0, 2] - together[2, 0]), float(together[0, 0] + together[2, 2]))
    turn = level.T @ axis_angle_to_matrix(torch.tensor([0.0, angle, 0.0])) @ level
    pelvis = pelvis_at_rest(model, second)
    turned = second.moved(turn, torch.zeros(3), pelvis)
    shift = level @ (first.transl[-overlap:] - turned.transl[:overlap]).mean(0)
    shift[1] = 0.0
    return turned.moved(torch.eye(3), level.T @ shift, pelvis)


def _stepped_on(first: BodyMotion, second: BodyMotion, frames: int) -> BodyMotion:
    """The second moved along the floor by the way that the body goes during the bridge."""
    level = to_yup(first).float()
    per_frame = (_speed(first.transl, -1) + _speed(second.transl, 0)) / 2
    shift = level @ (per_frame * (frames + 1))
    shift[1] = 0.0
    return replace(second, transl=second.transl + level.T @ shift)


def _overlapped(first: BodyMotion, second: BodyMotion, overlap: int) -> BodyMotion:
    share = (torch.arange(overlap, dtype=torch.float64) + 1) / (overlap + 1)
    ease = share * share * (3 - 2 * share)
    turned = slerp(first.rotations[-overlap:].double(), second.rotations[:overlap].double(), ease[:, None])
    moved = first.transl[-overlap:] + ease[:, None].float() * (second.transl[:overlap] - first.transl[-overlap:])
    assert first.valid is not None
    assert second.valid is not None
    valid = first.valid[-overlap:] & second.valid[:overlap]
    keep = len(first) - overlap
    return _concatenated(first, second, keep, overlap, turned.float(), moved, valid)


def _bridged(first: BodyMotion, second: BodyMotion, frames: int) -> BodyMotion:
    """Hermite curve of the path, eased slerp of the joints."""
    u = (torch.arange(frames, dtype=torch.float64) + 1) / (frames + 1)
    ease = u * u * (3 - 2 * u)
    start, end = first.rotations[-1:].double(), second.rotations[:1].double()
    turned = slerp(start.expand(frames, -1, -1, -1), end.expand(frames, -1, -1, -1), ease[:, None])
    speed_in, speed_out = _speed(first.transl, -1).double(), _speed(second.transl, 0).double()
    reach = frames + 1
    u = u[:, None]
    moved = (
        (2 * u**3 - 3 * u**2 + 1) * first.transl[-1].double()
        + (u**3 - 2 * u**2 + u) * reach * speed_in
        + (3 * u**2 - 2 * u**3) * second.transl[0].double()
        + (u**3 - u**2) * reach * speed_out
    )
    valid = torch.ones(frames, dtype=torch.bool)
    return _concatenated(first, second, len(first), 0, turned.float(), moved.float(), valid)


def _speed(path: Tensor, frame: int) -> Tensor:
    """Metres per frame at the start (0) or end (-1) of a path (F, 3), over up to three frames."""
    span = min(len(path) - 1, 3)
    if span == 0:
        return torch.zeros(3)
    return (path[span] - path[0]) / span if frame == 0 else (path[-1] - path[-1 - span]) / span


def _concatenated(
    first: BodyMotion, second: BodyMotion, keep: int, skip: int, turned: Tensor, moved: Tensor, valid: Tensor
) -> BodyMotion:
    """`keep` frames of the first, the seam, the second without its first `skip` frames; source_index runs on."""
    assert first.valid is not None
    assert second.valid is not None
    length = keep + len(turned) + len(second) - skip
    camera = first.camera
    if camera is not None and camera.K.dim() == 3:
        rest = torch.arange(length).clamp_max(len(first) - 1)
        camera = replace(camera, K=camera.K[rest])
    return replace(
        first,
        rotations=torch.cat([first.rotations[:keep], turned, second.rotations[skip:]]),
        transl=torch.cat([first.transl[:keep], moved, second.transl[skip:]]),
        camera=camera,
        valid=torch.cat([first.valid[:keep], valid, second.valid[skip:]]),
        source_index=torch.arange(length),
    )
