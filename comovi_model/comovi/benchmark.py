"""A step, ours beside the literal order of operations: `python -m comfyui_comovi.comovi_model.comovi.benchmark`.

Both run in turn in one process, on the same inputs, so that the ratio holds even on a busy machine: the nano model on
the CPU, one step with guidance (2 rows).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    seconds = measure(options.repeats)
    print(f"nano, CPU, {torch.get_num_threads()} threads: ours {seconds['ours'] * 1e3:.0f} ms, literal order "
          f"{seconds['literal'] * 1e3:.0f} ms a step, ratio {seconds['literal'] / seconds['ours']:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
