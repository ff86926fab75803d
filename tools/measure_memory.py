"""Measures the activation memory of one evaluation of the network at full size, without the memory and without a GPU.

python tools/measure_memory.py --package ..            (a folder that holds this repository as `comfyui_comovi`)

The network runs on PyTorch's meta device, where tensors have shapes but no numbers, and a dispatch mode adds up the
storages that are alive at the same time; operations take the path that they take on a GPU. Weights are not counted.
What it cannot see: workspaces of matrix products, the allocator's rounding, and what an attention library stores
inside; the attention is taken to store its result only, as the fused ones do.

ComfyUI asks a model how much memory a sampling step takes and knows it as a `memory_usage_factor`:
bytes = positions * (bytes per number) * 0.01 * factor * 2^20, with positions = batch * latent frames * latent height *
latent width. The tool prints that factor too.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from contextlib import nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor

MEBIBYTE = 2**20


def stored_result_only(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Shapes and memory of a fused attention: (B, L, N, d), (B, M, N, d), (B, M, N, d) -> (B, L, N, d)."""
    return torch.empty_like(q, memory_format=torch.contiguous_format)


def one_evaluation(package: Any, options: argparse.Namespace, batch: int, branches: str) -> Any:
    config_file = importlib.import_module(f"{package}.comovi_model.comovi.config")
    network_file = importlib.import_module(f"{package}.comovi_model.comovi.dual_branch")
    dtype = getattr(torch, options.dtype)
    config = config_file.DualBranchConfig(interaction=options.interaction)
    frames = (options.frames - 1) // 4 + 1
    shape = (batch, config.in_channels, frames, options.height // 16, options.width // 16)
    live = importlib.import_module(f"{package}.kernels.live_memory").LiveBytes()
    network = network_file.DualBranch(config, attention=stored_result_only, device="meta", dtype=dtype)
    network.product_dtype = lambda device: dtype
    no_autocast = mock.patch("torch.autocast", return_value=nullcontext())  # it does not know "meta"
    with torch.no_grad(), torch.device("meta"), no_autocast:
        times = torch.empty(batch, frames)
        text = torch.empty(batch, config.text_len, config.text_dim, dtype=dtype)
        with live:
            video = torch.empty(shape) if branches != "motion" else None
            motion = torch.empty(shape) if branches != "video" else None
            network(video, motion, times, text, motion_timestep=times)
    return live


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", default="..", help="folder that holds the repository as comfyui_comovi")
    parser.add_argument("--frames", type=int, default=81)
    parser.add_argument("--height", type=int, default=704)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--interaction", default="single_m2v", help="single_m2v (as released) or mutual")
    options = parser.parse_args()
    sys.path.insert(0, options.package)
    size = torch.finfo(getattr(torch, options.dtype)).bits // 8
    sys.stdout.write(f"{options.frames} frames of {options.width} x {options.height}, {options.dtype}\n")
    for branches in ("both", "video", "motion"):
        for batch in (1, 2):
            live = one_evaluation("comfyui_comovi", options, batch, branches)
            positions = batch * ((options.frames - 1) // 4 + 1) * (options.height // 16) * (options.width // 16)
            factor = live.peak / positions / size / 0.01 / MEBIBYTE
            sys.stdout.write(
                f"{branches:7s} batch {batch}: peak {live.peak / MEBIBYTE:6.0f} MiB, {live.peak / positions:6.0f} bytes"
                f" a position, memory_usage_factor {factor:.2f} (peak at {live.worst})\n"
            )


if __name__ == "__main__":
    main()
