"""One step on one GPU and on two: `python -m comfyui_comovi.comovi_model.comovi.parallel_benchmark`.

Two ways to share a step of the released size with guidance: a branch for each GPU (branch_parallel.py), or a sentence
for each (guidance_parallel.py). Starts its own processes; prints the slower side of each. With `--cpu` the same on two
CPU processes and a small network, which proves the command and says nothing of speed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from .branch_parallel import make_side
from .config import WAN22_5B, DualBranchConfig
from .dual_branch import DualBranch
from .guidance_parallel import GuidanceParallel
from .velocity import DualBranchVelocity

LATENT, SMALL_LATENT = (21, 80, 44), (3, 8, 6)
SMALL = replace(WAN22_5B, dim=96, ffn_dim=192, num_heads=4, num_layers=2, text_dim=32, text_len=8, freq_dim=32)
WAYS = ("one", "branches", "sentences")


def one_process(rank: int, way: str, folder: str, cpu: bool, repeats: int) -> None:
    """Joins the others, times its part of a step, and writes the median, the peak of memory and its answer's mean."""
    device = torch.device("cpu") if cpu else torch.device("cuda", rank)
    if not cpu:
        torch.cuda.set_device(device)
    world = 1 if way == "one" else 2
    dist.init_process_group(
        "gloo" if cpu else "nccl", init_method=f"file://{folder}/meet-{way}", rank=rank, world_size=world
    )
    config, latent = (SMALL, SMALL_LATENT) if cpu else (WAN22_5B, LATENT)
    step = step_of(way, rank, config, latent, device, torch.float32 if cpu else torch.bfloat16)
    seconds = []
    with torch.inference_mode():
        for index in range(repeats + 1):
            dist.barrier()
            start = now(device)
            step()
            if index:
                seconds.append(now(device) - start)
    peak = 0 if cpu else torch.cuda.max_memory_allocated(device)
    Path(folder, f"{way}-{rank}").write_text(f"{statistics.median(seconds)} {peak}", encoding="utf-8")
    dist.destroy_process_group()


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def step_of(
    way: str,
    rank: int,
    config: DualBranchConfig,
    latent: tuple[int, int, int],
    device: torch.device,
    dtype: torch.dtype,
) -> Callable[[], Any]:
    """One step with guidance, as this process takes part in it; random weights."""
    torch.manual_seed(0)
    shape = (1, config.in_channels, *latent)
    given = {name: torch.randn(shape, device=device).to(dtype) for name in ("video", "motion")}
    texts = {name: torch.randn(1, config.text_len, config.text_dim, device=device).to(dtype)
             for name in ("negative", "positive")}  # fmt: skip
    if way == "branches":
        side = make_side(config, rank, device=device, dtype=dtype).requires_grad_(False)
        times = torch.full((1, latent[0]), 500.0, device=device)
        text = torch.cat(list(texts.values()))
        halves = (None, given["motion"]) if rank == 0 else (given["video"], None)
        return lambda: side(*halves, times, text, copies=2)
    network = DualBranch(config, device=device, dtype=dtype).requires_grad_(False)
    velocity = DualBranchVelocity(network, texts)
    shared = velocity if way == "one" else GuidanceParallel(velocity)
    sigmas = {"video": 0.5, "motion": 0.5}
    return lambda: shared(given, sigmas, list(texts), False)


def measure(cpu: bool, repeats: int) -> dict[str, tuple[float, int]]:
    """Way -> (seconds of a step, bytes at the peak) of its slower or larger process."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            world = 1 if way == "one" else 2
            mp.spawn(one_process, args=(way, folder, cpu, repeats), nprocs=world)
            parts = [Path(folder, f"{way}-{rank}").read_text(encoding="utf-8").split() for rank in range(world)]
            found[way] = max(float(part[0]) for part in parts), max(int(part[1]) for part in parts)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="two CPU processes and a small network")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if not options.cpu and torch.cuda.device_count() < 2:
        sys.stdout.write(
            f"two GPUs are needed, here are {torch.cuda.device_count()}; --cpu proves the command without\n"
        )
        return 0
    found = measure(options.cpu, options.repeats)
    for way, (seconds, peak) in found.items():
        name = {"one": "one device", "branches": "a branch each", "sentences": "a sentence each"}[way]
        memory = f", {peak / 2**30:.1f} GiB on the fuller one" if peak else ""
        sys.stdout.write(f"{name:<16} {seconds:8.3f} s a step, {found['one'][0] / seconds:.2f} times as fast{memory}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
