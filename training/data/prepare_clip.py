"""One video and its poses -> clips: pictures, motion map, first frames and poses that lie on one time base.

F frames, H x W pixels of a clip. The map is drawn at the clip's size from the smoothed poses, through a camera into
which the crop is folded; it is stored without loss, because a lossy codec moves its hard edges by up to 169 levels.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...comovi_model.body.body_files import ASSETS
from ...comovi_model.body.cameras import Camera, project
from ...comovi_model.body.map_colours import to_uint8
from ...comovi_model.body.map_render import iter_motion_map
from ...comovi_model.body.motion import BodyMotion
from ...comovi_model.body.smpl import BodyModel, pose_joints
from ...comovi_model.clean.time_base import exact_fps
from ...comovi_model.errors import ComoviError
from ...comovi_model.files import atomic_folder, require_file
from ...comovi_model.images import write_image
from ...comovi_model.video import write_video
from .buckets import Bucket, choose_bucket, parse_bucket
from .crop import Window, camera_through, cover, picture_through
from .manifest import Clip
from .poses import SMOOTHINGS, cleaned, load_body, of_frames, on_video, read_poses
from .timing import clip_starts, pick
from .video import LOSSLESS, VideoFacts, read_all, read_frames, scan_video, write_lossless

RENDERER = 1  # raise it when the same motion is drawn differently
LEAST_COVER = 0.001  # of the first motion map; less means that the camera of the poses is not that of the video


@dataclass(frozen=True)
class PrepareSettings:
    """What clips are made like. Every field is part of the cache's fingerprint."""

    sizes: tuple[str, ...] = ("81x704x1280",)  # frames x height x width; each video takes the nearest shape
    fps: str = "16"
    clips_per_video: int = 2  # as in the paper; 0 takes all that fit
    hold_last: int = 0  # frames that may repeat the last one where a video is a little too short
    crop: str = "centre"  # centre | person: where a picture of another shape is cut
    smoothing: str = "paper"
    strength: float = 0.5  # of smoothings other than the paper's
    gap_seconds: float = 0.5  # gaps between poses that are filled
    body: str = ""  # "" the mannequin, "nano", or a file
    shading: str = "phong_reference"
    samples: int = 1  # of the map per pixel and direction, averaged; the released maps have 1, the nano model's 2
    focal_px: float = 0.0  # for pose files without a camera; 0 refuses those
    crf: int = 12  # of the stored pictures (H.264); 0 stores them without loss
    least_in_picture: float = 0.0  # share of joints that must be in the picture; 0 only notes the score

    def __post_init__(self) -> None:
        if not self.sizes:
            raise ComoviError("at least one size of clips is needed, as 81x704x1280.")
        for size in self.sizes:
            parse_bucket(size)
        exact_fps(self.fps)
        if self.smoothing not in SMOOTHINGS:
            raise ComoviError(f"unknown smoothing {self.smoothing!r}; choose one of {', '.join(SMOOTHINGS)}.")
        if self.crop not in ("centre", "person"):
            raise ComoviError(f"crop is {self.crop!r}; choose centre or person.")
        if min(self.clips_per_video, self.hold_last) < 0:
            raise ComoviError(
                f"clips per video and frames to hold must be at least 0, got {self.clips_per_video} and "
                f"{self.hold_last}."
            )
        if not 0 <= self.crf <= 51:
            raise ComoviError(f"crf must lie between 0 (no loss) and 51, got {self.crf}.")
        if not 1 <= self.samples <= 4:
            raise ComoviError(f"samples must lie between 1 and 4, got {self.samples}.")

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        return tuple(parse_bucket(size) for size in self.sizes)


PRESETS = {
    "paper": PrepareSettings(),
    "480p": PrepareSettings(sizes=("81x480x832", "81x832x480")),
    "nano": PrepareSettings(sizes=("33x192x128",), clips_per_video=0, crop="person", body="nano", samples=2, crf=0),
}


