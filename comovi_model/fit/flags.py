"""Says which frames not to trust. Letters: F frames."""

from __future__ import annotations

import torch

from .track import Track

NO_PERSON = "no person is seen"
LOST = "the body does not explain the picture"
DOUBTFUL = "part of the body does not explain the picture"
SCORE, LIMB = 0.34, 0.60  # above these a frame fails
REFERENCE = 1.25  # times the score of the start frame, where that is worse


def judge(track: Track, start: int) -> list[str]:
    """A sentence per frame, "" where nothing is wrong."""
    limit = max(SCORE, REFERENCE * min(float(track.score[start]), 0.5))
    flags = []
    for frame in range(len(track.score)):
        if bool(track.empty[frame]):
            flags.append(NO_PERSON)
        elif float(track.score[frame]) > limit or float(track.overlap[frame]) < 0.6:
            flags.append(LOST)
        elif float(torch.max(track.limbs[frame])) > max(LIMB, 1.6 * limit):
            flags.append(DOUBTFUL)
        else:
            flags.append("")
    return flags
