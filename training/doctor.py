"""What is installed for training, what is missing and how to get it, and whether this machine can do it."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from ..comovi_model.errors import ComoviError
from ..comovi_model.nano.model import AUTOENCODER_FILE, NETWORK_FILE, TEXT_FILE
from ..comovi_model.nano.people import ASSETS
from .batch import Draw
from .config import EngineConfig, ModelConfig, SmplConfig, SmplWeights, StageConfig, TrainConfig
from .memory import ClipSize, meta_batch
from .recipe import build_recipe

OLDEST_DEEPSPEED = (0, 19, 3)
TINY = {"dim": 24, "ffn_dim": 16, "num_heads": 2, "num_layers": 2, "text_dim": 8, "text_len": 6, "freq_dim": 8,
        "pose_layers": 1, "pose_ffn_dim": 16, "pose_tokens": 8}  # fmt: skip
LIBRARIES = {  # distribution: (what it is for, what happens without it, how to get it)
    "deepspeed": (
        "several GPUs, offload to the CPU",
        "engine.kind = single trains on one device",
        "DS_BUILD_OPS=0 pip install 'deepspeed>=0.19.3' (Linux)",
    ),
    "tensorboard": ("curves in TensorBoard", "curves are in log.jsonl and in `comovi-train watch`",
                    "pip install tensorboard"),
    "numba": ("fast drawing of synthetic clips", "plain torch, slower", "pip install numba"),
    "tomli": ("settings files on Python 3.10", "nothing: Python 3.11 reads them itself", "pip install tomli"),
    "ray": ("curation on many machines", "curation on this one", "pip install 'ray[data]'"),
}  # fmt: skip


def examine(folder: Path) -> tuple[list[str], bool]:
    """The report's lines, and whether training can start here; folder: where runs would be written."""
    checks: tuple[tuple[str, Callable[[], tuple[list[str], bool]]], ...] = (
        ("This machine", machine),
        ("Libraries", libraries),
        ("Devices", devices),
        ("Disk", lambda: disk(folder)),
        ("Weights of the nano model", assets),
        ("Trial step", trial),
    )
    lines, healthy = [], True
    for title, check in checks:
        body, good = check()
        healthy = healthy and good
        lines += [title, *(f"  {line}" for line in body), ""]
    return [*lines, "Training can start." if healthy else "Something needed is missing (see above)."], healthy


def machine() -> tuple[list[str], bool]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30 if hasattr(os, "sysconf") else 0
    told = f", {memory:.0f} GiB of memory" if memory else ""
    return [f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores{told}"], True


def version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def libraries() -> tuple[list[str], bool]:
    lines, healthy = [f"torch {version_of('torch')}"], True
    needs_tomli = importlib.util.find_spec("tomllib") is None
    for name, (purpose, without, how) in LIBRARIES.items():
        version = version_of(name)
        if version is not None:
            lines.append(f"{name} {version}: {purpose}")
        elif name == "tomli" and not needs_tomli:
            continue
        else:
            lines.append(f"{name} is missing: {purpose}; without it {without}. Get it: {how}")
            healthy = healthy and name != "tomli"
    deepspeed = version_of("deepspeed")
    if deepspeed and numbers(deepspeed) < OLDEST_DEEPSPEED:
        lines.append(f"deepspeed {deepspeed} is too old: frozen weights and recomputed blocks fail before 0.19.3")
        healthy = False
    return lines, healthy


def numbers(version: str) -> tuple[int, ...]:
    """ "0.19.8+cu12" -> (0, 19, 8)."""
    return tuple(int(part) for part in version.split("+")[0].split(".")[:3] if part.isdigit())


def devices() -> tuple[list[str], bool]:
    lines = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        found = torch.cuda.get_device_properties(index)
        bf16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16: use engine.precision = fp32"
        lines.append(f"cuda:{index} {found.name}, {found.total_memory / 1e9:.0f} GB, {bf16}")
    if not lines:
        lines.append("no GPU: the nano model and tests train on the CPU, the paper's network does not")
    return lines, True


def disk(folder: Path) -> tuple[list[str], bool]:
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    writable = os.access(place, os.W_OK)
    lines = [
        f"{free / 1e9:,.0f} GB free where runs go ({folder})" + ("" if writable else ", which cannot be written"),
        "a checkpoint of stage 2 takes 73 GB (weights and Adam's averages in float32), one of nano 0.1 GB",
    ]
    return lines, writable and free > 1e9


def assets() -> tuple[list[str], bool]:
    missing = [name for name in (NETWORK_FILE, TEXT_FILE, AUTOENCODER_FILE) if not (ASSETS / name).exists()]
    if missing:
        return [f"{name} is missing; install the package again" for name in missing], False
    return ["here"], True


def trial() -> tuple[list[str], bool]:
    """One step of a tiny network of the paper's kind, forward and backward, on the CPU."""
    smpl = SmplConfig(layers_per_step=1, weights=SmplWeights(vertices=0.0, joints=0.0))
    engine = EngineConfig(precision="fp32")
    recipe = build_recipe(TrainConfig(model=ModelConfig(shape=TINY), stage=StageConfig(smpl=smpl), engine=engine))
    batch = meta_batch(recipe, ClipSize(9, 64, 64), 1, device="cpu")
    try:
        loss = recipe(batch, Draw(0, 0, 0, 0, 1))["loss"]
        loss.backward()
    except (ComoviError, RuntimeError) as error:
        return [f"failed: {error}"], False
    good = bool(torch.isfinite(loss.detach()))
    return [f"a tiny network's loss and gradients: {'fine' if good else 'not finite'}"], good


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where runs would be written")
    parser.add_argument("--processes", action="store_true", help="also start two processes and let them talk")


def run(options: argparse.Namespace) -> int:
    lines, healthy = examine(options.out)
    print("\n".join(lines))
    if options.processes:
        line, good = talk()
        print(line)
        healthy = healthy and good
    return 0 if healthy else 1


TALK = (
    "import torch, torch.distributed as d; d.init_process_group('gloo'); x = torch.ones(1); d.all_reduce(x);"
    "assert int(x) == 2; d.destroy_process_group()"
)


def talk() -> tuple[str, bool]:
    """Whether two processes of torchrun find each other on this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command = [*launcher, sys.executable, "-c", TALK]  # the Python of this very command, wherever PATH leads
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"two processes: torchrun did not work ({type(error).__name__}).", False
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"two processes could not talk to each other: {last}", False
    return "two processes talk to each other", True
