"""The operations as the network calls them: inputs, definition, providers, and how many bytes and FLOPs they need.

Providers of an operation:

    literal        the released code's order: float32 copies between all steps, complex128 rotary positions, and one
                   modulation row per token
    eager          what a good ComfyUI model does without kernels: 16-bit sums, addcmul, PyTorch's fused norms
    torch          our formula
    compile        our formula under torch.compile
    triton, comfy-kitchen      those back ends, where their guards let them

The bytes of an operation are those that any implementation must move once: inputs read, results written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import fp8
from ..join_norm import join, join_norm_affine, join_norm_modulate
from ..linear_gelu import linear_gelu
from ..norm_modulate import norm_modulate
from ..pose_attention import pose_attention
from ..qk_norm_rope import norm_heads, qk_norm_rope
from ..zero_linear import zero_linear
from .ceilings import Size

Call = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One operation at one size. Every provider takes the same inputs and gives the same results."""

    op: str
    inputs: tuple[Any, ...]
    run: Call  # dispatched; the definition where plain PyTorch is asked for
    moved: float  # bytes
    flops: float = 0.0
    others: dict[str, Call] = field(default_factory=dict)  # literal, eager
    shape: str = ""
    learn: tuple[int, ...] = ()  # inputs that have gradients: forward and backward are timed
    precise: bool = True  # results are floats that can be compared with float64


def bytes_of(*tensors: Any) -> float:
    return float(sum(x.numel() * x.element_size() for x in tensors if isinstance(x, Tensor)))


def cases(size: Size, device: torch.device) -> Iterator[Case]:
    """All operations at a size; made one after the other, so that one set of inputs is in memory at a time."""
    generator = torch.Generator(device).manual_seed(0)
    batch, frames, tokens, dim, dtype = size.batch, size.frames, size.tokens, size.dim, size.dtype

    def random(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=torch.float32).to(dtype)

    stream = (batch, frames, tokens, dim)
    shape = "x".join(map(str, stream))
    rows = random(batch, frames, 1, 6, dim, dtype=torch.float32).unbind(-2)
    x, update = random(*stream, dtype=torch.float32), random(*stream)
    once = bytes_of(update)  # one pass over a stream in the dtype of products
    wide = bytes_of(x)

    inputs: tuple[Any, ...] = (x, rows[0], rows[1], 1e-6, dtype)
    made = Case("norm_modulate", inputs, norm_modulate, wide + once, shape=shape,
                others={"literal": literal_norm_modulate, "eager": eager_norm_modulate})  # fmt: skip
    yield made
    yield replace(made, op="norm_modulate backward", learn=(0, 1, 2), moved=3 * wide + 2 * once, others={})
    yield replace(made, op="norm_modulate fp8", inputs=(x, rows[0], rows[1]), run=fp8.norm_modulate_fp8,
                  moved=wide + batch * frames * tokens * (dim + 4), others={}, precise=False)  # fmt: skip

    yield Case("join", (x, update, rows[2], update), join, 2 * wide + 2 * once, shape=shape)
    inputs = (x, update, rows[2], rows[3], rows[4], 1e-6, dtype)
    made = Case("join_norm", inputs, join_norm_modulate, 2 * wide + 2 * once, shape=shape,
                others={"literal": literal_join_norm, "eager": eager_join_norm})  # fmt: skip
    yield made
    yield replace(made, op="join_norm backward", learn=(0, 1, 2, 3, 4), moved=5 * wide + 5 * once, others={})
    weight, bias = random(dim), random(dim)
    inputs = (x, update, rows[2], weight, bias, 1e-6, dtype)
    yield replace(made, op="join_norm affine", inputs=inputs, run=join_norm_affine, others={})
    yield replace(made, op="join_norm fp8", inputs=(x, update, rows[2], rows[3], rows[4]),
                  run=fp8.join_norm_modulate_fp8, moved=2 * wide + once + batch * frames * tokens * (dim + 4),
                  others={}, precise=False)  # fmt: skip

    length, head = frames * tokens, dim // size.heads
    q, k = random(batch, length, dim), random(batch, length, dim)
    angles = random(length, head // 2, dtype=torch.float32)
    inputs = (q, k, weight, bias, angles.cos(), angles.sin(), size.heads)
    made = Case("qk_norm_rope", inputs, qk_norm_rope, 4 * once, shape=f"{batch}x{length}x{dim}",
                others={"literal": literal_qk, "eager": eager_qk})  # fmt: skip
    yield made
    yield replace(made, op="qk_norm_rope backward", learn=(0, 1, 2, 3), moved=10 * once, others={})
    yield replace(made, op="qk_norm_rope fp8", run=fp8.qk_norm_rope_fp8, others={}, precise=False,
                  moved=2 * once + 2 * batch * length * (dim + 4))  # fmt: skip
    yield Case("norm_heads", (q, weight, size.heads), norm_heads, 2 * once, shape=f"{batch}x{length}x{dim}")

    groups, heads = frames - 1, size.pose_heads
    head = dim // heads
    q, k, v = (random(1, groups * count, heads, head) for count in (4, tokens, tokens))
    flops = 4.0 * groups * 4 * tokens * dim
    made = Case("pose_attention", (q, k, v, groups), dispatched_pose, bytes_of(q, k, v, q), flops,
                shape=f"{groups}x4x{tokens}x{heads}x{head}")  # fmt: skip
    yield made
    yield replace(made, op="pose_attention backward", learn=(0, 1, 2), moved=bytes_of(q, k, v, q, q, k, v, q),
                  flops=3.5 * flops)  # fmt: skip

    hidden = random(batch, frames, tokens, size.ffn_dim)
    yield Case("quantise_rows", (hidden, True), fp8.to_rows8, bytes_of(hidden) * (1 + 1 / hidden.element_size()),
               shape=f"{size.rows}x{size.ffn_dim}", precise=False)  # fmt: skip
    del hidden
    up = nn.Linear(dim, size.ffn_dim, device=device, dtype=dtype).requires_grad_(False)
    yield Case("linear_gelu", (up, update), linear_gelu, 0.0, 2.0 * size.rows * dim * size.ffn_dim,
               shape=f"{size.rows}x{size.ffn_dim}x{dim}")  # fmt: skip
    between = nn.Linear(dim, dim, device=device, dtype=dtype).requires_grad_(False)
    yield Case("zero_linear", (x, update, between, dtype), zero_linear, 2 * wide + once, 2.0 * size.rows * dim**2,
               shape=f"{size.rows}x{dim}x{dim}")  # fmt: skip


def dispatched_pose(q: Tensor, k: Tensor, v: Tensor, groups: int) -> Tensor:
    from ..dense_attention import dense_attention

    return pose_attention(q, k, v, groups, dense_attention)


def per_token(row: Tensor, tokens: int) -> Tensor:
    """A modulation row spread over its frame, as the released code has it."""
    return row.expand(-1, -1, tokens, -1).contiguous()


def literal_norm_modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    shift, scale = per_token(shift, x.shape[2]), per_token(scale, x.shape[2])
    return (F.layer_norm(x.float(), x.shape[-1:], eps=eps) * (1 + scale) + shift).to(dtype)


def eager_norm_modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    x, shift, scale = x.to(dtype), shift.to(dtype), scale.to(dtype)
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=eps), 1 + scale)


