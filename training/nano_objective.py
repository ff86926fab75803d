"""The nano model's training objective: noise, per-branch sigmas, targets, losses.

Shapes: B batch, C = 48, F = 9 latent frames (frame 0 is always clean), P = 32 poses of 24 x 6 numbers.
Sigma of a sample: u uniform and stratified over the batch, sigma = shift u / (1 + (shift - 1) u). Both branches share
it most of the time (as in the paper); otherwise one branch gets a sigma of its own, sometimes exactly 0, so that the
same weights also draw a video for a given motion map and a map for a given video.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..comovi_model.comovi.dual_branch import DualBranch
from ..comovi_model.nano.first_frame import FirstFrameWrapper
from ..comovi_model.nano.text_encoder import NanoTextEncoder


def training_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Dense attention whose division comes last: the compiler does not recognise it and leaves it as two products.

    (Recognised, it becomes the fused CPU attention, whose backward pass took a third of a step.)
    """
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    scores = ((q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)).float()
    weights = torch.exp(scores - scores.detach().amax(-1, keepdim=True))
    return ((weights.to(v.dtype) @ v).float() / weights.sum(-1, keepdim=True)).to(v.dtype).transpose(1, 2)


@dataclass(frozen=True)
class NoiseLaw:
    """How sigmas are drawn."""

    shift: float = 4.0
    start: float = 0.55  # share of samples at sigma 1, the first step of every sampling run, which decides the movement
    shared: float = 0.85  # share of samples in which both branches have the same sigma
    clean: float = 0.4  # of the others: share in which the redrawn branch is clean (sigma 0)

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sigmas of video and motion, (B,) each."""

        def draw() -> Tensor:
            u = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
            return self.shift * u / (1 + (self.shift - 1) * u)

        video = torch.where(torch.rand(count, generator=generator) < self.start, 1.0, draw())
        motion = video.clone()
        own = torch.rand(count, generator=generator) >= self.shared
        other = draw() * (torch.rand(count, generator=generator) >= self.clean)
        which = torch.rand(count, generator=generator) < 0.5
        return torch.where(own & which, other, video), torch.where(own & ~which, other, motion)


@dataclass(frozen=True)
class NanoBatch:
    """One training batch; latents (B, 48, 9, h, w) float32, ids (B, 24), pose (B, 33, 144), sigmas (B,)."""

    video: Tensor
    motion: Tensor
    ids: Tensor
    pose: Tensor
    sigma_video: Tensor
    sigma_motion: Tensor
    noise_video: Tensor
    noise_motion: Tensor


class NanoTrainee(nn.Module):
    """Text encoder, dual-branch network and loss: what the optimiser sees."""

    def __init__(
        self,
        text_encoder: NanoTextEncoder,
        network: DualBranch,
        video: FirstFrameWrapper,
        motion: FirstFrameWrapper,
        pose_from_layers: tuple[int, ...],
    ):
        super().__init__()
        self.text_encoder, self.network, self.pose_from_layers = text_encoder, network, pose_from_layers
        self.wrap_video, self.wrap_motion = video, motion

    def forward(self, batch: NanoBatch) -> dict[str, Tensor]:
        """Losses, each a scalar: `video`, `motion` (weighted like squared x0 error), `pose` (squared 6D error)."""
        text = self.text_encoder(batch.ids)
        inputs, times = [], []
        for wrap, x0, sigma, noise in (
            (self.wrap_video, batch.video, batch.sigma_video, batch.noise_video),
            (self.wrap_motion, batch.motion, batch.sigma_motion, batch.noise_motion),
        ):
            s = sigma.view(-1, 1, 1, 1, 1)
            x = (1 - s) * x0 + s * noise
            inputs.append((wrap, x0, sigma, x))
            per_frame = 1000 * sigma[:, None].expand(-1, x0.shape[2]).clone()
            per_frame[:, 0] = 0
            times.append(per_frame)
        out = self.network(
            *(wrap.network_input(x, sigma, x0[:, :, :1]) for wrap, x0, sigma, x in inputs),
            times[0],
            text,
            motion_timestep=times[1],
            init_pose=batch.pose[:, 0],
            pose_from_layers=self.pose_from_layers,
        )
        losses = {}
        for name, net, (wrap, x0, sigma, x) in zip(("video", "motion"), (out.video, out.motion), inputs, strict=True):
            noisy = (sigma > 0).float()
            target = wrap.target(x0, x, sigma.clamp_min(1e-3))
            error = (net[:, :, 1:].float() - target).square() * wrap.loss_weight()
            losses[name] = (error.mean((1, 2, 3, 4)) * noisy).sum() / noisy.sum().clamp_min(1)
        if out.pose is not None:
            losses["pose"] = (out.pose.float() - batch.pose[:, None, 1:]).square().mean((0, 2, 3))[-1]
            losses["pose_early"] = (out.pose.float() - batch.pose[:, None, 1:]).square().mean((0, 2, 3))[:-1].sum()
        return losses
