"""The first-frame wrapper: the nano network predicts what the closed-form denoiser cannot.

Shapes: B batch, C = 48 channels, F latent frames, h x w cells. sigma in 0..1, x_sigma = (1 - sigma) x0 + sigma noise,
velocity = noise - x0 (the convention of Wan2.2 and of the paper's code).

Let r be the clean first latent repeated in time and S the standard deviation of x0 - r per channel. If x0 - r were
Gaussian and white, the best denoiser would be linear:
    u = x_sigma - (1 - sigma) r,   D^2 = (1 - sigma)^2 S^2 + sigma^2,   x0 = r + (1 - sigma) S^2 / D^2 u.
The network sees u / D (unit variance at every sigma; frame 0 as it is) and its output is scaled by S sigma / D:
    velocity = u (sigma - (1 - sigma) S^2) / D^2 - r - (S / D) net,
which has no division by sigma. It is the preconditioning of Karras et al. (2022, table 1) about the first frame.

But x0 - r is not white: most cells stand still, a few move much. So the linear part uses m S^2 for S^2, in D as well,
with m the movement of a cell as far as the noise lets it be seen: the energy of u around the cell beyond that of the
noise (a local Wiener filter), and 1 where sigma is too high to tell. Without it the network has to learn to take the
wrapper's grain out of every still background.

Bare velocity training spends a narrow network on copying noise. Samplers see an ordinary velocity.

Towards sigma 1, where u is nothing but noise, u / D is faded out: the first step is a plain prediction from first frame
and sentence, and noise that says nothing does not disturb it. Beside it the network reads r again in every frame, as
Wan's image-to-video models do, and where and when each cell is (`place_channels`): without them every token must first
find, by attention, what the first frame shows in its place and how long ago that was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PARAMETRIZATION = "first_frame_edm"  # written into the metadata of weights that need this wrapper
TIME_CHANNELS, SPACE_CHANNELS = 8, 8
INPUT_CHANNELS = 48 + 48 + TIME_CHANNELS + SPACE_CHANNELS


def place_channels(frames: int, height: int, width: int) -> Tensor:
    """Where and when a cell is, (16, F, h, w): one-hot latent frame (frame 0 is all zero, beyond 8 it stays the last)
    and x, y in -1..1 with their sines and cosines of half and of whole periods."""
    when = torch.zeros(TIME_CHANNELS, frames, height, width)
    for frame in range(1, frames):
        when[min(frame, TIME_CHANNELS) - 1, frame] = 1.0
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    rows = [
        x,
        y,
        *(f(math.pi * c) for c in (x, y) for f in (torch.sin, torch.cos)),
        torch.sin(2 * math.pi * x),
        torch.sin(2 * math.pi * y),
    ]
    return torch.cat([when, torch.stack(rows)[:, None].expand(-1, frames, -1, -1)])


@dataclass(frozen=True)
class FirstFrameWrapper:
    """`spread` (48,): the standard deviation S of one branch."""

    spread: Tensor

    def movement(self, u: Tensor, sigma: Tensor) -> Tensor:
        """How much the cells move, (B, 1, F - 1, h, w), 1 on average; u (B, 48, F - 1, h, w), sigma (B, 1, 1, 1, 1)."""
        weight = self.spread.to(u) ** 2
        usual = (1 - sigma) ** 2 * (weight**2).sum() / weight.sum()  # energy that movement has on average
        energy = (u.square() * weight.view(1, -1, 1, 1, 1)).sum(1) / weight.sum()  # (B, F - 1, h, w)
        energy = F.avg_pool2d(energy, 3, 1, 1, count_include_pad=False)[:, None]
        seen = (energy - 1.1 * sigma**2).clamp_min(0) / usual.clamp_min(1e-8)
        trust = (3 * usual) ** 2 / ((3 * usual) ** 2 + (0.15 * sigma**2) ** 2)
        return 1 + trust * (seen.clamp_max(12) - 1)

    def _linear(self, u: Tensor, s: Tensor, sigma: Tensor) -> Tensor:
        """(1 - g) / sigma, where x0 = r + g u is the linear denoiser."""
        power = self.movement(u, sigma) * s**2
        return (sigma - (1 - sigma) * power) / ((1 - sigma) ** 2 * power + sigma**2).clamp_min(1e-8)

    def _terms(self, x: Tensor, sigma: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        s = self.spread.to(x).view(1, -1, 1, 1, 1)
        sigma = sigma.to(x).view(-1, 1, 1, 1, 1)
        u = x - (1 - sigma) * first
        return u, s, sigma, torch.sqrt(((1 - sigma) * s) ** 2 + sigma**2)

    def network_input(self, x: Tensor, sigma: Tensor, first: Tensor) -> Tensor:
        """What the network reads: x (B, 48, F, h, w), sigma (B,), first (B, 48, 1, h, w) -> (B, 112, F, h, w)."""
        u, _, _, d = self._terms(x[:, :, 1:], sigma, first)
        still = first.expand(x.shape[0], -1, x.shape[2], -1, -1)
        place = place_channels(*x.shape[2:]).to(x).expand(x.shape[0], -1, -1, -1, -1)
        shown = torch.sqrt(1 - sigma.to(x).view(-1, 1, 1, 1, 1) ** 8) / d  # nothing at sigma 1, where u is only noise
        return torch.cat([torch.cat([still[:, :, :1], u * shown], 2), still, place], 1)

    def velocity(self, net: Tensor, x: Tensor, sigma: Tensor, first: Tensor) -> Tensor:
        """Velocity (B, 48, F, h, w) from the network's output; zero for the clean first frame."""
        u, s, sig, d = self._terms(x[:, :, 1:], sigma, first)
        v = u * self._linear(u, s, sig) - first - s / d * net[:, :, 1:]
        return torch.cat([torch.zeros_like(x[:, :, :1]), v], 2)

    def target(self, x0: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """What the network should answer for frames 1.., (B, 48, F - 1, h, w); sigma > 0."""
        first = x0[:, :, :1]
        u, s, sig, d = self._terms(x[:, :, 1:], sigma, first)
        gain = 1 - sig * self._linear(u, s, sig)
        return (x0[:, :, 1:] - first - gain * u) * d / (s * sig)

    def loss_weight(self) -> Tensor:
        """(1, 48, 1, 1, 1): squared error of the network is weighted like squared error of x0 over S."""
        return ((self.spread / self.spread.square().mean().sqrt()) ** 2).view(1, -1, 1, 1, 1)
