"""Gradients of the attention of a few pose queries over their own latent frame. Formula: ../pose_attention.py.

With p the softmax weights, made again from the logarithms of their sums that the forward pass kept, and g what comes
back for out:

    d v = p^T g        d s = p (g v^T - sum(g out)) / sqrt(d)        d k = d s^T q        d q = d s k

One program per (batch and frame, head) walks over the keys once; the queries of a frame are read by nobody else, so
every number is written once and in a fixed order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .pose_attention import ROWS

WARPS = 4
SHARED_BYTES = 48 * 1024  # for a block of keys and one of values, in the dtype of the tensors


def keys_of_block(item_bytes: int, size: int) -> int:
    """How many keys one block holds, a power of two of at least 16."""
    keys = 32
    while keys > 16 and 2 * keys * size * item_bytes > SHARED_BYTES:
        keys //= 2
    return keys


@triton.jit
def pose_attention_bwd_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, log_sum_ptr, grad_ptr, dq_ptr, dk_ptr, dv_ptr, queries, keys, heads, size, factor,
    stride_q, stride_k, stride_v, ROWS: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(0).to(tl.int64)  # of B * G
    head = tl.program_id(1)
    row, column, at = tl.arange(0, ROWS), tl.arange(0, SIZE), tl.arange(0, KEYS)
    real = (row[:, None] < queries) & (column[None, :] < size)
    q_at = (group * queries + row[:, None]) * stride_q + head * size + column[None, :]
    out_at = ((group * queries + row[:, None]) * heads + head) * size + column[None, :]
    q = tl.load(q_ptr + q_at, mask=real, other=0.0)
    grad = tl.load(grad_ptr + out_at, mask=real, other=0.0)
    out = tl.load(out_ptr + out_at, mask=real, other=0.0).to(tl.float32)
    log_sum = tl.load(log_sum_ptr + (group * heads + head) * queries + row, mask=row < queries, other=0.0)
    common = tl.sum(grad.to(tl.float32) * out, axis=1)
    dq = tl.zeros((ROWS, SIZE), tl.float32)
    for start in range(0, keys, KEYS):
        key = start + at
        there = (key[:, None] < keys) & (column[None, :] < size)
        token = group * keys + key[:, None]
        k = tl.load(k_ptr + token * stride_k + head * size + column[None, :], mask=there, other=0.0)
        v = tl.load(v_ptr + token * stride_v + head * size + column[None, :], mask=there, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * factor
        seen = (row[:, None] < queries) & (key[None, :] < keys)
        weights = tl.where(seen, tl.exp(scores - log_sum[:, None]), 0.0)
        dv = tl.dot(tl.trans(weights.to(grad.dtype)), grad, input_precision="ieee")
        dweights = tl.dot(grad, tl.trans(v), input_precision="ieee")
        dscores = (weights * (dweights - common[:, None]) * factor).to(q.dtype)
        dk = tl.dot(tl.trans(dscores), q, input_precision="ieee")
        dq += tl.dot(dscores, k, input_precision="ieee")
        kv_at = (token * heads + head) * size + column[None, :]
        tl.store(dk_ptr + kv_at, dk.to(dk_ptr.dtype.element_ty), mask=there)
        tl.store(dv_ptr + kv_at, dv.to(dv_ptr.dtype.element_ty), mask=there)
    tl.store(dq_ptr + out_at, dq.to(dq_ptr.dtype.element_ty), mask=real)


def pose_attention_backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sums: Tensor, grad: Tensor, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes as in the forward pass; grad like out -> gradients of q, k, v."""
    batch, all_queries, heads, size = q.shape
    q, k, v, out, grad = (tensor.contiguous() for tensor in (q, k, v, out, grad.to(q.dtype)))
    queries, keys = all_queries // groups, k.shape[1] // groups
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    block = max(triton.next_power_of_2(size), 16)
    pose_attention_bwd_kernel[(batch * groups, heads)](
        q, k, v, out, log_sums, grad, dq, dk, dv, queries, keys, heads, size, size**-0.5,
        q.stride(1), k.stride(1), v.stride(1),
        ROWS=ROWS, KEYS=keys_of_block(q.element_size(), block), SIZE=block, num_warps=WARPS, num_stages=1,
    )  # fmt: skip
    return dq, dk, dv
