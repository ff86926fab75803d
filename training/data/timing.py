"""The one time base: which source frame is shown when, in exact fractions of a second.

A clip's frame k shows what happened k / 16 s after the clip began. `Timeline` knows when each source frame is shown;
`pick` finds the nearest one. It is asked once per clip, and pictures, poses and motion map all use its answer, so that
they cannot drift apart. (The released preparation rounds 29.97 to 29 for one of them and stretches 60 to half speed.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from ...comovi_model.errors import ComoviError

FPS = Fraction(16)  # of the paper's clips


@dataclass(frozen=True)
class Timeline:
    """When each source frame begins to be shown: `times`, seconds from the first frame, rising; `rate` is nominal."""

    times: tuple[Fraction, ...]
    rate: Fraction

    def __len__(self) -> int:
        return len(self.times)

    @property
    def even(self) -> bool:
        """Whether frame i is at i / rate."""
        return all(time == index / self.rate for index, time in enumerate(self.times))

    def nearest(self, time: Fraction) -> int:
        """The frame whose time is nearest; of two equally near ones the earlier."""
        after = bisect_left(self.times, time)
        if after == 0:
            return 0
        if after == len(self.times):
            return after - 1
        return after if self.times[after] - time < time - self.times[after - 1] else after - 1

    def spacing(self, index: int) -> Fraction:
        """Seconds to the further of its two neighbours: what "half a frame" is half of."""
        around = self.times[max(0, index - 1) : index + 2]
        return max((later - earlier for earlier, later in pairwise(around)), default=1 / self.rate)


def even_timeline(frames: int, rate: Fraction) -> Timeline:
    return Timeline(tuple(index / rate for index in range(frames)), rate)


def timeline(stamps: Sequence[int], tick: Fraction, rate: Fraction) -> Timeline:
    """From time stamps in units of `tick` seconds. Where rounding to ticks explains all of them, the exact rate counts.

    Matroska keeps milliseconds, so 29.97 frames a second arrive as 0, 33, 67, 100; with an uneven video the stamps
    themselves are the truth.
    """
    if not stamps:
        raise ComoviError("the video has no frames.")
    shown = [(stamp - stamps[0]) * tick for stamp in stamps]
    if any(later <= earlier for earlier, later in pairwise(shown)):
        raise ComoviError("the time stamps of the video do not rise; convert it to a new file first.")
    if all(abs(time - index / rate) <= tick for index, time in enumerate(shown)):
        return even_timeline(len(shown), rate)
    return Timeline(tuple(shown), rate)


def pick(source: Timeline, count: int, start: Fraction = Fraction(0), fps: Fraction = FPS, hold: int = 0) -> list[int]:
    """Source frames of a clip of `count` frames that begins at `start` seconds.

    Every output frame lies within half a source frame of the one that is picked. Where the source ends too early, at
    most `hold` frames may repeat the last one; beyond that the clip is refused.
    """
    picked = []
    for k in range(count):
        time = start + k / fps
        index = source.nearest(time)
        off = abs(source.times[index] - time)
        if off > source.spacing(index) / 2:
            missing = count - k
            if index != len(source) - 1 or missing > hold:
                raise ComoviError(_too_short(source, count, start, fps, missing))
        picked.append(index)
    return picked


def _too_short(source: Timeline, count: int, start: Fraction, fps: Fraction, missing: int) -> str:
    length = float(source.times[-1] - start)
    needed = float((count - 1) / fps)
    advice = f"; --hold-last {missing} would repeat its last frame" if missing <= 2 else ""
    return (
        f"{len(source)} frames at {float(source.rate):.6g} per second end {max(length, 0):.3f} s after the clip's "
        f"beginning, {count} frames at {float(fps):g} per second need {needed:.3f} s{advice}."
    )


def clip_starts(source: Timeline, count: int, fps: Fraction = FPS, most: int = 0, hold: int = 0) -> list[Fraction]:
    """Where clips that follow each other without overlap begin, at most `most` of them (0: as many as fit)."""
    last_moment = source.times[-1] + source.spacing(len(source) - 1) / 2
    starts: list[Fraction] = []
    while most == 0 or len(starts) < most:
        start = len(starts) * count / fps
        if start + (count - 1 - hold) / fps > last_moment:
            break
        starts.append(start)
    return starts
