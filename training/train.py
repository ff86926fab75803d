"""The verb `train`: a new run, by a preset or a settings file."""

from __future__ import annotations

import argparse
import sys

from .config_file import dump_config, load_config, preset_names
from .processes import run_processes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", required=True, metavar="NAME", help=f"a .toml file, or one of {', '.join(preset_names())}"
    )
    add_shared(parser)
    parser.add_argument("--show", action="store_true", help="print all settings and stop")


def add_shared(parser: argparse.ArgumentParser) -> None:
    """Arguments that train and resume have in common."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=VALUE",
        help="change a setting, for example optim.lr=1e-5; may be given often",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=0,
        metavar="N",
        help="start N processes here; under torchrun or Slurm leave it out",
    )


def run(options: argparse.Namespace) -> int:
    config = load_config(options.config, options.set)
    if options.show:
        sys.stdout.write(dump_config(config))
        return 0
    if options.processes > 1:
        return run_processes(options.processes)
    from .trainer import train

    return train(config)
