"""Says which frames not to trust. Letters: F frames."""

from __future__ import annotations

import torch
from torch import Tensor

from ..body.rotations import rotation_angle
from .score import LIMBS, limb_of_part
from .surface import dot, unit
from .terms import look, project, visible_points
from .track import SCORE, Track, score_limit

NO_PERSON = "no person is seen"
LOST = "the body does not explain the picture"
DOUBTFUL = "part of the body does not explain the picture"
HIDDEN = "an arm or a leg moved while it was out of sight"
LIMB = 0.06  # a frame fails where a limb adds so much more than usual to the score
SMALLEST_OVERLAP = 0.6  # of the silhouettes
SEEN = 0.12  # of the points of a limb that face the viewer; with fewer it is out of sight
LONG = 5  # frames out of sight for which a limb's pose is a guess
TURNED = 1.2  # radians by which a joint has turned when the limb comes back


def judge(track: Track) -> list[str]:
    """A sentence per frame, "" where nothing is wrong."""
    limit = score_limit(track)
    usual = track.limbs.quantile(0.3, dim=0)
    guessed = guessed_frames(track)
    flags = []
    for frame in range(len(track.score)):
        if bool(track.empty[frame]):
            flags.append(NO_PERSON)
        elif float(track.score[frame]) > limit or float(track.overlap[frame]) < SMALLEST_OVERLAP:
            flags.append(LOST)
        elif float((track.limbs[frame] - usual).max()) > LIMB * limit / SCORE:
            flags.append(DOUBTFUL)
        elif guessed[frame]:
            flags.append(HIDDEN)
        else:
            flags.append("")
    return flags


def guessed_frames(track: Track) -> list[bool]:
    """Frames (F,) in which a limb is out of sight for long, and elsewhere afterwards than before."""
    hidden = (visible_share(track) < SEEN) & ~track.empty[:, None]
    out = [False] * len(track.score)
    for limb, joints in enumerate(LIMBS):
        frame = 0
        while frame < len(out):
            end = frame
            while end < len(out) and bool(hidden[end, limb]):
                end += 1
            if frame and end < len(out) and end - frame >= LONG:
                before, after = (track.pose.rotations[at, list(joints[:2])] for at in (frame - 1, end))
                if float(rotation_angle(before.transpose(-1, -2) @ after).max()) > TURNED:
                    out[frame:end] = [True] * (end - frame)
            frame = max(end, frame + 1)
    return out


def visible_share(track: Track) -> Tensor:
    """(F, 4): which share of a limb's points that face the viewer is not covered by other parts."""
    subject, level = track.subject, track.seen.coarse
    every = torch.arange(len(track.pose), device=track.score.device)
    view = look(subject, level, every, track.pose)
    position, _ = project(view.vertices, level.K)
    facing = -dot(view.normals, unit(view.vertices)) > 0.1
    seen = facing & visible_points(view, position, view.vertices[..., 2], 0.03)
    owner = limb_of_part().to(facing.device)[subject.coarse.part]
    shares = [
        (seen[:, owner == limb].sum(1) / facing[:, owner == limb].sum(1).clamp_min(1)) for limb in range(len(LIMBS))
    ]
    return torch.stack(shares, 1)
