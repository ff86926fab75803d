"""One photo: the bodies of the people in it, by the best way that is at hand.

In this order, each said in the result and the first two worth most: CameraHMR from the user's checkpoint; the people
that SAM 3D Body saw; an imported motion; keypoints, lifted and refined (approximate). An answer is one BodyMotion of
one frame per person, in the camera's frame, with the camera that motion map, overlay and export share.
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
from ..motion_io import for_body
from ..motion_io.mhr import motion_from_mhr
from .finder import find_people
from .finder import with_keypoints as look_closely
from .keypoint_fit import fit_keypoints
from .keypoint_lens import camera_from_keypoints
from .people import Person, check_picture, choose_people, crowd_note, cut_note, within_picture
from .photo_camera import PhotoCamera, photo_camera
from .settle import settled

WAYS = {
    "camerahmr": "CameraHMR, from your checkpoint",
    "mhr": "SAM 3D Body's people",
    "motion": "the imported motion",
    "keypoints": "keypoints, lifted and refined",
}
FEW_KEYPOINTS = 5

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Estimate:
    """One person: the body, and how it came about."""

    motion: BodyMotion  # one frame, "camera"
    way: str  # a key of WAYS
    person: Person | None = None  # where in the picture; None where the source does not say
    notes: tuple[str, ...] = ()

    @property
    def approximate(self) -> bool:
        """Made from keypoints alone: fair in the picture, unsure in depth and shape."""
        return self.way == "keypoints"

    @property
    def how(self) -> str:
        return WAYS[self.way] + (" (approximate)" if self.approximate else "")

    def report(self) -> list[str]:
        return [f"made by: {self.how}", *self.notes]


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


def estimate_photo(
    image: np.ndarray,
    body: BodyModel,
    sources: Sources | None = None,
    *,
    choice: str = "largest",
    index: int = 0,
    mask: np.ndarray | None = None,
    way: str | None = None,
    on_progress: Progress | None = None,
) -> list[Estimate]:
    """The chosen people of a picture (H, W, 3 or 4), one Estimate each; choice, index and mask as in people.py.

    on_progress(done, of) is called after every person; what it raises ends the work.
    """
    sources = sources or Sources()
    picture, chosen_way = check_picture(image), sources.way(way)
    if chosen_way == "mhr":
        return _from_pose_data(sources.pose_data, body, picture, choice, index, mask)
    if chosen_way == "motion":
        return [_imported(sources, body, picture)]
    people, notes = who_is_there(picture, sources, chosen_way)
    chosen = choose_people(people, choice, index=index, mask=mask)
    crowd = crowd_note(people, chosen)
    notes = [*notes, crowd] if crowd else notes
    if chosen_way == "camerahmr":
        made = _by_camerahmr(picture, chosen, body, sources, on_progress)
    else:
        chosen, said = with_keypoints(picture, chosen, sources)
        notes = [*notes, *said]
        made = _by_keypoints(picture, chosen, body, sources, on_progress)
    size = picture.shape[:2]
    cuts = [cut_note(person, size) for person in chosen]
    return [
        replace(one, notes=(*notes, *one.notes, *([cut] if cut else []))) for one, cut in zip(made, cuts, strict=True)
    ]


def who_is_there(picture: np.ndarray, sources: Sources, way: str) -> tuple[list[Person], list[str]]:
    """The people of a picture, notes: those that are given, else those that our finder sees."""
    if sources.people is not None:
        if not sources.people:
            raise ComoviError("the boxes, masks or keypoints name nobody in this picture; leave them out to search it.")
        return [within_picture(one, picture.shape[:2]) for one in sources.people], []
    people = sources.finder(picture)
    if people or way != "camerahmr":
        return people, []
    height, width = picture.shape[:2]
    whole = Person(np.array([0.0, 0.0, width, height]))
    return [whole], ["our finder sees nobody; the whole picture was taken for one person: draw a box or a mask."]


def with_keypoints(picture: np.ndarray, people: Sequence[Person], sources: Sources) -> tuple[list[Person], list[str]]:
    """The people of whom keypoints are seen, notes; those who came without get them from our finder."""
    bare = [one for one in people if one.seen() < FEW_KEYPOINTS]
    if not bare or sources.people is None:
        return list(people), []
    looked_at = iter(look_closely(picture, bare))
    full = [one if one.seen() >= FEW_KEYPOINTS else next(looked_at) for one in people]
    some = [one for one in full if one.seen() >= FEW_KEYPOINTS]
    if not some:
        raise ComoviError(
            "nobody was recognised in the boxes or masks, and a pose needs keypoints: connect a pose detector's "
            "keypoints (DWPose), SAM 3D Body, or a CameraHMR checkpoint."
        )
    return some, ["keypoints of our own finder were used inside the boxes or masks."]


def _by_camerahmr(
    picture: np.ndarray, people: Sequence[Person], body: BodyModel, sources: Sources, on_progress: Progress | None
) -> list[Estimate]:
    estimator = sources.estimator
    assert estimator is not None
    camera = camera_for(picture, sources, people, body)
    made = []
    for number, person in enumerate(people):
        (motion,) = estimator.estimate(picture, [person.box], camera.focal_px)
        motion, notes = on_body(motion, body, person if sources.people is not None else None)
        made.append(Estimate(said_how(motion, "camerahmr", camera), "camerahmr", person, (camera.how, *notes)))
        if on_progress is not None:
            on_progress(number + 1, len(people))
    return made


def on_body(motion: BodyMotion, body: BodyModel, person: Person | None) -> tuple[BodyMotion, list[str]]:
    """CameraHMR's answer on the body that is drawn, notes. One of another stature is settled on given keypoints."""
    ours, notes = for_body(motion, body)
    if bool(ours.betas.any()) or not bool(motion.betas.any()) or person is None:
        return ours, notes
    moved = settled(ours, body, person.keypoints)
    return moved, notes if moved is ours else [*notes, "it was moved so that it covers the keypoints"]


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


