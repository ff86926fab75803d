"""The nano model's objective (training/nano_objective.py) as a recipe: everything moves, the text encoder too.

B clips, 24 word ids per sentence, latents (B, 48, 9, h, w), poses (B, 33, 24, 6).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...comovi_model.comovi.config import DualBranchConfig
from ...comovi_model.comovi.dual_branch import DualBranch
from ...comovi_model.comovi.names import official_name
from ...comovi_model.errors import ComoviError
from ...comovi_model.nano.first_frame import FirstFrameWrapper
from ...comovi_model.nano.model import load_nano
from ...comovi_model.nano.people import ASSETS
from ...comovi_model.nano.presets import NANO
from ...comovi_model.nano.sentences import UNKNOWN
from ...comovi_model.nano.text_encoder import NanoTextEncoder, tokenise
from ...comovi_model.wan.flow import shift_sigma
from ..batch import ClipSource, Draw, TrainBatch
from ..counters import key
from ..lora import adapt
from ..nano_objective import NanoBatch, NanoTrainee, NoiseLaw, training_attention
from ..recipe import Recipe
from .nano_source import SPREAD_CLIPS, NanoClips
from .variants import VARIANTS

BRANCHES = ("video", "motion")


class NanoRecipe(Recipe):
    """What the trainer drives; the weights live below `trainee.`, as `network.` and `text_encoder.`."""

    def __init__(
        self,
        trainee: NanoTrainee,
        law: NoiseLaw,
        weights: Mapping[str, float],
        *,
        text_dropout: float = 0.0,
        word_dropout: float = 0.0,
        precision: str = "autocast",
    ):
        super().__init__(precision)
        if precision == "bf16":
            raise ComoviError("the nano model trains with engine.precision 'autocast' or 'fp32'; bf16 weights lose it.")
        self.trainee, self.law, self.weights = trainee, law, dict(weights)
        self.text_dropout, self.word_dropout = text_dropout, word_dropout
        for name, wrap in zip(BRANCHES, (trainee.wrap_video, trainee.wrap_motion), strict=True):
            self.register_buffer(f"spread_{name}", wrap.spread.float().clone())

    @property
    def network(self) -> DualBranch:
        return self.trainee.network

    def blocks(self) -> list[nn.Module]:
        return [*self.network.blocks, *self.network.motion.blocks]

    def forward(self, batch: TrainBatch, draw: Draw) -> dict[str, Tensor]:
        """`video`, `motion`, `pose`, `pose_early` and their weighted sum `loss`."""
        device = batch.video.device
        self.trainee.wrap_video, self.trainee.wrap_motion = self.wrappers()
        with self.products(device):
            losses = self.trainee(self.noisy(batch, draw))
        unknown = sorted(set(losses) - set(self.weights))
        if unknown:
            raise ComoviError(f"loss.{unknown[0]} has no weight; set it to a number, 0 to leave it out.")
        return {**losses, "loss": sum((self.weights[k] * v for k, v in losses.items()), torch.zeros((), device=device))}

    def wrappers(self) -> tuple[FirstFrameWrapper, FirstFrameWrapper]:
        """Of video and motion map, on the device of the weights."""
        return FirstFrameWrapper(self.spread_video), FirstFrameWrapper(self.spread_motion)

    def noisy(self, batch: TrainBatch, draw: Draw) -> NanoBatch:
        """Sigmas, noise and word ids of one micro-step."""
        count, device = len(batch), batch.video.device
        if draw.quantile is None:
            sigmas = self.law.sample(count, draw.generator("timesteps"))
        else:
            sigmas = (torch.full((count,), shift_sigma(draw.quantile, self.law.shift)),) * 2
        noises = [torch.randn(batch.video.shape, generator=draw.generator(f"noise {name}")) for name in BRANCHES]
        if batch.pose is None:
            raise ComoviError("the nano model learns from poses; the clips have none.")
        return NanoBatch(
            batch.video,
            batch.motion,
            self.ids(batch.sentences, draw).to(device),
            batch.pose.flatten(2),
            *(sigma.to(device) for sigma in sigmas),
            *(noise.to(device) for noise in noises),
        )

    def ids(self, sentences: tuple[str, ...], draw: Draw) -> Tensor:
        """Word ids (B, 24); in training some sentences are dropped whole, and some words are unknown."""
        ids, _ = tokenise(list(sentences))
        if draw.quantile is not None:
            return ids
        generator = draw.generator("text dropout")
        silent = torch.rand(len(ids), 1, generator=generator) < self.text_dropout
        forgotten = torch.rand(ids.shape, generator=generator) < self.word_dropout
        return torch.where(silent, 0, torch.where((ids > 0) & forgotten, UNKNOWN, ids))

    def export_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The network under official names, the text encoder below `text_encoder.`, `spread.video`, `spread.motion`."""
        out: dict[str, Tensor] = {}
        for name, tensor in state.items():
            if name.startswith("trainee.network."):
                out[official_name(name.removeprefix("trainee.network."))] = tensor
            elif name.startswith("trainee."):
                out[name.removeprefix("trainee.")] = tensor
            else:
                out[name.replace("spread_", "spread.")] = tensor
        return out


