"""The verb `comovi clean`: a motion file, cleaned, cut, joined or at another frame rate, to a motion file."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .cli_convert import KNOWS_GAPS

if TYPE_CHECKING:
    from .comovi_model.body.motion import BodyMotion
    from .comovi_model.body.smpl import BodyModel

# Of comovi_model/clean, written out so that --help needs no torch; a test keeps them equal.
SMOOTHING = ("paper", "savgol", "gaussian", "one-euro")
EXAMPLES = [
    "comovi clean motion.npz calm.npz --fill --smooth savgol",
    "comovi clean wham_output.pkl walk.bvh --outliers --fill --smooth one-euro --ground --foot-lock",
    "comovi clean dance.npz clip.npz --trim 2s:7s --resample 16 --mirror",
    "comovi clean walk.npz both.glb --join wave.npz --blend 0.4",
]
Trim = tuple[tuple[float, str] | None, tuple[float, str] | None]


def add_clean(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("input", type=Path, metavar="IN", help="motion file of any format that comovi convert reads")
    verb.add_argument("output", type=Path, metavar="OUT", help="file to write; its suffix says the format")
    verb.add_argument("--body", type=Path, metavar="FILE", help="SMPL body model (default: the built-in mannequin)")
    steps = verb.add_argument_group("steps, done in this order")
    steps.add_argument("--trim", type=_span, metavar="A:B", help="frames A to B-1, or 1.5s:4s; --trim=-2s: is the end")
    steps.add_argument("--outliers", action="store_true", help="replace poses that jump away for a few frames")
    steps.add_argument("--fill", action="store_true", help="fill frames without a pose from their neighbours")
    steps.add_argument("--steady-depth", action="store_true", help="distance from the camera does not pump")
    steps.add_argument("--smooth", choices=SMOOTHING, help="paper: as the released data; one-euro: quick stays quick")
    steps.add_argument("--lock-shape", type=Path, nargs="+", metavar="FILE", help="clips of the same person: one shape")
    steps.add_argument("--ground", action="store_true", help="stand it on the floor at height 0, up straight up")
    steps.add_argument("--foot-lock", action="store_true", help="feet that stand do not slide; legs follow")
    steps.add_argument("--mirror", action="store_true", help="exchange left and right")
    steps.add_argument("--reverse", action="store_true", help="play backwards")
    steps.add_argument("--join", type=Path, action="append", metavar="FILE", help="go on with this motion; repeatable")
    steps.add_argument("--hold", type=_hold, metavar="A:B", help="stand still for A seconds before and B after")
    steps.add_argument("--resample", metavar="FPS", help="frames per second of OUT: 16, 29.97, 30000/1001")
    more = verb.add_argument_group("how")
    more.add_argument("--strength", type=_number(0, 1), help="of the smoothing, 0 to 1 (0.5)")
    more.add_argument("--max-gap", type=_number(0, 3600), metavar="S", help="longest gap to fill, in seconds (0.5)")
    more.add_argument("--blend", type=_number(0, 60), metavar="S", help="of --join: seconds of overlap (0.3)")
    more.add_argument("--bridge", action="store_true", help="--join makes up the seconds of --blend in between instead")
    more.add_argument("--speed", type=_number(0.01, 100), help="times as fast (1)")
    more.add_argument("--interpolate", choices=("cubic", "slerp"), help="between frames (cubic)")
    verb.set_defaults(run=_clean)


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected a number from {low:g} to {high:g}, got {text!r}")
        return value

    return parse


def _span(text: str) -> Trim:
    """ "10:50" -> frames, "1.5s:4s" -> seconds; either side may be empty."""
    parts = text.split(":")
    if len(parts) != 2 or not any(parts):
        raise argparse.ArgumentTypeError(f"expected A:B in frames or seconds, as 10:50, 1.5s:4s or 2s:, got {text!r}")
    return _end(parts[0], text), _end(parts[1], text)


def _end(part: str, text: str) -> tuple[float, str] | None:
    if not part:
        return None
    unit = "s" if part.endswith("s") else "frames"
    try:
        value = float(part.removesuffix("s")) if unit == "s" else float(int(part))
    except (ValueError, OverflowError):
        value = math.nan
    if not abs(value) < 1e9:
        raise argparse.ArgumentTypeError(f"expected frames or seconds, as 10:50 or 1.5s:4s, got {text!r}")
    return value, unit


def _hold(text: str) -> tuple[float, float]:
    parts = text.split(":")
    try:
        before, after = (float(part or 0) for part in parts)
    except ValueError:
        before = after = -1.0
    if not (0 <= before <= 3600 and 0 <= after <= 3600):
        raise argparse.ArgumentTypeError(f"expected seconds before and after, as 0.5:1, got {text!r}")
    return before, after


def _clean(arguments: argparse.Namespace, say: Callable[[str], None] = print) -> int:
    from .comovi_model.body.smpl import load_body_model
    from .comovi_model.clean.pipeline import clean_motion
    from .comovi_model.clean.time_base import resample
    from .comovi_model.errors import ComoviError
    from .comovi_model.files import require_place
    from .comovi_model.motion_io import write_motion
    from .comovi_model.motion_io.writing import format_of_suffix

    _check_wishes(arguments)
    name = format_of_suffix(arguments.output)
    require_place(arguments.output)
    body = load_body_model(None if arguments.body is None else str(arguments.body))
    motion = _read(arguments.input, body, say)
    if arguments.trim is not None:
        motion = _trimmed(motion, arguments.trim)
    result = clean_motion(motion, body, _settings(arguments, body, say))
    for line in result.report:
        say(f"  {line}")
    motion = _arranged(result.motion, body, arguments, say)
    if arguments.resample is not None or arguments.speed is not None:
        rate = motion.fps if arguments.resample is None else arguments.resample
        motion = resample(motion, rate, arguments.interpolate or "cubic", arguments.speed or 1.0)
    lacking = 0 if motion.valid is None else int((~motion.valid).sum())
    if lacking == len(motion):
        raise ComoviError("no frame of the result has a pose; nothing was written.")
    if lacking and name not in KNOWS_GAPS:
        say(f"  {lacking} frames have no pose, and {name} files cannot say so: they show placeholders (see --fill)")
    path = write_motion(arguments.output, motion, body, name)
    say(f"wrote {path}: {name}, {len(motion)} frames at {motion.fps:.6g} per second")
    return 0


def _check_wishes(arguments: argparse.Namespace) -> None:
    """Refuses, before anything is read, a call that asks for nothing, or for a detail of a step that is not done."""
    from .comovi_model.clean.time_base import exact_fps
    from .comovi_model.errors import ComoviError

    wanted = (
        "trim", "outliers", "fill", "steady_depth", "smooth", "lock_shape", "ground", "foot_lock", "mirror",
        "reverse", "join", "hold", "resample", "speed",
    )  # fmt: skip
    if not any(getattr(arguments, name) for name in wanted):
        raise ComoviError("nothing to do; name at least one step, as --fill or --smooth savgol (see --help).")
    if arguments.resample is not None:
        exact_fps(arguments.resample)
    if arguments.interpolate and arguments.resample is None and arguments.speed is None:
        raise ComoviError("--interpolate is for --resample or --speed, which were not given.")
    for detail, step in (("strength", "smooth"), ("max_gap", "fill"), ("blend", "join"), ("bridge", "join")):
        if getattr(arguments, detail) not in (None, False) and not getattr(arguments, step):
            raise ComoviError(f"--{detail.replace('_', '-')} is for --{step}, which was not given.")
    if arguments.strength is not None and arguments.smooth == "paper":
        raise ComoviError("the paper's smoothing has one strength; leave --strength out or choose another method.")


def _read(path: Path, body: BodyModel, say: Callable[[str], None]) -> BodyMotion:
    from .comovi_model.motion_io import for_body, read_motion

    imported = read_motion(path, body=body)
    motion, notes = for_body(imported.motion, body)
    say(f"{path}: {imported.format}, {len(motion)} frames at {motion.fps:.6g} per second")
    for note in (*imported.notes, *notes):
        say(f"  {note}")
    return motion


def _trimmed(motion: BodyMotion, span: Trim) -> BodyMotion:
    from .comovi_model.clean.edit import trim
    from .comovi_model.errors import ComoviError

    def frame(end: tuple[float, str] | None, default: int) -> int:
        if end is None:
            return default
        value, unit = end
        place = round(value * motion.fps) if unit == "s" else int(value)
        return place + len(motion) if value < 0 else place

    start, stop = frame(span[0], 0), frame(span[1], len(motion))
    if not 0 <= start < stop or start >= len(motion):
        raise ComoviError(
            f"--trim keeps nothing: the motion has frames 0 to {len(motion) - 1} ({len(motion) / motion.fps:.2f} s), "
            f"and frames {start} to {stop - 1} were asked for."
        )
    return trim(motion, start, min(stop, len(motion)))


def _settings(arguments: argparse.Namespace, body: BodyModel, say: Callable[[str], None]):
    from .comovi_model.clean.pipeline import CleanSettings

    return CleanSettings(
        outliers=arguments.outliers,
        fill=arguments.fill,
        max_gap_seconds=0.5 if arguments.max_gap is None else arguments.max_gap,
        steady_depth=arguments.steady_depth,
        smoothing=arguments.smooth or "none",
        strength=0.5 if arguments.strength is None else arguments.strength,
        shape_of=tuple(_read(path, body, say) for path in arguments.lock_shape or ()),
        ground=arguments.ground,
        foot_lock=arguments.foot_lock,
    )


def _arranged(
    motion: BodyMotion, body: BodyModel, arguments: argparse.Namespace, say: Callable[[str], None]
) -> BodyMotion:
    """Mirror, reverse, join and hold."""
    from .comovi_model.body.frames import pelvis_at_rest
    from .comovi_model.clean.edit import hold, mirror, reverse
    from .comovi_model.clean.join import join

    if arguments.mirror:
        motion = mirror(motion, pelvis_at_rest(body, motion))
    if arguments.reverse:
        motion = reverse(motion)
    for path in arguments.join or ():
        blend = 0.3 if arguments.blend is None else arguments.blend
        motion = join(motion, _read(path, body, say), body, blend, "bridge" if arguments.bridge else "overlap")
    if arguments.hold is not None:
        before, after = (round(seconds * motion.fps) for seconds in arguments.hold)
        motion = hold(motion, before, after)
    return motion
