"""How ZeRO-3 spreads a network over ranks, worked out from shapes alone.

Every weight is flattened and cut into equal pieces, one per rank, the last one padded; so is its gradient, its float32
value and Adam's two means. A network of full size on 32 ranks is so partitioned in a second, on the meta device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..comovi_model.errors import ComoviError
from .recipe import Recipe


@dataclass(frozen=True)
class Piece:
    """Elements start to stop of one flattened weight."""

    start: int
    stop: int

    @property
    def count(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Partition:
    """Which rank holds what: pieces[rank][name]."""

    world: int
    pieces: tuple[Mapping[str, Piece], ...]
    allocated: int  # elements per rank, padding included

    @property
    def held(self) -> tuple[int, ...]:
        """Elements of each rank, without padding."""
        return tuple(sum(piece.count for piece in pieces.values()) for pieces in self.pieces)


def partition(sizes: Mapping[str, int], world: int) -> Partition:
    """sizes: name -> elements."""
    if world < 1:
        raise ComoviError(f"the number of processes is {world}; it must be at least 1.")
    shares = {name: -(-count // world) for name, count in sizes.items()}
    ranks = []
    for rank in range(world):
        pieces = {}
        for name, count in sizes.items():
            start = min(rank * shares[name], count)
            pieces[name] = Piece(start, min(start + shares[name], count))
        ranks.append(pieces)
    return Partition(world, tuple(ranks), sum(shares.values()))


def partition_recipe(recipe: Recipe, world: int, *, trained: bool = False) -> Partition:
    """All weights of a recipe, or (optimiser state) only those that are trained."""
    weights = recipe.named_parameters()
    return partition({name: w.numel() for name, w in weights if w.requires_grad or not trained}, world)
