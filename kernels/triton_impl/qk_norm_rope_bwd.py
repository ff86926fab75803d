"""Gradients of the RMS norm of q and k with rotary positions. Formula and letters: ../qk_norm_rope.py.

With r the reciprocal root mean square of a row x, n = x r, g what comes back, turned back by the token's angles:

    d x = r (g w - n mean(g w n))        one program per token and tensor
    d w = sum over tokens of g n         partial sums over chunks of tokens, in fixed order
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import row_warps

CHUNK, ROWS, COLUMNS = 256, 8, 128  # tokens of a partial sum; rows and channels that its program holds at a time


@triton.jit
def turned_back(grad, cos, sin, ROWS: tl.constexpr, PAIRS: tl.constexpr):
    """(ROWS, 2 * PAIRS) gradients of rotated pairs -> gradients of the pairs before rotation."""
    even, odd = tl.split(tl.reshape(grad, (ROWS, PAIRS, 2)))
    return tl.reshape(tl.join(even * cos + odd * sin, odd * cos - even * sin), (ROWS, 2 * PAIRS))


@triton.jit
def qk_norm_rope_bwd_kernel(
    q_ptr, k_ptr, q_weight_ptr, k_weight_ptr, cos_ptr, sin_ptr, q_grad_ptr, k_grad_ptr, dq_ptr, dk_ptr, q_inverse_ptr,
    k_inverse_ptr, length, channels, head_pairs, eps, ROPE: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)  # of B * L
    first = tl.program_id(1) == 0
    x_ptr = q_ptr if first else k_ptr
    weight_ptr = q_weight_ptr if first else k_weight_ptr
    grad_ptr = q_grad_ptr if first else k_grad_ptr
    dx_ptr = dq_ptr if first else dk_ptr
    inverse_ptr = q_inverse_ptr if first else k_inverse_ptr
    columns = tl.arange(0, 2 * PAIRS)
    inside = columns < channels
    x = tl.load(x_ptr + row * channels + columns, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr + row * channels + columns, mask=inside, other=0.0).to(tl.float32)
    inverse = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / channels + eps)
    if ROPE:
        pair = tl.arange(0, PAIRS)
        angle = (row % length) * head_pairs + pair % head_pairs
        real = pair * 2 < channels
        cos = tl.load(cos_ptr + angle, mask=real, other=0.0).to(tl.float32)
        sin = tl.load(sin_ptr + angle, mask=real, other=0.0).to(tl.float32)
        even, odd = tl.split(tl.reshape(grad, (PAIRS, 2)))
        grad = tl.reshape(tl.join(even * cos + odd * sin, odd * cos - even * sin), (2 * PAIRS,))
    grad = grad * tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    normed = x * inverse
    dx = inverse * (grad - normed * (tl.sum(grad * normed, axis=0) / channels))
    tl.store(dx_ptr + row * channels + columns, dx.to(dx_ptr.dtype.element_ty), mask=inside)
    tl.store(inverse_ptr + row, inverse)


@triton.jit
def weight_sums_bwd_kernel(
    q_ptr, k_ptr, cos_ptr, sin_ptr, q_grad_ptr, k_grad_ptr, q_inverse_ptr, k_inverse_ptr, q_sums_ptr, k_sums_ptr,
    rows, length, channels, head_pairs,
    ROPE: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    chunk = tl.program_id(0).to(tl.int64)
    first = tl.program_id(2) == 0
    x_ptr = q_ptr if first else k_ptr
    grad_ptr = q_grad_ptr if first else k_grad_ptr
    inverse_ptr = q_inverse_ptr if first else k_inverse_ptr
    sums_ptr = q_sums_ptr if first else k_sums_ptr
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    pair = tl.program_id(1) * (COLUMNS // 2) + tl.arange(0, COLUMNS // 2)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, CHUNK, ROWS):
        row = chunk * CHUNK + start + tl.arange(0, ROWS)
        there = (row[:, None] < rows) & inside[None, :]
        at = row[:, None] * channels + columns[None, :]
        x = tl.load(x_ptr + at, mask=there, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + at, mask=there, other=0.0).to(tl.float32)
        if ROPE:
            angle = (row % length)[:, None] * head_pairs + (pair % head_pairs)[None, :]
            real = (row[:, None] < rows) & (pair * 2 < channels)[None, :]
            cos = tl.load(cos_ptr + angle, mask=real, other=0.0).to(tl.float32)
            sin = tl.load(sin_ptr + angle, mask=real, other=0.0).to(tl.float32)
            grad = turned_back(grad, cos, sin, ROWS, COLUMNS // 2)
        inverse = tl.load(inverse_ptr + row, mask=row < rows, other=0.0)
        total += grad * x * inverse[:, None]
    tl.store(sums_ptr + chunk * channels + columns, tl.sum(total, axis=0), mask=inside)


def qk_norm_rope_backward(
    tensors: list[Tensor], weights: list[Tensor], grads: list[Tensor], cos: Tensor | None, sin: Tensor | None,
    num_heads: int, eps: float, want_weights: bool,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """q and k, or one of them, (B, L, D) with gradients (B, L, N, d) -> gradients of them and of their weights (D,)."""
    tensors = [x.contiguous() for x in tensors]
    grads = [grad.contiguous() for grad in grads]
    rope = cos is not None and sin is not None
    cos, sin = (cos.contiguous(), sin.contiguous()) if rope else (weights[0], weights[0])  # type: ignore[union-attr]
    batch, length, channels = tensors[0].shape
    rows, count, head_pairs = batch * length, len(tensors), channels // num_heads // 2 if rope else 1
    found = [torch.empty_like(x) for x in tensors]
    inverses = [torch.empty((rows,), dtype=torch.float32, device=x.device) for x in tensors]
    pairs = triton.next_power_of_2(channels) // 2

    def both(values: list[Tensor]) -> tuple[Tensor, Tensor]:
        return values[0], values[-1]

    qk_norm_rope_bwd_kernel[(rows, count)](
        *both(tensors), *both(weights), cos, sin, *both(grads), *both(found), *both(inverses), length, channels,
        head_pairs, eps, ROPE=rope, PAIRS=pairs, num_warps=row_warps(2 * pairs),
    )  # fmt: skip
    if not want_weights:
        return found, [torch.empty((0,), dtype=torch.float32, device=cos.device) for _ in tensors]
    chunks = triton.cdiv(rows, CHUNK)
    sums = [torch.empty((chunks, channels), dtype=torch.float32, device=x.device) for x in tensors]
    weight_sums_bwd_kernel[(chunks, triton.cdiv(channels, COLUMNS), count)](
        *both(tensors), cos, sin, *both(grads), *both(inverses), *both(sums), rows, length, channels, head_pairs,
        ROPE=rope, CHUNK=CHUNK, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=4,
    )  # fmt: skip
    return found, [total.sum(0) for total in sums]
