"""The vision transformer that reads the crop: ViT-H in the layout of ViTPose.

B crops of 256 x 192 pixels, T = 16 x 12 tokens, D channels. Parameter names are those of the published checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn, zeros


@dataclass(frozen=True)
class VitConfig:
    """ViT-H unless said otherwise."""

    embed_dim: int = 1280
    depth: int = 32
    num_heads: int = 16
    mlp_ratio: float = 4
    height: int = 256
    width: int = 192
    patch: int = 16

    @property
    def tokens(self) -> int:
        return (self.height // self.patch) * (self.width // self.patch)


class PatchEmbed(nn.Module):
    """Patches with a border of two pixels around the picture."""

    def __init__(self, config: VitConfig):
        super().__init__()
        self.proj = nn.Conv2d(3, config.embed_dim, config.patch, config.patch, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, T, D), row by row."""
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, N, T, d) each
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, config: VitConfig):
        super().__init__()
        dim = config.embed_dim
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, config.num_heads)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self, config: VitConfig):
        super().__init__()
        self.patch_embed = PatchEmbed(config)
        self.pos_embed = nn.Parameter(zeros(1, config.tokens + 1, config.embed_dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.last_norm = nn.LayerNorm(config.embed_dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 256, 192) -> (B, 192, D). There is no class token: its position is added to every token."""
        x = self.patch_embed(x) + self.pos_embed[:, 1:] + self.pos_embed[:, :1]
        for block in self.blocks:
            x = block(x)
        return self.last_norm(x)
