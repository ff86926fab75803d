"""Runs several small training runs in one group of processes: the worker of tests/training/test_deepspeed.py.

    RANK=0 WORLD_SIZE=2 ... python engine_jobs.py OUT '[{"name": "z3", "set": ["engine.zero=3"], ...}]'

A job may go on from a checkpoint ("start": folder, "elastic": true). Starting torch and DeepSpeed takes longer than a
run of eight steps, so one group does all of them. The network is a small one of the paper's kind, whose pose head reads
after random layers; the clips are random numbers.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import conftest  # noqa: F401  makes the checkout importable under its name

import torch
from comfyui_comovi.training.config import TrainConfig
from comfyui_comovi.training.config_file import build_config, merge, parse_sets
from comfyui_comovi.training.random_clips import SMALL, SMALL_CLIPS

CLIPS = SMALL_CLIPS


def small_config(out: Path, name: str, *changes: str) -> TrainConfig:
    return build_config(merge(SMALL, parse_sets([f"run.out={out}", f"run.name={name}", *changes])))


def main() -> None:
    from comfyui_comovi.training import trainer

    torch.set_num_threads(1)
    out, jobs = Path(sys.argv[1]), json.loads(sys.argv[2])
    for job in jobs:
        config = small_config(out, job["name"], *job.get("set", ()))
        start = Path(job["start"]) if "start" in job else None
        trainer.train(config, start=start, elastic=job.get("elastic", False), source=CLIPS, held_out=CLIPS)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)
