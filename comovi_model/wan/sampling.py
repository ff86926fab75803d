"""From noise to latents: UniPC and Euler over named streams, in one visible loop.

A stream is a latent that is denoised: "video", "motion". Streams are denoised together by one velocity model, but
each has its own sigmas (motion may run ahead of the video, or be given and stay at sigma 0) and its own clean first
frame. B batch, C channels, F latent frames, h, w latent size.

Latents, the combination of conditions and the samplers' memory are in float32 or wider. The released pipeline kept
all of it in bfloat16, which only adds noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from ..errors import ComoviError
from .flow import FlowSchedule, clean_from_velocity

Latents = dict[str, Tensor]  # stream -> (B, C, F, h, w)


@dataclass(frozen=True)
class Stream:
    """One latent to be denoised."""

    noise: Tensor  # (B, C, F, h, w), where the stream begins: noise at its first sigma, or a given latent at sigma 0
    first: Tensor | None = None  # (B, C, 1, h, w) clean latent frame 0, put back after every step
    schedule: FlowSchedule | None = None  # its own sigmas, as many steps as the common schedule


@dataclass(frozen=True)
class Prediction:
    """What the velocity model says under one condition."""

    velocity: Latents
    extras: dict[str, Tensor] = field(default_factory=dict)  # what else it made, such as "pose"; asked at the last step


class VelocityModel(Protocol):
    def __call__(
        self, latents: Mapping[str, Tensor], sigmas: Mapping[str, float], conditions: Sequence[str], last: bool
    ) -> list[Prediction]:
        """One prediction per condition ("positive", "negative", ...). Extras are wanted when `last`."""


@dataclass(frozen=True)
class GuidanceTerm:
    """velocity = sum of weight * velocity under condition. A mapping gives each stream its own weight."""

    condition: str
    weight: float | Mapping[str, float]

    def of(self, stream: str) -> float:
        return self.weight[stream] if isinstance(self.weight, Mapping) else self.weight


def classifier_free(scale: float) -> tuple[GuidanceTerm, ...]:
    """v = v_negative + scale (v_positive - v_negative); with scale 1 or less the negative side is not evaluated."""
    if not math.isfinite(scale):
        raise ComoviError(f"guidance is {scale}; it must be a finite number (6 as released, 1 for none).")
    if scale <= 1:
        return (GuidanceTerm("positive", 1.0),)
    return (GuidanceTerm("negative", 1 - scale), GuidanceTerm("positive", scale))


@dataclass(frozen=True)
class StepDone:
    """Told to `on_step` after every step."""

    index: int  # 0 .. count-1
    count: int
    sigmas: dict[str, float]  # of the step that was made
    latents: Latents  # after it, clean first frames in place
    predictions: dict[str, Prediction]  # by condition


@dataclass(frozen=True)
class Samples:
    latents: Latents
    extras: dict[str, dict[str, Tensor]]  # of the last step, by condition


class SamplingInterrupted(Exception):
    """The `interrupted` question was answered with yes."""


@torch.no_grad()
def sample(
    model: VelocityModel,
    streams: Mapping[str, Stream],
    schedule: FlowSchedule,
    guidance: Sequence[GuidanceTerm] = (GuidanceTerm("positive", 1.0),),
    *,
    sampler: str = "unipc",
    on_step: Callable[[StepDone], None] | None = None,
    interrupted: Callable[[], bool] | None = None,
) -> Samples:
    """Denoise all streams; `interrupted` is asked before every step."""
    steppers = {name: make_stepper(sampler, stream, schedule) for name, stream in streams.items()}
    conditions = [term.condition for term in guidance]
    latents = {name: impose_first(widen(stream.noise), stream.first) for name, stream in streams.items()}
    predictions: dict[str, Prediction] = {}
    for k in range(schedule.steps):
        if interrupted is not None and interrupted():
            raise SamplingInterrupted(f"interrupted before step {k + 1} of {schedule.steps}")
        sigmas = {name: stepper.sigmas[k] for name, stepper in steppers.items()}
        answers = model(latents, sigmas, conditions, k == schedule.steps - 1)
        predictions = dict(zip(conditions, answers, strict=True))
        for name, stream in streams.items():
            v = sum(term.of(name) * widen(predictions[term.condition].velocity[name]) for term in guidance)
            moved = steppers[name].step(k, latents[name], v)
            # The sampler's memory is not cleaned: all its sums are per element, so frame 0 cannot leak into the others.
            latents = {**latents, name: impose_first(moved, stream.first)}
        if on_step is not None:
            on_step(StepDone(k, schedule.steps, sigmas, latents, predictions))
    return Samples(latents, {condition: prediction.extras for condition, prediction in predictions.items()})


def impose_first(latent: Tensor, first: Tensor | None) -> Tensor:
    """The latent with its frame 0 replaced by the clean one."""
    if first is None:
        return latent
    batch, channels, _, height, width = latent.shape
    if tuple(first.shape) != (batch, channels, 1, height, width):
        raise ComoviError(
            f"the first frame's latent has shape {tuple(first.shape)}; expected {(batch, channels, 1, height, width)}."
        )
    return torch.cat((first.to(latent), latent[:, :, 1:]), dim=2)


def widen(x: Tensor) -> Tensor:
    """x in float32, or in its own dtype if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Euler:
    """x <- x + (sigma_next - sigma) v. First order; any falling schedule, also one that stands still."""

    def __init__(self, sigmas: Sequence[float]):
        self.sigmas = tuple(sigmas)

    def step(self, k: int, x: Tensor, v: Tensor) -> Tensor:
        before, after = self.sigmas[k], self.sigmas[k + 1]
        # A stream that stands still keeps its bits, even where a model has no velocity to offer (sigma 0).
        return x if before == after else x + (after - before) * v