@dataclass(frozen=True)
class VideoJob:
    """One video to make clips of."""

    id: str
    video: Path
    poses: Path
    text: tuple[str, ...]
    starts: tuple[Fraction, ...] | None = None  # seconds; None cuts clips from the beginning on
    texts: tuple[tuple[str, ...], ...] = ()  # one per start, where not all clips have the same sentences
    licence: str = ""


@dataclass(frozen=True)
class Refused:
    """A clip, or a whole video, that could not be made, and why."""

    id: str
    source: str
    reason: str


@dataclass(frozen=True)
class VideoClips:
    """What became of a video."""

    clips: tuple[Clip, ...]
    refused: tuple[Refused, ...]


def settings_record(settings: PrepareSettings) -> dict[str, Any]:
    """The settings with what stands behind their names, for comparing one run with another."""
    record = asdict(settings)
    record["sizes"] = sorted(settings.sizes)
    record["body"] = body_hash(settings.body)
    record["renderer"] = RENDERER
    return record


def body_hash(name: str) -> str:
    """16 digits that tell bodies apart (poses.load_body has the names)."""
    file = {"": ASSETS / "mannequin.safetensors", "nano": ASSETS / "nano_body.safetensors"}.get(name, Path(name))
    return hashlib.sha256(require_file(file, "body model").read_bytes()).hexdigest()[:16]


def prepare_video(job: VideoJob, settings: PrepareSettings, out: Path) -> VideoClips:
    """Write the clips of one video under out/clips; raises ComoviError where nothing can be made of it."""
    facts = scan_video(job.video)
    read = read_poses(job.poses, facts.time.rate)
    body = load_body(settings.body)
    motion = cleaned(on_video(read, facts.time), body, settings.smoothing, settings.strength, settings.gap_seconds)
    motion = _with_camera(motion, facts, settings.focal_px)
    bucket, fps = choose_bucket(settings.buckets, facts.width, facts.height), exact_fps(settings.fps)
    starts = job.starts
    if starts is None:
        starts = tuple(clip_starts(facts.time, bucket.frames, fps, settings.clips_per_video, settings.hold_last))
        if not starts:
            pick(facts.time, bucket.frames, Fraction(0), fps, settings.hold_last)  # says why
    clips, refused = [], []
    for number, start in enumerate(starts):
        name = f"{job.id}-{number:02d}"
        try:
            picked = pick(facts.time, bucket.frames, start, fps, settings.hold_last)
            job = replace(job, text=job.texts[number]) if job.texts else job
            clips.append(_make_clip(job, name, facts, of_frames(motion, picked, fps), picked, bucket, settings, out))
        except ComoviError as error:
            if "cannot write" in str(error):
                raise
            refused.append(Refused(name, str(job.video), str(error)))
    return VideoClips(tuple(clips), tuple(refused))


def _with_camera(motion: BodyMotion, facts: VideoFacts, focal_px: float) -> BodyMotion:
    """The motion with the camera of the upright video; one that was made for another shape does not belong to it."""
    camera = motion.camera
    if focal_px > 0:
        return replace(motion, camera=Camera.from_focal(focal_px, facts.width, facts.height))
    if camera is None:
        raise ComoviError("the pose file has no camera; give the focal length of the video in pixels (--focal-px).")
    if abs(camera.width * facts.height - camera.height * facts.width) > 0.02 * camera.width * facts.height:
        raise ComoviError(
            f"the poses were seen in pictures of {camera.width}x{camera.height}, and the video is "
            f"{facts.width}x{facts.height}: another shape; were they estimated in this video?"
        )
    return motion


