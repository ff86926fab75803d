"""Self and cross attention of a branch, and what its layers are built from.

B batch, L tokens, M text tokens, D channels, N heads, d head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...kernels.dense_attention import AttentionFunction, dense_attention
from ...kernels.qk_norm_rope import norm_heads, qk_norm_rope
from .rope import RopeTable

WeightReader = Callable[[nn.Module, str, Tensor], Tensor]


def read_weight(owner: nn.Module, name: str, like: Tensor) -> Tensor:
    """The parameter `owner.name` on the device and in the dtype of `like`."""
    return getattr(owner, name).to(device=like.device, dtype=like.dtype)


@dataclass(frozen=True)
class Parts:
    """What layers are made of. A host that loads weights late or patches them (ComfyUI) brings its own parts."""

    operations: Any = nn  # a namespace with Linear, Conv3d and LayerNorm
    attention: AttentionFunction = dense_attention  # (q, k, v), each (B, L, N, d) -> (B, L, N, d)
    weight: WeightReader = read_weight  # how a bare parameter is read
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None

    def linear(self, in_features: int, out_features: int) -> nn.Module:
        return self.operations.Linear(in_features, out_features, device=self.device, dtype=self.dtype)

    def mlp(self, in_features: int, hidden: int, out_features: int, activation: nn.Module) -> nn.Sequential:
        return nn.Sequential(self.linear(in_features, hidden), activation, self.linear(hidden, out_features))

    def noise(self, *shape: int, std: float = 1.0) -> nn.Parameter:
        """A parameter that begins as Gaussian noise; undrawn on the meta device, where drawing imports 2 s worth."""
        values = torch.empty(shape, device=self.device)
        if not values.is_meta:
            values.normal_(std=std)  # before the cast, because 8-bit numbers cannot be drawn
        return nn.Parameter(values.to(self.dtype or values.dtype))


class KeysValues(NamedTuple):
    """What the tokens of a sentence offer to one layer; constant over a whole sampling run."""

    keys: Tensor  # (B, M, N, d)
    values: Tensor  # (B, M, N, d)


class NormWeight(nn.Module):
    """The learned weight of an RMS norm; the norm itself is part of the fused operations."""

    def __init__(self, dim: int, parts: Parts):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim, device=parts.device, dtype=parts.dtype))


class Attention(nn.Module):
    """Projections q, k, v, o with an RMS norm on q and k over the whole width."""

    def __init__(self, dim: int, num_heads: int, eps: float, parts: Parts):
        super().__init__()
        self.num_heads, self.eps = num_heads, eps
        self.attend, self.read = parts.attention, parts.weight
        self.q = parts.linear(dim, dim)
        self.k = parts.linear(dim, dim)
        self.v = parts.linear(dim, dim)
        self.o = parts.linear(dim, dim)
        self.norm_q = NormWeight(dim, parts)
        self.norm_k = NormWeight(dim, parts)

    def queries(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, N, d), normed."""
        q = self.q(x)
        return norm_heads(q, self.read(self.norm_q, "weight", q), self.num_heads, self.eps)

    def keys_values(self, x: Tensor) -> KeysValues:
        """(B, M, D) -> normed keys and plain values, (B, M, N, d) each."""
        k, v = self.k(x), self.v(x)
        keys = norm_heads(k, self.read(self.norm_k, "weight", k), self.num_heads, self.eps)
        return KeysValues(keys, v.unflatten(-1, (self.num_heads, -1)))


class SelfAttention(Attention):
    def forward(self, x: Tensor, rope: RopeTable | None) -> Tensor:
        """(B, L, D) -> (B, L, D). Without a table no position enters (pose tokens)."""
        if rope is None:
            keys, values = self.keys_values(x)
            return self.o(self.attend(self.queries(x), keys, values).flatten(2))
        q, k, v = self.q(x), self.k(x), self.v(x)
        q_weight = self.read(self.norm_q, "weight", q)
        k_weight = self.read(self.norm_k, "weight", k)
        q, k = qk_norm_rope(q, k, q_weight, k_weight, rope.cos, rope.sin, self.num_heads, self.eps)
        return self.o(self.attend(q, k, v.unflatten(-1, (self.num_heads, -1))).flatten(2))


class CrossAttention(Attention):
    def forward(self, x: Tensor, text: KeysValues) -> Tensor:
        """(B, L, D) -> (B, L, D). Every text row is read, the padding too: the network was trained so. No positions."""
        return self.o(self.attend(self.queries(x), text.keys, text.values).flatten(2))
