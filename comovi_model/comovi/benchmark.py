"""A step, ours beside the literal order of operations: `python -m comfyui_comovi.comovi_model.comovi.benchmark`.

Both run in turn in one process, on the same inputs, so that the ratio holds even on a busy machine; memory is measured
in a process for each. Default: the nano model on the CPU, one step with guidance (2 rows).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from ..body.benchmark import peak_memory_mb
from ..nano.model import load_nano
from .dual_branch import DualBranch
from .literal import LiteralDualBranch

ORDERS = ("ours", "literal")


def steps_of(network: DualBranch, rows: int, frames: int, height: int, width: int) -> dict[str, Callable[[], object]]:
    """A step of each order on the same random inputs; ours with keys and values of the sentence kept, as it runs."""
    config = network.config
    generator = torch.Generator().manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator).to(network.patch_embedding.weight)

    video, motion = (random(rows, config.in_channels, frames, height, width) for _ in range(2))
    text, pose = random(rows, config.text_len, config.text_dim), random(rows, config.pose_dim)
    moment = torch.full((rows, frames), 500.0, device=video.device)
    moment[:, 0] = 0
    cache, literal = network.make_text_cache(text), LiteralDualBranch(network)
    asked = {"init_pose": pose, "pose_from_layers": (-1,)} if network.pose_head is not None else {}
    return {
        "ours": lambda: network(video, motion, moment, None, text_cache=cache),
        "literal": lambda: literal(video, motion, moment, text, **asked),
    }


@torch.inference_mode()
def measure(repeats: int) -> dict[str, float]:
    """Median seconds of each order, taken in turn."""
    steps = steps_of(load_nano().network, 2, 9, 12, 8)
    seconds: dict[str, list[float]] = {name: [] for name in ORDERS}
    for index in range(repeats + 1):
        for name in ORDERS:
            start = time.perf_counter()
            steps[name]()
            if index:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


@torch.inference_mode()
def memory_of(order: str) -> tuple[float, float]:
    """Resident MB before and at the peak of a step."""
    step = steps_of(load_nano().network, 2, 9, 12, 8)[order]
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak counts from here
    before = peak_memory_mb()
    step()
    return before, peak_memory_mb()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--memory-of", choices=ORDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(*memory_of(options.memory_of))
        return
    seconds = measure(options.repeats)
    peaks = {}
    for order in ORDERS:
        command = [sys.executable, "-m", __spec__.name, "--memory-of", order] if __spec__ else []
        before, after = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        peaks[order] = after - before
    print(f"nano, CPU, {torch.get_num_threads()} threads: ours {seconds['ours'] * 1e3:.0f} ms, literal order "
          f"{seconds['literal'] * 1e3:.0f} ms a step, ratio {seconds['literal'] / seconds['ours']:.2f}")  # fmt: skip
    print(f"memory beside the weights: ours {peaks['ours']:.0f} MB, literal order {peaks['literal']:.0f} MB")


if __name__ == "__main__":
    main()
