"""The verb `comovi convert`: a motion file of one kind into one of another."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

# Names of comovi_model/motion_io/formats.py, written out so that --help needs no torch; a test keeps them equal.
READS = (
    "comovi", "amass", "smplx", "bvh", "glb", "usda", "obj", "pc2", "json", "humanml3d", "joints", "smpl", "gvhmr",
    "wham", "tram", "camerahmr", "4dhumans", "comovi_smpl", "mhr",
)  # fmt: skip
WRITES = READS[:11]
KNOWS_GAPS = ("comovi", "json")  # formats that tell frames without a pose from others
EXAMPLES = [
    "comovi convert walk.bvh walk.npz",
    "comovi convert hmr4d_results.pt run.bvh --names mixamo --fps 30",
    "comovi convert wham_output.pkl dance.glb --person 2 --root absolute",
    "comovi convert motion.npz motion.npy --format humanml3d",
]


def add_convert(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("input", type=Path, metavar="IN", help=f"motion file; known by its content: {', '.join(READS)}")
    verb.add_argument("output", type=Path, metavar="OUT", help="file to write; its suffix says the format")
    verb.add_argument("--format", choices=WRITES, metavar="NAME", help=f"format of OUT: {', '.join(WRITES)}")
    verb.add_argument("--from", dest="source", choices=READS, metavar="NAME", help="format of IN, if it is ambiguous")
    verb.add_argument("--body", type=Path, metavar="FILE", help="SMPL body model (default: the built-in mannequin)")
    verb.add_argument("--fps", type=_rate, help="frames per second of IN, where it does not say or is wrong")
    verb.add_argument("--up", choices=("y", "z", "x", "camera"), help="axis of IN that points up (default: found)")
    verb.add_argument("--units", metavar="UNIT", help="of IN: m, cm, mm, inch, dm, foot, or metres per unit")
    verb.add_argument("--handedness", choices=("right", "left"), help="of the axes of IN (default: found)")
    verb.add_argument("--person", metavar="ID", help="whose motion, where IN holds several people")
    verb.add_argument("--space", choices=("world", "camera"), help="which motion, where IN holds both")
    verb.add_argument("--shape", choices=("fit", "mean"), help="body of a foreign skeleton: fitted (fit) or mean")
    verb.add_argument("--mapping", type=Path, metavar="JSON", help="{SMPL joint: its name in IN}, for unusual names")
    verb.add_argument("--root", choices=("centred", "absolute", "off"), help="where the body of OUT starts and moves")
    verb.add_argument("--names", choices=("smpl", "mixamo", "unreal", "vrm"), help="joint names of OUT")
    verb.add_argument("--out-units", metavar="UNIT", help="of a BVH file that is written (cm)")
    verb.add_argument("--order", metavar="AXES", help="order of rotations of a BVH file that is written (ZXY)")
    verb.set_defaults(run=_convert)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and up to 1000, got {text!r}")
    return value


def _units(text: str | None) -> str | float | None:
    try:
        return text if text is None else float(text)
    except ValueError:
        return text


def _mapping(path: Path | None) -> dict[str, str] | None:
    from .comovi_model.errors import ComoviError
    from .comovi_model.files import require_file

    if path is None:
        return None
    try:
        table = json.loads(require_file(path, "mapping").read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ComoviError):
            raise
        raise ComoviError(f'{path}: expected JSON of joint names, as {{"left_hip": "LHip"}} ({error}).') from None
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise ComoviError(f'{path}: expected JSON of joint names, as {{"left_hip": "LHip"}}.')
    return table


def _convert(arguments: argparse.Namespace, say: Callable[[str], None] = print) -> int:
    from .comovi_model.body.smpl import load_body_model
    from .comovi_model.errors import ComoviError
    from .comovi_model.files import require_place
    from .comovi_model.motion_io import FORMATS, for_body, read_motion, write_motion
    from .comovi_model.motion_io.writing import check_options, format_of_suffix

    name = arguments.format or format_of_suffix(arguments.output)
    chosen = {
        "root": arguments.root, "names": arguments.names, "units": arguments.out_units, "order": arguments.order,
    }  # fmt: skip
    ending = arguments.output.suffix.lower()
    if ending and ending != FORMATS[name].suffix and any(row.suffix == ending for row in FORMATS.values()):
        raise ComoviError(
            f"{arguments.output} ends in {ending}, and {name} files end in {FORMATS[name].suffix}; change the name or "
            "--format."
        )
    options = {key: value for key, value in chosen.items() if value is not None}
    check_options(name, options)
    require_place(arguments.output)
    body = load_body_model(None if arguments.body is None else str(arguments.body))
    imported = read_motion(
        arguments.input, body=body, format=arguments.source, fps=arguments.fps, up=arguments.up,
        units=_units(arguments.units), handedness=arguments.handedness, person=arguments.person,
        space=arguments.space, shape=arguments.shape or "fit", mapping=_mapping(arguments.mapping),
    )  # fmt: skip
    motion, more = for_body(imported.motion, body)
    say(f"{arguments.input}: {imported.format} ({FORMATS[imported.format].description})")
    for note in (*imported.notes, *more):
        say(f"  {note}")
    lacking = 0 if motion.valid is None else int((~motion.valid).sum())
    if lacking and name not in KNOWS_GAPS:
        say(f"  {lacking} frames have no pose, and {name} files cannot say so: comovi clean --fill fills them")
    path = write_motion(arguments.output, motion, body, name, **options)
    rate = "at 20 per second, as the format has it" if name == "humanml3d" else f"at {motion.fps:.6g} per second"
    say(f"wrote {path}: {name}, from {len(motion)} frames {rate}")
    return 0
