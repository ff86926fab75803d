"""Few pose queries over many video keys, local in time (Eq. 8).

    out[g, i] = softmax(q[g, i] k[g]^T / sqrt(d)) v[g]

B batch, G groups (latent frames after the first), T pose tokens of one group, S tokens of one latent frame, N heads,
d head size. The T = 4 pose tokens of group g belong to the four pixel frames that latent frame g + 1 holds, and read
that latent frame only. Latent frame 0 is the given first frame and is never read.
"""

from __future__ import annotations

from torch import Tensor

from .dense_attention import AttentionFunction, dense_attention
from .dispatch import refusal


def pose_attention(q: Tensor, k: Tensor, v: Tensor, groups: int, attention: AttentionFunction) -> Tensor:
    """q (B, G*T, N, d), k and v (B, G*S, N, d) -> (B, G*T, N, d). `attention` is used where the fused kernel is not."""
    if q.shape[1] // groups <= MOST_QUERIES and not refusal("pose_attention", q, k, v):
        from . import library

        return library.pose_attention(q, k, v, groups)[0]
    return pose_attention_formula(q, k, v, groups, attention)


def pose_attention_formula(
    q: Tensor, k: Tensor, v: Tensor, groups: int, attention: AttentionFunction = dense_attention
) -> Tensor:
    """The definition: dense attention within every group."""
    q_groups, k_groups, v_groups = (x.unflatten(1, (groups, -1)).flatten(0, 1) for x in (q, k, v))  # (B*G, T|S, N, d)
    return attention(q_groups, k_groups, v_groups).unflatten(0, (-1, groups)).flatten(1, 2)


MOST_QUERIES = 16  # of one group: the rows of one matrix unit
