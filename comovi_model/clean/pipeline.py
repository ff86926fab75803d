"""All the cleaning in one call, in the order that works: what the command and the node run.

Wrong poses first, so that nothing else learns from them; then gaps, smoothing and shape; then the floor, which tells
what standing is; feet last, because every other step would move them again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..body.frames import check_same_body
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel
from ..body.upright import CAMERA_UP
from ..errors import ComoviError
from .depth import steady_depth
from .feet import foot_contacts, skate
from .foot_lock import FootLockSettings, lock_feet
from .gaps import fill_gaps, insert_missing, valid_frames
from .ground import find_floor, ground, knowing_up
from .measures import jitter, mean_distance_mm
from .outliers import find_outliers, reject_outliers
from .shape import lock_shape
from .smoothing import METHODS, smooth

NO_SMOOTHING = "none"


@dataclass(frozen=True)
class CleanSettings:
    """Which steps are done; everything off returns the motion as it is."""

    outliers: bool = False
    fill: bool = False
    max_gap_seconds: float = 0.5
    steady_depth: bool = False  # for motions in the camera frame
    smoothing: str = NO_SMOOTHING  # or one of smoothing.METHODS
    strength: float = 0.5  # 0..1
    shape_of: tuple[BodyMotion, ...] = ()  # clips of the same person; all get the median of the shapes
    ground: bool = False
    foot_lock: bool = False

    def __post_init__(self) -> None:
        if self.smoothing not in (NO_SMOOTHING, *METHODS):
            raise ComoviError(f"unknown smoothing {self.smoothing!r}; choose {', '.join((NO_SMOOTHING, *METHODS))}.")


@dataclass(frozen=True)
class CleanResult:
    motion: BodyMotion
    report: tuple[str, ...]  # a line for every step that did something, and the measures before and after


def clean_motion(
    motion: BodyMotion, model: BodyModel, settings: CleanSettings, on_step: Callable[[int, int], None] | None = None
) -> CleanResult:
    """on_step(done, of) is called after every step; an exception from it stops the work."""
    check_same_body(model, motion)
    lines: list[str] = []
    steps = [step for step, wanted in _steps(settings) if wanted]
    cleaned = motion
    for number, step in enumerate(steps, start=1):
        cleaned, line = step(cleaned, model, settings)
        lines.append(line)
        if on_step is not None:
            on_step(number, len(steps))
    lines.append(f"jitter: {jitter(motion, model):.0f} -> {jitter(cleaned, model):.0f} m/s^3")
    if not settings.ground and len(motion) == len(cleaned):  # grounding moves everything
        lines.append(f"joints moved {mean_distance_mm(motion, cleaned, model):.1f} mm on average")
    return CleanResult(cleaned, tuple(lines))


Step = Callable[[BodyMotion, BodyModel, CleanSettings], tuple[BodyMotion, str]]


def _steps(settings: CleanSettings) -> list[tuple[Step, bool]]:
    return [
        (_outliers, settings.outliers),
        (_fill, settings.fill),
        (_depth, settings.steady_depth),
        (_smooth, settings.smoothing != NO_SMOOTHING),
        (_shape, bool(settings.shape_of)),
        (_ground, settings.ground),
        (_foot_lock, settings.foot_lock),
    ]


def _outliers(motion: BodyMotion, model: BodyModel, settings: CleanSettings) -> tuple[BodyMotion, str]:
    found = find_outliers(motion)
    return reject_outliers(motion), f"outliers: {found.count} of {len(motion)} frames had poses that jump, replaced"


def _fill(motion: BodyMotion, model: BodyModel, settings: CleanSettings) -> tuple[BodyMotion, str]:
    missing = int((~valid_frames(insert_missing(motion))).sum())
    filled = fill_gaps(motion, settings.max_gap_seconds)
    left = int((~valid_frames(filled)).sum())
    added = len(filled) - len(motion)
    absent = f", {added} of them absent from the file" if added else ""
    rest = f"; {left} stay empty, in gaps longer than {settings.max_gap_seconds:g} s" if left else ""
    return filled, f"gaps: {missing - left} of {missing} frames without a pose filled{absent}{rest}"


def _depth(motion: BodyMotion, model: BodyModel, settings: CleanSettings) -> tuple[BodyMotion, str]:
    steady = steady_depth(motion, model)
    moved = mean_distance_mm(motion, steady, model)
    return steady, f"depth: steadied along the line of sight, body moved {moved:.1f} mm on average"


def _smooth(motion: BodyMotion, model: BodyModel, settings: CleanSettings) -> tuple[BodyMotion, str]:
    how = "" if settings.smoothing == "paper" else f", strength {settings.strength:g}"
    return smooth(motion, settings.smoothing, settings.strength), f"smoothing: {settings.smoothing}{how}"


def _shape(motion: BodyMotion, model: BodyModel, settings: CleanSettings) -> tuple[BodyMotion, str]:
    locked = lock_shape([motion, *settings.shape_of], model)[0]
    change = float((locked.betas - motion.betas).abs().max())
    return locked, f"shape: median of {1 + len(settings.shape_of)} clips, largest change of a beta {change:.2f}"


def _ground(motion: BodyMotion, model: BodyModel, settings: CleanSettings) -> tuple[BodyMotion, str]:
    floor = find_floor(motion, model)
    stood = ground(motion, model)
    tilt = stood.provenance["edits"][-1]["tilt_degrees"]
    turned = f", camera tilted by {tilt:.1f} degrees" if motion.frame == "camera" else ""
    where = f"floor at {floor.height:.3f} m, from {floor.contacts} standing foot points{turned}"
    return stood, f"ground: {where}; now frame {stood.frame}, floor at 0"


def _foot_lock(motion: BodyMotion, model: BodyModel, settings: CleanSettings) -> tuple[BodyMotion, str]:
    upright = knowing_up(motion, model)
    contacts = foot_contacts(upright, model)
    locked = lock_feet(upright, model, FootLockSettings(flat_floor=settings.ground))
    before, after = skate(upright, model, contacts), skate(locked, model, contacts)
    if CAMERA_UP not in motion.provenance:  # a good guess, but no fact to be written down
        locked = replace(locked, provenance={k: v for k, v in locked.provenance.items() if k != CAMERA_UP})
    slid = f"{before.metres_per_second:.3f} -> {after.metres_per_second:.3f} m/s"
    moved = mean_distance_mm(motion, locked, model)
    share = float(contacts.any(1).double().mean())
    return locked, f"feet: on the floor in {share:.0%} of the frames, sliding {slid}, joints moved {moved:.1f} mm"
