"""One person's motion through a video: followed, estimated frame by frame, with one shape, mended and smoothed.

Letters: F frames of H x W pixels. The camera is one for the clip; it stays with the motion, so that motion map and
overlay lie on the video.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..body.cameras import Camera
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel, rest_joints
from ..clean.outliers import find_outliers
from ..clean.pipeline import CleanSettings, clean_motion
from ..clean.shape import median_betas
from ..errors import ComoviError
from .people import LEAST_SURE, NobodyError, Person, all_within, check_picture, doubt_note
from .photo import by_keypoints, on_body, said_how
from .photo_camera import PhotoCamera
from .sources import WAYS, Sources, camera_for, estimated_camera, readable, who_is_there, with_keypoints
from .tracking import follow_person

FOCAL_FRAMES = 5  # of the video, in which the field of view is looked at
LEGS = ((1, 4), (4, 7), (2, 5), (5, 8))  # bones that tell how tall a shape is
Progress = Callable[[int, int], None]
Pictures = Sequence[np.ndarray] | np.ndarray  # F of (H, W, 3) uint8


@dataclass(frozen=True)
class VideoSettings:
    """Who, and what is done with the raw poses."""

    choice: str = "largest"
    index: int = 0
    mask: np.ndarray | None = None  # (H, W), of the first frame
    way: str | None = None  # "camerahmr" or "keypoints"; None: the best at hand
    lock_shape: bool = True  # the median of all frames; False: the shape of the first frame
    outliers: bool = True
    longest_gap_seconds: float = 0.5
    steady_depth: bool = True
    smoothing: str = "savgol"
    strength: float = 0.5


@dataclass(frozen=True)
class VideoEstimate:
    motion: BodyMotion  # F frames, "camera"; not valid where nothing could be filled in
    people: tuple[Person | None, ...]  # F, who was followed
    way: str
    notes: tuple[str, ...]

    def report(self) -> list[str]:
        label = " (approximate)" if self.way == "keypoints" else ""
        return [f"made by: {WAYS[self.way]}{label}", *self.notes]


def estimate_video(
    frames: Pictures,
    body: BodyModel,
    sources: Sources | None = None,
    settings: VideoSettings | None = None,
    *,
    fps: float = 16.0,
    people: Sequence[Sequence[Person]] | None = None,
    on_progress: Progress | None = None,
) -> VideoEstimate:
    """Pictures (H, W, 3) uint8 of one size -> the motion of one person.

    people: those of every frame, if others know them; else our finder looks in each. on_progress(done, of) counts two
    steps a frame, looking and estimating; what it raises ends the work.
    """
    sources, settings = sources or Sources(), settings or VideoSettings()
    way = sources.way(settings.way)
    if way not in ("camerahmr", "keypoints"):
        raise ComoviError(f"{WAYS[way]} make no motion here; pose data of a video go through Pose Data to Body Motion.")
    if not len(frames):
        raise ComoviError("the video has no frames.")
    if people is not None and len(people) != len(frames):
        raise ComoviError(f"people of {len(people)} frames came for a video of {len(frames)}; give the same video.")
    tell = _Steps(on_progress, 2 * len(frames))
    everybody, notes = _everybody(frames, sources, way, people, tell)
    fit = readable if way == "keypoints" else None
    followed = follow_person(everybody, settings.choice, index=settings.index, mask=settings.mask, fit=fit)
    with_person = sum(person is not None for person in followed)
    tell.step(len(frames) - with_person)
    failed: list[ComoviError] = []
    if way == "keypoints" and people is not None:
        followed, said = _with_keypoints(frames, followed, sources, failed)
        notes += said
    camera = clip_camera(frames, sources, [person for person in followed if person is not None], body)
    size = check_picture(frames[0]).shape[:2]
    singles = _estimated(frames, followed, body, sources, way, camera, size, tell, failed, people is not None)
    tell.step(2 * len(frames) - tell.done)
    if not singles and len(frames) == 1:
        raise failed[-1]
    if not singles:
        raise ComoviError(f"in none of {with_person} frames with the person a pose could be read: {failed[-1]}")
    followed = [person if number in singles else None for number, person in enumerate(followed)]
    notes += _remarks(everybody, followed)
    motion = assemble(singles, len(frames), body, fps, lock=settings.lock_shape)
    cleaned = clean_motion(motion, body, _cleaning(motion, settings))
    motion = said_how(cleaned.motion, way, camera)
    return VideoEstimate(motion, tuple(followed), way, (camera.how, *notes, *cleaned.report))


def _remarks(everybody: Sequence[Sequence[Person]], followed: Sequence[Person | None]) -> list[str]:
    """Sentences about who was read (None where nobody was) among the people of each frame."""
    notes = []
    read = [person for person in followed if person is not None]
    if len(read) < len(followed):
        notes.append(f"the person was seen and read in {len(read)} of {len(followed)} frames")
    crowd = max(len(those) for those in everybody)
    if crowd > 1:
        notes.append(f"up to {crowd} people are in a frame; one was followed")
    unsure = sum(doubt_note(person) is not None for person in read)
    if unsure:
        notes.append(f"no keypoint is surer than {LEAST_SURE} in {unsure} frames: the surest of them were taken")
    return notes


def _everybody(
    frames: Pictures,
    sources: Sources,
    way: str,
    people: Sequence[Sequence[Person]] | None,
    tell: _Steps,
) -> tuple[list[list[Person]], list[str]]:
    """The people of each frame, notes; none where nobody is. A clip of one frame is treated as a photo."""
    if len(frames) == 1 and (people is None or people[0]):
        known = None if people is None else people[0]
        those, said = who_is_there(check_picture(frames[0]), replace(sources, people=known), way)
        tell.step()
        return [those], said
    found: list[list[Person]] = []
    refused: list[NobodyError] = []
    for number, frame in enumerate(frames):
        picture = check_picture(frame)
        try:
            found.append(sources.finder(picture) if people is None else all_within(people[number], picture.shape[:2]))
        except NobodyError as error:
            found.append([])
            refused.append(error)
        tell.step()
    if refused and not any(found):
        raise refused[0]
    empty = sum(not those for those in found) if people is None else 0
    notes = [f"our finder saw nobody in {empty} of {len(frames)} frames"] if empty else []
    return found, notes + ([f"nobody could be used in {len(refused)} frames: {refused[0]}"] if refused else [])


def _with_keypoints(
    frames: Pictures, followed: Sequence[Person | None], sources: Sources, failed: list[ComoviError]
) -> tuple[list[Person | None], list[str]]:
    """The followed person with keypoints in every frame, None where our finder sees too few as well, notes."""
    found: list[Person | None] = []
    notes: dict[str, int] = {}
    for number, person in enumerate(followed):
        if person is not None:
            try:
                here = replace(sources, people=[person])
                (person,), said = with_keypoints(check_picture(frames[number]), [person], here)
            except ComoviError as error:
                person, said = None, []
                failed.append(error)
            for note in said:
                notes[note] = notes.get(note, 0) + 1
        found.append(person)
    return found, [f"{note.rstrip('.')} ({count} of {len(frames)} frames)" for note, count in notes.items()]


def clip_camera(frames: Pictures, sources: Sources, views: Sequence[Person], body: BodyModel) -> PhotoCamera:
    """One camera for the clip: given, or the median of what some of its frames say."""
    first = check_picture(frames[0])
    network = None if sources.estimator is None else sources.estimator.field_of_view
    if sources.camera is not None or sources.lens_from_keypoints or network is None or sources.estimator is None:
        return camera_for(first, sources, views, body)
    some = np.unique(np.linspace(0, len(frames) - 1, min(FOCAL_FRAMES, len(frames))).round().astype(int))
    pixels = [sources.estimator.focal(check_picture(frames[number])) for number in some]
    return estimated_camera(float(np.median(pixels)), first.shape[:2], f"{len(some)} frames")


def _estimated(
    frames: Pictures,
    followed: Sequence[Person | None],
    body: BodyModel,
    sources: Sources,
    way: str,
    camera: PhotoCamera,
    size: tuple[int, int],
    tell: _Steps,
    failed: list[ComoviError],
    given: bool,
) -> dict[int, BodyMotion]:
    """Motions of one frame by frame number; `failed` gets the reasons of others. given: people are not our finder's."""
    singles: dict[int, BodyMotion] = {}
    seen = [number for number, person in enumerate(followed) if person is not None]
    if way == "camerahmr":
        estimator = sources.estimator
        assert estimator is not None
        for start in range(0, len(seen), sources.chunk):  # the pictures of a chunk only, not of the whole video
            part = seen[start : start + sources.chunk]
            boxes = [person.box for number in part if (person := followed[number]) is not None]
            views = [(check_picture(frames[number]), box) for number, box in zip(part, boxes, strict=True)]
            found = estimator.estimate_frames(views, camera.focal_px, chunk=sources.chunk)
            for number, motion in zip(part, found, strict=True):
                person = followed[number] if given else None
                singles[number] = on_body(motion, body, person)[0]
                tell.step()
        return singles
    for number in seen:
        person = followed[number]
        assert person is not None
        try:
            singles[number] = by_keypoints(person, size, body, camera).motion
        except ComoviError as error:  # too little of the person is seen in this frame
            failed.append(error)
        tell.step()
    return singles


