"""One Wan2.2 branch: patches, blocks, head; and the text and time embeddings around it.

B batch, C latent channels, F latent frames, h, w latent size, S = (h/2)(w/2) tokens of one frame, L = F*S, D width.
Tokens keep their frame as an axis of its own, (B, F, S, D): the diffusion time is the same for all tokens of a frame,
so its modulation, (B, F, 1, D), broadcasts and is never spread over tokens.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...kernels.join_norm import join
from ...kernels.norm_modulate import norm_modulate
from ..errors import ComoviError
from .attention import CrossAttention, KeysValues, Parts, SelfAttention, WeightReader
from .config import WanConfig
from .eight_bits import feed_forward, is_eight_bit, joined_affine, joined_modulated, modulated, tokens_of
from .rope import RopeTable, exact_device


@dataclass(frozen=True)
class TimeSignal:
    """The diffusion time as the layers read it: one row per frame, or a table of rows and a row number per token."""

    e: Tensor  # (B, F or 1, 1, D), or (R, D) with `index`: read by the head
    e0: Tensor  # (B, F or 1, 1, 6, D), or (R, 6, D) with `index`: read by the blocks
    index: Tensor | None = None  # (B, F, S) row of every token

    def spread(self, row: Tensor) -> Tensor:
        """What broadcasts against tokens (B, F, S, D), from a row shaped like `e`."""
        return row if self.index is None else row[self.index]

    def repeat(self, copies: int) -> TimeSignal:
        """The same for `copies` times the batch, copy after copy."""
        if copies == 1:
            return self
        if self.index is not None:
            return TimeSignal(self.e, self.e0, self.index.repeat(copies, 1, 1))
        return TimeSignal(self.e.repeat(copies, 1, 1, 1), self.e0.repeat(copies, 1, 1, 1, 1))


@dataclass(frozen=True)
class TextCache:
    """Keys and values of the sentence for every layer of one branch, made once per sampling run."""

    layers: tuple[KeysValues, ...]


def sinusoid(position: Tensor, size: int) -> Tensor:
    """(...,) -> (..., size) in float64: cosines, then sines, of position * 10000^(-i / (size/2))."""
    half = size // 2
    position = position.to(exact_device(position.device))
    steps = torch.arange(half, dtype=torch.float64, device=position.device)
    angles = position.to(torch.float64)[..., None] * torch.pow(10000.0, -steps / half)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def linear_in(layer: nn.Module, x: Tensor, read: WeightReader) -> Tensor:
    """A Linear in the dtype of x, whatever the dtype of its weights (the time path stays in float32)."""
    if layer.weight.dtype == x.dtype:
        return layer(x)
    return nn.functional.linear(x, read(layer, "weight", x), read(layer, "bias", x))


class Block(nn.Module):
    """Self attention, cross attention to the text, feed-forward network; the first and last are gated by time."""

    def __init__(self, config: WanConfig, parts: Parts):
        super().__init__()
        dim, self.eps, self.read = config.dim, config.eps, parts.weight
        self.modulation = parts.noise(1, 6, dim, std=dim**-0.5)
        self.self_attn = SelfAttention(dim, config.num_heads, config.eps, parts)
        self.norm3 = parts.operations.LayerNorm(dim, eps=config.eps, device=parts.device, dtype=parts.dtype)
        self.cross_attn = CrossAttention(dim, config.num_heads, config.eps, parts)
        self.ffn = parts.mlp(dim, config.ffn_dim, dim, nn.GELU(approximate="tanh"))

    def forward(
        self,
        x: Tensor,
        time: TimeSignal,
        rope: RopeTable,
        text: KeysValues,
        dtype: torch.dtype,
        copies: int = 1,
        addend: Tensor | None = None,
    ) -> Tensor:
        """(B, F, S, D) -> (K*B, F, S, D). Matrix products in `dtype`, sums and norms in the dtype of x.

        copies: K; text holds K*B sentences, B after B, and everything before they are read is computed once.
        addend: (K*B, F, S, D), added to what comes out.
        """
        frames = x.shape[1]
        shift1, scale1, gate1, shift2, scale2, gate2 = self.rows(time)

        # The video looks at itself.
        eight = is_eight_bit(self.ffn[0])
        y = modulated(x, time.spread(shift1), time.spread(scale1), self.eps, dtype, eight)
        y = self.self_attn(tokens_of(y), rope).unflatten(1, (frames, -1))
        if copies > 1:
            x, y, time = x.repeat(copies, 1, 1, 1), y.repeat(copies, 1, 1, 1), time.repeat(copies)
            _, _, gate1, shift2, scale2, gate2 = self.rows(time)

        # It looks at the sentence; neither gate nor time here.
        weight, bias = (self.read(self.norm3, name, x) for name in ("weight", "bias"))
        x, y = joined_affine(x, y, time.spread(gate1), weight, bias, self.eps, dtype, eight)
        y = self.cross_attn(tokens_of(y), text).unflatten(1, (frames, -1))

        # Each token by itself.
        x, y = joined_modulated(x, y, None, time.spread(shift2), time.spread(scale2), self.eps, dtype, eight)
        return join(x, feed_forward(self.ffn, y), time.spread(gate2), addend)

    def rows(self, time: TimeSignal) -> tuple[Tensor, ...]:
        """Shift, scale and gate of the first and of the last part."""
        return (self.read(self, "modulation", time.e0)[0] + time.e0).unbind(-2)


class Head(nn.Module):
    """Tokens to the numbers of their patch."""

    def __init__(self, config: WanConfig, parts: Parts):
        super().__init__()
        dim, self.eps, self.read = config.dim, config.eps, parts.weight
        rows, columns = config.patch_size[1:]
        self.head = parts.linear(dim, rows * columns * config.out_channels)
        self.modulation = parts.noise(1, 2, dim, std=dim**-0.5)

    def forward(self, x: Tensor, time: TimeSignal, dtype: torch.dtype) -> Tensor:
        """(B, F, S, D) -> (B, F, S, rows*columns*C). It is modulated by e, unlike the blocks, which read e0."""
        shift, scale = (self.read(self, "modulation", time.e)[0] + time.e.unsqueeze(-2)).unbind(-2)
        return self.head(norm_modulate(x, time.spread(shift), time.spread(scale), self.eps, dtype))


class WanBranch(nn.Module):
    """Patch embedding, blocks and head: everything that a branch does not share with its neighbour."""

    def __init__(self, config: WanConfig, parts: Parts):
        super().__init__()
        self.config = config
        patch = config.patch_size
        self.patch_embedding = parts.operations.Conv3d(
            config.in_channels, config.dim, kernel_size=patch, stride=patch, device=parts.device, dtype=parts.dtype
        )
        self.blocks = nn.ModuleList(Block(config, parts) for _ in range(config.num_layers))
        self.head = Head(config, parts)

    def token_grid(self, latent: Tensor) -> tuple[int, int, int]:
        """Frames, rows and columns of tokens for a latent (B, C, F, h, w); refuses what does not fit."""
        channels, (_, rows, columns) = self.config.in_channels, self.config.patch_size
        if latent.ndim != 5 or latent.shape[1] != channels:
            raise ComoviError(
                f"the latent has shape {tuple(latent.shape)}; expected (batch, {channels}, frames, height, width)."
            )
        if latent.shape[3] % rows or latent.shape[4] % columns or 0 in latent.shape:
            raise ComoviError(
                f"a latent of {latent.shape[3]} x {latent.shape[4]} cannot be cut into patches of {rows} x {columns}; "
                f"make picture height and width multiples of {16 * rows} pixels."
            )
        return latent.shape[2], latent.shape[3] // rows, latent.shape[4] // columns

    def embed(self, latent: Tensor, dtype: torch.dtype) -> Tensor:
        """Latent (B, C, F, h, w) -> tokens (B, F, S, D) in float32 or wider."""
        tokens = self.patch_embedding(latent.to(dtype))  # (B, D, F, h/2, w/2)
        return tokens.flatten(3).permute(0, 2, 3, 1).to(stream_dtype(dtype)).contiguous()

    def unpatchify(self, numbers: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """(B, F, S, rows*columns*C), channel fastest -> (B, C, F, h, w)."""
        (frames, rows, columns), (_, p, q) = grid, self.config.patch_size
        x = numbers.reshape(-1, frames, rows, columns, p, q, self.config.out_channels)
        return x.permute(0, 6, 1, 2, 4, 3, 5).reshape(-1, self.config.out_channels, frames, rows * p, columns * q)

    def velocity(self, x: Tensor, time: TimeSignal, grid: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
        """Last tokens (B, F, S, D) -> velocity (B, C, F, h, w) in the dtype of the stream."""
        return self.unpatchify(self.head(x, time, dtype).to(x.dtype), grid)

    def cache_text(self, embedded: Tensor) -> TextCache:
        """Embedded text (B, M, D) -> keys and values of all layers."""
        return TextCache(tuple(block.cross_attn.keys_values(embedded) for block in self.blocks))


def autocast_is_on(device: torch.device) -> bool:
    """Only these kinds of devices are asked; of others (meta, DirectML) the question is an error."""
    return device.type in ("cpu", "cuda", "xpu") and torch.is_autocast_enabled(device.type)


def stream_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of residual stream, norms and modulation when the matrix products run in `dtype`."""
    return torch.promote_types(dtype, torch.float32)


