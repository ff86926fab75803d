"""The settings of a training run, one record per section of the TOML file; read them here to know what can be set.

    comovi-train train --config stage2 --set optim.lr=1e-5 --set engine.zero=2

The name of a preset (training/configs) or a path. A file may begin with `include = "other.toml"`; it is read first, and
what follows it wins; `--set` wins over both. A name that does not exist is refused, with the nearest one that does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from ..comovi_model.errors import ComoviError

PATHS = (
    "run.out",
    "model.base",
    "model.init",
    "stage.smpl.body",
    "data.train",
    "data.validation",
    "data.wan",
    "eval.sample_prompts",
)
"""Settings that are paths: relative ones start from the folder where the command is typed."""


def _choice(where: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise ComoviError(f"{where} is {value!r}; choose one of {', '.join(map(str, choices))}.")


def _at_least(where: str, value: float, least: float) -> None:
    if not value >= least:  # NaN is not either
        raise ComoviError(f"{where} is {value}; it must be at least {least}.")


def _between(where: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ComoviError(f"{where} is {value}; it must lie between {low} and {high}.")


@dataclass(frozen=True)
class RunConfig:
    name: str = "run"  # the run lives in out/name
    out: str = "runs"
    seed: int = 42
    max_steps: int = 1000  # optimiser steps
    threads: int = 0  # CPU threads per process; 0 leaves torch's own choice

    def __post_init__(self) -> None:
        _at_least("run.max_steps", self.max_steps, 1)
        _at_least("run.threads", self.threads, 0)
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ComoviError(f"run.name is {self.name!r}; give a plain folder name, and the place in run.out.")


@dataclass(frozen=True)
class ModelConfig:
    kind: str = "comovi"  # comovi (the paper's network) | nano (the embedded one)
    base: str = ""  # weights of plain Wan2.2-TI2V-5B, copied into both branches; "" starts from random numbers
    init: str = ""  # weights of an earlier stage; wins over base
    interaction: str = "single_m2v"  # what the branches tell each other
    shape: Mapping[str, Any] = field(default_factory=dict)  # fields of DualBranchConfig that differ from full size
    variant: str = "full"  # nano only, for the ablation table: full | video_alone | joint_latent

    def __post_init__(self) -> None:
        _choice("model.kind", self.kind, ("comovi", "nano"))
        _choice("model.variant", self.variant, ("full", "video_alone", "joint_latent"))


@dataclass(frozen=True)
class SmplWeights:
    pose: float = 1.0  # squared error of the 6D rotations (Eq. 11)
    vertices: float = 1.0  # of the released code; 0 in the paper
    joints: float = 1.0  # of the released code; 0 in the paper


@dataclass(frozen=True)
class SmplConfig:
    enabled: bool = True
    layers_per_step: int = 3  # the last one and random others
    weights: SmplWeights = SmplWeights()
    body: str = ""  # body model file; "" takes the mannequin

    def __post_init__(self) -> None:
        _at_least("stage.smpl.layers_per_step", self.layers_per_step, 1)


@dataclass(frozen=True)
class StageConfig:
    kind: str = "joint"  # motion (stage 1: the motion branch alone) | joint (stage 2)
    train_video: bool = False  # also train the video branch; frozen in the paper
    smpl: SmplConfig = SmplConfig()

    def __post_init__(self) -> None:
        _choice("stage.kind", self.kind, ("motion", "joint"))


@dataclass(frozen=True)
class LossConfig:
    video: float = 1.0
    motion: float = 1.0
    pose: float = 8.0  # nano only
    pose_early: float = 4.0  # nano only: the same read after a layer in the middle
    outlier: float = 0.0  # drop elements whose error is larger; 0 drops none, the released code says 50


@dataclass(frozen=True)
class NoiseConfig:
    shift: float = 5.0
    sampling: str = "stratified"  # uniform | stratified | logit_normal
    location: float = 0.0  # of logit_normal
    scale: float = 1.0  # of logit_normal
    start: float = 0.0  # share of clips at sigma 1, where every sampling run begins
    shared: float = 1.0  # share of clips whose two branches have the same sigma
    clean: float = 0.0  # of the others: share in which the branch that was drawn anew is clean

    def __post_init__(self) -> None:
        _choice("noise.sampling", self.sampling, ("uniform", "stratified", "logit_normal"))
        for name in ("start", "shared", "clean"):
            _between(f"noise.{name}", getattr(self, name), 0, 1)


@dataclass(frozen=True)
class OptimConfig:
    name: str = "adamw"
    lr: float = 2e-5
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-10
    weight_decay: float = 0.03
    warmup: int = 100  # steps
    clip: float = 0.5  # gradient norm; 0 does not clip
    cosine: float = 0.0  # share of the steps, at the end, over which the rate falls as a cosine
    final: float = 0.01  # where it falls to, as a share of lr

    def __post_init__(self) -> None:
        _choice("optim.name", self.name, ("adamw",))
        for name in ("lr", "eps", "weight_decay", "warmup", "clip"):
            _at_least(f"optim.{name}", getattr(self, name), 0)
        for name in ("cosine", "final"):
            _between(f"optim.{name}", getattr(self, name), 0, 1)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ComoviError(f"optim.betas is {list(self.betas)}; both must lie between 0 and 1, 1 excluded.")


@dataclass(frozen=True)
class BatchConfig:
    micro: int = 1  # clips per process and micro-step
    accumulate: int = 4  # micro-steps per optimiser step
    text_dropout: float = 0.0  # share of clips without their sentence
    word_dropout: float = 0.0  # nano only: share of words that are unknown
    readers: int = 1  # 1: a thread reads two steps ahead; 0: read when asked

    def __post_init__(self) -> None:
        _at_least("batch.micro", self.micro, 1)
        _at_least("batch.accumulate", self.accumulate, 1)
        _between("batch.readers", self.readers, 0, 1)
        for name in ("text_dropout", "word_dropout"):
            _between(f"batch.{name}", getattr(self, name), 0, 1)


@dataclass(frozen=True)
class EngineConfig:
    kind: str = "single"  # single (plain torch, one device) | deepspeed
    zero: int = 3  # deepspeed: what is spread over ranks: 1 optimiser, 2 and gradients, 3 and weights; 0 nothing
    offload_optimizer: str = "none"  # none | cpu
    offload_params: str = "none"  # none | cpu
    keep_whole: int = 10_000  # deepspeed, ZeRO 3: weights of fewer elements stay whole in every process
    precision: str = "bf16"  # fp32 | bf16 (the optimiser keeps float32 weights) | autocast (float32, products in bf16)
    checkpointing: bool = True  # recompute the blocks in the backward pass
    keep_layers: int = 0  # with checkpointing: so many of the last layers are not recomputed, where memory is left
    compile: bool = False  # torch.compile of the blocks
    device: str = "auto"  # auto | cpu | cuda

    def __post_init__(self) -> None:
        _choice("engine.kind", self.kind, ("single", "deepspeed"))
        _choice("engine.zero", self.zero, (0, 1, 2, 3))
        _choice("engine.offload_optimizer", self.offload_optimizer, ("none", "cpu"))
        _choice("engine.offload_params", self.offload_params, ("none", "cpu"))
        _choice("engine.precision", self.precision, ("fp32", "bf16", "autocast"))
        _choice("engine.device", self.device, ("auto", "cpu", "cuda"))
        _at_least("engine.keep_layers", self.keep_layers, 0)
        if self.kind == "deepspeed" and self.offload_params == "cpu" and self.zero != 3:
            raise ComoviError(f"engine.offload_params needs engine.zero = 3; it is {self.zero}.")
        if self.kind == "deepspeed" and self.offload_optimizer == "cpu" and self.zero == 0:
            raise ComoviError("engine.offload_optimizer needs engine.zero = 1, 2 or 3; it is 0.")
        if self.kind == "deepspeed" and self.precision == "bf16" and self.zero == 0:
            raise ComoviError("engine.precision bf16 needs engine.zero = 1, 2 or 3; it is 0; take 1.")
        if self.compile and self.kind == "deepspeed" and self.zero == 3:
            raise ComoviError("engine.compile does not go with engine.zero = 3; use 0, 1 or 2, or do not compile.")


@dataclass(frozen=True)
class EmaConfig:
    enabled: bool = False
    decay: float = 0.999  # at most; the n-th update has n / (n + 10)
    every: int = 1  # steps between updates

    def __post_init__(self) -> None:
        _between("ema.decay", self.decay, 0, 1)
        _at_least("ema.every", self.every, 1)


@dataclass(frozen=True)
class AdapterConfig:
    kind: str = "none"  # none | lora
    rank: int = 32
    alpha: float = 0.0  # 0 is rank
    targets: tuple[str, ...] = ("motion", "exchange")  # of rgb, motion, exchange

    def __post_init__(self) -> None:
        _choice("adapter.kind", self.kind, ("none", "lora"))
        _at_least("adapter.rank", self.rank, 1)
        for target in self.targets:
            _choice("adapter.targets", target, ("rgb", "motion", "exchange"))


@dataclass(frozen=True)
class DataConfig:
    kind: str = "cache"  # cache (made by `comovi-train cache`) | prepared (encoded while training) | nano (its shards)
    train: tuple[str, ...] = ()  # folders of training clips
    validation: tuple[str, ...] = ()  # folders of held-out clips; none measures nothing
    encoders: str = "nano"  # of kind "prepared": nano | wan
    wan: str = ""  # of kind "prepared": folder of Wan2.2-TI2V-5B in the layout of diffusers

    def __post_init__(self) -> None:
        _choice("data.kind", self.kind, ("cache", "prepared", "nano"))
        _choice("data.encoders", self.encoders, ("nano", "wan"))


@dataclass(frozen=True)
class SaveConfig:
    every: int = 100  # steps
    keep: int = 10  # newest checkpoints that stay; 0 keeps all

    def __post_init__(self) -> None:
        _at_least("save.every", self.every, 1)
        _at_least("save.keep", self.keep, 0)


@dataclass(frozen=True)
class EvalConfig:
    every: int = 250  # steps; 0 never measures
    clips: int = 64  # of the held-out ones
    quantiles: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the timesteps
    sample_every: int = 0  # steps between sample videos; 0 makes none
    sample_prompts: str = ""  # file of sentences, one per line; "" takes those of the held-out clips
    sample_clips: int = 4
    sample_steps: int = 0  # 0: 1 for nano, the paper's 50 otherwise
    sample_guidance: float = 0.0  # 0: 1 for nano, the paper's 6 otherwise

    def __post_init__(self) -> None:
        _at_least("eval.clips", self.clips, 1)
        if not self.quantiles:
            raise ComoviError("eval.quantiles is empty; name at least one, or set eval.every to 0.")
        for quantile in self.quantiles:
            _between("eval.quantiles", quantile, 0, 1)


@dataclass(frozen=True)
class LogConfig:
    every: int = 1  # steps between lines
    jsonl: bool = True
    tensorboard: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
        _at_least("log.every", self.every, 1)


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a run."""

    run: RunConfig = RunConfig()
    model: ModelConfig = ModelConfig()
    stage: StageConfig = StageConfig()
    loss: LossConfig = LossConfig()
    noise: NoiseConfig = NoiseConfig()
    optim: OptimConfig = OptimConfig()
    batch: BatchConfig = BatchConfig()
    engine: EngineConfig = EngineConfig()
    ema: EmaConfig = EmaConfig()
    adapter: AdapterConfig = AdapterConfig()
    data: DataConfig = DataConfig()
    save: SaveConfig = SaveConfig()
    eval: EvalConfig = EvalConfig()
    log: LogConfig = LogConfig()


def as_dict(record: Any) -> dict[str, Any]:
    """A record as nested plain dicts and lists, ready for TOML or JSON."""
    out: dict[str, Any] = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if is_dataclass(value):
            value = as_dict(value)
        elif isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Mapping):
            value = dict(value)
        out[item.name] = value
    return out
