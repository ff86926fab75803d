"""What the trainer needs from an engine: gradients, an optimiser step, and its state in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..batch import Draw, TrainBatch


class Engine(Protocol):
    """One process of a training run. Losses come as detached scalars on the device: reading one waits for it."""

    rank: int
    world: int
    device: torch.device

    def micro_step(self, batch: TrainBatch, draw: Draw, boundary: bool) -> dict[str, Tensor]:
        """Forward and backward of one micro-batch; gradients add up. `boundary` marks the last one before `apply`."""
        ...

    def apply(self, rate: float) -> float:
        """One optimiser step at learning rate `rate`; returns the gradient norm before clipping, and clears gradients.

        Gradients are the mean over micro-steps and ranks.
        """
        ...

    def evaluate(self, batch: TrainBatch, draw: Draw) -> dict[str, Tensor]:
        """Losses without gradients, and without touching any random state."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights and optimiser state of this rank under `folder`; every rank calls it."""
        ...

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, bit for bit."""
        ...

    def consolidated(self, *, averaged: bool = False, trainable_only: bool = False) -> dict[str, Tensor]:
        """All weights under their names in the recipe, on the CPU of rank 0 (empty elsewhere); every rank calls it."""
        ...

    def any_rank(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank; every rank calls it."""
        ...

    def close(self) -> None:
        """Leave the group of processes."""
        ...
