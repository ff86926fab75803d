"""What the trainer needs from an engine: gradients, an optimiser step, and its state piece by piece.

State leaves and enters an engine as pieces: a flat float32 run of one weight and of its two Adam averages. How many
ranks hold how much of a weight is nobody else's business, so a checkpoint fits any engine, any ZeRO stage and any
number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..batch import Draw, TrainBatch

WEIGHT, FIRST, SECOND = "weight", "first", "second"
"""The parts of a weight's state: its float32 value, Adam's running mean of gradients and of their squares."""


@dataclass(frozen=True)
class Piece:
    """What this rank holds of one weight: elements start to start + count of its flat values (count may be 0)."""

    name: str
    shape: tuple[int, ...]  # of the whole weight
    start: int
    count: int


class Engine(Protocol):
    """One process of a training run. Losses come as detached scalars on the device: reading one waits for it."""

    rank: int
    world: int
    device: torch.device
    recipe: nn.Module
    updates: int  # optimiser steps behind the state; Adam's own count

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

    def pieces(self) -> list[Piece]:
        """What this rank holds of the trainable weights; all ranks together hold each element once."""
        ...

    def read_piece(self, piece: Piece, part: str) -> Tensor:
        """One part (WEIGHT, FIRST or SECOND) of a piece, (count,) float32; do not write into it."""
        ...

    def write_state(self, read: Any, updates: int) -> None:
        """Set all state: `read(name, part, start, count)` gives any run of any weight, (count,) float32."""
        ...

    def showing(self, values: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """While it lasts, the network computes with other values of this rank's pieces; then bit for bit back."""
        ...

    def whole_weights(self) -> Iterator[tuple[str, Tensor]]:
        """All weights and buffers as the network computes with them, on the CPU, one at a time; every rank calls it."""
        ...

    def mean_over_ranks(self, values: Tensor) -> Tensor:
        """The mean of a vector over ranks; every rank calls it."""
        ...

    def say(self, sentence: str | None) -> str:
        """The first sentence that any rank has, for all of them; every rank calls it."""
        ...

    def barrier(self) -> None:
        """Wait for all ranks."""
        ...

    def close(self) -> None:
        """Leave the group of processes."""
        ...
