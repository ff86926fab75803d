"""The verb `resume`: go on with a run from its last complete checkpoint, as if it had not stopped."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from .config_file import build_config, load_resolved, merge_sets
from .processes import run_processes
from .train import add_shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--step", type=int, help="from this step instead of the last one; later checkpoints are set aside"
    )
    parser.add_argument(
        "--elastic", action="store_true", help="with another number of processes or another batch; no longer bit-equal"
    )
    add_shared(parser)


def run(options: argparse.Namespace) -> int:
    run_folder = Path(os.path.abspath(options.run.expanduser()))
    config = load_resolved(run_folder)
    place = replace(config.run, out=str(run_folder.parent), name=run_folder.name)  # it may have been moved
    config = build_config(merge_sets(replace(config, run=place), options.set))
    if options.processes > 1:
        return run_processes(options.processes)
    from .checkpoint import checkpoint_folder, latest
    from .trainer import train

    start = latest(run_folder) if options.step is None else checkpoint_folder(run_folder, options.step)
    return train(config, start=start, elastic=options.elastic)
