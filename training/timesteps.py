"""The distribution of noise levels that the settings lead to, as numbers and as a picture in the terminal.

comovi-train timesteps --config stage2 --set noise.shift=3 --world 8
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..comovi_model.errors import ComoviError
from ..comovi_model.files import atomic_path
from .batch import Draw
from .nano_objective import NoiseLaw
from .objective import SigmaLaw, groups_of

BARS, WIDTH = 20, 50
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def draw_sigmas(config: Any, world: int, count: int) -> tuple[Tensor, Tensor]:
    """`count` sigmas of video and of motion, as many from every process."""
    noise = config.noise
    each = max(1, count // world)
    law: SigmaLaw | NoiseLaw
    pairs = []
    for rank in range(world):
        draw = Draw(config.run.seed, 0, 0, rank, world)
        if config.model.kind == "nano":
            law = NoiseLaw(noise.shift, noise.start, noise.shared, noise.clean)
            pairs.append(law.sample(each, draw.generator("timesteps")))
        else:
            law = SigmaLaw(
                noise.shift, noise.sampling, noise.location, noise.scale, noise.start, noise.shared, noise.clean
            )
            pairs.append(law.sample(each, draw))
    video, motion = (torch.cat(list(part)).double() for part in zip(*pairs, strict=True))
    return video, motion


def describe(video: Tensor, motion: Tensor) -> dict[str, Any]:
    """Mean, median, quantiles and shares."""
    return {
        "mean": float(video.mean()),
        "median": float(video.median()),
        "quantiles": {str(q): float(video.quantile(q)) for q in QUANTILES},
        "above 0.5": float((video > 0.5).double().mean()),
        "above 0.9": float((video > 0.9).double().mean()),
        "branches at one sigma": float((video == motion).double().mean()),
        "one branch clean": float(((video == 0) | (motion == 0)).double().mean()),
        "counts": torch.histc(video.float(), BARS, 0, 1).long().tolist(),
    }


def picture(counts: list[int]) -> list[str]:
    """A bar for every twentieth of sigma, from much noise to little."""
    most = max([*counts, 1])
    lines = []
    for index in reversed(range(BARS)):
        bar = "#" * round(WIDTH * counts[index] / most)
        lines.append(f"  {index / BARS:4.2f} to {(index + 1) / BARS:4.2f}  {bar}")
    return lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default="stage2", help="preset or settings file")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V", help="change a setting")
    parser.add_argument("--world", type=int, default=1, help="processes")
    parser.add_argument("--count", type=int, default=100_000, help="how many to draw")
    parser.add_argument("--json", type=Path, help="also write the figures here")


def run(options: argparse.Namespace) -> int:
    from .config_file import load_config

    if options.world < 1 or options.count < options.world:
        raise ComoviError(f"--count {options.count} and --world {options.world}: at least one draw for each process.")
    config = load_config(options.config, options.set)
    figures = describe(*draw_sigmas(config, options.world, options.count))
    groups = groups_of(options.world) if config.noise.sampling == "stratified" and config.model.kind != "nano" else 1
    print(f"sigma, {options.count:,} draws, shift {config.noise.shift:g}, {groups} group(s) of ranks")
    print("\n".join(picture(figures["counts"])))
    for name, value in figures.items():
        if name == "quantiles":
            print("  quantiles  " + ", ".join(f"{q}: {sigma:.3f}" for q, sigma in value.items()))
        elif name != "counts":
            print(f"  {name}  {value:.4f}")
    if options.json:
        with atomic_path(options.json) as path:
            path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0
