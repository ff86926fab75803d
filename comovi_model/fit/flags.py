"""Says which frames not to trust. Letters: F frames."""

from __future__ import annotations

from .track import SCORE, Track, score_limit

NO_PERSON = "no person is seen"
LOST = "the body does not explain the picture"
DOUBTFUL = "part of the body does not explain the picture"
LIMB = 0.06  # a frame fails where a limb adds so much more than usual to the score
SMALLEST_OVERLAP = 0.6  # of the silhouettes


def judge(track: Track) -> list[str]:
    """A sentence per frame, "" where nothing is wrong."""
    limit = score_limit(track)
    usual = track.limbs.quantile(0.3, dim=0)
    flags = []
    for frame in range(len(track.score)):
        if bool(track.empty[frame]):
            flags.append(NO_PERSON)
        elif float(track.score[frame]) > limit or float(track.overlap[frame]) < SMALLEST_OVERLAP:
            flags.append(LOST)
        elif float((track.limbs[frame] - usual).max()) > LIMB * limit / SCORE:
            flags.append(DOUBTFUL)
        else:
            flags.append("")
    return flags
