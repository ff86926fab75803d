"""The verb `kill-test`: a small ZeRO-3 run with offload is killed at random moments and resumed, again and again.

Every checkpoint that it ever leaves must equal, byte for byte, the one that an undisturbed run left at the same step.

    comovi-train kill-test --kills 20
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ..comovi_model.errors import ComoviError
from . import checkpoint
from .config import TrainConfig
from .config_file import build_config, merge, parse_sets
from .metrics import read_log
from .processes import start_processes
from .random_clips import SMALL, SMALL_CLIPS

SETTINGS = (
    "run.max_steps=32",
    "engine.kind=deepspeed",
    "engine.zero=3",
    "engine.offload_optimizer=cpu",
    "engine.offload_params=cpu",
    "engine.precision=bf16",
    "ema.enabled=true",
    "save.every=2",
    "save.keep=0",
)
Group = Callable[[str, "Path | None"], list[subprocess.Popen]]
"""Starts the processes of the run with this name, from a checkpoint or from the beginning."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="folder for the runs (default: a temporary one, removed at the end)")
    parser.add_argument("--worker", nargs=3, metavar=("OUT", "NAME", "START"), help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    if options.worker:
        return _work(*options.worker)
    with tempfile.TemporaryDirectory() as temporary:
        out = (options.out or Path(temporary)).absolute()

        def group(name: str, start: Path | None) -> list[subprocess.Popen]:
            worker = ["--worker", str(out), name, str(start or "")]
            return start_processes(options.processes, [sys.executable, "-m", str(__package__), "kill-test", *worker])

        def say(text: str) -> None:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

        survive(group, out, options.kills, options.seed, say)
    return 0


def settings(out: Path, name: str) -> TrainConfig:
    return build_config(merge(SMALL, parse_sets([*SETTINGS, f"run.out={out}", f"run.name={name}"])))


def _work(out: str, name: str, start: str) -> int:
    from .trainer import train

    return train(settings(Path(out), name), start=Path(start) if start else None, source=SMALL_CLIPS)


def survive(group: Group, out: Path, kills: int, seed: int, say: Callable[[str], None]) -> None:
    """Kill and resume until `kills` processes' groups have died; raises when a bit differs."""
    begin = time.monotonic()
    status = [process.wait() for process in group("straight", None)]
    if any(status):
        raise ComoviError(f"the undisturbed run ended with exit status {status}; see what it said above.")
    straight = out / "straight"
    steps = {folder.name for folder in checkpoint.checkpoints(straight)}
    say(f"undisturbed run: {len(steps)} checkpoints in {time.monotonic() - begin:.1f} s")
    moments, done, lives = random.Random(seed), 0, 0
    killed = out / "killed"
    while done < kills:
        found = checkpoint.checkpoints(killed)
        if found and found[-1].name == max(steps):
            compare(straight, killed)
            shutil.rmtree(killed)
            found = []
        processes = group("killed", found[-1] if found else None)
        lives += 1
        where = _kill(processes, killed, moments)
        if where is None:
            continue  # it had finished
        done += 1
        compared = compare(straight, killed)
        say(f"kill {done}: {where}; {compared} checkpoints, all equal")
    found = checkpoint.checkpoints(killed)
    status = [process.wait() for process in group("killed", found[-1] if found else None)]
    if any(status) or compare(straight, killed) != len(steps):
        raise ComoviError(f"the last resumed run ended with exit status {status} and is not complete.")
    say(f"{done} kills survived: every checkpoint and the last weights are equal to the bit ({lives + 1} starts)")


def _kill(processes: list[subprocess.Popen], run: Path, moments: random.Random) -> str | None:
    """Kill all processes (SIGKILL) some steps on, at any moment of a step; in one of five cases while they start."""
    early, steps, part = moments.random() < 0.2, moments.randint(1, 4), moments.random()
    seen, deadline = len(read_log(run)), time.monotonic() + 300
    while not early and len(read_log(run)) < seen + steps and time.monotonic() < deadline:
        if any(process.poll() is not None for process in processes):
            break
        time.sleep(0.01)
    log = read_log(run)
    time.sleep(part * (6.0 if early else 2 * log[-1]["seconds_per_step"] if log else 1.0))
    alive = [process for process in processes if process.poll() is None]
    staged = list((run / "checkpoints").glob(".tmp-*")) if run.exists() else []
    for process in alive:
        process.send_signal(signal.SIGKILL)
    status = [process.wait() for process in processes]
    if not alive:
        if any(status):
            raise ComoviError(f"the resumed run ended by itself with exit status {status}; see what it said above.")
        return None
    log = read_log(run)
    moment = "while starting" if early and len(log) <= seen else f"after step {log[-1]['step'] if log else 0}"
    return moment + (", while saving" if staged else "")


def compare(straight: Path, other: Path) -> int:
    """Compare all checkpoints of a run with those of the undisturbed one; how many there are."""
    found = checkpoint.checkpoints(other)
    for folder in found:
        for file in sorted(folder.glob("*.safetensors")):
            if file.read_bytes() != (straight / "checkpoints" / folder.name / file.name).read_bytes():
                raise ComoviError(f"{file} differs from that of the undisturbed run.")
    return len(found)
