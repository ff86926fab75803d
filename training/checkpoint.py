"""Checkpoints: whole or absent, safe to open, and the same for every engine, ZeRO stage and number of processes.

    run/checkpoints/step-000400/
        rank-0000.safetensors ...   what each process held: float32 runs of weights, Adam's averages, the EMA
        buffers.safetensors         small tensors that are not trained
        state.json                  step and settings; written last, so a folder without it is no checkpoint

A checkpoint is staged in `.tmp-step-000400`, brought to the disk, renamed, and only then gets its state.json. Frozen
weights are not in it: they are made again from the settings, and a checksum tells if that went wrong.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..comovi_model.errors import ComoviError
from ..comovi_model.files import TEMPORARY, atomic_path, file_error, require_file
from ..comovi_model.wan.weights import TensorFiles, open_weights, write_weights
from .ema import ShardedEma
from .engines.base import FIRST, SECOND, WEIGHT, Engine

AVERAGE = "average"
FORMAT = 1


@dataclass(frozen=True)
class TrainState:
    """Everything about a checkpoint that is not a tensor."""

    step: int  # optimiser steps done
    updates: int  # Adam's count
    ema_updates: int
    world: int
    micro: int
    accumulate: int
    seed: int
    model: str  # checksum of the settings that fix which weights there are
    frozen: int  # checksum of the weights that are not trained
    shapes: dict[str, list[int]]  # of all trained weights
    versions: dict[str, str]
    format: int = FORMAT


def checkpoint_folder(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:06d}"


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return [folder for folder in _folders(run / "checkpoints") if (folder / "state.json").exists()]


def _folders(place: Path) -> list[Path]:
    """Folders with the name of a checkpoint, by step, complete or not; anything else there belongs to somebody else."""
    found = [path for path in place.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted(found, key=_step_of)


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def latest(run: Path) -> Path:
    """The newest complete checkpoint of a run."""
    found = checkpoints(Path(run))
    if not found:
        raise ComoviError(f"{run} has no complete checkpoint; start it with `comovi-train train`.")
    return found[-1]


def read_state(folder: Path) -> TrainState:
    path = require_file(folder / "state.json", "state of a checkpoint")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] > FORMAT:
            raise ComoviError(f"{folder} was written by a newer version of this package; update it.")
        return TrainState(**values)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ComoviError):
            raise
        raise ComoviError(f"{path} is damaged ({error}); resume from an earlier checkpoint.") from None


class _Held(Mapping[str, Tensor]):
    """The tensors of this rank's file, each fetched when it is written."""

    def __init__(self, engine: Engine, ema: ShardedEma | None):
        self.engine, self.ema = engine, ema
        self.pieces = {piece.name: piece for piece in engine.pieces() if piece.count}
        parts = (WEIGHT, FIRST, SECOND, *((AVERAGE,) if ema else ()))
        self.names = [f"{part}/{name}" for name in self.pieces for part in parts]

    def __getitem__(self, key: str) -> Tensor:
        part, _, name = key.partition("/")
        if part == AVERAGE:
            assert self.ema is not None
            return self.ema.average[name]
        return self.engine.read_piece(self.pieces[name], part)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def starts(self) -> str:
        return json.dumps({name: piece.start for name, piece in self.pieces.items()})


def save(engine: Engine, ema: ShardedEma | None, run: Path, state: TrainState, keep: int = 0) -> Path:
    """Write a checkpoint; all ranks call it. It is there as a whole, or nothing has changed and all ranks raise."""
    folder = checkpoint_folder(run, state.step)
    staging = folder.with_name(f"{TEMPORARY}{folder.name}")
    problem = _attempt(lambda: _prepare(staging, engine.rank), staging)
    agree(engine, problem)
    held = _Held(engine, ema)
    agree(engine, _attempt(lambda: _write_rank(engine, held, staging), staging), staging)
    if engine.rank == 0:
        problem = _attempt(lambda: _publish(staging, folder, state), staging)
        if problem is None:
            prune(run, keep)
    agree(engine, problem, staging)
    return folder


