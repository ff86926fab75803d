"""One network on two devices: the motion branch on one, the video branch on the other.

In the released mode (single_m2v) the motion branch never reads the video, so what passes between them goes one way: for
every layer the zero-linear's output, (B, F, S, D) in the dtype of products. The motion side runs ahead and its sending
overlaps with its next layer. Each side holds and samples only its own stream, which halves weights and latents.

`MotionSide` and `VideoSide` are networks like `DualBranch` with half of its parts; give each its own latent and None
for the other. They talk through torch.distributed: gloo between processes on CPUs, NCCL between GPUs.
parallel_benchmark.py times it on two GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import ComoviError
from .config import DualBranchConfig
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
