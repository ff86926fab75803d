"""The running mean of the weights; every rank keeps it of the pieces that it holds, in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from .config import EmaConfig
from .engines.base import WEIGHT, Engine


class ShardedEma:
    """`average[name]`: (count,) float32 on the CPU or the device, wherever the engine keeps its float32 weights."""

    def __init__(self, engine: Engine, config: EmaConfig):
        self.engine, self.config, self.updates = engine, config, 0
        self.pieces = engine.pieces()
        self.average = {piece.name: engine.read_piece(piece, WEIGHT).clone() for piece in self.pieces}

    @torch.no_grad()
    def update(self) -> None:
        """One update; early ones count more, so that the start of training is forgotten."""
        self.updates += 1
        decay = min(self.config.decay, self.updates / (self.updates + 10))
        live = [self.engine.read_piece(piece, WEIGHT) for piece in self.pieces]
        averages: list[Tensor] = list(self.average.values())
        torch._foreach_lerp_(averages, live, 1 - decay)