def assemble(
    singles: dict[int, BodyMotion], count: int, body: BodyModel, fps: float, *, lock: bool = True
) -> BodyMotion:
    """Motions of one frame (frame number -> motion) as one of `count` frames, with the median shape; lock=False: with
    the shape of the first.

    A taller shape is put farther away, so that every body stays as large in the picture as it was. Frames without a
    pose repeat the one before and are not valid.
    """
    numbers = sorted(singles)
    betas = torch.stack([singles[number].betas for number in numbers])
    shape = median_betas(betas) if lock or len(numbers) == 1 else betas[0]
    joints = rest_joints(body, shape)
    tall = _leg(joints)
    places = []
    for number in numbers:
        one = singles[number]
        own = rest_joints(body, one.betas)
        places.append((own[0] + one.transl[0]) * float(tall / _leg(own)) - joints[0])
    nearest = torch.tensor([max(0, int(np.searchsorted(numbers, frame, "right")) - 1) for frame in range(count)])
    valid = torch.zeros(count, dtype=torch.bool)
    valid[numbers] = True
    first = singles[numbers[0]]
    camera = first.camera
    assert camera is not None
    return replace(
        first,
        rotations=torch.cat([singles[number].rotations for number in numbers])[nearest],
        betas=shape,
        transl=torch.stack(places)[nearest],
        camera=Camera(camera.K.reshape(-1, 3, 3)[0], camera.width, camera.height),
        fps=fps,
        valid=valid,
        source_index=torch.arange(count),
        provenance={key: value for key, value in first.provenance.items() if key != "square"},
    )


def _leg(joints: Tensor) -> Tensor:
    return torch.stack([(joints[a] - joints[b]).norm() for a, b in LEGS]).sum()


def _cleaning(motion: BodyMotion, settings: VideoSettings) -> CleanSettings:
    long = len(motion) > 2
    return CleanSettings(
        outliers=settings.outliers and long and bool(find_outliers(motion).count),
        fill=settings.longest_gap_seconds > 0 and motion.valid is not None and not bool(motion.valid.all()),
        max_gap_seconds=settings.longest_gap_seconds,
        steady_depth=settings.steady_depth and long,
        smoothing=settings.smoothing if long else "none",
        strength=settings.strength,
    )


class _Steps:
    """Counts two steps a frame, looking and estimating; the second also where it is skipped."""

    def __init__(self, on_progress: Progress | None, total: int):
        self.on_progress, self.total, self.done = on_progress, total, 0

    def step(self, count: int = 1) -> None:
        self.done += count
        if count and self.on_progress is not None:
            self.on_progress(self.done, self.total)
