"""Says which frames not to trust. Letters: F frames."""

from __future__ import annotations

from .track import Track

NO_PERSON = "no person is seen"
LOST = "the body does not explain the picture"
DOUBTFUL = "part of the body does not explain the picture"
SCORE, LIMB = 0.34, 0.06  # a frame fails above this score, or where a limb adds so much more than usual to it
REFERENCE = 1.25  # times the score of the start frame, where that is worse


def judge(track: Track, start: int) -> list[str]:
    """A sentence per frame, "" where nothing is wrong."""
    limit = max(SCORE, REFERENCE * min(float(track.score[start]), 0.5))
    usual = track.limbs.quantile(0.3, dim=0)
    flags = []
    for frame in range(len(track.score)):
        if bool(track.empty[frame]):
            flags.append(NO_PERSON)
        elif float(track.score[frame]) > limit or float(track.overlap[frame]) < 0.6:
            flags.append(LOST)
        elif float((track.limbs[frame] - usual).max()) > LIMB:
            flags.append(DOUBTFUL)
        else:
            flags.append("")
    return flags
