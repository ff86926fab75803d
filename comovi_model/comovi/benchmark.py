"""A step, ours beside the literal order of operations: `python -m comfyui_comovi.comovi_model.comovi.benchmark`.

Both run in turn in one process, on the same inputs: the nano model on the CPU, one step with guidance (2 rows). Time is
that of the least disturbed repeat; the processor's own time is given too, which other programs disturb less. Memory is
what the tensors of a step take at once, counted operator by operator, without the weights. `--json FILE` writes it all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ...kernels.live_memory import LiveBytes
from ..files import atomic_path
from ..nano.model import load_nano
from .dual_branch import DualBranch
from .literal import LiteralDualBranch

ORDERS = ("ours", "literal")


def steps_of(network: DualBranch, rows: int, frames: int, height: int, width: int) -> dict[str, Callable[[], object]]:
    """A step of each order on the same random latents under `rows` sentences, each as it runs in its sampler."""
    config = network.config
    generator = torch.Generator().manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator).to(network.patch_embedding.weight)

    video, motion = (random(1, config.in_channels, frames, height, width) for _ in range(2))
    text, pose = random(rows, config.text_len, config.text_dim), random(rows, config.pose_dim)
    moment = torch.full((1, frames), 500.0, device=video.device)
    moment[:, 0] = 0
    videos, motions, moments = (x.repeat(rows, *[1] * (x.ndim - 1)) for x in (video, motion, moment))
    cache, literal = network.make_text_cache(text), LiteralDualBranch(network)
    asked = {"init_pose": pose, "pose_from_layers": (-1,)} if network.pose_head is not None else {}
    return {
        "ours": lambda: network(video, motion, moment, None, text_cache=cache, copies=rows),
        "literal": lambda: literal(videos, motions, moments, text, **asked),
    }


@torch.inference_mode()
def measure(repeats: int) -> dict[str, float]:
    """Bytes at the peak and seconds of each order, and literal by ours."""
    steps = steps_of(load_nano().network, 2, 9, 12, 8)
    seconds: dict[str, list[float]] = {name: [] for name in ORDERS}
    busy: dict[str, list[float]] = {name: [] for name in ORDERS}
    figures: dict[str, float] = {}
    for name in ORDERS:
        live = LiveBytes()
        with live:
            steps[name]()
        figures[f"{name}_peak_bytes"] = live.peak
    figures["memory_ratio"] = figures["literal_peak_bytes"] / figures["ours_peak_bytes"]
    if not repeats:
        return figures
    for _ in range(repeats):
        for name in ORDERS:
            start, started = time.perf_counter(), time.process_time()
            steps[name]()
            busy[name].append(time.process_time() - started)
            seconds[name].append(time.perf_counter() - start)
    for name in ORDERS:
        figures |= {f"{name}_seconds": min(seconds[name]), f"{name}_cpu_seconds": statistics.median(busy[name])}
    figures["time_ratio"] = figures["literal_seconds"] / figures["ours_seconds"]
    figures["cpu_time_ratio"] = figures["literal_cpu_seconds"] / figures["ours_cpu_seconds"]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    options = parser.parse_args()
    figures = measure(options.repeats)
    print(f"nano, CPU, {torch.get_num_threads()} threads, one step with guidance")
    for name in ORDERS:
        print(f"  {name:<8} {figures[f'{name}_seconds'] * 1e3:6.0f} ms, "
              f"{figures[f'{name}_peak_bytes'] / 2**20:6.1f} MiB at most")  # fmt: skip
    print(f"  literal / ours: time {figures['time_ratio']:.2f}, processor time {figures['cpu_time_ratio']:.2f}, "
          f"memory {figures['memory_ratio']:.2f}")  # fmt: skip
    if options.json is not None:
        with atomic_path(options.json) as path:
            path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
