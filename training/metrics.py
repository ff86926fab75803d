"""What a run says about itself while it lasts: log.jsonl, TensorBoard, and a progress bar with throughput and ETA."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..comovi_model.files import atomic_path, file_error
from .config import LogConfig

LOG = "log.jsonl"


def read_log(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; one that was cut off by a crash is left out."""
    path = run / LOG
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    out = []
    for line in lines:
        try:
            out.append(json.loads(line))
        except ValueError:
            continue
    return out


class RunLog:
    """One per process; only rank 0 writes. Lines after `step` are dropped: a resumed run writes them again."""

    def __init__(self, run: Path, config: LogConfig, rank: int, step: int, steps: int):
        self.config, self.active = config, rank == 0
        self.path = run / LOG
        self.begin = time.perf_counter()
        self.trouble: str | None = None  # why a line could not be written; the trainer stops then
        self.bar: Any = None
        self.board: Any = None
        if not self.active:
            return
        run.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            kept = [line for line in read_log(run) if line.get("step", 0) <= step]
            with atomic_path(self.path) as path:
                path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        if config.tensorboard:
            self.board = _open_board(run / "tensorboard", step)
        quiet = not sys.stderr.isatty()
        self.bar = tqdm(
            total=steps,
            initial=step,
            unit="step",
            disable=not config.progress,
            mininterval=10.0 if quiet else 0.5,
            dynamic_ncols=not quiet,
            smoothing=0.05,
        )

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """One line of numbers after `step` steps."""
        if not self.active:
            return
        line = {"step": step, **{name: _short(value) for name, value in values.items()}}
        if self.config.jsonl:
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:
                self.trouble = str(file_error(error, self.path, "write"))
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def advance(self, shown: Mapping[str, str]) -> None:
        """One step on the bar; the bar itself works out the time that is left."""
        if self.bar is not None:
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update()

    def say(self, text: str) -> None:
        """A line for the person who watches; only from rank 0."""
        if self.active:
            tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        if self.board is not None:
            self.board.close()


def _short(value: float) -> float:
    return float(f"{value:.7g}")


def _open_board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
