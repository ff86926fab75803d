"""One photo: the bodies of the people in it, by the best way that is at hand.

In this order, each said in the result and the first two worth most: CameraHMR from the user's checkpoint; the people
that SAM 3D Body saw; an imported motion; keypoints, lifted and refined (approximate). An answer is one BodyMotion of
one frame per person, in the camera's frame, with the camera that motion map, overlay and export share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from ..body.motion import BodyMotion
from ..body.smpl import BodyModel
from ..errors import ComoviError
from ..motion_io import for_body
from ..motion_io.mhr import motion_from_mhr
from .keypoint_fit import fit_keypoints
from .people import SMALLEST_BOX, Person, check_picture, choose_people, crowd_note, cut_note, doubt_note
from .photo_camera import PhotoCamera, photo_camera
from .settle import settled
from .sources import FEW_KEYPOINTS, WAYS, Sources, camera_for, readable, who_is_there, with_keypoints

Entry = TypeVar("Entry")
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


Reader = Callable[[Person], Estimate]


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
        return _from_pose_data(sources, body, picture, choice, index, mask)
    if chosen_way == "motion":
        return [_imported(sources, body, picture)]
    people, notes = who_is_there(picture, sources, chosen_way)
    chosen = choose_people(people, choice, index=index, mask=mask)
    crowd = crowd_note(people, chosen)
    notes = [*notes, crowd] if crowd else notes
    if chosen_way == "camerahmr":
        read = _by_camerahmr(picture, chosen, body, sources)
    else:
        chosen, said = with_keypoints(picture, chosen, sources)
        notes = [*notes, *said]
        read = _by_keypoints(picture, chosen, body, sources)
    made, left_out = each_readable(chosen, read, on_progress)
    notes = [*notes, *left_out]
    return [replace(one, notes=(*notes, *one.notes, *_warnings(one.person, picture.shape[:2]))) for one in made]


def _warnings(person: Person | None, size: tuple[int, int]) -> list[str]:
    said = [] if person is None else [cut_note(person, size), doubt_note(person)]
    return [note for note in said if note]


def each_readable(
    entries: Sequence[Entry], read: Callable[[Entry], Estimate], on_progress: Progress | None = None
) -> tuple[list[Estimate], list[str]]:
    """read(entry) of each person, in that order, and notes that name those of whom no body can be read.

    Refused, with the first one's reason, where nobody can be read.
    """
    made, left_out, refusal = [], [], None
    for number, entry in enumerate(entries):
        try:
            made.append(read(entry))
        except ComoviError as error:
            refusal = refusal or error
            left_out.append(f"person {number} of {len(entries)}, counted from 0, was left out: {error}")
        if on_progress is not None:
            on_progress(number + 1, len(entries))
    if refusal is not None and not made:
        raise refusal
    return made, left_out


def _by_camerahmr(picture: np.ndarray, people: Sequence[Person], body: BodyModel, sources: Sources) -> Reader:
    estimator = sources.estimator
    assert estimator is not None
    camera = camera_for(picture, sources, people, body)

    def read(person: Person) -> Estimate:
        (motion,) = estimator.estimate(picture, [person.box], camera.focal_px)
        motion, notes = on_body(motion, body, person if sources.people is not None else None)
        return Estimate(said_how(motion, "camerahmr", camera), "camerahmr", person, (camera.how, *notes))

    return read


def on_body(motion: BodyMotion, body: BodyModel, person: Person | None) -> tuple[BodyMotion, list[str]]:
    """CameraHMR's answer on the body that is drawn, notes. One of another stature is settled on given keypoints."""
    ours, notes = for_body(motion, body)
    if bool(ours.betas.any()) or not bool(motion.betas.any()) or person is None:
        return ours, notes
    moved = settled(ours, body, person.keypoints)
    return moved, notes if moved is ours else [*notes, "it was moved so that it covers the keypoints"]


def _by_keypoints(picture: np.ndarray, people: Sequence[Person], body: BodyModel, sources: Sources) -> Reader:
    camera = camera_for(picture, replace(sources, estimator=None), people, body)
    return lambda person: by_keypoints(person, picture.shape[:2], body, camera)