class WanModel(WanBranch):
    """A branch with the text and time embeddings: all parts of plain Wan2.2-TI2V-5B, by its own names."""

    def __init__(self, config: WanConfig, parts: Parts):
        super().__init__(config, parts)
        self.text_embedding = parts.mlp(config.text_dim, config.dim, config.dim, nn.GELU(approximate="tanh"))
        self.time_embedding = parts.mlp(config.freq_dim, config.dim, config.dim, nn.SiLU())
        self.time_projection = nn.Sequential(nn.SiLU(), parts.linear(config.dim, 6 * config.dim))
        self.read = parts.weight
        self.compute_dtype: torch.dtype | None = None  # set it when the weights are stored in 8 bits

    def product_dtype(self, device: torch.device) -> torch.dtype:
        """The dtype of matrix products: autocast's, else the one that was set, else that of the weights."""
        if autocast_is_on(device):
            return torch.get_autocast_dtype(device.type)
        return self.compute_dtype or self.patch_embedding.weight.dtype

    def embed_text(self, text: Tensor | list[Tensor], dtype: torch.dtype) -> Tensor:
        """Encoded sentences (B, n, text_dim) or a list of (n_i, text_dim) -> (B, text_len, D).

        Missing rows are filled with zeros *before* the embedding, so they become one constant vector that is not zero.
        """
        return self.text_embedding(pad_text(text, self.config).to(dtype))

    def embed_time(self, timestep: Tensor, grid: tuple[int, int, int], batch: int, dtype: torch.dtype) -> TimeSignal:
        """Times on the 0..1000 scale, (B,), (B, F) or (B, L), -> what the layers read, in float32 or wider."""
        rows, index = time_rows(timestep, grid, batch)
        on = autocast_is_on(rows.device)
        with torch.autocast(rows.device.type, enabled=False) if on else nullcontext():
            first, activation, second = self.time_embedding
            wave = sinusoid(rows, self.config.freq_dim).to(stream_dtype(dtype)).to(rows.device)
            e = linear_in(second, activation(linear_in(first, wave, self.read)), self.read)
            e0 = linear_in(self.time_projection[1], self.time_projection[0](e), self.read)
        return TimeSignal(e, e0.unflatten(-1, (6, -1)), index)


