"""Gradients of the layer norms and of the gated sums before them. Formula and letters: ../join_norm.py.

With j the joined row, n its norm, w its factor (weight, or 1 + scale), c the number of channels, and dn, dj what comes
back for normed and joined:

    d total  = dj + (dn w - mean(dn w) - n mean(dn w n)) / deviation      a row each, one program per token
    d x      = d total                     d update = d total * gate
    d weight = sum dn n,  d bias = sum dn,  d gate = sum d total * update      over the tokens of a frame, in order

The second kernel gives one row per latent frame; the few rows are summed further by plain PyTorch where one row served
several frames.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import frame_rows, row_warps

TOKENS, COLUMNS = 8, 128  # rows and channels that a summing program holds at a time


@triton.jit
def norm_bwd_kernel(
    joined_ptr, normed_grad_ptr, joined_grad_ptr, weight_ptr, gate_ptr, total_ptr, update_grad_ptr, mean_ptr,
    inverse_ptr, frames, tokens, channels, eps, stride_weight_b, stride_weight_f, stride_gate_b, stride_gate_f,
    AFFINE: tl.constexpr, JOINED: tl.constexpr, UPDATE: tl.constexpr, GATE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)  # of B * F * S
    frame = (row // tokens) % frames
    batch = row // tokens // frames
    columns = tl.arange(0, BLOCK)
    inside = columns < channels
    at = row * channels + columns
    joined = tl.load(joined_ptr + at, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(joined, axis=0) / channels
    centred = tl.where(inside, joined - mean, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / channels + eps)
    normed = centred * inverse
    weight = tl.load(weight_ptr + batch * stride_weight_b + frame * stride_weight_f + columns, mask=inside, other=0.0)
    weight = weight.to(tl.float32)
    if not AFFINE:
        weight = 1.0 + weight
    grad = tl.load(normed_grad_ptr + at, mask=inside, other=0.0).to(tl.float32) * weight
    along = tl.sum(grad * normed, axis=0) / channels
    total = (grad - tl.sum(grad, axis=0) / channels - normed * along) * inverse
    if JOINED:
        total += tl.load(joined_grad_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(total_ptr + at, total.to(total_ptr.dtype.element_ty), mask=inside)
    if UPDATE:
        if GATE:
            gate_at = gate_ptr + batch * stride_gate_b + frame * stride_gate_f + columns
            total = total * tl.load(gate_at, mask=inside, other=0.0).to(tl.float32)
        tl.store(update_grad_ptr + at, total.to(update_grad_ptr.dtype.element_ty), mask=inside)
    tl.store(mean_ptr + row, mean)
    tl.store(inverse_ptr + row, inverse)


@triton.jit
def frame_sums_bwd_kernel(
    joined_ptr, normed_grad_ptr, total_ptr, update_ptr, mean_ptr, inverse_ptr, weight_grad_ptr, bias_grad_ptr,
    gate_grad_ptr, tokens, channels,
    NORM: tl.constexpr, GATE: tl.constexpr, TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(0).to(tl.int64)  # of B * F
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    for_weight = tl.zeros((TOKENS, COLUMNS), tl.float32)
    for_bias = tl.zeros((TOKENS, COLUMNS), tl.float32)
    for_gate = tl.zeros((TOKENS, COLUMNS), tl.float32)
    for start in range(0, tokens, TOKENS):
        token = start + tl.arange(0, TOKENS)
        row = group * tokens + token
        there = (token[:, None] < tokens) & inside[None, :]
        at = row[:, None] * channels + columns[None, :]
        if NORM:
            joined = tl.load(joined_ptr + at, mask=there, other=0.0).to(tl.float32)
            grad = tl.load(normed_grad_ptr + at, mask=there, other=0.0).to(tl.float32)
            mean = tl.load(mean_ptr + row, mask=token < tokens, other=0.0)
            inverse = tl.load(inverse_ptr + row, mask=token < tokens, other=0.0)
            for_weight += grad * (joined - mean[:, None]) * inverse[:, None]
            for_bias += grad
        if GATE:
            total = tl.load(total_ptr + at, mask=there, other=0.0).to(tl.float32)
            for_gate += total * tl.load(update_ptr + at, mask=there, other=0.0).to(tl.float32)
    out = group * channels + columns
    if NORM:
        tl.store(weight_grad_ptr + out, tl.sum(for_weight, axis=0), mask=inside)
        tl.store(bias_grad_ptr + out, tl.sum(for_bias, axis=0), mask=inside)
    if GATE:
        tl.store(gate_grad_ptr + out, tl.sum(for_gate, axis=0), mask=inside)


def norm_backward(
    joined: Tensor, weight: Tensor, affine: bool, gate: Tensor | None, normed_grad: Tensor, joined_grad: Tensor | None,
    update_dtype: torch.dtype | None, eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """All (B, F, S, D); weight (D,) or rows, gate rows -> d total, d update (empty without `update_dtype`), mean and
    reciprocal deviation of every token (B, F, S)."""
    batch, frames, tokens, channels = joined.shape
    joined, normed_grad = joined.contiguous(), normed_grad.contiguous()
    back = joined if joined_grad is None else joined_grad.contiguous()
    total = torch.empty_like(joined)
    update_grad = torch.empty(joined.shape if update_dtype else (0,), dtype=update_dtype, device=joined.device)
    mean, inverse = (torch.empty((batch, frames, tokens), dtype=torch.float32, device=joined.device) for _ in range(2))
    weights = weight if affine else frame_rows(weight, batch, frames)
    gates = weights if gate is None else frame_rows(gate, batch, frames)
    strides = [tensor.stride()[:2] if tensor.dim() == 3 else (0, 0) for tensor in (weights, gates)]
    block = triton.next_power_of_2(channels)
    norm_bwd_kernel[(batch * frames * tokens,)](
        joined, normed_grad, back, weights, gates, total, update_grad if update_dtype else total, mean, inverse,
        frames, tokens, channels, eps, *strides[0], *strides[1], AFFINE=affine, JOINED=joined_grad is not None,
        UPDATE=update_dtype is not None, GATE=gate is not None, BLOCK=block, num_warps=row_warps(block),
    )  # fmt: skip
    return total, update_grad, mean, inverse


def frame_sums(
    joined: Tensor, normed_grad: Tensor | None, mean: Tensor | None, inverse: Tensor | None, total: Tensor | None,
    update: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """d weight, d bias (with normed_grad) and d gate (with total and update), by frame: (B, F, 1, D) float32."""
    batch, frames, tokens, channels = joined.shape
    norm, gate = normed_grad is not None, update is not None
    joined = joined.contiguous()

    def given(tensor: Tensor | None) -> Tensor:
        return joined if tensor is None else tensor.contiguous()

    def rows(wanted: bool) -> Tensor:
        shape = (batch, frames, 1, channels) if wanted else (0,)
        return torch.empty(shape, dtype=torch.float32, device=joined.device)

    sums = [rows(norm), rows(norm), rows(gate)]
    frame_sums_bwd_kernel[(batch * frames, triton.cdiv(channels, COLUMNS))](
        joined, given(normed_grad), given(total), given(update), given(mean), given(inverse), *sums, tokens, channels,
        NORM=norm, GATE=gate, TOKENS=TOKENS, COLUMNS=COLUMNS, num_warps=4,
    )  # fmt: skip
    return sums[0], sums[1], sums[2]