def by_keypoints(person: Person, size: tuple[int, int], body: BodyModel, camera: PhotoCamera) -> Estimate:
    """One person from 18 keypoints; size (H, W) of the picture."""
    if person.keypoints is None or not readable(person):
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
    sources: Sources, body: BodyModel, picture: np.ndarray, choice: str, index: int, mask: np.ndarray | None
) -> list[Estimate]:
    """People of SAM 3D Body, "index" in its own order; the other choices by their boxes in the picture."""
    data = sources.pose_data
    frames = data.get("frames") if isinstance(data, Mapping) else None
    if not isinstance(frames, list) or not frames or not isinstance(frames[0], list) or not frames[0]:
        raise ComoviError("the pose data of SAM 3D Body hold nobody in this picture; it did not find a person.")
    assert data is not None
    numbers, remarks = _chosen_records(frames[0], choice, index, mask)

    def read(number: int) -> Estimate:
        motion, notes = motion_from_mhr({**data, "frames": frames[:1]}, body, fps=16.0, person=number)
        motion, said = with_camera_of(motion, picture.shape[:2], sources.camera)
        box = _box_of_record(frames[0][number])
        return Estimate(motion, "mhr", None if box is None else Person(box), (*notes[1:], *said))

    made, left_out = each_readable(numbers, read)
    return [replace(one, notes=(*remarks, *one.notes, *left_out)) for one in made]


def _chosen_records(
    records: Sequence[Any], choice: str, index: int, mask: np.ndarray | None
) -> tuple[list[int], list[str]]:
    """Which people of SAM 3D Body are meant, by their numbers, notes. Whoever has no box is only found by number."""
    count = len(records)
    boxes = [_box_of_record(record) for record in records]
    boxed = {number: Person(box) for number, box in enumerate(boxes) if box is not None}
    if choice == "index" or (choice == "left to right" and count == 1):
        if not 0 <= index < count:
            raise ComoviError(f"person {index} is asked for, but SAM 3D Body saw {count}; count from 0.")
        return [index], []
    if boxed:
        picked = choose_people(list(boxed.values()), choice, index=index, mask=mask)
        chosen = [number for some in picked for number, one in boxed.items() if one is some]
        bare = [number for number in range(count) if number not in boxed]
        return chosen + (bare if choice == "all" else []), []
    if choice == "all" or count == 1:
        return list(range(count)), []
    if choice != "largest":
        raise ComoviError(
            f"the pose data of SAM 3D Body do not say where its {count} people are (bbox), so nobody can be chosen by "
            f'"{choice}"; choose by "index".'
        )
    return [0], [f"the pose data do not say where their {count} people are; the first was taken"]


def _box_of_record(record: Any) -> np.ndarray | None:
    box = record.get("bbox") if isinstance(record, Mapping) else None
    array = np.zeros(0) if box is None else np.asarray(box, np.float64).ravel()
    usable = array.shape == (4,) and np.isfinite(array).all() and (array[2:] - array[:2] >= SMALLEST_BOX).all()
    return array if usable else None


def _imported(sources: Sources, body: BodyModel, picture: np.ndarray) -> Estimate:
    assert sources.motion is not None
    motion, notes = for_body(sources.motion.slice(0, 1), body)
    if motion.frame != "camera":
        raise ComoviError(
            f'the imported motion is in frame "{motion.frame}", so nothing says where it is in the picture; use Put '
            "Motion before Camera, or a motion that was estimated from this picture."
        )
    motion, said = with_camera_of(motion, picture.shape[:2], sources.camera)
    return Estimate(motion, "motion", None, (*notes, *said))


def with_camera_of(
    motion: BodyMotion, size: tuple[int, int], given: PhotoCamera | None = None
) -> tuple[BodyMotion, list[str]]:
    """The motion with a camera of the picture's size (H, W), notes; one without gets the given one, or a usual lens."""
    height, width = size
    if motion.camera is None:
        taken = given or photo_camera(size)
        return replace(motion, camera=taken.camera), [f"it came without a camera: {taken.how}"]
    camera = motion.camera
    if (camera.width, camera.height) == (width, height):
        return motion, []
    if abs(camera.width * height - camera.height * width) > 0.02 * camera.width * height:
        raise ComoviError(
            f"the pose was made for a picture of {camera.width}x{camera.height} pixels, and this one has {width}x"
            f"{height}, another shape; give the same picture."
        )
    return replace(motion, camera=camera.resized(width, height)), []
