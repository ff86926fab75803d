"""Puts estimated poses and a video's frames on one time base.

Pose files say little about time: some have one pose per video frame, some a rate of their own, some neither. What fits
is found here once, and what does not fit is refused rather than stretched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import torch

from ...comovi_model.body.body_files import load_nano_body
from ...comovi_model.body.motion import BodyMotion
from ...comovi_model.body.smpl import BodyModel, load_body_model
from ...comovi_model.clean.gaps import fill_gaps, insert_missing
from ...comovi_model.clean.smoothing import METHODS, smooth
from ...comovi_model.clean.time_base import exact_fps, sample
from ...comovi_model.errors import ComoviError
from ...comovi_model.motion_io.adapt import for_body
from ...comovi_model.motion_io.formats import ImportedMotion
from ...comovi_model.motion_io.reading import read_motion
from .timing import Timeline

RATE_TOLERANCE = 0.01  # share; estimators write 30 where the video has 29.97
SMOOTHINGS = ("none", *METHODS)


@lru_cache(maxsize=2)
def load_body(name: str) -> BodyModel:
    """ "" the mannequin, "nano" its small copy, else a body file."""
    return load_nano_body() if name == "nano" else load_body_model(name or None)


def read_poses(path: Path, rate: Fraction) -> ImportedMotion:
    """The poses of a video of `rate` frames per second, in the camera's frame.

    A folder holds one file per frame, numbered as ffmpeg numbers pictures (from 1, or from 0 if there is a 0), and no
    file where nobody was found: the numbers say which frame a pose is of.
    """
    if not path.is_dir():
        return read_motion(path, space="camera")
    read = read_motion(path, fps=float(rate))
    numbers = [re.findall(r"\d+", file.stem) for file in sorted(path.glob("*.npy"))]
    if any(not found for found in numbers):
        return read
    index = torch.tensor([int(found[-1]) for found in numbers])
    if bool((index.diff() < 1).any()):
        raise ComoviError(f"the numbers of the files in {path} do not rise; expected one file per frame.")
    return replace(read, motion=replace(read.motion, source_index=index - min(int(index[0]), 1)))


def on_video(read: ImportedMotion, time: Timeline) -> BodyMotion:
    """The motion with exactly one row per video frame it knows: `source_index` numbers the video's frames.

    A file fits when it has as many poses as the video has frames, or the same rate. A file that states another rate is
    sampled at the times of the frames.
    """
    motion = insert_missing(read.motion)
    assert motion.source_index is not None
    rate = exact_fps(motion.fps)
    same_rate = abs(rate / time.rate - 1) <= RATE_TOLERANCE
    last = int(motion.source_index[-1])
    if len(motion) == len(time) or (same_rate and last < len(time) + 2):
        if len(motion) == len(time) and last >= len(time):  # numbers of a longer video that this one was cut from
            motion = replace(motion, source_index=torch.arange(len(motion)))
        return motion
    stated = not any("assumed" in note and "per second" in note for note in read.notes)
    if not stated or same_rate:
        raise ComoviError(
            f"{len(motion)} poses at {float(rate):.6g} per second ({'stated' if stated else 'assumed'}) do not fit a "
            f"video of {len(time)} frames at {float(time.rate):.6g}; expected one pose per frame, or a file that "
            "states its rate."
        )
    return _sampled(motion, rate, time)


def _sampled(motion: BodyMotion, rate: Fraction, time: Timeline) -> BodyMotion:
    """The motion at the time of every frame that it covers."""
    places = [divmod(moment * rate, 1) for moment in time.times]
    inside = [(int(whole), rest) for whole, rest in places if whole + (rest > 0) < len(motion)]
    if not inside:
        raise ComoviError("the poses cover no frame of the video.")
    before = torch.tensor([whole for whole, _ in inside])
    share = torch.tensor([float(rest) for _, rest in inside], dtype=torch.float64)
    found = sample(motion, before, share, "cubic")
    return replace(found, fps=float(time.rate), source_index=torch.arange(len(inside)))


def cleaned(motion: BodyMotion, body: BodyModel, smoothing: str, strength: float, gap_seconds: float) -> BodyMotion:
    """On our body, with short gaps filled, smoothed at the rate of the video (as the released preparation does)."""
    if motion.frame != "camera":
        raise ComoviError(
            f"the poses are in world axes ({motion.frame}), so nobody knows where in the picture they are; give poses "
            "in the camera frame."
        )
    motion, _ = for_body(motion, body)
    motion = fill_gaps(motion, gap_seconds)
    return motion if smoothing == "none" else smooth(motion, smoothing, strength)


def of_frames(motion: BodyMotion, picked: Sequence[int], fps: Fraction) -> BodyMotion:
    """The poses of the picked video frames, one per frame of the clip."""
    assert motion.source_index is not None
    assert motion.valid is not None
    row_of = {int(frame): row for row, frame in enumerate(motion.source_index)}
    missing = [frame for frame in picked if frame not in row_of]
    if missing:
        known = f"frames {min(row_of)} to {max(row_of)}"
        raise ComoviError(f"there is no pose for video frame {missing[0]}; the poses cover {known}.")
    rows = torch.tensor([row_of[frame] for frame in picked])
    unseen = int((~motion.valid[rows]).sum())
    if unseen:
        raise ComoviError(f"in {unseen} of {len(picked)} frames nobody was found, for longer than a gap may last.")
    camera = motion.camera
    if camera is not None and camera.K.dim() == 3:
        camera = replace(camera, K=camera.K[rows])
    return replace(
        motion,
        rotations=motion.rotations[rows],
        transl=motion.transl[rows],
        valid=motion.valid[rows],
        source_index=torch.tensor(picked),
        camera=camera,
        fps=float(fps),
    )
