"""The training loop: read, forward and backward, step, and now and then look, measure, sample and save.

Every rank runs it. What happens is a function of the settings and the step's number, so an interrupted run that is
resumed ends with the same bits as one that was not. Problems that a person can mend end the run with one sentence on
all ranks together, with the last checkpoint as it was.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import signal
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..comovi_model.errors import ComoviError
from ..comovi_model.files import file_error
from . import checkpoint
from .batch import ClipSource
from .config import TrainConfig
from .config_file import write_resolved
from .ema import ShardedEma
from .engines.base import Engine
from .engines.single import SingleEngine
from .metrics import RunLog
from .optim import rate_at
from .reader import StepReader
from .recipe import build_recipe, open_sources
from .validation import validate

INTERRUPTED = 130  # exit status, as of a program that Ctrl-C ended


def run_folder(config: TrainConfig) -> Path:
    return Path(config.run.out) / config.run.name


def train(
    config: TrainConfig,
    *,
    start: Path | None = None,
    elastic: bool = False,
    source: ClipSource | None = None,
    held_out: ClipSource | None = None,
) -> int:
    """Run `config`, from checkpoint folder `start` if given; 0, or INTERRUPTED when someone asked to stop.

    source, held_out: other clips than those that the settings name.
    """
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    if config.eval.sample_every:
        from .sampling import read_prompts

        read_prompts(config.eval.sample_prompts)  # now, not at the first sample, which would end the run
    if start is not None:
        check_resumable(config, checkpoint.read_state(start), start, elastic)
    if source is None:
        source, held_out = open_sources(config.data)
    engine = build_engine(config, source)
    status = Trainer(config, engine, source, held_out, start, elastic).run()
    engine.close()  # not after an exception: the others may wait elsewhere
    return status


def build_engine(config: TrainConfig, source: ClipSource | None) -> Engine:
    """The engine that the settings name, around a new recipe."""

    def build(meta: bool = False) -> nn.Module:
        recipe = build_recipe(config, source, "meta") if meta else build_recipe(config, source)
        recipe.frozen = None if meta else checkpoint.frozen_checksum(recipe)
        return recipe

    if config.engine.kind == "single":
        return SingleEngine(build(), config)
    from .engines.deepspeed import DeepspeedEngine

    return DeepspeedEngine(build, config)


def model_checksum(config: TrainConfig) -> str:
    """Of the settings that fix which weights there are and which of them move."""
    parts = [
        config.model.kind,
        config.model.interaction,
        config.model.shape,
        asdict(config.stage),
        asdict(config.adapter),
    ]
    return f"{zlib.crc32(json.dumps(parts, sort_keys=True).encode()):08x}"


def check_resumable(config: TrainConfig, state: checkpoint.TrainState, folder: Path, elastic: bool) -> None:
    """Refuse to go on with what would silently be another run."""
    if state.model != model_checksum(config):
        raise ComoviError(
            f"{folder} was trained with other [model], [stage] or [adapter] settings; start a new run with model.init."
        )
    if state.seed != config.run.seed:
        raise ComoviError(f"{folder} was trained with run.seed {state.seed}, not {config.run.seed}; keep the seed.")
    batch = (config.batch.micro, config.batch.accumulate)
    if batch != (state.micro, state.accumulate) and not elastic:
        raise ComoviError(
            f"{folder} was trained with batch.micro {state.micro} and batch.accumulate {state.accumulate}, not "
            f"{batch[0]} and {batch[1]}; pass --elastic to go on with other numbers."
        )


class Trainer:
    def __init__(
        self,
        config: TrainConfig,
        engine: Engine,
        source: ClipSource,
        held_out: ClipSource | None,
        start: Path | None,
        elastic: bool,
    ):
        self.config, self.engine, self.held_out = config, engine, held_out
        self.run_folder, self.frozen = run_folder(config), int(getattr(engine.recipe, "frozen", None) or 0)
        self.ema = ShardedEma(engine, config.ema) if config.ema.enabled else None
        self.step = self._restore(start, elastic) if start is not None else self._begin()
        self.saved = self.step
        pin = engine.device.type == "cuda"
        self.reader = StepReader(source, config, engine.rank, engine.world, self.step, pin)
        self.log = RunLog(self.run_folder, config.log, engine.rank, self.step, config.run.max_steps)
        self.stop_asked = False
        self.window = Window()

    def _begin(self) -> int:
        """A new run; its folder must not hold another one."""
        taken = (self.run_folder / "checkpoints").exists() and checkpoint.checkpoints(self.run_folder)
        checkpoint.agree(
            self.engine,
            f"{self.run_folder} holds a run already; go on with `comovi-train resume`, or choose another run.name."
            if taken
            else None,
        )
        if self.engine.rank == 0:
            write_resolved(self.config, self.run_folder)
        return 0

    def _restore(self, start: Path, elastic: bool) -> int:
        state = checkpoint.read_state(start)
        problem = None
        if state.world != self.engine.world and not elastic:
            problem = (
                f"{start} was trained by {state.world} processes, and {self.engine.world} were started; pass --elastic "
                "to go on with another number."
            )
        elif self.engine.rank == 0 and state.frozen != self.frozen:
            problem = f"the frozen weights are not those that {start} was trained with; see model.base and model.init."
        checkpoint.agree(self.engine, problem)
        checkpoint.load(self.engine, self.ema, start)
        checkpoint.set_aside(self.engine, self.run_folder, state.step)
        return state.step

    def run(self) -> int:
        """To the last step, or until someone asks to stop."""
        settings = self.config
        with self._listening():
            try:
                while self.step < settings.run.max_steps:
                    batches = self._gather()
                    if batches is None:
                        self._save()
                        self.log.say(
                            f"stopped after step {self.step}; go on with `comovi-train resume {self.run_folder}`."
                        )
                        return INTERRUPTED
                    self._one_step(batches)
                    self._look()
                if self.saved != self.step:
                    self._save()
                return 0
            finally:
                self.reader.close()
                self.log.close()

    def _gather(self) -> list[Any] | None:
        """The clips of the next step, or None if any rank was asked to stop. All ranks hear of any rank's problem."""
        batches, problem = [], self.log.trouble
        try:
            batches = self.reader.next(self.step)
        except ComoviError as error:
            problem = str(error)
        except OSError as error:
            problem = str(file_error(error, error.filename or "training clips", "read"))
        flags = self.engine.mean_over_ranks(torch.tensor([float(self.stop_asked), float(problem is not None)])).tolist()
        if flags[1]:
            sentence = self.engine.say(problem)
            raise ComoviError(f"{sentence} The run stopped after step {self.step}; its last checkpoint is whole.")
        return None if flags[0] else batches

    def _one_step(self, batches: list[Any]) -> None:
        begin, accumulate = time.perf_counter(), self.config.batch.accumulate
        for micro, batch in enumerate(batches):
            losses = self.engine.micro_step(batch, self.reader.draw(self.step, micro), micro == accumulate - 1)
            self.window.add(losses, len(batch))
        rate = rate_at(self.config.optim, self.step, self.config.run.max_steps)
        norm = self.engine.apply(rate)
        self.step += 1
        if self.ema is not None and self.step % self.config.ema.every == 0:
            self.ema.update()
        self.window.note(rate, norm, time.perf_counter() - begin)

    def _look(self) -> None:
        """Whatever is due after this step."""
        settings, last = self.config, self.step == self.config.run.max_steps
        values = None
        if self.step % settings.log.every == 0 or last:
            values = self.window.means(self.engine, self.reader)
        if settings.eval.every and self.held_out is not None and (self.step % settings.eval.every == 0 or last):
            with self.averaged():
                measured = validate(self.engine, self.held_out, settings)
            values = {**(values or {}), **measured}
        if values is not None:
            self.log.step(self.step, values)
        self.log.advance(self.window.shown())
        if settings.eval.sample_every and self.step % settings.eval.sample_every == 0:
            self._sample()
        if self.step % settings.save.every == 0:
            self._save()

    def averaged(self) -> Any:
        """While it lasts, the network computes with the running mean of its weights, if there is one."""
        return nullcontext() if self.ema is None else self.engine.showing(self.ema.average)

    def _sample(self) -> None:
        """Sample videos, by training/sampling.py."""
        if importlib.util.find_spec(".sampling", __package__) is None:
            self.log.say("sample videos are not made: training/sampling.py is missing.")
            return
        module = importlib.import_module(".sampling", __package__)
        folder = self.run_folder / "samples" / f"step-{self.step:06d}"
        with self.averaged(), torch.random.fork_rng(), torch.no_grad():
            self.engine.recipe.eval()
            module.sample_now(self.engine.recipe, self.config, folder, self.step, self.engine.rank, self.engine.device)
            self.engine.recipe.train()

    def _save(self) -> None:
        batch = self.config.batch
        state = checkpoint.TrainState(
            step=self.step,
            updates=self.engine.updates,
            ema_updates=self.ema.updates if self.ema else 0,
            world=self.engine.world,
            micro=batch.micro,
            accumulate=batch.accumulate,
            seed=self.config.run.seed,
            model=model_checksum(self.config),
            frozen=self.frozen,
            shapes={piece.name: list(piece.shape) for piece in self.engine.pieces()},
            versions=versions(),
        )
        checkpoint.save(self.engine, self.ema, self.run_folder, state, self.config.save.keep)
        self.saved = self.step

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM finish the step and save; a second Ctrl-C ends at once."""

        def ask(number: int, frame: object) -> None:
            if self.stop_asked and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.stop_asked = True

        before = {}
        if threading.current_thread() is threading.main_thread():  # elsewhere nobody can press Ctrl-C
            before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Window:
    """What happened since the last line of the log."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.reset()
        self.rate = self.norm = self.per_second = 0.0
        self.loss: float | None = None

    def reset(self) -> None:
        self.sums, self.micro, self.clips, self.steps = {}, 0, 0, 0
        self.begin, self.busy, self.waited = time.perf_counter(), 0.0, 0.0

    def add(self, losses: dict[str, Tensor], clips: int) -> None:
        for name, value in losses.items():
            value = value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.micro, self.clips = self.micro + 1, self.clips + clips

    def note(self, rate: float, norm: float, seconds: float) -> None:
        self.rate, self.norm, self.steps, self.busy = rate, norm, self.steps + 1, self.busy + seconds

    def means(self, engine: Engine, reader: StepReader) -> dict[str, float]:
        """The line of the log; every rank calls it."""
        names = sorted(self.sums)
        vector = torch.stack([self.sums[name] / self.micro for name in names])
        losses = dict(zip(names, engine.mean_over_ranks(vector).tolist(), strict=True))
        seconds = max(time.perf_counter() - self.begin, 1e-9)
        self.loss, self.per_second = losses.get("loss"), self.clips * engine.world / seconds
        out = {
            **losses,
            "grad_norm": self.norm,
            "lr": self.rate,
            "clips_per_second": self.per_second,
            "seconds_per_step": seconds / max(self.steps, 1),
            "data_share": (reader.waited - self.waited_before(reader)) / seconds,
        }
        self._mark = reader.waited
        self.reset()
        return out

    _mark = 0.0

    def waited_before(self, reader: StepReader) -> float:
        return self._mark

    def shown(self) -> dict[str, str]:
        if self.loss is None:
            return {}
        return {"loss": f"{self.loss:.4f}", "clips/s": f"{self.per_second:.2f}"}


def versions() -> dict[str, str]:
    found = {"torch": torch.__version__}
    for name in ("deepspeed",):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
