"""One person through a video: who of each frame's people is the one of the frame before.

Letters: F frames. Judged by the overlap of boxes and the distance of keypoints; where the person was lost for some
frames, by a place that moves on as before and a tolerance that grows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ComoviError
from .people import Person, box_overlap, choose_people

LEAST_LIKENESS = 0.15  # of two people in neighbouring frames, 0..1
KEYPOINT_SPREAD = 0.12  # of the person's size: a keypoint that moved so far counts 0.6
GROWTH = 0.15  # of the person's size, per lost frame
LARGEST_CHANGE = 1.8  # of the size from one sighting to the next
LONGEST_MEMORY = 8  # lost frames over which the last speed is believed


@dataclass(frozen=True)
class Sighting:
    """Where the person was seen last, and how fast the box moved."""

    frame: int
    person: Person
    speed: np.ndarray  # (2,) pixels per frame


def follow_person(
    people: Sequence[Sequence[Person]],
    choice: str = "largest",
    *,
    index: int = 0,
    mask: np.ndarray | None = None,
    fit: Callable[[Person], bool] | None = None,
) -> list[Person | None]:
    """The people of each frame -> the chosen one in each, None where not seen.

    "largest" is whoever has the largest box of all frames, among those who are `fit` if there are any: three points
    anywhere in a picture span a large box. The other choices are made in the first frame that has enough people, and
    followed from there both ways.
    """
    start, first = _begin(people, choice, index, mask, fit)
    found: list[Person | None] = [None] * len(people)
    found[start] = first
    for order in (range(start + 1, len(people)), range(start - 1, -1, -1)):
        last = Sighting(start, first, np.zeros(2))
        for frame in order:
            best = _most_alike(last, frame, people[frame])
            if best is not None:
                found[frame] = best
                last = _seen_again(last, frame, best)
    return found


def _begin(
    people: Sequence[Sequence[Person]],
    choice: str,
    index: int,
    mask: np.ndarray | None,
    fit: Callable[[Person], bool] | None,
) -> tuple[int, Person]:
    if choice == "all":
        raise ComoviError('a video gives the motion of one person; choose who is meant instead of "all".')
    somebody = [frame for frame, those in enumerate(people) if those]
    if not somebody:
        raise ComoviError("no person was found in any frame of the video; give boxes, masks or keypoints.")
    if choice == "largest":
        everybody = [(frame, person) for frame in somebody for person in people[frame]]
        among = [one for one in everybody if fit(one[1])] if fit is not None else []
        return max(among or everybody, key=lambda one: one[1].area)
    enough = [frame for frame in somebody if len(people[frame]) > index] if choice != "mask" else somebody
    frame = enough[0] if enough else somebody[0]
    return frame, choose_people(people[frame], choice, index=index, mask=mask)[0]


def _most_alike(last: Sighting, frame: int, people: Sequence[Person]) -> Person | None:
    best = max(people, key=lambda person: likeness(last, frame, person), default=None)
    return None if best is None or likeness(last, frame, best) < LEAST_LIKENESS else best


def likeness(last: Sighting, frame: int, person: Person) -> float:
    """0..1: how much this person of this frame looks like the one seen last."""
    size, now = _size(last.person), _size(person)
    if max(size, now) > LARGEST_CHANGE * min(size, now):
        return 0.0
    lost = abs(frame - last.frame)
    moved = last.speed * np.sign(frame - last.frame) * min(lost, LONGEST_MEMORY)
    slack = GROWTH * (lost - 1) * size
    expected = last.person.box + np.tile(moved, 2) + slack * np.array([-1.0, -1, 1, 1])
    overlap = box_overlap(expected, person.box) if lost == 1 else _inside(expected, person.box)
    if last.person.keypoints is None or person.keypoints is None:
        return overlap
    both = (last.person.keypoints[:, 2] > 0) & (person.keypoints[:, 2] > 0)
    if both.sum() < 4:
        return overlap
    away = np.linalg.norm(person.keypoints[both, :2] - last.person.keypoints[both, :2] - moved, axis=1)
    spread = KEYPOINT_SPREAD * size * lost
    return 0.5 * overlap + 0.5 * float(np.exp(-0.5 * (away / spread) ** 2).mean())


def _inside(outer: np.ndarray, box: np.ndarray) -> float:
    """The share of a box that lies inside another one."""
    sides = np.minimum(outer[2:], box[2:]) - np.maximum(outer[:2], box[:2])
    return float(sides.clip(0).prod() / (box[2:] - box[:2]).prod())


def _seen_again(last: Sighting, frame: int, person: Person) -> Sighting:
    apart = (np.array(person.centre) - np.array(last.person.centre)) / (frame - last.frame)
    return Sighting(frame, person, 0.5 * last.speed + 0.5 * apart)


def _size(person: Person) -> float:
    return float(np.sqrt(person.area))
