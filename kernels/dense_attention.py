"""softmax(q k^T / sqrt(d)) v over all tokens, without a mask.

B batch, L query tokens, M key tokens, N heads, d head size.

On a GPU one of the libraries of attention_libraries.py, and for long sequences on a CPU PyTorch's own fused attention,
never stores the L x M matrix. For the few hundred tokens of the nano model on a CPU two plain matrix products are
faster: B 8, N 4, L = M = 216, d 48 in bfloat16 on one core take 3.3 against 4.8 ms forward and 8.2 against 20 ms with
backward.
`SMALL_SCORES` says up to how many stored scores that way is taken.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from . import attention_libraries

AttentionFunction = Callable[[Tensor, Tensor, Tensor], Tensor]

SMALL_SCORES = 16 * 1024 * 1024  # B * N * L * M up to which the scores are stored (64 MB in float32)


def dense_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (B, L, N, d), k and v (B, M, N, d) -> (B, L, N, d)."""
    if q.device.type == "cuda":
        name = attention_libraries.chosen()
        usable = not attention_libraries.refusal(name, q, k, v)
        return attention_libraries.LIBRARIES[name if usable else "torch"].run(q, k, v)
    batch, length, heads, _ = q.shape
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, N, L, d)
    if q.device.type == "cpu" and batch * heads * length * k.shape[2] <= SMALL_SCORES:
        return two_product_attention(q, k, v).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def two_product_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The formula itself, softmax in float32 or wider: (B, N, L, d), (B, N, M, d) -> (B, N, L, d)."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, N, L, M)
    # Cast first: the softmax that casts on the way is 5 times slower on a CPU (6.4 ms against 1.2 for 1.5 M scores).
    weights = torch.softmax(scores.to(torch.promote_types(scores.dtype, torch.float32)), dim=-1)
    return weights.to(v.dtype) @ v
