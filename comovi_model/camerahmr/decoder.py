"""From the crop's tokens and where the crop lies in the picture to one SMPL body.

B crops, T picture tokens, D channels of the one query token. One pass, no iteration. Parameter names are those of the
published checkpoint; its keypoint read-out `deckp` served training only and is not built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POSE, BETAS, CAMERA, CONDITION = 24 * 6, 10, 3, 3


@dataclass(frozen=True)
class DecoderConfig:
    """The published sizes unless said otherwise."""

    dim: int = 1024
    depth: int = 6
    heads: int = 8
    dim_head: int = 64
    mlp_dim: int = 1024
    context_dim: int = 1280


class Heads(NamedTuple):
    """What the head says about each crop."""

    pose: Tensor  # (B, 144): 24 rotations, the first two *columns* of each; the motion map's side has rows
    betas: Tensor  # (B, 10)
    camera: Tensor  # (B, 3): scale and shift of a weak-perspective camera over the crop


class PreNorm(nn.Module):
    def __init__(self, dim: int, fn: nn.Module):
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(dim), fn


class SelfAttention(nn.Module):
    """Attention of a single token to itself: the softmax is 1, so only the values matter."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.inner = config.heads * config.dim_head
        self.to_qkv = nn.Linear(config.dim, 3 * self.inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(self.inner, config.dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.to_out(F.linear(x, self.to_qkv.weight[2 * self.inner :]))


class CrossAttention(nn.Module):
    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.heads, inner = config.heads, config.heads * config.dim_head
        self.to_q = nn.Linear(config.dim, inner, bias=False)
        self.to_kv = nn.Linear(config.context_dim, 2 * inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, config.dim))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q = self.to_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.to_kv(context).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, config: DecoderConfig):
        super().__init__()
        # Places 1 and 2 (and 4) hold the activation and dropouts of training.
        self.net = nn.ModuleDict(
            {"0": nn.Linear(config.dim, config.mlp_dim), "3": nn.Linear(config.mlp_dim, config.dim)}
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net["3"](F.gelu(self.net["0"](x)))


class Layers(nn.Module):
    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList(PreNorm(config.dim, part(config)) for part in (SelfAttention, CrossAttention, FeedForward))
            for _ in range(config.depth)
        )

    def forward(self, x: Tensor, context: Tensor, seen: list[Tensor] | None = None) -> Tensor:
        """The query token (B, 1, D) after all layers; `seen` collects what each feed-forward part adds."""
        for own, cross, forward in self.layers:
            x = x + own.fn(own.norm(x))
            x = x + cross.fn(cross.norm(x), context)
            added = forward.fn(forward.norm(x))
            if seen is not None:
                seen.append(added)
            x = x + added
        return x


class QueryTransformer(nn.Module):
    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.to_token_embedding = nn.Linear(CONDITION + POSE + BETAS + CAMERA, config.dim)
        self.pos_embedding = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.transformer = Layers(config)


class SmplHead(nn.Module):
    """Query: the camera condition and the mean body. Answer: how far this body is from the mean."""

    init_body_pose: Tensor
    init_betas: Tensor
    init_cam: Tensor

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.transformer = QueryTransformer(config)
        self.decpose, self.decshape = nn.Linear(config.dim, POSE), nn.Linear(config.dim, BETAS)
        self.deccam = nn.Linear(config.dim, CAMERA)
        for name, size in (("init_body_pose", POSE), ("init_betas", BETAS), ("init_cam", CAMERA)):
            self.register_buffer(name, torch.zeros(1, size))

    def query(self, condition: Tensor) -> Tensor:
        """(B, 3) -> (B, 1, 160)."""
        mean = (self.init_body_pose, self.init_betas, self.init_cam)
        return torch.cat([condition, *(part.expand(len(condition), -1) for part in mean)], dim=-1)[:, None]

    def forward(self, context: Tensor, condition: Tensor) -> Heads:
        """Picture tokens (B, T, context_dim) and camera condition (B, 3) -> pose, betas, camera."""
        part = self.transformer
        token = part.transformer(part.to_token_embedding(self.query(condition)) + part.pos_embedding, context)
        return self.read(token[:, 0])

    def read(self, token: Tensor) -> Heads:
        """(B, D) -> what it says, on top of the mean body."""
        return Heads(
            self.decpose(token) + self.init_body_pose,
            self.decshape(token) + self.init_betas,
            self.deccam(token) + self.init_cam,
        )
