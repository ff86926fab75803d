"""What there is to estimate from: the ways and their order, who is in a picture, their keypoints, and the lens.

Pictures are (H, W, 3) uint8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..body.motion import BodyMotion
from ..body.smpl import BodyModel
from ..camerahmr.estimator import CameraHMR
from ..errors import ComoviError
from .finder import find_people
from .finder import with_keypoints as look_closely
from .keypoint_lens import camera_from_keypoints
from .people import Person, all_within
from .photo_camera import PhotoCamera, photo_camera

WAYS = {
    "camerahmr": "CameraHMR, from your checkpoint",
    "mhr": "SAM 3D Body's people",
    "motion": "the imported motion",
    "keypoints": "keypoints, lifted and refined",
}
FEW_KEYPOINTS = 5


@dataclass(frozen=True)
class Sources:
    """What there is to estimate from. Everything is optional; keypoints of our own finder are always there."""

    estimator: CameraHMR | None = None
    pose_data: Mapping[str, Any] | None = None  # MHR_POSE_DATA
    motion: BodyMotion | None = None  # imported; its frame 0
    people: Sequence[Person] | None = None  # who is in the picture; None: our finder looks
    camera: PhotoCamera | None = None  # None: estimated, or a guess
    lens_from_keypoints: bool = False  # where no camera is given: read it from the keypoints, roughly
    chunk: int = 8  # crops that go through CameraHMR together
    finder: Callable[[np.ndarray], list[Person]] = field(default=find_people)
    no_picture: bool = False  # the picture stands for its size alone, so our finder must not look at it

    def way(self, wanted: str | None = None) -> str:
        """The first way of the order that is at hand, or the wanted one."""
        at_hand = {
            "camerahmr": self.estimator is not None,
            "mhr": self.pose_data is not None,
            "motion": self.motion is not None,
            "keypoints": True,
        }
        if wanted is None:
            return next(name for name, there in at_hand.items() if there)
        if wanted not in at_hand:
            raise ComoviError(f"there is no way {wanted!r} to estimate a pose; choose one of {', '.join(WAYS)}.")
        if not at_hand[wanted]:
            needs = {"camerahmr": "its checkpoint", "mhr": "pose data of SAM 3D Body", "motion": "a motion"}[wanted]
            raise ComoviError(f"the pose shall come from {WAYS[wanted]}, but {needs} is not given.")
        return wanted


def who_is_there(picture: np.ndarray, sources: Sources, way: str) -> tuple[list[Person], list[str]]:
    """The people of a picture, notes: those that are given, else those that our finder sees."""
    if sources.people is not None:
        if not sources.people:
            raise ComoviError("the boxes, masks or keypoints name nobody in this picture; leave them out to search it.")
        return all_within(sources.people, picture.shape[:2]), []
    people = sources.finder(picture)
    if people or way != "camerahmr":
        return people, []
    height, width = picture.shape[:2]
    whole = Person(np.array([0.0, 0.0, width, height]))
    return [whole], ["our finder sees nobody; the whole picture was taken for one person: draw a box or a mask."]


def readable(person: Person) -> bool:
    """Whether enough keypoints are seen for a body."""
    return person.seen() >= FEW_KEYPOINTS


def with_keypoints(picture: np.ndarray, people: Sequence[Person], sources: Sources) -> tuple[list[Person], list[str]]:
    """The same people, notes; of those who came with too few keypoints, our finder adds what it sees in their boxes.

    Refused where nobody has enough then.
    """
    bare = [one for one in people if not readable(one)]
    if not bare or sources.people is None or sources.no_picture:
        return list(people), []
    seen = iter(look_closely(picture, bare))
    full = [one if readable(one) else _completed(one, next(seen)) for one in people]
    if not any(map(readable, full)):
        raise ComoviError(
            "nobody was recognised in the boxes or masks, and a pose needs keypoints: connect a pose detector's "
            "keypoints (DWPose), SAM 3D Body, or a CameraHMR checkpoint."
        )
    helped = any(readable(one) and not readable(before) for one, before in zip(full, people, strict=True))
    return full, ["keypoints of our own finder were used inside the boxes or masks."] if helped else []


def _completed(person: Person, seen: Person) -> Person:
    """The person with the finder's keypoints where there were none: what others saw is worth more."""
    if person.keypoints is None or seen.keypoints is None:
        return seen
    return replace(person, keypoints=np.where(person.keypoints[:, 2:] > 0, person.keypoints, seen.keypoints))


def camera_for(picture: np.ndarray, sources: Sources, people: Sequence[Person], body: BodyModel) -> PhotoCamera:
    """Given, else from keypoints if that is wished, else by CameraHMR's network of the field of view, else a guess."""
    if sources.camera is not None:
        return sources.camera
    if sources.lens_from_keypoints:
        return camera_from_keypoints(people, picture.shape[:2], body)
    if sources.estimator is not None and sources.estimator.field_of_view is not None:
        return estimated_camera(sources.estimator.focal(picture), picture.shape[:2], "the picture")
    return photo_camera(picture.shape[:2])


def estimated_camera(focal_px: float, size: tuple[int, int], where: str) -> PhotoCamera:
    found = photo_camera(size, focal_px=focal_px)
    return replace(found, how=f"the field of view was estimated from {where}")
