"""From a motion map to the motion that it shows: `fit_motion_map`.

The steps: observe the frames; make the first pose fit (or find one blind); learn the colours of this map from it;
follow the person from frame to frame, searching for lost limbs; sweep back and forth; fit all frames together; judge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..body.cameras import Camera
from ..body.map_colours import SHADINGS, check_shading
from ..body.motion import NUM_BETAS, BodyMotion
from ..body.rasterise import one_thread
from ..body.rotations import matrix_to_quaternion, quaternion_to_matrix
from ..body.smpl import BodyModel
from ..errors import ComoviError
from .flags import judge
from .observation import Calibration, Observation, observe
from .refine import bridge, refine_clip
from .score import Score
from .start import GOOD, find_start, fit_start, measure_colours
from .surface import Pose, Subject, make_subject
from .sweep import sweep
from .terms import FINE, Stage
from .track import Track, astray_limit, empty_track, follow

SMALLEST_AREA = 0.002  # of the picture; less is no person
ENOUGH_OVERLAP = 0.75  # of the silhouettes, for the colours of a start to be believed
DOUBTED = 0.42  # a given pose that scores worse competes with one found blind
SMALLEST_SHARE = 0.2  # of the clip's usual area
UNEXPLAINED = 0.2  # how much the picture of a failing frame counts in the fit of the whole clip,
HOPELESS = 1.3  # and above which multiple of the limit it does not count at all


@dataclass(frozen=True)
class FitSettings:
    """What may be switched; the defaults are what was measured."""

    shading: str = SHADINGS[0]
    calibrate: bool = True  # learn gain and offset of the colours from the first pose
    sweeps: int = 1  # rounds of learning from the neighbours, back and forth
    refine_steps: int = 3  # of fitting all frames together, after each sweep
    fine: Stage = FINE


@dataclass(frozen=True)
class FitResult:
    """The motion found, and how far to trust it."""

    motion: BodyMotion  # camera frame, with camera; `valid` is False on frames that failed
    score: Tensor  # (F,) lower is better: 0.2 is a perfect fit of an H.264 map, 0.5 a wrong body
    flags: list[str]  # F sentences, "" where nothing is wrong
    overlap: Tensor  # (F,) intersection over union of the silhouettes
    calibration: Calibration
    start_frame: int

    def report(self) -> list[str]:
        """Lines to read."""
        failed = [frame for frame, flag in enumerate(self.flags) if flag]
        lines = [
            f"{len(self.flags)} frames; score {float(self.score.median()):.3f} (0.2 fits, 0.5 is wrong), worst "
            f"{float(self.score.max()):.3f} at frame {int(self.score.argmax())}; silhouettes overlap "
            f"{100 * float(self.overlap.median()):.0f} %"
        ]
        if self.calibration != Calibration():
            gain, offset = self.calibration.gain, self.calibration.offset
            lines.append(
                "colours corrected: gain " + " ".join(f"{g:.3f}" for g in gain)
                + ", offset " + " ".join(f"{255 * o:+.1f}" for o in offset) + " levels"
            )  # fmt: skip
        lines += [f"frames {_ranges(frames)}: {reason}" for reason, frames in _grouped(self.flags).items()]
        if not failed:
            lines.append("no frame is flagged")
        return lines


def fit_motion_map(
    frames: np.ndarray | Tensor,
    body: BodyModel,
    start: BodyMotion | None = None,
    *,
    fps: float = 16.0,
    camera: Camera | None = None,
    betas: Tensor | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    interrupted: Callable[[], bool] | None = None,
    settings: FitSettings | None = None,
) -> FitResult:
    """Fits the body to every frame of a motion map (F, H, W, 3), uint8 or float in 0..1.

    start is the pose of frame 0: one frame in the camera frame with its camera, as a pose that may be wrong by tens of
    degrees. Without it, `camera` must be given (and `betas`, or the body's mean shape is taken) and the pose is found
    blind. Work happens on the device of `body`. on_progress(done, total) is called after every frame; where
    interrupted() says True the fit stops with a ComoviError.
    """
    settings = settings or FitSettings()
    check_shading(settings.shading)
    picture = _as_bytes(frames).to(body.v_template.device)
    camera, betas = _known(body, picture, start, camera, betas)
    K = camera.resized(picture.shape[2], picture.shape[1]).K.to(picture.device).expand(len(picture), 3, 3)
    progress = _Progress(len(picture), on_progress, interrupted)
    with one_thread(), torch.no_grad():
        subject = make_subject(body, betas, settings.shading == "flat")
        given = None
        if start is not None:
            given = Pose(start.rotations[:1].to(picture.device), start.transl[:1].to(picture.device))
        track, first, calibration = _fit(subject, picture, K, given, settings, progress)
    flags = judge(track)
    motion = BodyMotion(
        rotations=quaternion_to_matrix(matrix_to_quaternion(track.pose.rotations)).cpu(),
        betas=torch.as_tensor(betas).float().cpu(),
        transl=track.pose.transl.cpu(),
        frame="camera",
        camera=camera.resized(picture.shape[2], picture.shape[1]),
        fps=fps,
        body_model=body.name,
        provenance={"made by": "fit of a motion map", "first pose": "given" if start else "found"},
        valid=torch.tensor([not flag for flag in flags]),
    )
    progress.finish()
    return FitResult(motion, track.score.cpu(), flags, track.overlap.cpu(), calibration, first)


def _fit(
    subject: Subject, picture: Tensor, K: Tensor, given: Pose | None, settings: FitSettings, progress: _Progress
) -> tuple[Track, int, Calibration]:
    fine = settings.fine
    calibration = Calibration()
    if settings.calibrate and given is not None:
        calibration = _colours_of_start(subject, picture[:1], K[:1], given, fine)
    seen = observe(picture, K, calibration)
    empty = _empty_frames(seen)
    if bool(empty.all()):
        raise ComoviError(
            "no frame of this motion map shows a person: everything is as bright as the background. Give the motion "
            "half of the result, not the video."
        )
    believed = given is not None and not bool(empty[0])
    if given is not None and believed:
        pose, score = fit_start(subject, seen, 0, given, fine)
        first = 0
    if not believed or float(score.mean) > DOUBTED:
        # A start that does not fit may have taught wrong colours, too.
        plain = seen if calibration == Calibration() else observe(picture, K)
        found = _begin_blind(subject, plain, empty, picture, K, settings)
        if not believed or float(found[2].mean) < float(score.mean) - 0.05:
            first, pose, score, seen, calibration = found
    track = empty_track(subject, seen, empty, fine)
    track.on_frame = progress.frame
    track.put(first, pose, score)
    track.reference = float(score.mean[0])
    follow(track, first, 1)
    follow(track, first, -1)
    _refine(track, settings, sweeps=0)
    for _ in range(settings.sweeps):
        for direction in (-1, 1):
            sweep(track, direction)
        _refine(track, settings)
    return track, first, calibration


def _colours_of_start(subject: Subject, picture: Tensor, K: Tensor, given: Pose, fine: Stage) -> Calibration:
    """The colours of frame 0, measured with the given pose once it fits; twice, as wrong colours hinder the fit."""
    calibration, pose = Calibration(), given
    for _ in range(2):
        seen = observe(picture, K, calibration)
        if float(seen.area[0]) < SMALLEST_AREA:
            break
        pose, score = fit_start(subject, seen, 0, pose, fine)
        if float(score.overlap) < ENOUGH_OVERLAP:
            break
        calibration = measure_colours(subject, seen, 0, pose, calibration) or calibration
    return calibration


def _begin_blind(
    subject: Subject, seen: Observation, empty: Tensor, picture: Tensor, K: Tensor, settings: FitSettings
) -> tuple[int, Pose, Score, Observation, Calibration]:
    """A frame and its pose found without a start, its score, and the frames and their colours corrected by it."""
    calibration = Calibration()
    first, pose, score = find_start(subject, seen, empty, settings.fine)
    if settings.calibrate and float(score.mean) < 2 * GOOD:
        calibration = measure_colours(subject, seen, first, pose) or calibration
        seen = observe(picture, K, calibration)
        pose, score = fit_start(subject, seen, first, pose, settings.fine)
    return first, pose, score, seen, calibration


def _refine(track: Track, settings: FitSettings, sweeps: int = 1) -> None:
    if not settings.refine_steps:
        return
    # A frame that is not explained must not pull its neighbours along.
    limit = astray_limit(track)
    trust = torch.where(track.score > limit, UNEXPLAINED, 1.0)
    trust = torch.where(track.empty | (track.score > HOPELESS * limit), 0.0, trust)
    track.pose = bridge(track.pose, trust > 0)
    stage = replace(settings.fine, uncovered=0, rim_weight=settings.fine.rim_weight)
    track.pose = refine_clip(track.subject, track.seen, track.pose, stage, trust, settings.refine_steps)
    track.rescore()


def _empty_frames(seen: Observation) -> Tensor:
    """(F,) bool"""
    usual = seen.area[seen.area > SMALLEST_AREA]
    limit = max(SMALLEST_AREA, SMALLEST_SHARE * float(usual.median())) if len(usual) else SMALLEST_AREA
    return seen.area < limit


def _as_bytes(frames: np.ndarray | Tensor) -> Tensor:
    picture = torch.as_tensor(frames)
    if picture.dim() != 4 or picture.shape[3] != 3 or not len(picture):
        raise ComoviError(f"a motion map must be (frames, height, width, 3), got {tuple(picture.shape)}.")
    if min(picture.shape[1:3]) < 32:
        raise ComoviError(f"a motion map must be at least 32 pixels wide and high, got {tuple(picture.shape[1:3])}.")
    if picture.dtype == torch.uint8:
        return picture
    if not picture.is_floating_point() or not bool(torch.isfinite(picture).all()):
        raise ComoviError("a motion map must hold bytes, or finite numbers from 0 to 1.")
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8)


def _known(
    body: BodyModel, picture: Tensor, start: BodyMotion | None, camera: Camera | None, betas: Tensor | None
) -> tuple[Camera, Tensor]:
    """The camera and the betas (10,), from the start pose or as given."""
    if start is not None:
        if start.frame != "camera":
            raise ComoviError(
                f"the start pose must be in the camera frame, it is in {start.frame!r}; convert it first."
            )
        camera = camera or (start.camera and start.camera.frames(0, 1))
        betas = start.betas if betas is None else betas
    if camera is None:
        raise ComoviError("the fit needs the camera of the motion map: a start pose that has one, or `camera`.")
    if camera.K.dim() == 3 and len(camera.K) not in (1, len(picture)):
        raise ComoviError(f"the camera has {len(camera.K)} frames, the motion map {len(picture)}.")
    if camera.K.dim() == 3 and len(camera.K) == 1:
        camera = replace(camera, K=camera.K[0])
    betas = torch.zeros(NUM_BETAS) if betas is None else torch.as_tensor(betas).float()
    if tuple(betas.shape) != (NUM_BETAS,) or not bool(torch.isfinite(betas).all()):
        raise ComoviError(f"betas must be {NUM_BETAS} finite numbers, got {tuple(betas.shape)}.")
    return camera, betas


class _Progress:
    """Counts frames of all passes; one pass of tracking, up to two of sweeping."""

    def __init__(
        self, frames: int, on_progress: Callable[[int, int], None] | None, interrupted: Callable[[], bool] | None
    ) -> None:
        self.total, self.done = 2 * frames, 0
        self.on_progress, self.interrupted = on_progress, interrupted

    def frame(self) -> None:
        if self.interrupted is not None and self.interrupted():
            raise ComoviError("the fit was stopped.")
        self.done = min(self.done + 1, self.total - 1)
        if self.on_progress is not None:
            self.on_progress(self.done, self.total)

    def finish(self) -> None:
        if self.on_progress is not None:
            self.on_progress(self.total, self.total)


def _grouped(flags: list[str]) -> dict[str, list[int]]:
    out: dict[str, list[int]] = {}
    for frame, flag in enumerate(flags):
        if flag:
            out.setdefault(flag, []).append(frame)
    return out


def _ranges(frames: list[int]) -> str:
    """[1, 2, 3, 7] -> "1-3, 7"."""
    out: list[list[int]] = []
    for frame in frames:
        if out and frame == out[-1][1] + 1:
            out[-1][1] = frame
        else:
            out.append([frame, frame])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in out)
