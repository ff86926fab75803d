"""x + gate * update + addend in one pass, one program per token. Formula and letters: ../join_norm.py."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import frame_rows, row_warps


@triton.jit
def join_fwd_kernel(
    x_ptr, update_ptr, gate_ptr, addend_ptr, joined_ptr, frames, tokens, channels, stride_gate_b, stride_gate_f,
    GATE: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)  # of B * F * S
    columns = tl.arange(0, BLOCK)
    inside = columns < channels
    x = tl.load(x_ptr + row * channels + columns, mask=inside, other=0.0).to(tl.float32)
    update = tl.load(update_ptr + row * channels + columns, mask=inside, other=0.0).to(tl.float32)
    if GATE:
        group = row // tokens
        gate_at = gate_ptr + (group // frames) * stride_gate_b + (group % frames) * stride_gate_f + columns
        update = update * tl.load(gate_at, mask=inside, other=0.0).to(tl.float32)
    joined = x + update
    if ADD:
        joined += tl.load(addend_ptr + row * channels + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(joined_ptr + row * channels + columns, joined.to(joined_ptr.dtype.element_ty), mask=inside)


def join(x: Tensor, update: Tensor, gate: Tensor | None, addend: Tensor | None) -> Tensor:
    """x, update, addend (B, F, S, D); gate (B, 1 or F, 1, D) or None -> (B, F, S, D) in the dtype of x."""
    batch, frames, tokens, channels = x.shape
    x, update = x.contiguous(), update.contiguous()
    added = x if addend is None else addend.contiguous()
    joined = torch.empty_like(x)
    gates = None if gate is None else frame_rows(gate, batch, frames)
    block = triton.next_power_of_2(channels)
    join_fwd_kernel[(batch * frames * tokens,)](
        x, update, x if gates is None else gates, added, joined, frames, tokens, channels,
        *((0, 0) if gates is None else gates.stride()[:2]),
        GATE=gate is not None, ADD=addend is not None, BLOCK=block, num_warps=row_warps(block),
    )  # fmt: skip
    return joined
