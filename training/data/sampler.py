"""Which clips a micro-step reads: a pure function of (step, micro-step, rank), so there is no position to save.

A step has world x accumulate slots, numbered micro * world + rank, and a slot is one micro-batch of one bucket. The
slots of all steps follow one list of micro-batches, so the same product of processes and accumulation gives the same
run. Every epoch holds every clip once, in a new order; a bucket whose clips do not divide evenly fills its last
micro-batch with clips of the beginning of its order.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...comovi_model.errors import ComoviError
from ..batch import ClipSource
from ..counters import numpy_generator


class SamplePlan:
    """The order of all clips for ever."""

    def __init__(self, source: ClipSource, micro: int, accumulate: int, world: int, seed: int):
        """micro: clips per process and micro-step."""
        if min(micro, accumulate, world) < 1:
            raise ComoviError(f"batch sizes must be at least 1, got {micro} x {accumulate} on {world} processes.")
        self.micro, self.accumulate, self.world, self.seed = micro, accumulate, world, seed
        buckets: dict[tuple[int, ...], list[int]] = {}
        for index in range(len(source)):
            buckets.setdefault(tuple(source.bucket_of(index)), []).append(index)
        if not buckets:
            raise ComoviError("there is no clip to train on.")
        self.buckets = {bucket: np.array(buckets[bucket]) for bucket in sorted(buckets)}
        self.per_epoch = sum(-(-len(members) // micro) for members in self.buckets.values())  # micro-batches
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    @property
    def slots(self) -> int:
        """Micro-batches of one optimiser step, over all processes."""
        return self.world * self.accumulate

    def indices(self, step: int, micro: int, rank: int) -> list[int]:
        """The clips that process `rank` reads in micro-step `micro` of optimiser step `step`, all of one bucket."""
        if not (0 <= micro < self.accumulate and 0 <= rank < self.world and step >= 0):
            raise ComoviError(f"there is no micro-step {micro} of process {rank} in step {step}.")
        number = step * self.slots + micro * self.world + rank
        epoch, place = divmod(number, self.per_epoch)
        return self._epoch(epoch)[place].tolist()

    def epoch(self, step: int) -> float:
        """How often every clip has been seen when `step` begins."""
        return step * self.slots / self.per_epoch

    def _draw_epoch(self, epoch: int) -> list[np.ndarray]:
        batches: list[np.ndarray] = []
        for number, members in enumerate(self.buckets.values()):
            order = numpy_generator(self.seed, f"clips of bucket {number}", epoch).permutation(members)
            count = -(-len(order) // self.micro)
            batches += np.array_split(np.resize(order, count * self.micro), count)
        shuffled = numpy_generator(self.seed, "micro-batches", epoch).permutation(len(batches))
        return [batches[index] for index in shuffled]
