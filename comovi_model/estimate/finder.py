"""Who is in a picture, without a file or a download: the network of finder_net.py looks twice.

First at the whole picture (and at the squares along it, where it is long): where are people? Then at every one of them
closely: where are the joints, and where exactly is the box? It learned from drawn people only, so it knows pictures
like ours; docs/estimate.md says how good it is. For photographs, boxes, masks or keypoints of a detector are better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .finder_net import SIDE, FinderNet, load_finder, read_boxes, read_keypoints
from .people import Person, box_overlap, check_picture, largest_first

MOST_PEOPLE = 16
THRESHOLD = 0.2  # of the score of the middle of a person, for a first guess
SURE = 0.4  # of the score after the close look: the geometric mean of the first score and of the surest keypoints
SUREST_POINTS = 8  # keypoints; the others may be hidden or cut off
SAME_PERSON = 0.6  # overlap of boxes from which two are the same person
PART_OF = 0.75  # share of a box inside a larger one from which it is a part of that person, seen in a smaller square
ROOM = 1.25  # side of the close look over the longer side of the box
LONG_PICTURE = 1.9  # longer over shorter side, from which squares along the picture are looked at as well
LEAST_SURE = 0.15  # keypoints below this count as not seen
FEWEST_POINTS = 4  # keypoints of a person: fewer are a stain that looked like one
GREY = 128  # what lies outside the picture


@dataclass(frozen=True)
class View:
    """A square of a picture: its middle and its side in pixels of the picture."""

    x: float
    y: float
    side: float

    def cut(self, picture: Image.Image) -> np.ndarray:
        """(128, 128, 3) uint8, smoothed where it shrinks, grey outside the picture."""
        canvas = Image.new("RGB", (SIDE, SIDE), (GREY, GREY, GREY))
        scale, left, top = SIDE / self.side, self.x - self.side / 2, self.y - self.side / 2
        u0, v0 = max(int(np.ceil(-left * scale)), 0), max(int(np.ceil(-top * scale)), 0)
        u1 = min(int(np.floor((picture.width - left) * scale)), SIDE)
        v1 = min(int(np.floor((picture.height - top) * scale)), SIDE)
        if u1 > u0 and v1 > v0:
            box = np.array([left + u0 / scale, top + v0 / scale, left + u1 / scale, top + v1 / scale])
            box = np.clip(box, 0, [picture.width, picture.height] * 2)
            part = picture.resize((u1 - u0, v1 - v0), Image.Resampling.BILINEAR, tuple(box.tolist()), reducing_gap=3.0)
            canvas.paste(part, (u0, v0))
        return np.array(canvas)

    def to_view(self, points: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of the picture -> pixels of the square."""
        return (points - [self.x, self.y]) * (SIDE / self.side) + SIDE / 2

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of the square -> pixels of the picture."""
        return (points - SIDE / 2) * (self.side / SIDE) + [self.x, self.y]


def whole_views(width: int, height: int) -> list[View]:
    """The whole picture in one square; along a long picture also squares that overlap by half."""
    short, long = min(width, height), max(width, height)
    views = [View(width / 2, height / 2, float(long))]
    if long > LONG_PICTURE * short:
        steps = int(np.ceil(2 * (long - short) / short))
        for place in np.linspace(short / 2, long - short / 2, min(steps, 12) + 1):
            views.append(View(place, height / 2, short) if width > height else View(width / 2, place, short))
    return views


def close_view(box: np.ndarray) -> View:
    """The square in which one person is looked at closely."""
    return View((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, ROOM * float(max(box[2] - box[0], box[3] - box[1])))


def network_input(square: np.ndarray, box: np.ndarray | None = None) -> Tensor:
    """Square (128, 128, 3) uint8 and the box (4,) of who is meant, in its pixels -> (4, 128, 128)."""
    out = torch.zeros(4, SIDE, SIDE)
    out[:3] = torch.from_numpy(np.ascontiguousarray(square)).permute(2, 0, 1).float() / 127.5 - 1
    if box is not None:
        x0, y0, x1, y1 = (int(v) for v in np.clip(np.round(box), 0, SIDE))
        out[3, y0:y1, x0:x1] = 1
    return out


def find_people(image: np.ndarray, *, network: FinderNet | None = None) -> list[Person]:
    """People of a picture (H, W, 3) uint8 with boxes and keypoints, the largest first; nobody is an empty list."""
    pixels = check_picture(image)
    network = load_finder() if network is None else network
    picture = Image.fromarray(pixels)
    with torch.inference_mode():
        rough = _look_around(network, picture)
        people = _look_closely(network, picture, rough) if rough else []
    sure = [one for one in people if one.seen() >= FEWEST_POINTS and one.score > SURE]
    return largest_first(_each_once(sure))


def with_keypoints(image: np.ndarray, people: Sequence[Person], *, network: FinderNet | None = None) -> list[Person]:
    """The given people with the keypoints that a close look at their boxes sees; boxes, masks and scores stay."""
    pixels = check_picture(image)
    network = load_finder() if network is None else network
    if not people:
        return []
    with torch.inference_mode():
        seen = _look_closely(network, Image.fromarray(pixels), people)
    return [replace(one, keypoints=close.keypoints) for one, close in zip(people, seen, strict=True)]


def _look_around(network: FinderNet, picture: Image.Image) -> list[Person]:
    """Boxes with scores, best first, each person once."""
    views = whole_views(picture.width, picture.height)
    seen = network(torch.stack([network_input(view.cut(picture)) for view in views]))
    people: list[Person] = []
    for number, view in enumerate(views):
        boxes, scores = read_boxes(seen, number, THRESHOLD, MOST_PEOPLE)
        for box, score in zip(boxes.numpy(), scores.tolist(), strict=True):
            if number and _cut_by_view(box, view, picture):
                continue  # a neighbouring square, or the whole picture, shows more of this person
            person = _person(view.to_picture(box.reshape(2, 2)).reshape(4), picture, score)
            if person is not None and not (number and _is_part(person, people)):
                people.append(person)
    return _each_once(people)[:MOST_PEOPLE]


def _is_part(person: Person, others: list[Person]) -> bool:
    """Whether the box lies mostly in the larger box of somebody already found."""
    for other in others:
        sides = np.minimum(person.box[2:], other.box[2:]) - np.maximum(person.box[:2], other.box[:2])
        if (sides > 0).all() and sides.prod() > PART_OF * person.area and other.area > person.area:
            return True
    return False


def _cut_by_view(box: np.ndarray, view: View, picture: Image.Image, slack: float = 3.0) -> bool:
    """Whether a box (4,) in pixels of the square touches a side of it behind which the picture goes on."""
    left, top = view.x - view.side / 2, view.y - view.side / 2
    more = (left > 1, top > 1, left + view.side < picture.width - 1, top + view.side < picture.height - 1)
    touches = (box[0] < slack, box[1] < slack, box[2] > SIDE - slack, box[3] > SIDE - slack)
    return any(a and b for a, b in zip(more, touches, strict=True))


def _look_closely(network: FinderNet, picture: Image.Image, rough: Sequence[Person]) -> list[Person]:
    """The same people with keypoints and better boxes."""
    people = []
    views = [close_view(person.box) for person in rough]
    squares = [
        network_input(view.cut(picture), view.to_view(person.box.reshape(2, 2)).reshape(4))
        for view, person in zip(views, rough, strict=True)
    ]
    seen = network(torch.stack(squares))
    points = read_keypoints(seen.keypoints).numpy().astype(np.float64)
    for number, (view, person) in enumerate(zip(views, rough, strict=True)):
        keypoints = np.concatenate([view.to_picture(points[number, :, :2]), points[number, :, 2:]], -1)
        inside = (keypoints[:, :2] >= 0).all(1) & (keypoints[:, :2] <= [picture.width, picture.height]).all(1)
        keypoints[~inside | (keypoints[:, 2] < LEAST_SURE)] = 0
        boxes, _ = read_boxes(seen, number, THRESHOLD, 1)
        box = view.to_picture(boxes[0].numpy().reshape(2, 2)).reshape(4) if len(boxes) else person.box
        score = float(np.sqrt(person.score * np.sort(keypoints[:, 2])[-SUREST_POINTS:].mean()))
        better = _person(box, picture, score, keypoints)
        people.append(better or Person(person.box, keypoints=keypoints, score=score))
    return people


def _person(box: np.ndarray, picture: Image.Image, score: float, keypoints: np.ndarray | None = None) -> Person | None:
    """A record with the box cut at the picture's edges, or None where nothing remains of it."""
    box = np.clip(box.astype(np.float64), 0, [picture.width, picture.height] * 2)
    if (box[2:] - box[:2]).min() < 3:
        return None
    return Person(box, keypoints=keypoints, score=score)


def _each_once(people: list[Person]) -> list[Person]:
    """Leaves out whoever overlaps a person with a better score too much."""
    kept: list[Person] = []
    for person in sorted(people, key=lambda person: -person.score):
        if all(box_overlap(person.box, other.box) < SAME_PERSON for other in kept):
            kept.append(person)
    return kept
