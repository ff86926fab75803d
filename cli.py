"""The ``comovi`` command: thin, and it imports what a verb needs only when that verb runs.

Exit status: 0 done, 1 a check failed (verify, doctor), 2 something given cannot be used (one sentence says what),
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from . import __version__, cli_clean, cli_convert, cli_estimate
from .cli_show import SHOW_EXAMPLES, add_show
from .comovi_model.errors import ComoviError
from .comovi_model.files import file_error, require_place

EXAMPLES = """examples:
  comovi demo                                    a video, its motion map and a 3D body, in ./comovi_demo
  comovi demo --prompt "a woman waves with the left hand slowly" --seed 7 --out wave
  comovi generate --prompt "a man in a red shirt and blue trousers jumps" --first-frame man.png --out jump
  comovi info motion.npz                         what a checkpoint, motion, body or video file is, and what it lacks
  comovi estimate photo.jpg --overlay over.png   the body of the person in a photo, or the motion in a video
  comovi map motion.npz --out map.mp4            draw a motion as the motion map that the model sees
  comovi convert walk.bvh walk.npz               a motion file of another tool into ours, or the other way round
  comovi clean walk.bvh out.npz --foot-lock      mend, smooth and ground a motion
  comovi show motion.npz --video video.mp4       a page that plays the moving body in 3D beside its video
  comovi doctor                                  what is installed, what will be used and why
  comovi verify comovi_tiny_A.safetensors        compare our numbers with the official network's
  comovi evaluate nano --count 200 --seed 90001 --json nano.json

comovi VERB --help explains each verb."""


VERB_EXAMPLES = {
    "demo": ['comovi demo --prompt "a man jumps" --seed 3', "comovi demo --first-pose old/first_pose.npz --out again"],
    "generate": [
        'comovi generate --prompt "a woman in a red shirt and blue trousers bows" --first-frame woman.png',
        'comovi generate --prompt "a man jumps" --first-frame man.png --first-pose man.npz --out jump',
    ],
    "info": ["comovi info motion.npz", "comovi info Wan2.2-TI2V-5B/"],
    "map": [
        "comovi map motion.npz --out map.mp4",
        "comovi map motion.npz --out frames --size 512x768 --shading flat --body SMPL_NEUTRAL.npz",
    ],
    "estimate": cli_estimate.EXAMPLES,
    "convert": cli_convert.EXAMPLES,
    "clean": cli_clean.EXAMPLES,
    "show": SHOW_EXAMPLES,
    "doctor": ["comovi doctor"],
    "verify": ["comovi verify tests/golden/comovi_tiny_A.safetensors"],
    "evaluate": [
        "comovi evaluate nano --count 200 --seed 90001 --json nano.json",
        "comovi evaluate nano --no-exchange",
        "comovi evaluate nano --given motion",
        "comovi evaluate fit --count 64 --seed 1 --workers 2 --json fit.json",
        "comovi evaluate keypoints --count 300 --seed 1 --json keypoints.json",
        "comovi evaluate mhr --count 200 --seed 1",
    ],
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ComoviError(f"{message}; see {self.prog} --help.")


def _whole(low: int, high: int):
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, got {text!r}")
        return value

    return parse


def _guidance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 30:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 30, got {text!r}")
    return value


def _size(text: str) -> tuple[int, int]:
    """ "704x1280" -> (width, height)."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and 16 <= int(p) <= 8192 for p in parts):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT in pixels from 16 to 8192, as 704x1280, got {text!r}")
    return int(parts[0]), int(parts[1])


def _generate(arguments: argparse.Namespace) -> int:
    # Waiting threads that spin made a clip take 133 s instead of 9 beside another busy process; set before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from .comovi_model.nano.demo import run_demo

    run_demo(
        arguments.out,
        prompt=arguments.prompt,
        seed=arguments.seed,
        first_frame=arguments.first_frame,
        first_pose=arguments.first_pose,
        steps=arguments.steps,
        guidance=arguments.guidance,
        exchange=not arguments.no_exchange,
        overwrite=arguments.overwrite,
        model=arguments.model,
    )
    return 0


