"""What the two branches tell each other, layer by layer (Eq. 6).

Layer i of the video branch; if i is a multiple of `interleave` it forms a pair with motion block j = i / interleave.
Z is a zero-linear, x_v and x_m are the tokens of video and motion, (B, F, S, D) each.

    none         nothing
    single_m2v   after both blocks     x_v <- x_v + Z_j(x_m)           the released model
    single_v2m   before both blocks    x_m <- x_m + Z_j(x_v)
    dual         before both blocks    x_m <- x_m + Z_i(x_v)
                 after both blocks     x_v <- x_v + Z_(i+1)(x_m)       interleave 2 or more
    mutual       after both blocks     x_v <- x_v + Z_j(x_m)  and  x_m <- x_m + Z'_j(x_v), both from the old values

The first four are the official code's. Its released mode is one-way: the motion never learns what the video does.
`mutual` is ours, and what the paper's text promises; its Z_j means the same as in single_m2v, Z'_j is a set of its
own. As every right side is from before the exchange, the order of the two cannot favour a branch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...kernels.zero_linear import zero_linear
from ..wan.attention import Parts
from .config import DualBranchConfig


def build_zero_linears(config: DualBranchConfig, parts: Parts) -> tuple[nn.ModuleList, nn.ModuleList]:
    """(Z, Z'): layers towards the video (or the only ones), and the second set of `mutual`."""
    pairs, layers = config.num_motion_layers, config.num_layers
    first = {"none": 0, "dual": layers}.get(config.interaction, pairs)
    second = pairs if config.interaction == "mutual" else 0

    def linears(count: int) -> nn.ModuleList:
        return nn.ModuleList(parts.linear(config.dim, config.dim) for _ in range(count))

    return linears(first), linears(second)


def exchange_before(model: nn.Module, i: int, video: Tensor, motion: Tensor, dtype: torch.dtype) -> Tensor:
    """The motion tokens that enter pair i; `video` is what its video block will read."""
    config = model.config
    if config.interaction == "single_v2m":
        return zero_linear(motion, video, model.zero_linear_blocks[i // config.interleave], dtype)
    if config.interaction == "dual":
        return zero_linear(motion, video, model.zero_linear_blocks[i], dtype)
    return motion


def exchange_after(
    model: nn.Module, i: int, video: Tensor, motion: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """(video, motion) tokens that leave pair i."""
    config, j = model.config, i // model.config.interleave
    if config.interaction == "single_m2v":
        return zero_linear(video, motion, model.zero_linear_blocks[j], dtype), motion
    if config.interaction == "dual":
        return zero_linear(video, motion, model.zero_linear_blocks[i + 1], dtype), motion
    if config.interaction == "mutual":
        new_video = zero_linear(video, motion, model.zero_linear_blocks[j], dtype)
        new_motion = zero_linear(motion, video, model.zero_linear_blocks_v2m[j], dtype)
        return new_video, new_motion
    return video, motion
