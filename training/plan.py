"""What a run will take: parameters, memory of every process, tokens, cache and steps, before anything is allocated.

    comovi-train plan --config stage2 --world 8 --gpu 80
    comovi-train plan --machines        four machines side by side, from one 24 GB card to four nodes of eight GPUs

Shapes come from the meta device; of weight files only headers are read, and they need not exist.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..comovi_model.errors import ComoviError
from ..comovi_model.files import atomic_path
from .memory import ClipSize, Counts, Plan, activation_bytes, count_weights, plan_memory
from .partition import partition_recipe
from .recipe import build_recipe

FULL, SMALL = ClipSize(81, 704, 1280), ClipSize(81, 480, 832)


@dataclass(frozen=True)
class Machine:
    """What a run is planned for."""

    name: str
    gpus: int
    gpu_gigabytes: float
    gpus_per_host: int
    preset: str
    size: ClipSize
    settings: tuple[str, ...] = ()  # over the preset


MACHINES = (
    Machine("1 x 24 GB, adapter", 1, 24, 1, "lora_24gb", SMALL),
    Machine("1 x H200 (141 GB), stage 2", 1, 141, 1, "stage2", FULL,
            ("engine.kind=single", "engine.offload_optimizer=cpu", "engine.offload_params=none",
             "engine.keep_layers=14")),
    Machine("8 x 80 GB, stage 2", 8, 80, 8, "stage2", FULL,
            ("engine.offload_optimizer=none", "engine.offload_params=none")),
    Machine("4 nodes of 8 x 80 GB, stage 2", 32, 80, 8, "stage2", FULL,
            ("engine.offload_optimizer=none", "engine.offload_params=none")),
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """Everything that the command prints; bytes and counts."""

    name: str
    world: int
    counts: Counts
    size: ClipSize
    plan: Plan
    clips_per_step: int
    steps: int
    fits: bool | None  # None: no GPU size was named
    smallest_share: int  # weights on the rank that has fewest, under ZeRO-3
    hosts: int

    @property
    def clips(self) -> int:
        return self.steps * self.clips_per_step

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "device_bytes": self.plan.device_bytes, "host_bytes": self.plan.host_bytes}


def make_report(config: Any, world: int, size: ClipSize, *, name: str = "", gpu_gigabytes: float = 0,
                gpus_per_host: int = 8) -> Report:  # fmt: skip
    """Plan a configuration for `world` processes."""
    if config.model.kind != "comovi":
        raise ComoviError("plan is for the paper's network (model.kind = comovi); nano fits everywhere.")
    if gpus_per_host < 1:
        raise ComoviError(f"--gpus-per-host is {gpus_per_host}; it must be at least 1.")
    recipe = build_recipe(config, device="meta")
    network = recipe.network.config
    head = network.pose_latent_frames if network.pose_head else size.latent[0]
    if head != size.latent[0]:
        raise ComoviError(f"clips of {size.frames} frames do not fit the pose head, which wants {4 * head - 3}.")
    counts = count_weights(recipe)
    shares = partition_recipe(recipe, world)
    plan = plan_memory(config, counts, activation_bytes(recipe, size, config.batch.micro), world)
    return Report(
        name or config.run.name,
        world,
        counts,
        size,
        plan,
        config.batch.micro * config.batch.accumulate * world,
        config.run.max_steps,
        plan.device_bytes <= gpu_gigabytes * 1e9 if gpu_gigabytes else None,
        min(shares.held),
        -(-world // gpus_per_host),
    )


def plan_machine(machine: Machine) -> Report:
    """One of the four machines."""
    from .config_file import load_config

    config = load_config(machine.preset, machine.settings)
    accumulate = max(1, round(96 / (machine.gpus * config.batch.micro)))  # the paper's 96 clips per step
    if config.adapter.kind == "none":
        config = replace(config, batch=replace(config.batch, accumulate=accumulate))
    return make_report(config, machine.gpus, machine.size, name=machine.name, gpu_gigabytes=machine.gpu_gigabytes,
                       gpus_per_host=machine.gpus_per_host)  # fmt: skip


def format_report(report: Report, clips: int = 0) -> list[str]:
    """Lines for a person."""
    counts, size, plan = report.counts, report.size, report.plan
    frames, rows, columns = size.latent
    lines = [
        report.name,
        f"  weights      {counts.total / 1e9:.3f} B, of which {counts.trained / 1e9:.3f} B are trained",
        f"  clips        {size.frames} x {size.height} x {size.width}: latent {frames} x {rows} x {columns}, "
        f"{size.tokens:,} tokens per branch, {size.cache_bytes() / 1e6:.1f} MB each in the cache",
        f"  steps        {report.steps:,} of {report.clips_per_step} clips: {report.clips:,} clips"
        + (f", {report.clips / clips:.1f} times through {clips:,}" if clips else ""),
    ]
    if clips:
        lines.append(f"  cache        {size.cache_bytes() * clips / 1e9:,.1f} GB")
    lines.append(f"  per process  {_gigabytes(plan.device)}")
    verdict = {None: "", True: ", it fits", False: ", IT DOES NOT FIT"}[report.fits]
    lines.append(f"               {plan.device_bytes / 1e9:.1f} GB on the device{verdict}")
    if plan.host:
        per_host = -(-report.world // report.hosts)
        lines.append(f"  host memory  {_gigabytes(plan.host)}")
        lines.append(f"               {plan.host_bytes * per_host / 1e9:.1f} GB on each of {report.hosts} host(s)")
    return lines


def _gigabytes(parts: dict[str, float]) -> str:
    return ", ".join(f"{name} {value / 1e9:.1f} GB" for name, value in parts.items())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default="stage2", help="preset or settings file")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V", help="change a setting")
    parser.add_argument("--world", type=int, default=1, help="processes, one per GPU")
    parser.add_argument("--gpu", type=float, default=0, metavar="GB", help="memory of one GPU, to say whether it fits")
    parser.add_argument("--gpus-per-host", type=int, default=8)
    parser.add_argument("--frames", type=int, default=FULL.frames)
    parser.add_argument("--height", type=int, default=FULL.height)
    parser.add_argument("--width", type=int, default=FULL.width)
    parser.add_argument("--clips", type=int, default=0, help="clips in the training set, for the size of the cache")
    parser.add_argument("--machines", action="store_true", help="four machines side by side")
    parser.add_argument("--json", type=Path, help="also write the figures here")


def run(options: argparse.Namespace) -> int:
    from .config_file import load_config

    if options.machines:
        reports = [plan_machine(machine) for machine in MACHINES]
    else:
        size = ClipSize(options.frames, options.height, options.width)
        check_size(size)
        config = load_config(options.config, options.set)
        reports = [
            make_report(config, options.world, size, gpu_gigabytes=options.gpu, gpus_per_host=options.gpus_per_host)
        ]
    for report in reports:
        print("\n".join([*format_report(report, options.clips), ""]))
    print("Counted, not measured on a GPU: activations on the meta device with fused kernels; 2 GB for context and "
          "workspaces are assumed.")  # fmt: skip
    if options.json:
        with atomic_path(options.json) as path:
            path.write_text(json.dumps([report.to_dict() for report in reports], indent=1) + "\n", encoding="utf-8")
    return 0


def check_size(size: ClipSize) -> None:
    if size.frames < 5 or size.frames % 4 != 1:
        raise ComoviError(f"--frames is {size.frames}; it must be 4 k + 1, such as 81.")
    if min(size.height, size.width) < 32 or size.height % 32 or size.width % 32:
        raise ComoviError(f"clips of {size.height} x {size.width}: height and width must be multiples of 32.")
