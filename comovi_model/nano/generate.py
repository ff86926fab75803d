"""The nano model at work: first frame + first pose + sentence -> video, motion map, poses.

Shapes: B clips, T = 33 pixel frames, F = 9 latent frames, H x W = 192 x 128. All clips of a call run together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..body.rotations import matrix_from_6d_rows, matrix_to_6d_rows
from .model import NanoModel
from .scene import NUM_FRAMES
from .text_encoder import tokenise

LATENT_FRAMES = (NUM_FRAMES - 1) // 4 + 1


@dataclass(frozen=True)
class NanoSettings:
    """How to sample. `motion_lead` > 0 lets the motion map run ahead of the video (its sigma is reached earlier)."""

    steps: int = 24
    guidance: float = 1.5
    shift: float = 5.0
    motion_lead: float = 0.0
    exchange: bool = True  # False: the branches do not see each other (for measuring what the exchange is worth)


@dataclass(frozen=True)
class NanoInput:
    """What clips start from. `video`, `motion_map`: first frames (B, H, W, 3) uint8; `pose`: joint rotations of the
    first frame in the camera frame (B, 24, 3, 3); `sentences`: B strings."""

    video: Tensor
    motion_map: Tensor
    pose: Tensor
    sentences: list[str]


@dataclass(frozen=True)
class NanoOutput:
    """`video`, `motion_map` (B, T, H, W, 3) uint8; `rotations` (B, T, 24, 3, 3), frame 0 as given; latents as sampled."""

    video: Tensor
    motion_map: Tensor
    rotations: Tensor
    video_latent: Tensor
    motion_latent: Tensor


def schedule(settings: NanoSettings) -> tuple[Tensor, Tensor]:
    """Sigmas of video and motion map, (steps + 1,) each, from 1 to 0."""
    u = torch.linspace(1, 0, settings.steps + 1)

    def shifted(u: Tensor) -> Tensor:
        return settings.shift * u / (1 + (settings.shift - 1) * u)

    lead = (u * (1 + settings.motion_lead) - settings.motion_lead).clamp_min(0)
    return shifted(u), shifted(lead)


def encode_first(model: NanoModel, image: Tensor) -> Tensor:
    """First frames (B, H, W, 3) uint8 -> latents (B, 48, 1, h, w)."""
    return model.autoencoder.encode(image[:, None].float() / 127.5 - 1)


def to_pixels(model: NanoModel, latent: Tensor) -> Tensor:
    """Latents (B, 48, F, h, w) -> frames (B, T, H, W, 3) uint8."""
    frames = torch.cat([model.autoencoder.decode(row[None]) for row in latent])
    return ((frames.float().clamp(-1, 1) + 1) * 127.5 + 0.5).to(torch.uint8)


@torch.no_grad()
def generate(model: NanoModel, start: NanoInput, settings: NanoSettings | None = None, seed: int = 0,
             progress: Callable[[int, int], None] | None = None) -> NanoOutput:  # fmt: skip
    """Sample clips. `progress(done, total)` is called after every step and may raise to stop."""
    settings = settings or NanoSettings()
    generator = torch.Generator().manual_seed(seed)
    first_video, first_motion = encode_first(model, start.video), encode_first(model, start.motion_map)
    batch, height, width = len(first_video), *first_video.shape[-2:]
    shape = (batch, 48, LATENT_FRAMES, height, width)
    x_video, x_motion = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    x_video[:, :, :1], x_motion[:, :, :1] = first_video, first_motion
    ids, _ = tokenise(start.sentences)
    guided = settings.guidance != 1
    ids = torch.cat([torch.zeros_like(ids), ids]) if guided else ids
    pose = matrix_to_6d_rows(start.pose).flatten(1)
    pose = torch.cat([pose, pose]) if guided else pose
    network = model.network if settings.exchange else without_exchange(model.network)
    cache = network.make_text_cache(model.text_encoder(ids))
    sigmas_video, sigmas_motion = schedule(settings)
    last = model.network.config.num_layers - 1
    poses = None
    for step in range(settings.steps):
        s_video, s_motion = sigmas_video[step].expand(batch), sigmas_motion[step].expand(batch)
        inputs = (
            model.wrap_video.network_input(x_video, s_video, first_video),
            model.wrap_motion.network_input(x_motion, s_motion, first_motion),
        )
        times = [torch.cat([torch.zeros(batch, 1), 1000 * s[:, None].expand(-1, LATENT_FRAMES - 1)], 1)
                 for s in (s_video, s_motion)]  # fmt: skip
        if guided:
            inputs, times = [torch.cat([x, x]) for x in inputs], [torch.cat([t, t]) for t in times]
        final = step == settings.steps - 1
        out = network(*inputs, times[0], None, motion_timestep=times[1], text_cache=cache,
                      init_pose=pose if final else None, pose_from_layers=(last,) if final else ())  # fmt: skip
        nets = [out.video, out.motion]
        if guided:
            nets = [n[:batch] + settings.guidance * (n[batch:] - n[:batch]) for n in nets]
        v_video = model.wrap_video.velocity(nets[0], x_video, s_video, first_video)
        v_motion = model.wrap_motion.velocity(nets[1], x_motion, s_motion, first_motion)
        x_video = x_video + (sigmas_video[step + 1] - sigmas_video[step]) * v_video
        x_motion = x_motion + (sigmas_motion[step + 1] - sigmas_motion[step]) * v_motion
        if final:
            poses = out.pose[-batch:, 0].unflatten(-1, (24, 6))
        if progress:
            progress(step + 1, settings.steps)
    rotations = torch.cat([start.pose[:, None], matrix_from_6d_rows(poses)], 1)
    return NanoOutput(to_pixels(model, x_video), to_pixels(model, x_motion), rotations, x_video, x_motion)


def without_exchange(network):
    """A copy whose zero-linears are zero: the two branches run side by side, unseen by each other."""
    import copy

    alone = copy.deepcopy(network)
    for layers in (alone.zero_linear_blocks, alone.zero_linear_blocks_v2m):
        for layer in layers:
            layer.weight.zero_()
            layer.bias.zero_()
    return alone