def _by_keypoints(
    picture: np.ndarray, people: Sequence[Person], body: BodyModel, sources: Sources, on_progress: Progress | None
) -> list[Estimate]:
    camera = camera_for(picture, replace(sources, estimator=None), people, body)
    made = []
    for number, person in enumerate(people):
        made.append(by_keypoints(person, picture.shape[:2], body, camera))
        if on_progress is not None:
            on_progress(number + 1, len(people))
    return made


def by_keypoints(person: Person, size: tuple[int, int], body: BodyModel, camera: PhotoCamera) -> Estimate:
    """One person from 18 keypoints; size (H, W) of the picture."""
    if person.keypoints is None or person.seen() < FEW_KEYPOINTS:
        raise ComoviError(
            f"{person.seen()} keypoints of the person are seen, at least {FEW_KEYPOINTS} are needed; take a picture "
            "that shows more of the body."
        )
    fit = fit_keypoints(person.keypoints, size, body, focal_px=camera.focal_px)
    residual = f"half of the keypoints are met within {fit.residual_px:.1f} px"
    return Estimate(said_how(fit.motion, "keypoints", camera), "keypoints", person, (camera.how, residual, *fit.notes))


def said_how(motion: BodyMotion, way: str, camera: PhotoCamera) -> BodyMotion:
    """The motion with the way in its provenance, so that a file can tell."""
    said = {"estimated_by": WAYS[way], "camera": camera.how}
    if way == "keypoints":
        said["approximate"] = "yes"
    return replace(motion, provenance={**motion.provenance, **said})


def _from_pose_data(
    data: Any, body: BodyModel, picture: np.ndarray, choice: str, index: int, mask: np.ndarray | None
) -> list[Estimate]:
    """People of SAM 3D Body, "index" in its own order; the other choices by their boxes in the picture."""
    frames = data.get("frames") if isinstance(data, Mapping) else None
    if not isinstance(frames, list) or not frames or not isinstance(frames[0], list) or not frames[0]:
        raise ComoviError("the pose data of SAM 3D Body hold nobody in this picture; it did not find a person.")
    count = len(frames[0])
    if choice == "index":
        chosen = [index]
        if not 0 <= index < count:
            raise ComoviError(f"person {index} is asked for, but SAM 3D Body saw {count}; count from 0.")
    else:
        boxes = [_box_of_record(record) for record in frames[0]]
        if all(box is None for box in boxes):
            chosen = list(range(count)) if choice == "all" else [0]
        else:
            people = [Person(np.array([0.0, 0, 2, 2]) if box is None else box) for box in boxes]
            picked = choose_people(people, choice, index=index, mask=mask)
            chosen = [next(number for number, one in enumerate(people) if one is some) for some in picked]
    made = []
    for number in chosen:
        motion, notes = motion_from_mhr({**data, "frames": frames[:1]}, body, fps=16.0, person=number)
        motion, said = with_camera_of(motion, picture.shape[:2])
        box = _box_of_record(frames[0][number])
        person = None if box is None else Person(box)
        made.append(Estimate(motion, "mhr", person, (*notes[1:], *said)))
    return made


def _box_of_record(record: Any) -> np.ndarray | None:
    box = record.get("bbox") if isinstance(record, Mapping) else None
    array = None if box is None else np.asarray(box, np.float64).ravel()
    return array if array is not None and array.shape == (4,) and np.isfinite(array).all() else None


def _imported(sources: Sources, body: BodyModel, picture: np.ndarray) -> Estimate:
    assert sources.motion is not None
    motion, notes = for_body(sources.motion.slice(0, 1), body)
    if motion.frame != "camera":
        raise ComoviError(
            f'the imported motion is in frame "{motion.frame}", so nothing says where it is in the picture; use Put '
            "Motion before Camera, or a motion that was estimated from this picture."
        )
    motion, said = with_camera_of(motion, picture.shape[:2])
    return Estimate(motion, "motion", None, (*notes, *said))


def with_camera_of(motion: BodyMotion, size: tuple[int, int]) -> tuple[BodyMotion, list[str]]:
    """The motion with a camera of the picture's size (H, W), notes; a motion without one gets a usual lens."""
    height, width = size
    if motion.camera is None:
        guess = photo_camera(size)
        return replace(motion, camera=guess.camera), [f"it came without a camera: {guess.how}"]
    camera = motion.camera
    if (camera.width, camera.height) == (width, height):
        return motion, []
    if abs(camera.width * height - camera.height * width) > 0.02 * camera.width * height:
        raise ComoviError(
            f"the pose was made for a picture of {camera.width}x{camera.height} pixels, and this one has {width}x"
            f"{height}, another shape; give the same picture."
        )
    return replace(motion, camera=camera.resized(width, height)), []
