"""Few pose queries over many video keys, local in time (Eq. 8).

    out[g, i] = softmax(q[g, i] k[g]^T / sqrt(d)) v[g]

B batch, G groups (latent frames after the first), T pose tokens of one group, S tokens of one latent frame, N heads,
d head size. The T = 4 pose tokens of group g belong to the four pixel frames that latent frame g + 1 holds, and read
that latent frame only. Latent frame 0 is the given first frame and is never read.

With few queries it is cheaper to weigh the features first and to project the one sum that is left (V after the sum):

    out = sum_j p_j (W_v n_j + b_v) = W_v (sum_j p_j n_j) + b_v            as the weights p sum to 1

and not to norm the keys: the norm of key j is one number r_j, and its learned weight may stand on the query's side,
q . (w k_j r_j) = ((q w) . k_j) r_j. Nothing as large as the features is then written but the raw keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .dense_attention import AttentionFunction, dense_attention
from .dispatch import refusal


def pose_attention(q: Tensor, k: Tensor, v: Tensor, groups: int, attention: AttentionFunction) -> Tensor:
    """q (B, G*T, N, d), k and v (B, G*S, N, d) -> (B, G*T, N, d). `attention` is used where the fused kernel is not."""
    fits = q.shape[1] // groups <= MOST_QUERIES and q.shape[-1] <= LARGEST_HEAD
    if fits and not refusal("pose_attention", q, k, v):
        from . import library

        return library.pose_attention(q, k, v, groups)[0]
    return pose_attention_formula(q, k, v, groups, attention)


def pose_attention_formula(
    q: Tensor, k: Tensor, v: Tensor, groups: int, attention: AttentionFunction = dense_attention
) -> Tensor:
    """The definition: dense attention within every group."""
    q_groups, k_groups, v_groups = (x.unflatten(1, (groups, -1)).flatten(0, 1) for x in (q, k, v))  # (B*G, T|S, N, d)
    return attention(q_groups, k_groups, v_groups).unflatten(0, (-1, groups)).flatten(1, 2)


def pose_attention_values_last(
    q: Tensor, keys: Tensor, key_weight: Tensor, features: Tensor, v_weight: Tensor, v_bias: Tensor, eps: float
) -> Tensor:
    """The same from raw keys and from features whose values were not made.

    q (B, G*T, N, d) normed; keys (B, G, S, D) before their norm, key_weight (D,) of it; features (B, G, S, D); v_weight
    (D, D) and v_bias (D,) of the values -> (B, G*T, N, d).
    """
    (batch, groups, tokens, width), (heads, size) = keys.shape, q.shape[2:]
    wide = torch.promote_types(q.dtype, torch.float32)
    inverse_rms = torch.rsqrt(keys.to(wide).square().mean(-1) + eps)  # (B, G, S)
    q = (q.to(wide) * key_weight.to(wide).view(heads, size)).to(q.dtype)
    q = q.unflatten(1, (groups, -1)).transpose(2, 3)  # (B, G, N, T, d)
    scores = q @ keys.view(batch, groups, tokens, heads, size).permute(0, 1, 3, 4, 2)  # (B, G, N, T, S)
    scores = scores.to(wide) * (inverse_rms * size**-0.5)[:, :, None, None]
    weights = torch.softmax(scores, dim=-1).to(features.dtype).flatten(2, 3)  # (B, G, N*T, S)
    seen = (weights @ features).unflatten(2, (heads, -1))  # (B, G, N, T, D)
    by_head = seen.permute(2, 0, 1, 3, 4).flatten(1, 3)  # (N, B*G*T, D)
    out = torch.baddbmm(v_bias.view(heads, 1, size), by_head, v_weight.view(heads, size, width).transpose(1, 2))
    return out.transpose(0, 1).unflatten(0, (batch, -1))  # (B, G*T, N, d)


MOST_QUERIES = 16  # of one group: the rows of one matrix unit
LARGEST_HEAD = 256  # of which a block of keys and values fits into the shared memory of every GPU
