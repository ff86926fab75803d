"""The loss on held-out clips, at fixed quantiles of the timesteps: the same clips, noise and times every time.

Its randomness is its own, so measuring never changes what is trained.
"""

from __future__ import annotations

import torch

from .batch import ClipSource, Draw
from .config import TrainConfig
from .engines.base import Engine

SEED = 20_240_000  # so that no validation draw is a training draw


def validate(engine: Engine, source: ClipSource, config: TrainConfig) -> dict[str, float]:
    """`validation/<loss>` over all quantiles and `validation/<loss>@<quantile>`; every rank calls it.

    Ranks share the clips, which are taken in their order, as many as make full batches on all ranks.
    """
    size, shown = config.batch.micro, min(config.eval.clips, len(source))
    batches = _batches(source, shown, size)
    mine = batches[engine.rank :: engine.world]
    sums: dict[str, torch.Tensor] = {}
    engine.recipe.eval()
    try:
        for turn in range(-(-len(batches) // engine.world)):
            number = turn * engine.world + engine.rank
            counts = turn < len(mine)  # under ZeRO-3 all ranks must compute, if only for company
            indices = mine[turn] if counts else batches[0]
            for quantile in config.eval.quantiles:
                draw = Draw(SEED + config.run.seed, 0, 0, number, len(batches), quantile)
                losses = engine.evaluate(source.read(indices, draw), draw)
                for name, value in losses.items():
                    key = f"{name}@{quantile:g}"
                    add = value.detach().float().cpu() * len(indices) * counts
                    sums[key] = sums[key] + add if key in sums else add
    finally:
        engine.recipe.train()
    names = sorted(sums)
    clips = float(sum(len(indices) for indices in batches)) / engine.world
    means = engine.mean_over_ranks(torch.stack([sums[name] for name in names])) / clips
    out = {f"validation/{name}": value for name, value in zip(names, means.tolist(), strict=True)}
    for loss in sorted({name.split("@")[0] for name in names}):
        values = [value for name, value in out.items() if name.startswith(f"validation/{loss}@")]
        out[f"validation/{loss}"] = sum(values) / len(values)
    return out


def _batches(source: ClipSource, count: int, size: int) -> list[list[int]]:
    """The first `count` clips in batches of one bucket each."""
    by_bucket: dict[tuple[int, ...], list[int]] = {}
    for index in range(count):
        by_bucket.setdefault(source.bucket_of(index), []).append(index)
    return [indices[start : start + size] for indices in by_bucket.values() for start in range(0, len(indices), size)]