def literal_join_norm(
    x: Tensor, update: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    joined = x + update.float() * per_token(gate, x.shape[2])
    return joined, literal_norm_modulate(joined, shift, scale, eps, dtype)


def eager_join_norm(
    x: Tensor, update: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    joined = torch.addcmul(x.to(dtype), update, gate.to(dtype))
    return joined, eager_norm_modulate(joined, shift, scale, eps, dtype)


def literal_qk(
    q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, num_heads: int
) -> tuple[Tensor, Tensor]:
    turn = torch.complex(cos.double(), sin.double()).unsqueeze(1)  # (L, 1, P)

    def one(x: Tensor, weight: Tensor) -> Tensor:
        wide = x.float()
        x = (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * weight
        turned = []
        for sample in x.unflatten(-1, (num_heads, -1)):
            pairs = torch.view_as_complex(sample.double().unflatten(-1, (-1, 2)).contiguous())
            turned.append(torch.view_as_real(pairs * turn).flatten(2))
        return torch.stack(turned).to(q.dtype)

    return one(q, q_weight), one(k, k_weight)


def eager_qk(
    q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, num_heads: int
) -> tuple[Tensor, Tensor]:
    turn = torch.stack((cos, -sin, sin, cos), -1).unflatten(-1, (2, 2))[None, :, None]  # (1, L, 1, P, 2, 2)

    def one(x: Tensor, weight: Tensor) -> Tensor:
        x = F.rms_norm(x, x.shape[-1:], weight, 1e-6).unflatten(-1, (num_heads, -1))
        pairs = x.float().unflatten(-1, (-1, 1, 2))
        return torch.addcmul(turn[..., 0] * pairs[..., 0], turn[..., 1], pairs[..., 1]).flatten(-2).to(x.dtype)

    return one(q, q_weight), one(k, k_weight)
