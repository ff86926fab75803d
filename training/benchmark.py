"""The verb `benchmark`: throughput of our engines beside a plain literal loop, and the share of data loading.

All variants run in one process and take turns step by step, so that whatever else the machine does hits them alike; the
figures are those of the median step. On a busy machine the one by CPU time is the steadier. The literal loop is what
one would write first: no engine, no read-ahead, and AdamW as torch makes it when it is not asked for its fused kernel.

    comovi-train benchmark                          a small network of the paper's kind, on the CPU
    comovi-train benchmark --config nano --set data.train=runs/clips
    comovi-train benchmark --full --device cuda     one step of stage 2 at full size with random weights
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ..comovi_model.errors import ComoviError
from .batch import ClipSource, Draw
from .config import TrainConfig
from .config_file import build_config, load_config, merge, parse_sets
from .data.sampler import SamplePlan
from .engines.base import Engine
from .optim import rate_at, trainable_weights
from .random_clips import SMALL, RandomClips

MEDIUM: tuple[str, ...] = (
    "model.shape.dim=192",
    "model.shape.ffn_dim=576",
    "model.shape.num_heads=4",
    "model.shape.num_layers=6",
)
MEDIUM += ("model.shape.in_channels=48", "model.shape.out_channels=48", "model.shape.freq_dim=64")
MEDIUM += ("model.shape.text_dim=128", "model.shape.text_len=24", "model.shape.pose_tokens=32", "batch.micro=2")
MEDIUM_CLIPS = RandomClips(count=64, channels=48, latent=(9, 12, 8), text_dim=128, words=16)
FULL_LATENT = (21, 44, 80)  # 81 frames of 704 x 1280
PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40": 181.0, "4090": 165.0}  # dense bfloat16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", help="settings and their clips instead of the small network on random clips")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--steps", type=int, default=12, help="timed steps of each variant")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--deepspeed", action="store_true", help="DeepSpeed (ZeRO 1 and 3, one process) beside them")
    parser.add_argument("--full", action="store_true", help="stage 2 at real size with random weights; needs a GPU")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))


def run(options: argparse.Namespace) -> int:
    if options.full:
        return _full(options)
    if options.config:
        from .recipe import open_sources

        config = load_config(options.config, options.set)
        source: ClipSource = open_sources(config.data)[0]
    else:
        config, source = build_config(merge(SMALL, parse_sets([*MEDIUM, *options.set]))), MEDIUM_CLIPS
    engine = replace(config.engine, kind="single", device=options.device)
    config = replace(config, engine=engine, run=replace(config.run, max_steps=options.steps + options.warmup))
    torch.set_num_threads(config.run.threads or torch.get_num_threads())
    variants: dict[str, Callable[[int], None]] = {"literal loop": literal_loop(config, source)}
    ours = EngineLoop(config, source, options.warmup)
    variants["ours, single"] = ours.step
    loops = {"ours, single": ours}
    if options.deepspeed:
        for zero in (1, 3):
            changed = replace(config.engine, kind="deepspeed", zero=zero, compile=config.engine.compile and zero < 3)
            name = f"ours, deepspeed ZeRO-{zero}"
            loops[name] = EngineLoop(replace(config, engine=changed), source, options.warmup)
            variants[name] = loops[name].step
    times = take_turns(variants, options.warmup, options.steps)
    clips = config.batch.micro * config.batch.accumulate
    base = [statistics.median(column) for column in zip(*times["literal loop"], strict=True)]
    for name, rows in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
        loop = loops.get(name)
        waited = f", {100 * loop.waited_share(sum(row[0] for row in rows)):.2f} % waiting for clips" if loop else ""
        sys.stdout.write(
            f"{name:26} {clips / wall:7.2f} clips/s, {base[0] / wall:.2f} x literal; by CPU time "
            f"{clips / cpu:7.2f} clips/s, {base[1] / cpu:.2f} x{waited}\n"
        )
    for loop in loops.values():
        loop.close()
    return 0


def take_turns(
    variants: dict[str, Callable[[int], None]], warmup: int, steps: int
) -> dict[str, list[tuple[float, float]]]:
    """Seconds, and seconds of CPU, of every timed step; in each round all variants do one step, in turning order."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for step in range(warmup + steps):
        names = list(variants)
        for name in names[step % len(names) :] + names[: step % len(names)]:
            begin, begin_cpu = time.perf_counter(), time.process_time()
            variants[name](step)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if step >= warmup:
                times[name].append((time.perf_counter() - begin, time.process_time() - begin_cpu))
    return times


