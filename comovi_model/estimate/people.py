"""Who is in the picture: one record per person, and which of them is meant.

Boxes are left, top, right, bottom in pixels of the picture, measured from its outer corner. Keypoints are the 18 of
OpenPose in its order, each x, y in pixels and a confidence from 0 (not seen) to 1. Sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..camerahmr.crop import box_of_mask
from ..errors import ComoviError
from .packed_mask import PackedMask

KEYPOINT_NAMES = (
    "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle", "right eye", "left eye",
    "right ear", "left ear",
)  # fmt: skip
NUM_KEYPOINTS = len(KEYPOINT_NAMES)
CHOICES = ("largest", "index", "left to right", "mask", "all")
SMALLEST_PICTURE = 16  # pixels of a side; a person in less cannot be told from a stain
SMALLEST_BOX = 2.0  # pixels of a side
LEAST_SURE = 0.3  # confidence of a keypoint that counts as seen; the nodes of DWPose and SDPose draw those above it


Entry = TypeVar("Entry")
Found = TypeVar("Found")


class NobodyError(ComoviError):
    """What was given for one picture names nobody who can be used. In a video the other frames may be good."""


@dataclass(frozen=True)
class Person:
    """One person of one picture. `score` is how sure the finder is, 1 where nobody doubts it."""

    box: np.ndarray  # (4,) float64
    mask: np.ndarray | PackedMask | None = None  # (H, W) bool
    keypoints: np.ndarray | None = None  # (18, 3) float64
    score: float = 1.0

    def __post_init__(self) -> None:
        box = np.asarray(self.box, np.float64)
        if box.shape != (4,):
            raise ComoviError(f"a box must be left, top, right, bottom in pixels, got {_shape(box)} numbers.")
        if not np.isfinite(box).all():
            raise NobodyError(f"the box {_text(box)} holds numbers that are not finite; give pixels.")
        if box[2] - box[0] < SMALLEST_BOX or box[3] - box[1] < SMALLEST_BOX:
            raise NobodyError(f"the box {_text(box)} is empty; expected left, top, right, bottom in pixels.")
        object.__setattr__(self, "box", box)
        if self.mask is not None:
            mask = self.mask if isinstance(self.mask, PackedMask) else np.asarray(self.mask)
            if len(mask.shape) != 2:
                raise ComoviError(f"the mask of a person must be (height, width), got {mask.shape}.")
            object.__setattr__(self, "mask", mask.astype(bool, copy=False) if isinstance(mask, np.ndarray) else mask)
        if self.keypoints is not None:
            object.__setattr__(self, "keypoints", clean_keypoints(self.keypoints))
        object.__setattr__(self, "score", float(self.score))

    @property
    def area(self) -> float:
        """Of the box, in pixels²."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))

    @property
    def centre(self) -> tuple[float, float]:
        return float(self.box[0] + self.box[2]) / 2, float(self.box[1] + self.box[3]) / 2

    def seen(self) -> int:
        """How many keypoints have any confidence."""
        return 0 if self.keypoints is None else int((self.keypoints[:, 2] > 0).sum())


def clean_keypoints(keypoints: np.ndarray) -> np.ndarray:
    """(18, 3) float64 with confidences within 0..1; a point that is not finite, or not seen, becomes 0, 0, 0."""
    points = np.array(keypoints, np.float64)
    if points.shape != (NUM_KEYPOINTS, 3):
        raise ComoviError(f"keypoints must be {NUM_KEYPOINTS} rows of x, y, confidence, got {points.shape}.")
    points[:, 2] = np.clip(np.nan_to_num(points[:, 2], nan=0.0), 0, 1)
    points[~np.isfinite(points[:, :2]).all(1) | (points[:, 2] <= 0)] = 0
    return points


def within_picture(person: Person, size: tuple[int, int]) -> Person:
    """The same person with the box cut at the edges of the picture; refused where nothing of it is inside."""
    height, width = size
    box = person.box
    if box[2] <= 0 or box[3] <= 0 or box[0] >= width or box[1] >= height:
        raise NobodyError(
            f"the box {_text(box)} lies outside the picture of {width}x{height} pixels; was it made for a picture of "
            "another size?"
        )
    if person.mask is not None and person.mask.shape != (height, width):
        given = person.mask.shape
        raise ComoviError(
            f"the mask is {given[1]}x{given[0]} pixels and the picture {width}x{height}; resize the mask."
        )
    low, high = np.zeros(4), np.array([width, height, width, height], np.float64)
    return Person(np.clip(box, low, high), person.mask, person.keypoints, person.score)


def whoever_is_usable(entries: Iterable[Entry], read: Callable[[Entry], Found]) -> list[Found]:
    """read(entry) of each, without those who name nobody (an empty box, a place outside the picture).

    Where nobody remains, the first of them says why.
    """
    people: list[Found] = []
    refusal: NobodyError | None = None
    for entry in entries:
        try:
            people.append(read(entry))
        except NobodyError as error:
            refusal = refusal or error
    if refusal is not None and not people:
        raise refusal
    return people


def all_within(people: Iterable[Person], size: tuple[int, int]) -> list[Person]:
    """Those of whom something is inside the picture (H, W), cut at its edges."""
    return whoever_is_usable(people, lambda person: within_picture(person, size))


