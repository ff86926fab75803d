"""Clips of random numbers, in any size: for tests of the trainer and for measuring its speed without any data.

Each clip is a function of its index alone. Latents are no noise: they follow a small set of patterns, so that a network
has something to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .batch import Draw, TrainBatch
from .counters import generator

SEED = 7
PATTERNS = 8


@dataclass(frozen=True)
class RandomClips:
    """C channels, latent (F, h, w), `words` rows of text of width `text_dim`, 4 (F - 1) + 1 poses."""

    count: int
    channels: int
    latent: tuple[int, int, int]
    text_dim: int
    words: int

    def __len__(self) -> int:
        return self.count

    def bucket_of(self, index: int) -> tuple[int, ...]:
        return self.latent

    def read(self, indices: Sequence[int], draw: Draw) -> TrainBatch:
        rows = [self._clip(index) for index in indices]
        video, motion, text, pose = (torch.stack(parts) for parts in zip(*rows, strict=True))
        return TrainBatch(
            names=tuple(f"random-{index}" for index in indices),
            video=video,
            motion=motion,
            first_video=video[:, :, :1],
            first_motion=motion[:, :, :1],
            sentences=tuple(f"clip {index}" for index in indices),
            text=text,
            text_length=torch.full((len(indices),), self.words),
            pose=pose,
            betas=torch.zeros(len(indices), 10),
        )

    def _clip(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rng = generator(SEED, "clip", index)
        pattern = generator(SEED, "pattern", index % PATTERNS)
        video, motion = torch.randn(2, self.channels, *self.latent, generator=pattern)
        motion = motion + 0.1 * torch.randn(motion.shape, generator=rng)
        poses = 4 * (self.latent[0] - 1) + 1
        still = torch.eye(3)[:2].reshape(1, 1, 6)
        pose = still + 0.2 * torch.randn(poses, 24, 6, generator=pattern)
        return video, motion, torch.randn(self.words, self.text_dim, generator=rng), pose


SMALL: dict[str, Any] = {
    "run": {"max_steps": 8},
    "model": {
        "shape": {
            "dim": 24,
            "ffn_dim": 16,
            "num_heads": 2,
            "num_layers": 4,
            "in_channels": 4,
            "out_channels": 4,
            "text_dim": 8,
            "text_len": 6,
            "freq_dim": 8,
            "pose_layers": 1,
            "pose_ffn_dim": 16,
            "pose_tokens": 8,
        }
    },
    "stage": {"smpl": {"layers_per_step": 2, "weights": {"vertices": 0, "joints": 0}}},
    "optim": {"lr": 1e-3, "warmup": 2},
    "batch": {"micro": 1, "accumulate": 2},
    "engine": {"device": "cpu", "precision": "fp32", "checkpointing": False},
    "save": {"every": 4},
    "eval": {"every": 0, "clips": 3, "quantiles": [0.5, 1.0]},
    "log": {"every": 1, "tensorboard": False, "progress": False},
}
"""Settings of a run of seconds: the paper's network, very small, whose pose head reads after random layers."""

SMALL_CLIPS = RandomClips(count=24, channels=4, latent=(3, 4, 4), text_dim=8, words=5)
