"""Flow matching: noise, velocity, sigmas and times; shared by sampling and training.

A clean latent x0 and noise n are joined by a straight line, x_s = (1 - s) x0 + s n, with s (sigma) from 0 to 1 (Eq.
3). The network predicts the velocity v = n - x0 (Eq. 4-5; the paper prints the opposite sign, its code and every
Wan2.2 use this one), so x0 = x_s - s v. The network is told the time 1000 s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import ComoviError

TIMESTEP_ROUNDINGS = ("reference", "exact")

# The training grid has 1000 times, so the largest sigma before the shift is 1 - 1/1000.
LARGEST_SIGMA = 0.999


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """x_s = (1 - s) x0 + s n; sigma broadcasts against the latents."""
    return (1 - sigma) * clean + sigma * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """v = n - x0."""
    return noise - clean


def clean_from_velocity(x: Tensor, v: Tensor, sigma: Tensor | float) -> Tensor:
    """x0 = x_s - s v."""
    return x - sigma * v


def shift_sigma(u: float, shift: float) -> float:
    """s = shift * u / (1 + (shift - 1) u): more of the steps at high noise, for large pictures."""
    return shift * u / (1 + (shift - 1) * u)


@dataclass(frozen=True)
class FlowSchedule:
    """Falling sigmas, one per step and the last one to arrive at; kept in float64, where truncation is exact."""

    sigmas: tuple[float, ...]  # S + 1 values in [0, 1]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", tuple(float(sigma) for sigma in self.sigmas))
        if len(self.sigmas) < 2:
            raise ComoviError(f"a schedule needs at least one step; got {len(self.sigmas) - 1}.")
        if not all(math.isfinite(sigma) and 0 <= sigma <= 1 for sigma in self.sigmas):
            raise ComoviError("every sigma of a schedule must lie between 0 and 1.")
        if any(after > before for before, after in pairwise(self.sigmas)):
            raise ComoviError("the sigmas of a schedule must not rise from one step to the next.")

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def timesteps(self) -> tuple[int, ...]:
        """The whole times that the released network was asked at, trunc(1000 s), one per step."""
        return tuple(int(1000 * sigma) for sigma in self.sigmas[:-1])


def flow_schedule(steps: int, shift: float = 5.0) -> FlowSchedule:
    """The schedule of Wan's UniPC sampler: u falls evenly from 0.999, the shift bends it, zero is appended."""
    if steps < 1:
        raise ComoviError(f"steps is {steps}; it must be at least 1.")
    if not (math.isfinite(shift) and shift > 0):
        raise ComoviError(
            f"shift is {shift}; it must be a positive number (5 as released, 1 for evenly spaced sigmas)."
        )
    evenly = (LARGEST_SIGMA + i * (-LARGEST_SIGMA / steps) for i in range(steps))
    return FlowSchedule((*(shift_sigma(u, shift) for u in evenly), 0.0))


def model_time(sigma: float, rounding: str, first_frame_clean: bool) -> float:
    """The time on the 0..1000 scale that the network is told for the noisy frames at this sigma.

    "reference": as the released pipeline: truncated to a whole number and, with a clean first frame, rounded to
    bfloat16 (999 becomes 1000, 713 becomes 712), because there it multiplies a bfloat16 mask. The network was never
    trained with that rounding, yet it moves the result visibly, so whoever wants the released function value needs
    it. "exact": 1000 s.
    """
    if rounding not in TIMESTEP_ROUNDINGS:
        raise ComoviError(f"timestep_rounding is {rounding!r}; choose one of {', '.join(TIMESTEP_ROUNDINGS)}.")
    if rounding == "exact":
        return 1000 * sigma
    whole = float(int(1000 * sigma))
    return float(torch.tensor(whole).to(torch.bfloat16)) if first_frame_clean else whole