class UniPC:
    """UniPC (Zhao et al., 2023) for flow matching: order 2, variant bh2, predicting x0, first order in the last step.

    With alpha = 1 - sigma, lambda = ln(alpha / sigma), m_k = x - sigma_k v the clean latent seen at step k. Every step
    first corrects the sample with what m_k teaches about the previous move, then predicts the next one.
    """

    def __init__(self, sigmas: Sequence[float]):
        self.sigmas = tuple(sigmas)
        if any(after >= before for before, after in pairwise(self.sigmas)):
            raise ComoviError("UniPC needs sigmas that fall with every step; use the Euler sampler for this schedule.")
        self.lambdas = [half_log_snr(sigma) for sigma in self.sigmas]
        self.seen: list[Tensor] = []  # m_(k-2), m_(k-1)
        self.previous: Tensor | None = None  # the corrected sample that the last prediction started from
        self.order = 0  # of the last prediction

    def step(self, k: int, x: Tensor, v: Tensor) -> Tensor:
        m = clean_from_velocity(x, v, self.sigmas[k])  # stays the one of the uncorrected sample
        if self.previous is not None:
            x = self.correct(k, m)
        self.order = min(2, len(self.sigmas) - 1 - k, k + 1)
        self.previous = x
        following = self.predict(k, x, m)
        self.seen = [*self.seen[-1:], m]
        return following

    def correct(self, k: int, m: Tensor) -> Tensor:
        """The sample at sigma_k again, now knowing m_k."""
        assert self.previous is not None
        last = self.seen[-1]
        h = self.lambdas[k] - self.lambdas[k - 1]
        b = math.expm1(-h)
        base = self.sigmas[k] / self.sigmas[k - 1] * self.previous - (1 - self.sigmas[k]) * b * last
        if self.order == 1:
            return base - (1 - self.sigmas[k]) * b * 0.5 * (m - last)
        r = (self.lambdas[k - 2] - self.lambdas[k - 1]) / h
        g1 = b / -h - 1
        b1, b2 = g1 / b, 2 * (g1 / -h - 0.5) / b
        rho1 = (b2 - b1) / (r - 1)  # solves rho1 + rho2 = b1, r rho1 + rho2 = b2
        rho2 = b1 - rho1
        return base - (1 - self.sigmas[k]) * b * (rho1 * (self.seen[-2] - last) / r + rho2 * (m - last))

    def predict(self, k: int, x: Tensor, m: Tensor) -> Tensor:
        """The sample at sigma_(k+1)."""
        h = self.lambdas[k + 1] - self.lambdas[k]
        b = math.expm1(-h)  # -1 in the last step, where sigma is 0: then the result is m itself
        following = self.sigmas[k + 1] / self.sigmas[k] * x - (1 - self.sigmas[k + 1]) * b * m
        if self.order == 1:
            return following
        r = (self.lambdas[k - 1] - self.lambdas[k]) / h
        return following - (1 - self.sigmas[k + 1]) * b * 0.5 * (self.seen[-1] - m) / r


SAMPLERS: dict[str, type[UniPC] | type[Euler]] = {"unipc": UniPC, "euler": Euler}


def half_log_snr(sigma: float) -> float:
    """lambda = ln((1 - sigma) / sigma); infinite at the ends."""
    if sigma <= 0:
        return math.inf
    return math.log((1 - sigma) / sigma) if sigma < 1 else -math.inf


def make_stepper(sampler: str, stream: Stream, schedule: FlowSchedule) -> UniPC | Euler:
    """The sampler of one stream with the stream's own sigmas."""
    if sampler not in SAMPLERS:
        raise ComoviError(f"sampler is {sampler!r}; choose one of {', '.join(SAMPLERS)}.")
    own = stream.schedule or schedule
    if own.steps != schedule.steps:
        raise ComoviError(f"a stream has {own.steps} steps but the schedule {schedule.steps}; they must be equal.")
    return SAMPLERS[sampler](own.sigmas)
