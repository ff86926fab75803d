"""Blocks whose matrix products run in 8 bits: the norms hand them 8-bit rows, everything else stays as it is.

`use_eight_bits(network)` turns the matrices of all blocks into e4m3 with one scale per output channel, in place and for
good: half the memory, and on GPUs that have such products (RTX 40, H100 and later) nearly twice their speed. Inference
only. ComfyUI brings its own 8-bit layers and does not come here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...kernels.fp8 import (
    Rows8,
    fp8_linear,
    join_norm_affine_fp8,
    join_norm_modulate_fp8,
    norm_modulate_fp8,
    quantise_rows,
    to_rows8,
)
from ...kernels.join_norm import join_norm_affine, join_norm_modulate
from ...kernels.linear_gelu import linear_gelu
from ...kernels.norm_modulate import norm_modulate


class Linear8(nn.Module):
    """A linear layer with 8-bit weights; reads tensors, or rows that are in 8 bits already."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        rows = quantise_rows(layer.weight.detach())
        self.dtype = layer.weight.dtype  # of what comes out
        self.register_buffer("weight", rows.values)
        self.register_buffer("scales", rows.scales)
        self.register_buffer("bias", layer.bias.detach())

    def forward(self, x: Tensor | Rows8) -> Tensor:
        rows = x if isinstance(x, Rows8) else to_rows8(x)
        return fp8_linear(rows, Rows8(self.weight, self.scales), self.bias, self.dtype)


def use_eight_bits(network: nn.Module) -> int:
    """Turn the matrices of all blocks of a network into 8 bits; returns how many."""
    found = [
        (part, name, layer)
        for block_name, block in network.named_modules()
        if block_name.rpartition(".")[0].endswith("blocks") and "linear" not in block_name
        for part in block.modules()
        for name, layer in list(part.named_children())
        if type(layer) is nn.Linear
    ]
    for part, name, layer in found:
        setattr(part, name, Linear8(layer))
    return len(found)


def is_eight_bit(layer: nn.Module) -> bool:
    """Whether a block's norms should hand over 8-bit rows."""
    return type(layer) is Linear8


def modulated(x: Tensor, shift: Tensor, scale: Tensor, eps: float, dtype: torch.dtype, eight: bool) -> Tensor | Rows8:
    """norm_modulate in the form that the next product reads."""
    return norm_modulate_fp8(x, shift, scale, eps) if eight else norm_modulate(x, shift, scale, eps, dtype)


def joined_affine(
    x: Tensor, y: Tensor, gate: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype, eight: bool
) -> tuple[Tensor, Tensor | Rows8]:
    """join_norm_affine in the form that the next product reads."""
    if eight:
        return join_norm_affine_fp8(x, y, gate, weight, bias, eps)
    return join_norm_affine(x, y, gate, weight, bias, eps, dtype)


def joined_modulated(
    x: Tensor, y: Tensor, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float, dtype: torch.dtype, eight: bool
) -> tuple[Tensor, Tensor | Rows8]:
    """join_norm_modulate in the form that the next product reads."""
    if eight:
        return join_norm_modulate_fp8(x, y, gate, shift, scale, eps)
    return join_norm_modulate(x, y, gate, shift, scale, eps, dtype)


def tokens_of(y: Tensor | Rows8) -> Tensor | Rows8:
    """(B, F, S, D) -> (B, F * S, D)."""
    return y.flatten_tokens() if isinstance(y, Rows8) else y.flatten(1, 2)


def feed_forward(ffn: nn.Sequential, y: Tensor | Rows8) -> Tensor:
    """Two layers with GELU between them; in 8 bits the activation is part of making the rows."""
    if isinstance(y, Rows8):
        return ffn[2](to_rows8(ffn[0](y), gelu=True))
    return ffn[2](linear_gelu(ffn[0], y))
