"""Running Triton kernels on a CPU, bf16 included.

Triton's interpreter keeps bf16 as 16-bit integers: casts truncate instead of rounding, `tl.dot` multiplies bit patterns
and arithmetic on unwidened bf16 is silently wrong. `exact_bf16` mends the first two and turns the third into an error,
which also holds our kernels to their rule "load, widen, compute, round once". Its cast to 8-bit floats is wrong near
zero and near the largest number; that is done by PyTorch here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def widened(bits: np.ndarray) -> np.ndarray:
    """bf16 as uint16 -> float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(numbers: np.ndarray) -> np.ndarray:
    """float32 -> bf16 as uint16, to nearest even."""
    bits = numbers.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


@contextmanager
def exact_bf16() -> Iterator[None]:
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cast, dot, binary = InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot, InterpreterBuilder.binary_op

    narrow = InterpreterBuilder.create_fp_to_fp

    def cast_impl(self, src, dst_type):
        before, after = src.dtype.scalar, dst_type.scalar
        if before == tl.bfloat16 and after == tl.float32:
            return TensorHandle(widened(src.data), after)
        if before == tl.float32 and after == tl.bfloat16:
            return TensorHandle(rounded(src.data), after)
        return cast(self, src, dst_type)

    def create_fp_to_fp(self, src, dst_type, rounding_mode):
        if src.dtype.scalar == tl.float32 and dst_type.scalar == tl.float8e4nv:
            values = torch.from_numpy(np.ascontiguousarray(src.data)).to(torch.float8_e4m3fn)
            return TensorHandle(values.view(torch.uint8).numpy(), dst_type.scalar)
        return narrow(self, src, dst_type, rounding_mode)

    def create_dot(self, a, b, *others):
        a, b = (TensorHandle(widened(x.data), tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b))
        return dot(self, a, b, *others)

    def binary_op(self, lhs, rhs, op):
        if tl.bfloat16 in (lhs.dtype.scalar, rhs.dtype.scalar):
            raise TypeError("arithmetic on bf16 that was not widened to float32")
        return binary(self, lhs, rhs, op)

    InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot = cast_impl, create_dot
    InterpreterBuilder.binary_op, InterpreterBuilder.create_fp_to_fp = binary_op, create_fp_to_fp
    try:
        yield
    finally:
        InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot = cast, dot
        InterpreterBuilder.binary_op, InterpreterBuilder.create_fp_to_fp = binary, narrow
