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
from .people import Person, check_picture
from .photo import (
    WAYS,
    Sources,
    by_keypoints,
    camera_for,
    estimated_camera,
    on_body,
    said_how,
    who_is_there,
    with_keypoints,
)
from .photo_camera import PhotoCamera
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
    lock_shape: bool = True
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
    followed = follow_person(everybody, settings.choice, index=settings.index, mask=settings.mask)
    seen = [number for number, person in enumerate(followed) if person is not None]
    camera = clip_camera(frames, sources, [person for person in followed if person is not None], body)
    size = check_picture(frames[0]).shape[:2]
    singles, failed = _estimated(frames, followed, seen, body, sources, way, camera, size, tell, people is not None)
    if not singles:
        raise ComoviError(f"in none of {len(seen)} frames with the person a pose could be read: {failed[-1]}")
    if len(singles) < len(frames):
        notes.append(f"the person was seen and read in {len(singles)} of {len(frames)} frames")
    crowd = max(len(those) for those in everybody)
    if crowd > 1:
        notes.append(f"up to {crowd} people are in a frame; one was followed")
    motion = assemble(singles, len(frames), body, fps, lock=settings.lock_shape)
    cleaned = clean_motion(motion, body, _cleaning(motion, settings))
    said = said_how(cleaned.motion, way, camera)
    return VideoEstimate(said, tuple(followed), way, (camera.how, *notes, *cleaned.report))


def _everybody(
    frames: Pictures,
    sources: Sources,
    way: str,
    people: Sequence[Sequence[Person]] | None,
    tell: _Steps,
) -> tuple[list[list[Person]], list[str]]:
    """The people of each frame; none where nobody is."""
    found: list[list[Person]] = []
    notes: dict[str, int] = {}
    for number, frame in enumerate(frames):
        picture = check_picture(frame)
        known = None if people is None else list(people[number])
        if known == []:
            found.append([])
        else:
            try:
                here = replace(sources, people=known)
                those, said = who_is_there(picture, here, way)
                if way == "keypoints":
                    those, more = with_keypoints(picture, those, here)
                    said = [*said, *more]
            except ComoviError as error:
                if len(frames) == 1:
                    raise
                those, said = [], [str(error)]
            if way == "camerahmr" and said:  # nobody seen: a whole frame is no place to follow somebody to
                those = []
            found.append(those)
            for note in said:
                notes[note] = notes.get(note, 0) + 1
        tell.step()
    return found, [f"{note} ({count} frames)" for note, count in notes.items()]


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
    seen: Sequence[int],
    body: BodyModel,
    sources: Sources,
    way: str,
    camera: PhotoCamera,
    size: tuple[int, int],
    tell: _Steps,
    given: bool,
) -> tuple[dict[int, BodyMotion], list[str]]:
    """Motions of one frame by frame number, and why others failed. given: others, not our finder, saw the people."""
    singles: dict[int, BodyMotion] = {}
    failed: list[str] = []
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
        return singles, failed
    for number in seen:
        person = followed[number]
        assert person is not None
        try:
            singles[number] = by_keypoints(person, size, body, camera).motion
        except ComoviError as error:  # too little of the person is seen in this frame
            failed.append(str(error))
        tell.step()
    return singles, failed


def assemble(
    singles: dict[int, BodyMotion], count: int, body: BodyModel, fps: float, *, lock: bool = True
) -> BodyMotion:
    """Motions of one frame (frame number -> motion) as one of `count` frames, with the median shape.

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
    """Counts two steps a frame, also where the second is skipped."""

    def __init__(self, on_progress: Progress | None, total: int):
        self.on_progress, self.total, self.done = on_progress, total, 0

    def step(self) -> None:
        self.done += 1
        if self.on_progress is not None:
            self.on_progress(self.done, self.total)
