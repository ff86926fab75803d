"""The nano autoencoder: video <-> latent with the real geometry (48 channels, 16 x 16 pixels, 4 frames, causal).

Shapes: B batch, T = 1 + 4 (F - 1) pixel frames, F latent frames (groups), h = H / 16, w = W / 16, C = 48.

Both directions are a linear map found by principal component analysis plus a small convolutional correction that starts
at zero. Frame 0 is encoded as a group of four equal frames, every later group is four frames: one set of weights,
causal, and a still background has exactly the same latent in every group (the first-frame wrapper relies on it).
Normalisation is per pixel over channels, so that crops and whole frames see the same function.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT_CHANNELS, SPACE, TIME = 48, 16, 4
PATCH_NUMBERS = 3 * TIME * SPACE * SPACE


def frames_to_groups(frames: Tensor) -> Tensor:
    """(B, T, H, W, 3) -> (B, F, 4, H, W, 3); frame 0 becomes four copies."""
    num = frames.shape[1]
    if (num - 1) % TIME:
        raise ValueError(f"the number of frames must be 1 + 4 k; got {num}")
    first = frames[:, :1].repeat_interleave(TIME, 1)
    return torch.cat([first, frames[:, 1:]], 1).unflatten(1, (-1, TIME))


def groups_to_frames(groups: Tensor) -> Tensor:
    """Inverse of `frames_to_groups`; the first group's four frames are averaged."""
    return torch.cat([groups[:, :1].mean(2), groups[:, 1:].flatten(1, 2)], 1)


def groups_to_patches(groups: Tensor) -> Tensor:
    """(B, F, 4, H, W, 3) -> (B, F, h, w, 3072), numbers ordered (frame, row, column, colour)."""
    b, f, t, height, width, c = groups.shape
    x = groups.reshape(b, f, t, height // SPACE, SPACE, width // SPACE, SPACE, c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(b, f, height // SPACE, width // SPACE, PATCH_NUMBERS)


def patches_to_groups(patches: Tensor) -> Tensor:
    """Inverse of `groups_to_patches`."""
    b, f, h, w, _ = patches.shape
    x = patches.reshape(b, f, h, w, TIME, SPACE, SPACE, 3).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(b, f, TIME, h * SPACE, w * SPACE, 3)


class ChannelNorm(nn.Module):
    """RMS normalisation over channels at every pixel, with a learned scale."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        scale = torch.rsqrt(x.float().square().mean(1, keepdim=True) + 1e-6)
        return x * scale.to(x.dtype) * self.weight.to(x.dtype)[:, None, None]


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(norm(x)))))."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.conv2.weight, std=0.2 / (3 * channels**0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))


class NanoAutoencoder(nn.Module):
    """See the module's text. `fine` and `coarse`: channels at 8 and at 16 pixels per cell."""

    def __init__(self, fine: int = 112, coarse: int = 224):
        super().__init__()
        self.to_latent = nn.Linear(PATCH_NUMBERS, LATENT_CHANNELS)
        self.to_pixels = nn.Linear(LATENT_CHANNELS, PATCH_NUMBERS)
        half = SPACE // 2
        self.encoder = nn.Sequential(
            nn.Conv2d(3 * TIME * half * half, fine, 1),
            ResidualBlock(fine),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * fine, coarse, 1),
            ResidualBlock(coarse),
            ChannelNorm(coarse),
            nn.SiLU(),
            nn.Conv2d(coarse, LATENT_CHANNELS, 1),
        )
        self.decoder_in = nn.Conv2d(2 * LATENT_CHANNELS, coarse, 3, padding=1)
        self.decoder = nn.Sequential(
            ResidualBlock(coarse),
            ResidualBlock(coarse),
            nn.Conv2d(coarse, 4 * fine, 1),
            nn.PixelShuffle(2),
            ResidualBlock(fine),
            ResidualBlock(fine),
            ChannelNorm(fine),
            nn.SiLU(),
            nn.Conv2d(fine, 3 * TIME * half * half, 1),
        )
        for last in (self.encoder[-1], self.decoder[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def encode_groups(self, groups: Tensor) -> Tensor:
        """(B, F, 4, H, W, 3) in [-1, 1] -> latent (B, F, h, w, 48)."""
        with torch.autocast(groups.device.type, enabled=False):  # 3072 terms: rounding them would show
            linear = self.to_latent(groups_to_patches(groups).float())
        b, f, t, height, width, c = groups.shape
        image = groups.permute(0, 1, 2, 5, 3, 4).reshape(b * f, t * c, height, width)
        residual = self.encoder(F.pixel_unshuffle(image, SPACE // 2).contiguous(memory_format=torch.channels_last))
        return linear + residual.permute(0, 2, 3, 1).reshape(linear.shape)

    def decode_groups(self, latent: Tensor, previous: Tensor) -> Tensor:
        """Latents (B, F, h, w, 48), each with the latent before it, -> groups (B, F, 4, H, W, 3)."""
        b, f, h, w, _ = latent.shape
        linear = patches_to_groups(self.to_pixels(latent))
        x = torch.cat([latent, previous], -1).reshape(b * f, h, w, -1).permute(0, 3, 1, 2)
        x = self.decoder(self.decoder_in(x.contiguous(memory_format=torch.channels_last)))
        x = F.pixel_shuffle(x, SPACE // 2)
        return linear + x.reshape(b, f, TIME, 3, h * SPACE, w * SPACE).permute(0, 1, 2, 4, 5, 3)

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (B, T, H, W, 3) in [-1, 1] -> latent (B, 48, F, h, w), about unit variance."""
        return self.encode_groups(frames_to_groups(frames)).permute(0, 4, 1, 2, 3)

    def decode(self, latent: Tensor) -> Tensor:
        """Latent (B, 48, F, h, w) -> frames (B, T, H, W, 3), about [-1, 1]; clamp before showing."""
        z = latent.permute(0, 2, 3, 4, 1)
        previous = torch.cat([z[:, :1], z[:, :-1]], 1)
        return groups_to_frames(
            torch.cat([self.decode_groups(z[:, i : i + 1], previous[:, i : i + 1]) for i in range(z.shape[1])], 1)
        )


def fit_principal_components(model: NanoAutoencoder, patches: Tensor, exponent: float = 0.5) -> Tensor:
    """Set both linear maps from sample patches (N, 3072): 48 components, scaled to std^exponent, then to unit power.

    Returns the explained share of variance per component. Deterministic.
    """
    mean = patches.mean(0)
    centred = (patches - mean).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(patches))
    values, vectors = values.flip(0)[:LATENT_CHANNELS], vectors.flip(1)[:, :LATENT_CHANNELS]
    total = centred.square().sum() / len(patches)
    std = values.sqrt()
    gain = std ** (exponent - 1)  # component / std * std^exponent
    gain = gain / ((std * gain).square().mean().sqrt())
    with torch.no_grad():
        model.to_latent.weight.copy_((vectors * gain).T)
        model.to_latent.bias.copy_(-(mean.double() @ vectors) * gain)
        model.to_pixels.weight.copy_(vectors / gain)
        model.to_pixels.bias.copy_(mean)
    return values / total