def pad_text(text: Tensor | list[Tensor], config: WanConfig) -> Tensor:
    """Zero rows up to text_len: (B, text_len, text_dim)."""
    for sentence in text:
        if sentence.ndim != 2 or sentence.shape[1] != config.text_dim:
            raise ComoviError(
                f"an encoded sentence has shape {tuple(sentence.shape)}; expected (tokens, {config.text_dim}): "
                "this model was trained with another text encoder."
            )
        if sentence.shape[0] > config.text_len:
            raise ComoviError(f"a sentence has {sentence.shape[0]} tokens; at most {config.text_len} fit, shorten it.")
    if isinstance(text, Tensor):
        return nn.functional.pad(text, (0, 0, 0, config.text_len - text.shape[1]))
    return torch.stack([nn.functional.pad(row, (0, 0, 0, config.text_len - row.shape[0])) for row in text])


def time_rows(timestep: Tensor, grid: tuple[int, int, int], batch: int) -> tuple[Tensor, Tensor | None]:
    """The distinct times: (B, 1 or F, 1) rows without index, or (R,) rows and the row (B, F, S) of every token."""
    frames, tokens = grid[0], grid[1] * grid[2]
    if timestep.ndim == 0 or timestep.shape == (1,):
        timestep = timestep.reshape(1).expand(batch)
    lengths = (1, frames, frames * tokens)
    if timestep.shape[0] != batch or timestep.ndim > 2 or (timestep.ndim == 2 and timestep.shape[1] not in lengths):
        raise ComoviError(
            f"timestep has shape {tuple(timestep.shape)}; expected ({batch},), ({batch}, {frames}) with one per latent "
            f"frame, or ({batch}, {frames * tokens}) with one per token."
        )
    if timestep.ndim == 1:
        return timestep[:, None, None], None
    if timestep.shape[1] in (1, frames):
        return timestep[:, :, None], None
    by_frame = timestep.reshape(batch, frames, tokens)
    if bool((by_frame == by_frame[..., :1]).all()):
        return by_frame[..., :1], None
    rows, index = torch.unique(by_frame, return_inverse=True)
    return rows, index
