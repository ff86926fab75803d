"""The nano autoencoder as a ComfyUI VAE, so that the core's encode and decode nodes take it.

B batch, T = 4 (F - 1) + 1 pixel frames, F latent frames, H, W pixels, h = H/16, w = W/16.

ComfyUI calls `encode` and `decode` with channels first and pictures in -1..1; an IMAGE batch is time, as for Wan.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management as memory
import comfy.model_patcher
import comfy.sd
import torch
from torch import Tensor, nn

from ...comovi_model.nano.autoencoder import LATENT_CHANNELS, SPACE, TIME, NanoAutoencoder
from ...comovi_model.nano.model import load_autoencoder

# Floats alive at the same time per pixel of a group's four frames, counted with tools/measure_memory.py: encoding 14.8,
# decoding, which goes group by group, 6.0.
FLOATS_PER_PIXEL = 16


class NanoStage(nn.Module):
    """What ComfyUI calls `first_stage_model`."""

    def __init__(self, autoencoder: NanoAutoencoder):
        super().__init__()
        self.autoencoder = autoencoder

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, T, H, W) in -1..1 -> (B, 48, F, h, w). Frames after the last whole group of four are left out."""
        frames = pixels.shape[2]
        used = (frames - 1) // TIME * TIME + 1
        if used < frames:
            logging.getLogger(__name__).warning(
                "the nano VAE takes 4 k + 1 frames: the first %d of %d are encoded, the rest is left out.", used, frames
            )
        return self.autoencoder.encode(pixels[:, :, :used].permute(0, 2, 3, 4, 1))

    def decode(self, latent: Tensor, **options: Any) -> Tensor:
        """(B, 48, F, h, w) -> (B, 3, T, H, W), about -1..1. The core's options for other VAEs mean nothing here."""
        if latent.ndim != 5 or latent.shape[1] != LATENT_CHANNELS:
            extra = "; split it with 'Split CoMoVi Latent' first" if latent.ndim == 5 and latent.shape[1] == 96 else ""
            raise ValueError(
                f"the nano VAE decodes latents (batch, {LATENT_CHANNELS}, frames, height, width); got "
                f"{tuple(latent.shape)}{extra}."
            )
        return self.autoencoder.decode(latent).permute(0, 4, 1, 2, 3)


def nano_vae() -> comfy.sd.VAE:
    """A ComfyUI VAE around the embedded autoencoder, float32, on the device that ComfyUI gives to VAEs."""
    with no_weights_expected():
        vae = comfy.sd.VAE(sd={})  # sets the defaults and, having found no weights, returns
    device, offload = memory.vae_device(), memory.vae_offload_device()
    vae.first_stage_model = NanoStage(load_autoencoder()).eval()
    vae.latent_channels, vae.latent_dim, vae.output_channels = LATENT_CHANNELS, 3, 3
    vae.upscale_ratio = (lambda frames: max(0, frames * TIME - (TIME - 1)), SPACE, SPACE)
    vae.downscale_ratio = (lambda frames: max(0, (frames + TIME - 1) // TIME), SPACE, SPACE)
    vae.upscale_index_formula = vae.downscale_index_formula = (TIME, SPACE, SPACE)
    vae.memory_used_encode = lambda shape, dtype: needed(shape[2] + TIME - 1, shape[3] * shape[4], dtype)
    vae.memory_used_decode = lambda shape, dtype: needed(shape[2] * TIME, shape[3] * shape[4] * SPACE**2, dtype)
    vae.working_dtypes, vae.vae_dtype = [torch.float32], torch.float32
    vae.device, vae.output_device = device, memory.intermediate_device()
    vae.disable_offload = True  # 16 MB: never worth loading in parts
    vae.patcher = comfy.model_patcher.ModelPatcher(vae.first_stage_model, load_device=device, offload_device=offload)
    return vae


def needed(frames: int, pixels: int, dtype: torch.dtype) -> float:
    """Bytes of a pass over `frames` frames, the first one taken four times, of `pixels` pixels each."""
    return pixels * frames * FLOATS_PER_PIXEL * memory.dtype_size(dtype)


@contextmanager
def no_weights_expected() -> Iterator[None]:
    """Without the core's log line about missing VAE weights: here that is what we want."""

    def other_lines(record: logging.LogRecord) -> bool:
        return "No VAE weights" not in record.getMessage()

    logger = logging.getLogger()
    logger.addFilter(other_lines)
    try:
        yield
    finally:
        logger.removeFilter(other_lines)
