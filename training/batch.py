"""What one micro-step of training reads: a batch of clips, the source it comes from, and the name of its randomness.

B clips, C latent channels, F latent frames, h, w latent size, L words, D width of a word's embedding, T poses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrainBatch:
    """Clips of one size, ready for the network."""

    names: tuple[str, ...]  # clip ids, B of them
    video: Tensor  # (B, C, F, h, w) float32, clean latents (posterior mean), normalised as the model wants them
    motion: Tensor  # (B, C, F, h, w) float32, the same of the motion map
    first_video: Tensor  # (B, C, 1, h, w) float32, latent of the first picture alone
    first_motion: Tensor  # (B, C, 1, h, w) float32
    sentences: tuple[str, ...]  # B of them
    text: Tensor | None  # (B, L, D) float32, zero-padded embeddings; None where the recipe encodes sentences itself
    text_length: Tensor | None  # (B,) int64, words that are not padding
    pose: Tensor | None  # (B, T, 24, 6) float32, first two rows of each joint's matrix, camera frame
    betas: Tensor | None  # (B, 10) float32

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TrainBatch:
        """The batch on `device`; `dtype` is for the tensors of real numbers only."""

        def move(value: Tensor) -> Tensor:
            kind = dtype if value.is_floating_point() else None
            return value.to(device=device, dtype=kind, non_blocking=True)

        return self._map(move)

    def pin(self) -> TrainBatch:
        """The batch in page-locked memory, from which copies to a GPU overlap with work."""
        return self._map(Tensor.pin_memory)

    def _map(self, change) -> TrainBatch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(v) for name, v in values.items() if isinstance(v, Tensor)})


@dataclass(frozen=True)
class Draw:
    """Names one micro-step. All its randomness comes from this name, so a resumed run draws what it would have drawn.

    The trainer counts the micro-batches of a step over all processes: process p of n has rank micro * n + p among
    n * accumulate, and micro is 0. Two processes with two micro-steps draw what four processes with one would.

    quantile: None in training. In validation, the point of the timestep distribution (0 to 1, small is little noise)
    at which every clip of the batch is measured; the recipe then drops no text.
    """

    seed: int
    step: int
    micro: int
    rank: int
    world: int
    quantile: float | None = None

    def generator(self, stream: str, *, every_rank_alike: bool = False) -> torch.Generator:
        """A CPU generator for one purpose ("noise", "timesteps"); `every_rank_alike` gives all ranks the same one."""
        from .counters import EVERY_RANK, generator

        return generator(self.seed, stream, self.step, self.micro, EVERY_RANK if every_rank_alike else self.rank)


class ClipSource(Protocol):
    """What the trainer draws from."""

    def __len__(self) -> int: ...

    def bucket_of(self, index: int) -> tuple[int, ...]:
        """Latent (F, h, w) of a clip; a batch holds clips of one bucket."""
        ...

    def read(self, indices: Sequence[int], draw: Draw) -> TrainBatch:
        """These clips on the CPU; choices among several sentences and the like come from `draw`."""
        ...