def literal_loop(config: TrainConfig, source: ClipSource) -> Callable[[int], None]:
    """A step of the loop that one would write first, around the same recipe."""
    from .engines.single import pick_device
    from .recipe import build_recipe

    device = pick_device(config.engine.device)
    recipe = build_recipe(config, source).to(device)
    if config.engine.compile:
        recipe.compile_blocks()
    weights = list(trainable_weights(recipe).values())
    rates = config.optim
    optimizer = torch.optim.AdamW(
        weights, lr=rates.lr, betas=rates.betas, eps=rates.eps, weight_decay=rates.weight_decay
    )
    plan = SamplePlan(source, config.batch.micro, config.batch.accumulate, 1, config.run.seed)

    def step(number: int) -> None:
        optimizer.zero_grad()
        for micro in range(config.batch.accumulate):
            draw = Draw(config.run.seed, number, 0, micro, config.batch.accumulate)
            batch = source.read(plan.indices(number, micro, 0), draw).to(device)
            (recipe(batch, draw)["loss"] / config.batch.accumulate).backward()
        torch.nn.utils.clip_grad_norm_(weights, config.optim.clip)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(config.optim, number, config.run.max_steps)
        optimizer.step()

    return step


class EngineLoop:
    """The trainer's own reading and stepping around an engine, without logs and checkpoints."""

    def __init__(self, config: TrainConfig, source: ClipSource, skipped: int = 0):
        from .reader import StepReader
        from .trainer import build_engine

        self.config = config
        self.engine: Engine = build_engine(config, source)
        self.reader = StepReader(source, config, 0, 1, 0, self.engine.device.type == "cuda")
        self.waits: list[float] = []
        self.skipped = skipped  # first steps that are not timed

    def step(self, number: int) -> None:
        before = self.reader.waited
        batches = self.reader.next(number)
        self.waits.append(self.reader.waited - before)
        for micro, batch in enumerate(batches):
            self.engine.micro_step(batch, self.reader.draw(number, micro), micro == len(batches) - 1)
        self.engine.apply(rate_at(self.config.optim, number, self.config.run.max_steps))

    def waited_share(self, seconds: float) -> float:
        return sum(self.waits[self.skipped :]) / max(seconds, 1e-9)

    def close(self) -> None:
        self.reader.close()


def _full(options: argparse.Namespace) -> int:
    """Steps of stage 2 at 81 x 704 x 1280 with random weights: seconds, tokens/s, share of the device's peak."""
    if not torch.cuda.is_available():
        raise ComoviError("--full needs a CUDA GPU; without one see `comovi-train plan`.")
    sets = ["engine.precision=bf16", "batch.accumulate=1", f"run.max_steps={options.steps + options.warmup}"]
    config = load_config("stage2", [*sets, *options.set])
    source = RandomClips(count=4, channels=48, latent=FULL_LATENT, text_dim=4096, words=512)
    loop = EngineLoop(config, source)
    times = take_turns({"stage 2": loop.step}, options.warmup, options.steps)["stage 2"]
    loop.close()
    seconds = statistics.median(row[0] for row in times)
    tokens = 2 * FULL_LATENT[0] * FULL_LATENT[1] * FULL_LATENT[2] // 4
    flops = step_flops(config, loop.engine.recipe)
    name = torch.cuda.get_device_name()
    peak = next((value for key, value in PEAK_TFLOPS.items() if key in name), None)
    share = f", {100 * flops / seconds / 1e12 / peak:.1f} % of {peak:.0f} TFLOP/s" if peak else ""
    sys.stdout.write(f"{name}: {seconds:.2f} s per clip, {tokens / seconds:.0f} tokens/s{share}\n")
    sys.stdout.write(f"largest memory: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB\n")
    return 0


def step_flops(config: TrainConfig, recipe: Any) -> float:
    """Model FLOPs of one clip, by the usual rule: forward once, backward twice where weights are trained and once where
    only activations need gradients; what is recomputed does not count."""
    network = recipe.network.config
    frames, rows, columns = FULL_LATENT
    tokens = frames * rows * columns // 4
    block = 2 * tokens * (4 * network.dim**2 + 2 * network.dim**2 + 2 * network.dim * network.ffn_dim)
    attention = 4 * tokens**2 * network.dim
    forward = network.num_layers * (block + attention)  # of one branch
    return forward * 3 + forward * (3 if config.stage.train_video else 2)