def _make_clip(
    job: VideoJob,
    name: str,
    facts: VideoFacts,
    motion: BodyMotion,
    picked: list[int],
    bucket: Bucket,
    settings: PrepareSettings,
    out: Path,
) -> Clip:
    body = load_body(settings.body)
    assert motion.camera is not None
    source = (facts.width, facts.height)
    places = _joint_places(body, motion, camera_through(Window(0, 0, 1, *source), motion.camera, source))
    window = cover(source, bucket.width, bucket.height, _middle(places) if settings.crop == "person" else None)
    motion = replace(motion, camera=camera_through(window, motion.camera, source))
    scores = _scores(body, motion, window, places)
    if scores["in_picture"] < settings.least_in_picture:
        raise ComoviError(
            f"{scores['in_picture']:.0%} of the joints are in the picture, {settings.least_in_picture:.0%} are wanted."
        )
    motion_map = draw(body, motion, bucket.height, bucket.width, settings)
    covered = float((motion_map[0] != motion_map[0, 0, 0]).any(-1).mean())
    if covered < LEAST_COVER:
        raise ComoviError(
            f"the body covers {covered:.2%} of the first picture; are the poses and their camera those of this video?"
        )
    pictures = np.stack([picture_through(window, picture) for picture in read_frames(facts.path, picked)])
    folder, fps = out / "clips" / name, motion.fps
    rgb, drawn = ("rgb.mp4" if settings.crf else f"rgb{LOSSLESS}"), f"motion{LOSSLESS}"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    with atomic_folder(folder) as temporary:
        if settings.crf:
            write_video(temporary / rgb, pictures, fps, crf=settings.crf)
        else:
            write_lossless(temporary / rgb, pictures, exact_fps(fps))
        write_lossless(temporary / drawn, motion_map, exact_fps(fps))
        write_image(temporary / "first_frame.png", read_all(temporary / rgb)[0])  # what training will see
        write_image(temporary / "first_map.png", motion_map[0])
        motion.save(temporary / "smpl.npz")
    return Clip(
        id=name,
        rgb=folder / rgb,
        motion=folder / drawn,
        smpl=folder / "smpl.npz",
        first_frame=folder / "first_frame.png",
        motion_first_frame=folder / "first_map.png",
        text=job.text,
        frames=bucket.frames,
        size=(bucket.width, bucket.height),
        fps=exact_fps(fps),
        source=str(job.video),
        source_index=tuple(picked),
        filters=scores,
        licence=job.licence,
    )


def draw(body: BodyModel, motion: BodyMotion, height: int, width: int, settings: PrepareSettings) -> np.ndarray:
    """The motion map (F, H, W, 3) uint8 of a motion with the clip's camera."""
    s = settings.samples
    groups = []
    for group in iter_motion_map(body, motion, height * s, width * s, settings.shading):
        if s > 1:
            group = group.unflatten(2, (width, s)).unflatten(1, (height, s)).mean((2, 4))
        groups.append(to_uint8(group))
    return torch.cat(groups).numpy()


def _joint_places(body: BodyModel, motion: BodyMotion, camera: Camera) -> np.ndarray:
    """Where the joints are, (F, 24, 2) pixels; NaN behind the camera."""
    joints = pose_joints(body, motion.rotations, motion.betas, motion.transl)
    places = project(joints, camera.K)
    return torch.where(joints[..., 2:] > 0.1, places, torch.nan).double().numpy()


def _middle(places: np.ndarray) -> tuple[float, float]:
    """The middle of the box round all joints of the clip."""
    seen = places[np.isfinite(places).all(-1)]
    if not len(seen):
        raise ComoviError("the body is behind the camera; are the poses in the camera frame?")
    x, y = (seen.min(0) + seen.max(0)) / 2
    return float(x), float(y)


def _scores(body: BodyModel, motion: BodyMotion, window: Window, places: np.ndarray) -> dict[str, float]:
    """Numbers to choose clips by: joints in the picture, height of the body in the picture, movement."""
    left, top, right, bottom = window.box
    inside = (places >= (left, top)).all(-1) & (places < (right, bottom)).all(-1)
    tall = np.nanmax(places[..., 1], 1) - np.nanmin(places[..., 1], 1) if np.isfinite(places).any() else np.zeros(1)
    joints = pose_joints(body, motion.rotations, motion.betas, motion.transl)
    speed = float(joints.diff(dim=0).norm(dim=-1).mean()) * motion.fps if len(joints) > 1 else 0.0
    return {
        "in_picture": round(float(inside.mean()), 4),
        "body_height": round(float(np.nanmean(tall)) / (bottom - top), 4),
        "metres_per_second": round(speed, 4),
    }