def _prepare(staging: Path, rank: int) -> None:
    if rank == 0:
        clean(staging.parent)
    staging.mkdir(parents=True, exist_ok=True)


def _write_rank(engine: Engine, held: _Held, staging: Path) -> None:
    path = staging / f"rank-{engine.rank:04d}.safetensors"
    needed = sum(held.pieces[key.partition("/")[2]].count * 4 for key in held)
    free = shutil.disk_usage(staging).free
    if free < needed:
        raise OSError(28, "No space left on device", str(path))
    write_weights(path, held, {"starts": held.starts()})
    _to_disk(path)
    if engine.rank == 0:
        write_weights(staging / "buffers.safetensors", dict(engine.recipe.named_buffers()), {})
        _to_disk(staging / "buffers.safetensors")


def _publish(staging: Path, folder: Path, state: TrainState) -> None:
    if folder.exists():
        _remove(folder)
    os.replace(staging, folder)
    with atomic_path(folder / "state.json") as path:
        path.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")
        _to_disk(path)
    _to_disk(folder.parent)


def _to_disk(path: Path) -> None:
    """Wait until a file or the entries of a folder are on the disk itself."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders, and writes their entries by itself
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows wants to write what it flushes
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _attempt(work: Any, staging: Path) -> str | None:
    """Do `work`; a failure comes back as its sentence, so that all ranks can hear it."""
    try:
        work()
    except ComoviError as error:
        sentence = str(error)
    except OSError as error:
        sentence = str(file_error(error, staging, "write checkpoint"))
    else:
        return None
    return f"{sentence.replace(TEMPORARY, '')} Earlier checkpoints are whole."


def agree(engine: Engine, problem: str | None, staging: Path | None = None) -> None:
    """Every rank calls it; if any has a problem, all raise the same sentence."""
    if float(engine.mean_over_ranks(torch.tensor([float(problem is not None)]))[0]) == 0:
        return
    sentence = engine.say(problem)
    if staging is not None and engine.rank == 0:
        shutil.rmtree(staging, ignore_errors=True)
    raise ComoviError(sentence)


def clean(folder: Path) -> None:
    """Remove what interrupted saves left: staged folders, and folders without state.json."""
    for path in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in _folders(folder):
        if not (path / "state.json").exists():
            shutil.rmtree(path, ignore_errors=True)


def set_aside(engine: Engine, run: Path, step: int) -> None:
    """Rename the checkpoints after `step` to aside-step-...; all ranks call it.

    A run that goes on from an earlier step would else be resumed from the end of its first way, and its new checkpoints
    would be pruned as the oldest ones.
    """

    def rename() -> None:
        for folder in checkpoints(run):
            if _step_of(folder) > step:
                place = folder.with_name(f"aside-{folder.name}")
                while place.exists():
                    place = place.with_name(f"{place.name}-again")
                os.replace(folder, place)

    agree(engine, _attempt(rename, run) if engine.rank == 0 else None)


def prune(run: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints; 0 keeps all."""
    for folder in checkpoints(run)[:-keep] if keep else []:
        _remove(folder)


def _remove(folder: Path) -> None:
    """state.json first: a checkpoint that is half removed is none."""
    (folder / "state.json").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


