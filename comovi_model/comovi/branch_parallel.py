"""One network on two devices: the motion branch on one, the video branch on the other.

In the released mode (single_m2v) the motion branch never reads the video, so what passes between them goes one way: for
every layer the zero-linear's output, (B, F, S, D) in the dtype of products. The motion side runs ahead and its sending
overlaps with its next layer. Each side holds and samples only its own stream, which halves weights and latents.

`MotionSide` and `VideoSide` are networks like `DualBranch` with half of its parts; give each its own latent and None
for the other. They talk through torch.distributed: gloo between processes on CPUs, NCCL between GPUs.
`torchrun --nproc-per-node 2 -m comfyui_comovi.comovi_model.comovi.branch_parallel` times it on two GPUs.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import ComoviError
from .config import WAN22_5B, DualBranchConfig
from .dual_branch import DualBranch, Step


class _Side(DualBranch):
    def __init__(self, config: DualBranchConfig, peer: int, **options: Any):
        if config.interaction != "single_m2v":
            raise ComoviError(
                f"two devices share a network whose exchange goes one way, single_m2v; this is {config.interaction}."
            )
        super().__init__(config, **options)
        self.peer = peer
        self.pose_head = None  # it would need both sides; ask it once, afterwards, on the finished latents

    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Load this side's part of a whole network's weights."""
        own = {name: weights[name] for name in self.state_dict()}
        self.load_state_dict(own, assign=True)


class MotionSide(_Side):
    """Motion blocks and the zero-linears; its `forward` wants (None, motion, ...)."""

    def __init__(self, config: DualBranchConfig, peer: int, **options: Any):
        super().__init__(config, peer, **options)
        self.blocks = nn.ModuleList()
        self.register_module("head", None)
        self._sent: list[tuple[Any, Tensor]] = []

    def layer(self, i: int, x_v: Tensor | None, x_m: Tensor | None, step: Step) -> tuple[Tensor | None, Tensor | None]:
        j, rest = divmod(i, self.config.interleave)
        if rest:
            return None, x_m
        x_m = self._motion_block(j, x_m, step)
        assert x_m is not None
        z = self.zero_linear_blocks[j](x_m.to(step.dtype)).contiguous()
        self._sent = [(work, kept) for work, kept in self._sent if not work.is_completed()]
        self._sent.append((dist.isend(z, self.peer), z))  # the tensor must live until it has left
        if i == self.config.num_layers - self.config.interleave:
            for work, _ in self._sent:
                work.wait()
            self._sent = []
        return None, x_m


class VideoSide(_Side):
    """Video blocks; its `forward` wants (video, None, ...)."""

    def __init__(self, config: DualBranchConfig, peer: int, **options: Any):
        super().__init__(config, peer, **options)
        self.register_module("motion", None)
        self.zero_linear_blocks = nn.ModuleList()

    def layer(self, i: int, x_v: Tensor | None, x_m: Tensor | None, step: Step) -> tuple[Tensor | None, Tensor | None]:
        waits = i % self.config.interleave
        assert x_v is not None
        z = torch.empty((len(x_v) * step.copies, *x_v.shape[1:]), dtype=step.dtype, device=x_v.device)
        coming = None if waits else dist.irecv(z, self.peer)
        x_v = self._video_block(i, x_v, step)
        if coming is not None and x_v is not None:
            coming.wait()
            x_v = x_v + z
        return x_v, None


def make_side(config: DualBranchConfig, rank: int, **options: Any) -> MotionSide | VideoSide:
    """Rank 0 is the motion side, rank 1 the video side."""
    return MotionSide(config, 1, **options) if rank == 0 else VideoSide(config, 0, **options)


@torch.inference_mode()
def measure(steps: int = 3) -> None:
    """Seconds of a step of the released size with random weights, on this rank's GPU."""
    rank = int(os.environ["RANK"])
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    dist.init_process_group("nccl")
    side = make_side(WAN22_5B, rank, device=device, dtype=torch.bfloat16)
    latent = torch.randn(2, 48, 21, 80, 44, device=device, dtype=torch.bfloat16)
    moment = torch.full((2, 21), 500.0, device=device)
    text = torch.randn(2, 512, 4096, device=device, dtype=torch.bfloat16)
    for index in range(steps + 1):
        dist.barrier()
        torch.cuda.synchronize()
        start = time.perf_counter()
        side(*((None, latent) if rank == 0 else (latent, None)), moment, text)
        torch.cuda.synchronize()
        if index:
            peak = torch.cuda.max_memory_allocated() / 2**30
            print(
                f"{type(side).__name__}: {time.perf_counter() - start:.2f} s a step, {peak:.1f} GiB at most", flush=True
            )
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the two sides on two GPUs (start with torchrun).")
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    if torch.cuda.device_count() < 2 or "RANK" not in os.environ:
        raise SystemExit("two GPUs and torchrun are needed: torchrun --nproc-per-node 2 -m " + (__spec__ or os).name)
    measure(options.steps)


if __name__ == "__main__":
    main()
