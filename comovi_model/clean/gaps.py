"""Frames whose pose is missing or wrong, filled in from the frames around them.

Letters: F frames, J = 24 joints.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..body.motion import BodyMotion
from ..body.rotations import slerp
from ..errors import ComoviError
from .edit import take
from .history import KEY, noted

MOST_FRAMES = 1_000_000  # that any step makes
LONGEST_MISSING = 10.0  # seconds; where more of the video is missing, the clip is taken for cut


def valid_frames(motion: BodyMotion) -> Tensor:
    """(F,) bool."""
    assert motion.valid is not None  # the record fills it in
    return motion.valid


def fill_gaps(motion: BodyMotion, max_gap_seconds: float = 0.5) -> BodyMotion:
    """Runs of frames that are not valid, or not there (see `insert_missing`), up to max_gap_seconds long, become valid.

    Between two valid frames rotations turn at constant speed (slerp) and the root moves straight; before the first
    and after the last valid frame the nearest one is held. Longer runs are left as they are, still not valid.
    """
    if max_gap_seconds < 0:
        raise ComoviError(f"the maximum gap must be a number of seconds from 0, got {max_gap_seconds}.")
    motion = insert_missing(motion)
    valid = valid_frames(motion)
    if bool(valid.all()):
        return motion
    if not bool(valid.any()):
        raise ComoviError("no frame of the motion is valid, so there is nothing to fill its gaps from.")
    before, after, share = neighbours(valid)
    short = (run_lengths(valid) / motion.fps <= max_gap_seconds + 1e-6) & ~valid
    rotations, path = _between(motion, before, after, share)
    filled = replace(
        motion,
        rotations=torch.where(short[:, None, None, None], rotations, motion.rotations),
        transl=torch.where(short[:, None], path, motion.transl),
        valid=valid | short,
    )
    return noted(filled, {"fill": int(short.sum()), "max_gap_seconds": max_gap_seconds}) if short.any() else motion


def insert_missing(motion: BodyMotion) -> BodyMotion:
    """Frames of the source video that the motion lacks, by its source_index, put in as frames that are not valid.

    Estimators write nothing where they see nobody, and without those frames the motion would run ahead of its video.
    Only where the other frames follow each other one by one: numbers that a resampling left out are not missing.
    """
    assert motion.source_index is not None
    steps = motion.source_index.diff()
    edits = motion.provenance.get(KEY, [])
    retimed = isinstance(edits, list) and any(isinstance(edit, dict) and "resample" in edit for edit in edits)
    missing = (steps > 1) & (steps <= 1 + LONGEST_MISSING * motion.fps)
    if retimed or not bool(missing.any()) or bool((steps < 1).any()) or int(steps.median()) != 1:
        return motion
    repeats = torch.ones(len(motion), dtype=torch.long)
    repeats[:-1][missing] = steps[missing]
    if int(repeats.sum()) > MOST_FRAMES:
        raise ComoviError(
            f"with the frames that the motion lacks it would have {int(repeats.sum())} frames, at most {MOST_FRAMES} "
            "are made; its source_index is damaged, or the motion is to be cut into shorter ones."
        )
    index = torch.arange(len(motion)).repeat_interleave(repeats)
    after = torch.arange(len(index)) - (repeats.cumsum(0) - repeats)[index]  # frames since the one that is there
    there = after == 0
    longer = take(motion, index)
    assert longer.source_index is not None
    longer = replace(longer, valid=valid_frames(longer) & there, source_index=longer.source_index + after)
    return noted(longer, {"missing_frames": int((~there).sum())})


def fill_joints(rotations: Tensor, good: Tensor) -> Tensor:
    """rotations (F, J, 3, 3) with the entries where good (F, J) is False taken from the good frames around them."""
    filled = rotations.clone()
    for joint in range(rotations.shape[1]):
        known = good[:, joint]
        if bool(known.all()) or not bool(known.any()):
            continue
        before, after, share = neighbours(known)
        track = rotations[:, joint].double()
        between = slerp(track[before], track[after], share).to(rotations)
        filled[:, joint] = torch.where(known[:, None, None], rotations[:, joint], between)
    return filled


def neighbours(valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """valid (F,) -> the last valid frame up to each frame, the first from it on, and the share of the way (F,)."""
    num_frames = len(valid)
    here = torch.arange(num_frames)
    before = torch.where(valid, here, -1).cummax(0).values
    after = torch.where(valid, here, num_frames).flip(0).cummin(0).values.flip(0)
    held_before = torch.where(before < 0, after, before)
    held_after = torch.where(after == num_frames, held_before, after)
    share = (here - held_before).double() / (held_after - held_before).clamp_min(1).double()
    return held_before, held_after, share.clamp(0, 1)


def runs(mask: Tensor) -> list[tuple[int, int]]:
    """The stretches start..stop-1 in which mask (F,) is True."""
    edges = torch.cat([mask.new_zeros(1), mask, mask.new_zeros(1)]).int().diff()
    starts, stops = (edges == 1).nonzero()[:, 0].tolist(), (edges == -1).nonzero()[:, 0].tolist()
    return list(zip(starts, stops, strict=True))


def run_lengths(valid: Tensor) -> Tensor:
    """(F,): how many frames the run of invalid frames has in which a frame lies, 0 for valid ones."""
    lengths = torch.zeros(len(valid))
    for start, stop in runs(~valid):
        lengths[start:stop] = stop - start
    return lengths


def _between(motion: BodyMotion, before: Tensor, after: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    rotations, path = motion.rotations.double(), motion.transl.double()
    turned = slerp(rotations[before], rotations[after], share[:, None])
    moved = path[before] + share[:, None] * (path[after] - path[before])
    return turned.float(), moved.float()