def build_nano(config: Any, source: ClipSource | None, device: torch.device | str | None = None) -> NanoRecipe:
    """A nano recipe: new weights from the run's seed, or those of a folder with the three nano files (model.init).

    An adapter needs something to adapt: without model.init it takes the embedded model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.run.seed, "weights", 0))
        trainee = _trainee(config, source)
        if config.adapter.kind == "lora":
            trainee.text_encoder.requires_grad_(False)
            adapt(trainee.network, config.adapter.rank, config.adapter.alpha, config.adapter.targets)
    noise, loss = config.noise, config.loss
    recipe = NanoRecipe(
        trainee,
        NoiseLaw(noise.shift, noise.start, noise.shared, noise.clean),
        {"video": loss.video, "motion": loss.motion, "pose": loss.pose, "pose_early": loss.pose_early},
        text_dropout=config.batch.text_dropout,
        word_dropout=config.batch.word_dropout,
        precision=config.engine.precision,
    )
    return recipe if device is None else recipe.to(device)


def _trainee(config: Any, source: ClipSource | None) -> NanoTrainee:
    if config.model.init or config.adapter.kind == "lora":
        nano = load_nano(Path(config.model.init) if config.model.init else ASSETS)
        network = DualBranch(nano.network.config, attention=training_attention)
        network.load_state_dict(nano.network.state_dict())
        trainee = NanoTrainee(nano.text_encoder.requires_grad_(True).train(), network, nano.wrap_video,
                              nano.wrap_motion, _read_by_head(network))  # fmt: skip
    else:
        network = VARIANTS[config.model.variant](shaped(NANO, config.model.shape), attention=training_attention)
        network.init_weights()
        spreads = [measure_spread(source, name) if source is not None else torch.ones(48) for name in BRANCHES]
        video, motion = map(FirstFrameWrapper, spreads)
        trainee = NanoTrainee(NanoTextEncoder(), network, video, motion, _read_by_head(network))
    assert network.pose_head is not None
    for number, layer in enumerate(network.pose_head.fusion_layers):
        layer.requires_grad_(number in trainee.pose_from_layers)  # layers that never feed the head stay at zero
    return trainee


def measure_spread(source: ClipSource, branch: str) -> Tensor:
    """How far the latents of a branch move from their first frame: standard deviation per channel, (48,)."""
    if isinstance(source, NanoClips):
        return source.spread(branch)
    some = source.read(range(min(len(source), SPREAD_CLIPS)), Draw(0, 0, 0, 0, 1))
    latents = getattr(some, branch)
    return (latents[:, :, 1:] - latents[:, :, :1]).square().mean((0, 2, 3, 4)).sqrt()


def shaped(config: DualBranchConfig, changes: Mapping[str, Any]) -> DualBranchConfig:
    """A configuration with some numbers changed (model.shape)."""
    return DualBranchConfig.from_dict({**json.loads(json.dumps(config.to_dict())), **changes})


def _read_by_head(network: DualBranch) -> tuple[int, ...]:
    """The layers that feed the pose head in training: the middle one and the last."""
    layers = network.config.num_layers
    return tuple(sorted({layers // 2, layers - 1}))
