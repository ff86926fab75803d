"""The latent of both halves: 48 channels of video, then 48 of motion map.

(B, 96, F, h, w) with F = (frames - 1) // 4 + 1 latent frames of 1/16 of the picture's height and width. One tensor and
not a nested pair, because every stock node (samplers, masks, caches, context windows, SaveLatent) then works on it.
"""

from __future__ import annotations

import comfy.latent_formats
from comfy.latent_formats import LatentFormat
from torch import Tensor, cat

from .preview_colours import nano_table

HALF = 48  # channels of one half
CHANNELS = 2 * HALF


def video_half(latent: Tensor) -> Tensor:
    return latent[:, :HALF]


def motion_half(latent: Tensor) -> Tensor:
    return latent[:, HALF:CHANNELS]


def side_by_side(latent: Tensor) -> Tensor:
    """Video left, motion map right: (B, 96, F, h, w) -> (B, 48, F, h, 2w). Previews use the colours of one half."""
    return cat((video_half(latent), motion_half(latent)), dim=-1)


class CoMoViLatent(LatentFormat):
    """Both halves in the numbers of the Wan2.2 autoencoder."""

    latent_channels = CHANNELS
    latent_dimensions = 3
    spacial_downscale_ratio = 16  # ComfyUI's spelling
    temporal_downscale_ratio = 4
    taesd_decoder_name = None

    def __init__(self) -> None:
        self.half = self.half_format()
        colours = self.half.latent_rgb_factors
        self.latent_rgb_factors_bias = self.half.latent_rgb_factors_bias
        if hasattr(LatentFormat, "latent_rgb_factors_reshape"):
            self.latent_rgb_factors = colours
        elif colours is not None:  # an older ComfyUI multiplies all channels; it then shows the video alone
            self.latent_rgb_factors = [*colours, *([[0.0, 0.0, 0.0]] * HALF)]

    def half_format(self) -> LatentFormat:
        return comfy.latent_formats.Wan22()

    def latent_rgb_factors_reshape(self, latent: Tensor) -> Tensor:
        """What still previews show: a frame from the middle, because frame 0 is given and never changes."""
        shown = side_by_side(latent)
        return shown[:, :, shown.shape[2] // 2 :] if shown.ndim == 5 else shown

    def process_in(self, latent: Tensor) -> Tensor:
        return cat([self.half.process_in(part) for part in (video_half(latent), motion_half(latent))], dim=1)

    def process_out(self, latent: Tensor) -> Tensor:
        return cat([self.half.process_out(part) for part in (video_half(latent), motion_half(latent))], dim=1)


class NanoLatent(CoMoViLatent):
    """Both halves as the nano autoencoder makes them, which is what the nano network reads."""

    def half_format(self) -> LatentFormat:
        half = LatentFormat()
        half.latent_rgb_factors, half.latent_rgb_factors_bias = nano_table()
        return half
