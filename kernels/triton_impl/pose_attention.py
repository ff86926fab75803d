"""A few pose queries over the tokens of their own latent frame, softmax in one pass. Formula: ../pose_attention.py.

One program per (batch and frame, head): the T = 4 queries, padded to 16 rows for the matrix units, walk over the S keys
in blocks and keep a running maximum and sum. Scores never reach memory; what the backward pass needs of them is one
number per query, the logarithm of their sum.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 16  # the least that a matrix unit takes
SHARED_BYTES = 80 * 1024  # for two stages of keys and values; consumer cards have 99 kB


def keys_of_block(item_bytes: int, size: int) -> int:
    """How many keys one block holds, a power of two of at least 16."""
    keys = 64
    while keys > 16 and 4 * keys * size * item_bytes > SHARED_BYTES:
        keys //= 2
    return keys


@triton.jit
def pose_attention_fwd_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, log_sum_ptr, queries, keys, heads, size, factor,
    stride_q, stride_k, stride_v, ROWS: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(0).to(tl.int64)  # of B * G
    head = tl.program_id(1)
    row, column, at = tl.arange(0, ROWS), tl.arange(0, SIZE), tl.arange(0, KEYS)
    real = (row[:, None] < queries) & (column[None, :] < size)
    q_at = q_ptr + (group * queries + row[:, None]) * stride_q + head * size + column[None, :]
    q = tl.load(q_at, mask=real, other=0.0)
    largest = tl.full((ROWS,), -float("inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    out = tl.zeros((ROWS, SIZE), tl.float32)
    for start in range(0, keys, KEYS):
        key = start + at
        there = (key[:, None] < keys) & (column[None, :] < size)
        token = group * keys + key[:, None]
        k = tl.load(k_ptr + token * stride_k + head * size + column[None, :], mask=there, other=0.0)
        v = tl.load(v_ptr + token * stride_v + head * size + column[None, :], mask=there, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * factor
        scores = tl.where(key[None, :] < keys, scores, -float("inf"))
        highest = tl.maximum(largest, tl.max(scores, axis=1))
        shrink = tl.exp(largest - highest)
        weights = tl.exp(scores - highest[:, None])
        total = total * shrink + tl.sum(weights, axis=1)
        out = out * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        largest = highest
    out = out / total[:, None]
    out_at = out_ptr + ((group * queries + row[:, None]) * heads + head) * size + column[None, :]
    tl.store(out_at, out.to(out_ptr.dtype.element_ty), mask=real)
    log_sum_at = log_sum_ptr + (group * heads + head) * queries + row
    tl.store(log_sum_at, largest + tl.log(total), mask=row < queries)


def pose_attention(q: Tensor, k: Tensor, v: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """q (B, G*T, N, d), k and v (B, G*S, N, d) -> (B, G*T, N, d), logarithms of the sums (B*G, N, T) in float32."""
    batch, all_queries, heads, size = q.shape
    q, k, v = (tensor.flatten(2).contiguous() for tensor in (q, k, v))
    queries, keys = all_queries // groups, k.shape[1] // groups
    out = torch.empty((batch, all_queries, heads, size), dtype=q.dtype, device=q.device)
    log_sums = torch.empty((batch * groups, heads, queries), dtype=torch.float32, device=q.device)
    block = max(triton.next_power_of_2(size), 16)
    pose_attention_fwd_kernel[(batch * groups, heads)](
        q, k, v, out, log_sums, queries, keys, heads, size, size**-0.5, q.stride(1), k.stride(1), v.stride(1),
        ROWS=ROWS, KEYS=keys_of_block(q.element_size(), block), SIZE=block, num_warps=4, num_stages=2,
    )  # fmt: skip
    return out, log_sums
