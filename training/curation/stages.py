"""The two stages of curation: cut a video into segments, and measure what speaks for and against each of them.

Scores only note by default. A rule ("movement": at least 0.01) drops what it names, and the list says so, so that
thresholds can be chosen by looking at the numbers first. The paper names criteria, but no thresholds.

T thumbnails of h x w grey levels in 0..1; a video is decoded once, frame by frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from ...comovi_model.clean.time_base import exact_fps
from ...comovi_model.errors import ComoviError
from ..data.timing import Timeline, pick
from ..data.video import decoded, scan_video
from .records import Segment

THUMBNAIL = 48  # pixels of the longer side
CUT = 0.18  # mean change of grey levels between two frames that is a cut, where it is also a leap
LEAP = 4.0  # times the usual change around it
PEOPLE_SCORES = ("people", "person_height", "person_seen")
SCORES = ("movement", "brightness", "contrast", "sharpness", "still", *PEOPLE_SCORES)


@dataclass(frozen=True)
class Rule:
    """A score outside of least..most drops the segment."""

    score: str
    least: float = -float("inf")
    most: float = float("inf")

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise ComoviError(f"unknown score {self.score!r}; the scores are {', '.join(SCORES)}.")

    def complaint(self, value: float) -> str:
        """ "" when the value will do."""
        if self.least <= value <= self.most:
            return ""
        wanted = f"at least {self.least:g}" if value < self.least else f"at most {self.most:g}"
        return f"{self.score} is {value:.3g}, wanted is {wanted}"


@dataclass(frozen=True)
class CurateSettings:
    """What segments are like and which are kept."""

    frames: int = 81
    fps: str = "16"
    clips_per_video: int = 2  # as in the paper; 0 takes all that fit
    find_people: bool = False  # also count people in the first picture, with the built-in finder
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        exact_fps(self.fps)
        if self.frames < 2 or self.clips_per_video < 0:
            raise ComoviError(
                f"segments have at least 2 frames and a video at least 0 of them, got {self.frames} and "
                f"{self.clips_per_video}."
            )
        for rule in self.rules:
            if rule.score in PEOPLE_SCORES and not self.find_people:
                raise ComoviError(f"a rule about {rule.score} needs the finder of people: --find-people.")


@dataclass(frozen=True)
class RawVideo:
    """A video to look through."""

    id: str
    video: Path
    text: tuple[str, ...] = ()


def curate_video(raw: RawVideo, settings: CurateSettings) -> list[Segment]:
    """All segments of a video, those that a rule drops among them with the reason."""
    facts = scan_video(raw.video)
    thumbnails = np.stack([_thumbnail(picture) for picture in decoded(raw.video)])
    if len(thumbnails) != len(facts.time):
        raise ComoviError(f"{raw.video} was read twice and had {len(facts.time)} and {len(thumbnails)} frames.")
    fps = exact_fps(settings.fps)
    starts = split(facts.time, find_cuts(thumbnails), settings.frames, fps, settings.clips_per_video)
    if not starts:
        needed = float((settings.frames - 1) / fps)
        raise ComoviError(f"no scene of {raw.video.name} lasts {needed:g} s, as {settings.frames} frames need.")
    segments = []
    for number, start in enumerate(starts):
        picked = pick(facts.time, settings.frames, start, fps)
        scores = measure(thumbnails[picked])
        if settings.find_people:
            scores |= measure_people(raw.video, picked[0])
        complaint = next(
            (said for rule in settings.rules if rule.score in scores and (said := rule.complaint(scores[rule.score]))),
            "",
        )
        segments.append(
            Segment(
                raw.video, raw.id, number, str(start), settings.frames, settings.fps, raw.text,
                {name: round(value, 5) for name, value in scores.items()}, complaint,
            )
        )  # fmt: skip
    return segments


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> grey levels, averaged over blocks; the same shape for every picture of a video."""
    step = max(1, max(picture.shape[:2]) // THUMBNAIL)
    height, width = (side // step * step for side in picture.shape[:2])
    grey = picture[:height, :width].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    return grey.reshape(height // step, step, width // step, step).mean((1, 3))


def find_cuts(thumbnails: np.ndarray) -> list[int]:
    """Frames that begin a new scene: a change that is large, and a leap beside those around it."""
    change = np.abs(np.diff(thumbnails, axis=0)).mean((1, 2))
    cuts = []
    for index, value in enumerate(change):
        around = np.r_[change[max(0, index - 8) : index], change[index + 1 : index + 9]]
        usual = float(np.median(around)) if len(around) else 0.0
        if value > CUT and value > LEAP * usual:
            cuts.append(index + 1)
    return cuts


def split(time: Timeline, cuts: Sequence[int], frames: int, fps: Fraction, most: int) -> list[Fraction]:
    """Where segments begin that follow each other within a scene and never cross a cut."""
    starts: list[Fraction] = []
    borders = [0, *cuts, len(time)]
    for first, end in pairwise(borders):
        scene = replace(time, times=time.times[first:end])
        last = scene.times[-1] + scene.spacing(len(scene) - 1) / 2
        start = scene.times[0]
        while start + (frames - 1) / fps <= last:
            starts.append(start)
            start += frames / fps
    return starts if most == 0 else starts[:most]


def measure(thumbnails: np.ndarray) -> dict[str, float]:
    """Scores of a segment from its thumbnails (T, h, w)."""
    change = np.abs(np.diff(thumbnails, axis=0)).mean((1, 2))
    middle = thumbnails[:, 1:-1, 1:-1]
    edges = 4 * middle - thumbnails[:, :-2, 1:-1] - thumbnails[:, 2:, 1:-1] - thumbnails[:, 1:-1, :-2]
    edges = edges - thumbnails[:, 1:-1, 2:]
    return {
        "movement": float(change.mean()),
        "still": float((change < 1e-3).mean()),  # share of frames like the one before
        "brightness": float(thumbnails.mean()),
        "contrast": float(thumbnails.std((1, 2)).mean()),
        "sharpness": float(edges.std()),
    }


def measure_people(video: Path, frame: int) -> dict[str, float]:
    """How many people are in a frame, how tall the largest is, and how much of it is seen; as shares of the picture."""
    from ...comovi_model.estimate.finder import find_people
    from ..data.video import read_frames

    picture = next(iter(read_frames(video, [frame])))
    people = find_people(np.ascontiguousarray(picture))
    if not people:
        return {"people": 0.0, "person_height": 0.0, "person_seen": 0.0}
    largest = people[0]
    seen = 0.0 if largest.keypoints is None else float((largest.keypoints[:, 2] > 0.3).mean())
    height = float(largest.box[3] - largest.box[1]) / picture.shape[0]
    return {"people": float(len(people)), "person_height": height, "person_seen": seen}
