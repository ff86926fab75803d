"""The gate between the two branches (Eq. 6).

    out = residual + (source W^T + b)

W and b start at zero, so that two branches that were trained apart begin to influence each other from nothing.
`residual` keeps its dtype (the float32 stream); the product runs in `dtype`, the dtype of the matrix products.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def zero_linear(residual: Tensor, source: Tensor, linear: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Tensor:
    """(B, F, S, D), (B, F, S, D) -> (B, F, S, D). `linear` is called, not unpacked, so low-rank patches on it act."""
    return residual + linear(source.to(dtype))
