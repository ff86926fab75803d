"""What the network is asked in training: sigmas, noise, the clean first frame, times, and the right answers.

B clips, C latent channels, F latent frames (frame 0 is given, clean), h, w latent size.

The released grid has 1000 sigmas: s = 1, 0.999 .. 0.001, sigma = shift s / (1 + (shift - 1) s). Its *index* is drawn;
sigma itself is not uniform (shift 5: mean 0.748, median 0.834). Both branches have the same sigma, as in the paper,
unless `shared` is below 1: then some clips have one branch at a sigma of its own, or clean, so that the same weights
learn to make a video for a given motion map and a map for a given video.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..comovi_model.errors import ComoviError
from ..comovi_model.wan.flow import add_noise, velocity
from .batch import Draw, TrainBatch

TABLE = 1000  # sigmas of the released grid
SAMPLINGS = ("uniform", "stratified", "logit_normal")


def bend(s: Tensor, shift: float) -> Tensor:
    """s in 0..1 -> sigma; float64 stays float64."""
    return shift * s / (1 + (shift - 1) * s)


def sigma_table(shift: float = 5.0) -> Tensor:
    """(1000,) float64, falling from 1."""
    return bend(1 - torch.arange(TABLE, dtype=torch.float64) / TABLE, shift)


def groups_of(world: int) -> int:
    """Into how many parts of the table the ranks divide: the largest divisor of both (24 ranks: 8 groups of 3)."""
    return math.gcd(world, TABLE)


@dataclass(frozen=True)
class SigmaLaw:
    """How sigmas are drawn. stratified: each group of ranks has a part of the table of its own, as released."""

    shift: float = 5.0
    sampling: str = "stratified"
    location: float = 0.0  # of logit_normal: s = sigmoid(location + scale * normal)
    scale: float = 1.0
    start: float = 0.0  # share of clips at sigma 1
    shared: float = 1.0  # share of clips whose branches have the same sigma
    clean: float = 0.0  # of the others: share in which the branch that is drawn anew is clean

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLINGS:
            raise ComoviError(f"noise.sampling is {self.sampling!r}; choose one of {', '.join(SAMPLINGS)}.")
        if not (math.isfinite(self.shift) and self.shift > 0):
            raise ComoviError(f"noise.shift is {self.shift}; it must be a positive number (5 as released).")

    def sample(self, count: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """Sigmas of video and motion, (B,) float64 each."""
        if draw.quantile is not None:
            return (self.quantile(draw.quantile).expand(count),) * 2
        generator = draw.generator("timesteps")
        video = self._draw(count, draw, generator)
        if self.start:
            video = torch.where(_random(count, generator) < self.start, 1.0, video)
        own = _random(count, generator) >= self.shared
        other = self._draw(count, draw, generator) * (_random(count, generator) >= self.clean)
        which = _random(count, generator) < 0.5
        return torch.where(own & which, other, video), torch.where(own & ~which, other, video)

    def quantile(self, q: float) -> Tensor:
        """The sigma below which a share q of the drawn ones lies (but for `start` and `clean`); a float64 scalar."""
        s = torch.tensor(q, dtype=torch.float64)
        if self.sampling == "logit_normal":
            s = torch.sigmoid(self.location + self.scale * torch.special.ndtri(s))
        return bend(s, self.shift)

    def _draw(self, count: int, draw: Draw, generator: torch.Generator) -> Tensor:
        if self.sampling == "logit_normal":
            normal = torch.randn(count, generator=generator, dtype=torch.float64)
            place = 1 - torch.sigmoid(self.location + self.scale * normal)
        else:
            place = _random(count, generator)
            if self.sampling == "stratified":
                groups = groups_of(draw.world)
                place = (draw.rank // (draw.world // groups) + place) / groups
        index = (place * TABLE).long().clamp(0, TABLE - 1)
        return sigma_table(self.shift)[index]


def _random(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Question:
    """One branch of a micro-step: what goes in, when it is, and what should come out."""

    noisy: Tensor  # (B, C, F, h, w), frame 0 clean
    target: Tensor  # (B, C, F - 1, h, w), velocity of frames 1.. (noise - clean)
    sigma: Tensor  # (B,) float32
    time: Tensor  # (B, F) float32 on the 0..1000 scale, 0 for frame 0


def ask(clean: Tensor, first: Tensor, sigma: Tensor, noise: Tensor) -> Question:
    """clean (B, C, F, h, w), first (B, C, 1, h, w), sigma (B,), noise like clean."""
    sigma = sigma.to(clean)
    noisy = add_noise(clean, noise, sigma.view(-1, 1, 1, 1, 1))
    noisy = torch.cat([first, noisy[:, :, 1:]], dim=2)
    time = 1000 * sigma[:, None].repeat(1, clean.shape[2])
    time[:, 0] = 0
    return Question(noisy, velocity(clean, noise)[:, :, 1:], sigma, time)


def ask_both(batch: TrainBatch, law: SigmaLaw, draw: Draw) -> tuple[Question, Question]:
    """The questions to both branches; noise is drawn on the CPU, independently for each."""
    device = batch.video.device
    sigmas = law.sample(len(batch), draw)
    pairs = (("video", batch.video, batch.first_video), ("motion", batch.motion, batch.first_motion))
    questions = [
        ask(clean, first, sigma.to(device), _noise(name, clean, draw).to(device))
        for (name, clean, first), sigma in zip(pairs, sigmas, strict=True)
    ]
    return questions[0], questions[1]


def _noise(branch: str, like: Tensor, draw: Draw) -> Tensor:
    return torch.randn(like.shape, generator=draw.generator(f"noise {branch}"), dtype=like.dtype)


def token_times(time: Tensor, tokens_per_frame: int) -> Tensor:
    """(B, F) -> (B, L), the time of every token, as the released code passes it."""
    return time.repeat_interleave(tokens_per_frame, dim=1)


def pose_layers(layers: int, count: int, draw: Draw) -> tuple[int, ...]:
    """The layers that feed the pose head in this micro-step, rising: the last one, and `count` - 1 others at random.

    Every rank draws the same ones. With one draw per rank, ranks would ask each other for different weights.
    """
    if not 1 <= count <= layers:
        raise ComoviError(f"stage.smpl.layers_per_step is {count}; it must lie between 1 and the {layers} layers.")
    others = torch.randperm(layers - 1, generator=draw.generator("layers", every_rank_alike=True))[: count - 1]
    return (*sorted(others.tolist()), layers - 1)


def drop_sentences(text: Tensor, lengths: Tensor | None, share: float, empty: Tensor | None, draw: Draw) -> Tensor:
    """(B, L, D) embeddings, a share of them exchanged for `empty` (L', D), the embedding of no words, or for zeros."""
    text = text.clone()
    if lengths is not None:
        rows = torch.arange(text.shape[1], device=text.device)
        text *= (rows < lengths[:, None]).to(text)[..., None]
    if share <= 0 or draw.quantile is not None:
        return text
    dropped = torch.rand(len(text), generator=draw.generator("text dropout")) < share
    silence = torch.zeros_like(text[0])
    if empty is not None:
        silence[: len(empty)] = empty.to(silence)[: len(silence)]
    text[dropped.to(text.device)] = silence
    return text