def _info(arguments: argparse.Namespace) -> int:
    from .comovi_model.info import describe

    print("\n".join(describe(arguments.file)))
    return 0


def _map(arguments: argparse.Namespace) -> int:
    from .comovi_model.draw_map import draw_map_file

    where = draw_map_file(
        arguments.motion, arguments.out, body=arguments.body, size=arguments.size, shading=arguments.shading,
        overwrite=arguments.overwrite,
    )  # fmt: skip
    print(f"wrote {where}")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from .comovi_model.doctor import examine

    lines, healthy = examine()
    print("\n".join(lines))
    return 0 if healthy else 1


def _verify(arguments: argparse.Namespace) -> int:
    from .comovi_model.verify import run

    return run(arguments.file)


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.json is not None:
        require_place(arguments.json)
    if arguments.what == "traffic":
        from .comovi_model.comovi import traffic

        return traffic.run(arguments.json)
    if arguments.what == "mhr":
        from .training import mhr_evaluation

        mhr_evaluation.run(arguments.count, arguments.seed, arguments.json)
        return 0
    if arguments.what == "keypoints":
        from .training import keypoint_evaluation

        keypoint_evaluation.run_arguments(arguments)
        return 0
    if arguments.what == "fit":
        if arguments.no_exchange:
            raise ComoviError("--no-exchange is for the nano model; leave it out to evaluate the fit.")
        from .training import fit_evaluation

        fit_evaluation.run_arguments(arguments)
        return 0
    from .training.evaluate import run

    run(
        arguments.what, arguments.count, arguments.seed, arguments.json, no_exchange=arguments.no_exchange,
        given=arguments.given,
    )  # fmt: skip
    return 0


