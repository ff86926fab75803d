"""What a clip looks like, straight from its latent and in a millisecond: small pictures for previews.

Half a latent is (48, F, h, w). For the real model ComfyUI's own table says how its 48 channels mix to a colour, one
pixel a cell. The nano autoencoder begins with a linear map of its own; averaged over blocks of pixels it gives 4 x 4
pixels a cell and two pictures a latent frame, 34 dB from the true decode shrunk to that size (drawn clips, motion maps
33 dB; one colour a cell: 57 dB).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ...comovi_model.nano.autoencoder import LATENT_CHANNELS, SPACE, TIME
from ...comovi_model.nano.model import load_autoencoder

Table = tuple[list[list[float]], list[float]]  # 48 rows of (red, green, blue) and a bias, for values in -1..1


@lru_cache(maxsize=2)
def nano_blocks(times: int, cells: int) -> tuple[Tensor, Tensor]:
    """Weight (times * cells * cells * 3, 48) and bias: a nano cell as `times` pictures of `cells` x `cells` pixels."""
    linear = load_autoencoder().to_pixels
    t, k = TIME // times, SPACE // cells

    def averaged(rows: Tensor) -> Tensor:
        return rows.reshape(times, t, cells, k, cells, k, 3, -1).mean(dim=(1, 3, 5)).flatten(0, 3).clone()

    return averaged(linear.weight.detach()), averaged(linear.bias.detach())[:, 0]


def nano_table() -> Table:
    """One colour a nano cell, in the form of ComfyUI's `latent_rgb_factors` and `latent_rgb_factors_bias`."""
    weight, bias = nano_blocks(1, 1)
    return weight.T.tolist(), bias.tolist()


def nano_pictures(half: Tensor) -> Tensor:
    """(48, F, h, w) -> (2 F - 1, 4 h, 4 w, 3) uint8 on the CPU, 8 a second; the first latent frame is one picture."""
    times, cells = 2, 4
    weight, bias = (tensor.to(half) for tensor in nano_blocks(times, cells))
    frames, rows, columns = half.shape[1:]
    blocks = torch.nn.functional.linear(half.permute(1, 2, 3, 0), weight, bias)  # (F, h, w, 2 * 4 * 4 * 3)
    blocks = blocks.reshape(frames, rows, columns, times, cells, cells, 3).permute(0, 3, 1, 4, 2, 5, 6)
    return to_bytes(blocks.reshape(frames * times, rows * cells, columns * cells, 3)[1:])


def table_pictures(half: Tensor, table: Table) -> Tensor:
    """(48, F, h, w) -> (F, h, w, 3) uint8 on the CPU, one picture a latent frame."""
    weight, bias = (torch.tensor(values).to(half) for values in table)
    return to_bytes(torch.nn.functional.linear(half.permute(1, 2, 3, 0), weight.T, bias))


def to_bytes(pictures: Tensor) -> Tensor:
    """-1..1 -> 0..255. What is not finite is black, so that a broken step shows and does not raise."""
    return ((pictures.float().nan_to_num(-1.0) + 1) * 127.5).clamp(0, 255).to("cpu", torch.uint8)


def format_table(latent_format: Any) -> Table | None:
    """The colours of one half of a real model's latent, if its format has some."""
    factors = latent_format.latent_rgb_factors
    if factors is None:
        return None
    return factors[:LATENT_CHANNELS], latent_format.latent_rgb_factors_bias or [0.0, 0.0, 0.0]
