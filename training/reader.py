"""Reads ahead: while a step is computed, a thread has the clips of the next ones ready."""

from __future__ import annotations

import queue
import threading
import time

from .batch import ClipSource, Draw, TrainBatch
from .config import TrainConfig

AHEAD = 2  # steps


class StepReader:
    """Hands out all micro-batches of one step at a time, in order; a problem comes out where the step would have.

    pin: in page-locked memory, for a GPU.
    """

    def __init__(self, source: ClipSource, config: TrainConfig, rank: int, world: int, first: int, pin: bool = False):
        from .data.sampler import SamplePlan

        self.source, self.config, self.rank, self.world, self.pin = source, config, rank, world, pin
        batch = config.batch
        self.plan = SamplePlan(source, batch.micro, batch.accumulate, world, config.run.seed)
        self.waited = 0.0  # seconds that the trainer waited for clips
        self.expected = first
        self.steps = range(first, config.run.max_steps)
        self.ready: queue.Queue[list[TrainBatch] | Exception] = queue.Queue(AHEAD)
        self.stopped = threading.Event()
        self.thread: threading.Thread | None = None
        if batch.readers:
            self.thread = threading.Thread(target=self._work, daemon=True)
            self.thread.start()

    def draw(self, step: int, micro: int) -> Draw:
        """The name of a micro-step's randomness; it depends on processes x accumulate only."""
        accumulate = self.config.batch.accumulate
        place = micro * self.world + self.rank
        return Draw(self.config.run.seed, step, 0, place, self.world * accumulate)

    def next(self, step: int) -> list[TrainBatch]:
        """The micro-batches of this rank for `step`."""
        assert step == self.expected
        self.expected += 1
        begin = time.perf_counter()
        item = self._try(step) if self.thread is None else self.ready.get()
        self.waited += time.perf_counter() - begin
        if isinstance(item, Exception):
            raise item
        return item

    def _try(self, step: int) -> list[TrainBatch] | Exception:
        try:
            batches = [
                self.source.read(self.plan.indices(step, micro, self.rank), self.draw(step, micro))
                for micro in range(self.config.batch.accumulate)
            ]
            return [batch.pin() for batch in batches] if self.pin else batches
        except Exception as error:
            return error

    def _work(self) -> None:
        for step in self.steps:
            item = self._try(step)
            if not self._offer(item) or isinstance(item, Exception):
                return

    def _offer(self, item: list[TrainBatch] | Exception) -> bool:
        while not self.stopped.is_set():
            try:
                self.ready.put(item, timeout=0.5)
                return True
            except queue.Full:
                continue
        return False

    def close(self) -> None:
        self.stopped.set()
        if self.thread is not None:
            self.thread.join(timeout=10)