def check_picture(pixels: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 from 1, 3 or 4 channels, uint8 or 0..1; transparency is laid on white."""
    array = pixels.detach().cpu().numpy() if hasattr(pixels, "detach") else np.asarray(pixels)
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ComoviError(f"a picture must be (height, width, 3 channels), got {_shape(array)}; give one picture.")
    height, width = array.shape[:2]
    if min(height, width) < SMALLEST_PICTURE:
        raise ComoviError(
            f"the picture is {width}x{height} pixels, too small to hold a person; give at least "
            f"{SMALLEST_PICTURE}x{SMALLEST_PICTURE}, better 256 or more."
        )
    if array.dtype != np.uint8:
        if not np.isfinite(array).all():
            raise ComoviError("the picture holds values that are not finite numbers; the node before it went wrong.")
        array = np.clip(array, 0, 1) * 255
    if array.shape[2] == 4:
        alpha = array[..., 3:].astype(np.float32) / 255
        array = array[..., :3] * alpha + 255 * (1 - alpha)
    if array.dtype != np.uint8:
        array = (array + 0.5).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(array, (height, width, 3)))


def largest_first(people: Sequence[Person]) -> list[Person]:
    """By the area of their boxes."""
    return sorted(people, key=lambda person: -person.area)


def choose_people(
    people: Sequence[Person], choice: str = "largest", *, index: int = 0, mask: np.ndarray | None = None
) -> list[Person]:
    """Who is meant.

    "largest": the largest box, as the paper's data were made. "index": number `index` in the order given. "left to
    right": number `index` from the left. "mask": whoever the mask (H, W) covers best. "all": everybody, from the left.
    """
    if choice not in CHOICES:
        raise ComoviError(f"who is meant is {choice!r}; choose one of {', '.join(CHOICES)}.")
    if not people:
        raise ComoviError("no person was found in the picture; draw a box or a mask around the person.")
    from_left = sorted(people, key=lambda person: person.centre[0])
    if choice == "all":
        return from_left
    if choice == "largest":
        return largest_first(people)[:1]
    if choice == "mask":
        return [_under_mask(people, mask)]
    if not 0 <= index < len(people):
        count = "1 person was" if len(people) == 1 else f"{len(people)} people were"
        raise ComoviError(f"person {index} is asked for, but {count} found; count from 0 to {len(people) - 1}.")
    return [(people if choice == "index" else from_left)[index]]


def _under_mask(people: Sequence[Person], mask: np.ndarray | None) -> Person:
    """The person whose box (or mask) has the best overlap (intersection over union) with the mask's box (or mask)."""
    if mask is None:
        raise ComoviError('choosing by mask needs a mask; connect one, or choose "largest".')
    mask = np.asarray(mask).astype(bool)
    meant = Person(np.array(box_of_mask(mask)), mask)

    def overlap(person: Person) -> float:
        if person.mask is not None and person.mask.shape == mask.shape:
            own = np.asarray(person.mask)
            return float((own & mask).sum() / max((own | mask).sum(), 1))
        return box_overlap(person.box, meant.box)

    best = max(people, key=overlap)
    if overlap(best) <= 0:
        raise ComoviError("nobody that was found lies under the mask; paint the mask over the person.")
    return best


def box_overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    if (sides <= 0).any():
        return 0.0
    common = float(sides.prod())
    return common / (float((first[2:] - first[:2]).prod()) + float((second[2:] - second[:2]).prod()) - common)


def crowd_note(people: Sequence[Person], chosen: Sequence[Person]) -> str | None:
    """A sentence for the user where more people are in the picture than were taken."""
    if len(people) <= len(chosen):
        return None
    return f"{len(people)} people were found and {len(chosen)} taken; choose another by index, side or mask."


def doubt_note(person: Person) -> str | None:
    """A sentence for the user where a detector is unsure of every keypoint of the person."""
    best = 0.0 if person.keypoints is None else float(person.keypoints[:, 2].max())
    if best <= 0 or best >= LEAST_SURE:
        return None
    return f"No keypoint is surer than {best:.2f}: those at least half as sure as the best were taken."


def cut_note(person: Person, size: tuple[int, int], margin: float = 0.01) -> str | None:
    """A sentence for the user where the picture shows only a part of the person: by keypoints, else by the box."""
    if person.keypoints is not None:
        missing = _missing_limbs(person.keypoints)
        return f"The {' and '.join(missing)} cannot be seen, so that part of the pose is a guess." if missing else None
    height, width = size
    box, slack = person.box, margin * max(size)
    names = ("left", "upper", "right", "lower")
    near = (box[0] <= slack, box[1] <= slack, box[2] >= width - slack, box[3] >= height - slack)
    edges = [name for name, is_near in zip(names, near, strict=True) if is_near]
    if not edges:
        return None
    return f"The person reaches the {' and '.join(edges)} edge of the picture; what is cut off is a guess."


def _missing_limbs(keypoints: np.ndarray) -> list[str]:
    limbs = {"head": (0, 14, 15, 16, 17), "arms": (3, 4, 6, 7), "legs": (9, 10, 12, 13)}
    return [name for name, points in limbs.items() if (keypoints[list(points), 2] > 0).sum() * 2 < len(points)]


def _shape(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape)) or "one number"


def _text(box: np.ndarray) -> str:
    return "(" + ", ".join(f"{number:g}" for number in box) + ")"
