"""The verb `eval`: motion, video, table, doctor."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ...comovi_model.body.smpl import load_body_model
from ...comovi_model.errors import ComoviError
from ...comovi_model.files import atomic_path, require_file
from .captions import read_captions
from .embedders import FILES, find, load_embedder
from .motion_eval import REPEATS, evaluate_motions, features_of_folder
from .report import table
from .video_eval import DIMENSIONS, cache_folder, evaluate_videos, missing_weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    motion = verbs.add_parser("motion", help="FID, R-precision and MM-Dist by the protocol of HumanML3D")
    motion.add_argument("generated", type=Path, help="folder of generated motions, one file per clip, named ID.npz")
    motion.add_argument("--real", type=Path, required=True, help="folder of real motions")
    motion.add_argument("--captions", type=Path, required=True, help="list of clips (.jsonl), or folder of ID.txt")
    motion.add_argument("--evaluator", type=Path, help="folder with HumanML3D's evaluator and GloVe; else random")
    motion.add_argument("--body", default="", help="body model of the motions (default: the mannequin)")
    motion.add_argument("--repeats", type=int, default=REPEATS)
    motion.add_argument("--seed", type=int, default=0)
    video = verbs.add_parser("video", help="VBench's five dimensions, through its own package")
    video.add_argument("videos", type=Path, help="folder of .mp4 files")
    video.add_argument("--python", type=Path, required=True, help="interpreter of the environment that has vbench")
    video.add_argument("--dimensions", nargs="+", default=list(DIMENSIONS), metavar="NAME")
    video.add_argument("--device", default="cuda")
    shown = verbs.add_parser("table", help="results beside the paper's")
    shown.add_argument("results", type=Path, help="what eval motion or eval video wrote")
    doctor = verbs.add_parser("doctor", help="which files of the evaluators are here, and where the others come from")
    doctor.add_argument("--evaluator", type=Path)
    for one in (motion, video):
        one.add_argument("--out", type=Path, help="write the results as JSON")
        one.add_argument("--name", default="this run", help="of the row in the table")


def run(options: argparse.Namespace) -> int:
    if options.what == "doctor":
        print("\n".join(doctor_lines(options.evaluator)))
        return 0
    if options.what == "table":
        results = _read(options.results)
        print(table(results["kind"], results, results.get("name", "this run")))
        return 0
    results = {"kind": options.what, "name": options.name}
    results |= motion_results(options) if options.what == "motion" else evaluate_videos(
        options.videos, options.python, options.dimensions, options.device
    )  # fmt: skip
    if options.out:
        with atomic_path(options.out) as path:
            path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(options.what, results, options.name))
    return 0


def motion_results(options: argparse.Namespace) -> dict[str, Any]:
    if options.repeats < 1:
        raise ComoviError(f"--repeats is {options.repeats}; at least 1 is needed.")
    captions, body = read_captions(options.captions), load_body_model(options.body or None)
    embedder = load_embedder(options.evaluator, options.seed)
    sets = []
    for name, folder in (("generated", options.generated), ("real", options.real)):
        with tqdm(desc=f"{name} motions", unit="file") as bar:

            def shown(done: int, total: int, bar: Any = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            sets.append(features_of_folder(folder, body, embedder.target, shown))
    return evaluate_motions(sets[0], sets[1], captions, embedder, repeats=options.repeats, seed=options.seed)


def doctor_lines(evaluator: Path | None) -> list[str]:
    lines = ["HumanML3D's evaluator (README of HumanML3D or MoMask; not ours to ship):"]
    for name, what in FILES.items():
        path = find(evaluator, name) if evaluator else None
        lines.append(f"  {_there(path)} {name}: {what}{f' ({path})' if path else ''}")
    skeleton = find(evaluator, "target_skeleton.npy") if evaluator else None
    lines.append(
        f"  {_there(skeleton)} target_skeleton.npy: (22, 3) rest joints of AMASS clip 000021, to which motions are "
        "rescaled; without it results are not comparable"
    )
    lines.append(f"VBench's weights in {cache_folder()} (it fetches missing ones itself, by wget):")
    for dimension in DIMENSIONS:
        lacking = missing_weights([dimension])
        lines.append(f"  {_there(not lacking)} {dimension}" + (f": {', '.join(lacking)}" if lacking else ""))
    return lines


def _there(found: object) -> str:
    return "there  " if found else "missing"


def _read(path: Path) -> dict[str, Any]:
    path = require_file(path, "results")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        results["kind"]
        return results
    except (ValueError, KeyError, TypeError):
        raise ComoviError(f"{path} was not written by comovi-train eval.") from None