def _add_generation(verb: argparse.ArgumentParser, out: str, prompt_needed: bool) -> None:
    verb.add_argument("--prompt", required=prompt_needed, help="what the person does, in a sentence")
    verb.add_argument("--seed", type=_whole(0, 2**63 - 1), default=0, help="the same seed gives the same clip (0)")
    verb.add_argument("--first-frame", type=Path, metavar="IMAGE", help="picture to start from (default: one is drawn)")
    verb.add_argument("--first-pose", type=Path, metavar="NPZ", help="body in that picture (default: one stands)")
    verb.add_argument("--out", type=Path, default=Path(out), help=f"folder for the results (./{out})")
    verb.add_argument("--steps", type=_whole(1, 1000), help="sampling steps")
    verb.add_argument("--guidance", type=_guidance, help="how strongly the sentence pulls; 1 is none")
    verb.add_argument("--no-exchange", action="store_true", help="cut the two branches apart, to see what they share")
    verb.add_argument("--overwrite", action="store_true", help="replace results of the same names in the folder")
    verb.set_defaults(run=_generate, model=None)


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="comovi",
        description="A picture, a pose and a sentence become a video, its motion map and a moving body.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"comovi {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)

    def add_verb(name: str, purpose: str) -> argparse.ArgumentParser:
        epilog = "\n  ".join(["examples:", *VERB_EXAMPLES[name]])
        layout = argparse.RawDescriptionHelpFormatter
        described = f"{purpose[0].upper()}{purpose[1:]}."
        return verbs.add_parser(name, help=purpose, description=described, epilog=epilog, formatter_class=layout)

    demo = add_verb("demo", "make a clip with the embedded nano model; needs no other file")
    _add_generation(demo, "comovi_demo", prompt_needed=False)

    generate = add_verb("generate", "make a clip from your sentence, picture and pose")
    _add_generation(generate, "comovi_clip", prompt_needed=True)
    generate.add_argument("--model", type=Path, metavar="FOLDER", help="nano weights (default: the embedded ones)")

    info = add_verb("info", "say what a file is and what it lacks")
    info.add_argument("file", type=Path, metavar="FILE", help="checkpoint, motion, body model, video, picture or GLB")
    info.set_defaults(run=_info)

    draw = add_verb("map", "draw a motion as a motion map")
    draw.add_argument("motion", type=Path, metavar="MOTION.npz", help="body motion, as demo writes it")
    draw.add_argument(
        "--out",
        type=Path,
        required=True,
        help="a .mp4 video, a .png of a single pose, or a folder for one PNG per frame",
    )
    draw.add_argument("--body", type=Path, metavar="FILE", help="SMPL body model (default: the built-in mannequin)")
    draw.add_argument("--size", type=_size, metavar="WxH", help="pixels (default: the size of the motion's camera)")
    draw.add_argument(
        "--shading",
        choices=["phong_reference", "flat"],
        default="phong_reference",
        help="phong_reference: what the released weights saw; flat: colours that decode exactly",
    )
    draw.add_argument("--overwrite", action="store_true", help="replace pictures of the same names in the folder")
    draw.set_defaults(run=_map)

    cli_estimate.add_estimate(add_verb("estimate", "find the body in a photo, or the motion in a video"))
    cli_convert.add_convert(add_verb("convert", "turn a motion file into one of another format"))
    cli_clean.add_clean(add_verb("clean", "mend, smooth, cut and join motion files"))

    add_show(add_verb, _size)

    doctor = add_verb("doctor", "say what is installed, what will be used and why")
    doctor.set_defaults(run=_doctor)

    verify = add_verb("verify", "compare our numbers with a golden file's")
    verify.add_argument("file", type=Path, metavar="FILE", help="golden .safetensors with its .json beside it")
    verify.set_defaults(run=_verify)

    evaluate = add_verb("evaluate", "measure the nano model or the fit on held-out clips, or count the work of a step")
    evaluate.add_argument("what", choices=["nano", "fit", "keypoints", "mhr", "traffic"], help="what to measure")
    evaluate.add_argument("--count", type=_whole(1, 100_000), default=200, help="number of clips (200)")
    evaluate.add_argument(
        "--seed", type=_whole(0, 2**63 - 1), default=90_001, help="outside the training range (90001)"
    )
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    evaluate.add_argument("--workers", type=_whole(1, 64), default=1, help="processes, for the fit only (1)")
    evaluate.add_argument(
        "--variants", default="usual", metavar="LIST", help="of the fit: usual, wrong, ladder, or names"
    )
    evaluate.add_argument("--table", action="store_true", help="keypoints: every noise level, and each stage alone")
    evaluate.add_argument("--share", default="1/1", metavar="K/N", help="for the fit: every N-th clip from the K-th")
    evaluate.add_argument("--no-exchange", action="store_true", help="measure without coupling of the branches")
    evaluate.add_argument(
        "--given", choices=["video", "motion"], default="", help="nano: this half is given whole, the other is made"
    )
    evaluate.set_defaults(run=_evaluate)
    return parser


def _fail(sentence: str, status: int = 2) -> int:
    print(f"comovi: {' '.join(sentence.split())}", file=sys.stderr)
    return status


def _abandon_output() -> None:
    """Send what is still buffered for standard output nowhere, or Python reports the same failure again at exit."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


NO_MEMORY = "there is not enough memory; choose a smaller size or close other programs."


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit:  # --help and --version have printed what they were asked for
        return 0
    return arguments.run(arguments)


def _spell_out_odd_letters() -> None:
    """A file's name may hold letters that the encoding of a pipe or console lacks; that is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main(argv: Sequence[str] | None = None) -> int:
    _spell_out_odd_letters()
    if argv is None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # `kill` tidies up exactly as Ctrl-C does
    try:
        status = _run(argv)
        sys.stdout.flush()
        return status
    except ComoviError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        status = _fail("stopped; nothing was left half-written.", 130)
        if argv is None:  # after an interrupt inside a library's import, Python itself would exit with another status
            with suppress(OSError):
                sys.stdout.flush()
            os._exit(status)
        return status
    except BrokenPipeError:  # the reader of our output went away, as `comovi doctor | head -1` does
        _abandon_output()
        return 0
    except MemoryError:
        return _fail(NO_MEMORY)
    except RuntimeError as error:  # torch's own kinds of it
        if type(error).__name__ != "OutOfMemoryError" and "can't allocate memory" not in str(error):
            raise
        return _fail(NO_MEMORY)
    except OSError as error:
        if error.filename is None:
            _abandon_output()
        return _fail(str(file_error(error, error.filename or "its output", "use")))