class Pieces:
    """The tensors of a checkpoint, whatever number of processes wrote it; read from the disk when asked for."""

    def __init__(self, folder: Path):
        self.state = read_state(folder)
        self.folder = folder
        self.places: dict[str, list[tuple[int, TensorFiles]]] = {}  # weight -> (start, file), by start
        for rank in range(self.state.world):
            file = open_weights(folder / f"rank-{rank:04d}.safetensors")
            for name, start in json.loads(file.metadata["starts"]).items():
                self.places.setdefault(name, []).append((int(start), file))
        for name, places in self.places.items():
            places.sort(key=lambda place: place[0])
            self._check_whole(name)

    def _check_whole(self, name: str) -> None:
        stop = 0
        for start, file in self.places[name]:
            if start != stop:
                break
            stop = start + file.entries[f"{WEIGHT}/{name}"].shape[0]
        if stop != _count(self.state.shapes[name]):
            raise ComoviError(f"checkpoint {self.folder} lacks a part of {name}; resume from an earlier one.")

    def __call__(self, name: str, part: str, start: int, count: int) -> Tensor:
        """Elements start to start + count of one part of a weight, (count,) float32."""
        if name not in self.places:
            raise ComoviError(f"checkpoint {self.folder} has no {name}; it was made with other settings.")
        places = self.places[name]
        runs: list[Tensor] = []
        have, at = 0, bisect_right(places, start, key=lambda place: place[0]) - 1
        while have < count:
            first, file = places[at]
            offset = start + have - first
            runs.append(file[f"{part}/{name}"][offset : offset + count - have])
            have, at = have + runs[-1].numel(), at + 1
        return torch.cat(runs) if len(runs) > 1 else runs[0] if runs else torch.zeros(0)

    def has_average(self) -> bool:
        return any(key.startswith(f"{AVERAGE}/") for places in self.places.values() for key in places[0][1])

    def whole(self, name: str, part: str) -> Tensor:
        shape = self.state.shapes[name]
        return self(name, part, 0, _count(shape)).reshape(shape)


def _count(shape: list[int]) -> int:
    return int(torch.Size(shape).numel())


def load(engine: Engine, ema: ShardedEma | None, folder: Path) -> TrainState:
    """Bring engine and EMA to the state of a checkpoint; every rank calls it."""
    pieces = Pieces(folder)
    engine.write_state(pieces, pieces.state.updates)
    buffers = open_weights(folder / "buffers.safetensors") if _has_tensors(engine.recipe) else {}
    for name, buffer in engine.recipe.named_buffers():
        buffer.data.copy_(buffers[name])
    if ema is not None:
        part = AVERAGE if pieces.has_average() else WEIGHT  # switched on later: it begins at the weights
        for piece in ema.pieces:
            ema.average[piece.name].copy_(pieces(piece.name, part, piece.start, piece.count))
        ema.updates = pieces.state.ema_updates
    return pieces.state


def _has_tensors(recipe: nn.Module) -> bool:
    return next(iter(recipe.buffers()), None) is not None


def consolidated_state(folder: Path, *, averaged: bool = False, trainable_only: bool = False) -> dict[str, Tensor]:
    """The state dict of a checkpoint's recipe, trained weights in float32; `averaged` takes the EMA's.

    Frozen weights are made again from the settings of the run, unless `trainable_only`.
    """
    from .config_file import load_resolved
    from .recipe import build_recipe

    pieces = Pieces(folder)
    if averaged and not pieces.has_average():
        raise ComoviError(
            f"checkpoint {folder} has no running mean; train with ema.enabled=true, or export the weights."
        )
    out: dict[str, Tensor] = {}
    if not trainable_only:
        out |= build_recipe(load_resolved(folder.parent.parent)).state_dict()
        if (folder / "buffers.safetensors").stat().st_size > 16:
            out |= dict(open_weights(folder / "buffers.safetensors"))
    part = AVERAGE if averaged else WEIGHT
    return out | {name: pieces.whole(name, part).clone() for name in pieces.places}


def frozen_checksum(recipe: nn.Module) -> int:
    """A checksum of up to 4096 numbers of each weight that is not trained; needs the whole weights."""
    value = 0
    for name, weight in sorted(recipe.named_parameters()):
        if not weight.requires_grad and weight.numel():
            flat = weight.detach().reshape(-1)
            sample = flat[:: max(1, flat.numel() // 4096)].float().cpu().contiguous()
            value = zlib.crc32(sample.numpy().tobytes(), zlib.crc32(name.encode(), value))
    return value
