"""A recipe knows what is trained: which weights move, which losses they follow, and what becomes of them in the end."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..comovi_model.errors import ComoviError
from .batch import ClipSource, Draw, TrainBatch

KINDS = ("comovi", "nano")
PRECISIONS = ("fp32", "bf16", "autocast")


class Recipe(nn.Module):
    """Base of all recipes. What stays as it is has `requires_grad` False and belongs into no optimiser.

    precision: "fp32"; "bf16", where weights are bfloat16 and the engine keeps a float32 copy of those that move;
    "autocast", where weights are float32 and only matrix products run in bfloat16.
    """

    network: Any  # the dual-branch network within

    def __init__(self, precision: str = "fp32"):
        super().__init__()
        if precision not in PRECISIONS:
            raise ComoviError(f"engine.precision is {precision!r}; choose one of {', '.join(PRECISIONS)}.")
        self.precision = precision

    def forward(self, batch: TrainBatch, draw: Draw) -> dict[str, Tensor]:
        """Scalar losses by name, and "loss", the weighted sum to differentiate. Every trainable weight is touched."""
        raise NotImplementedError

    def export_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a file, from a consolidated state dict of this module."""
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """The modules that are worth compiling, each by itself."""
        return []

    def compile_blocks(self) -> None:
        """Compile in place, names stay. Not under ZeRO-3, whose hooks fetch weights while a block runs."""
        for block in self.blocks():
            block.compile(dynamic=False)

    def products(self, device: torch.device) -> AbstractContextManager[Any]:
        """What the forward pass runs under."""
        if self.precision == "autocast" and device.type != "meta":
            return torch.autocast(device.type, torch.bfloat16)
        return nullcontext()

    def trainable(self) -> list[str]:
        """Names of the weights that move."""
        return [name for name, weight in self.named_parameters() if weight.requires_grad]


def build_recipe(config: Any, source: ClipSource | None = None, device: torch.device | str | None = None) -> Recipe:
    """The recipe that a configuration describes. source: the training clips, which nano measures its wrapper on.

    device "meta" makes shapes without numbers, for plans.
    """
    kind = config.model.kind
    if kind == "nano":
        from .recipes.nano import build_nano

        return build_nano(config, source, device)
    if kind == "comovi":
        from .recipes.comovi import build_comovi

        return build_comovi(config, source, device)
    raise ComoviError(f"model.kind is {kind!r}; choose one of {', '.join(KINDS)}.")


def open_sources(data: Any) -> tuple[ClipSource, ClipSource | None]:
    """Training clips, and held-out ones where the configuration (section data) names some."""
    if not data.train:
        raise ComoviError("data.train is empty; name the folder of training clips, e.g. --set data.train=FOLDER.")
    if data.kind == "nano":
        from .recipes.nano_source import NanoClips

        return NanoClips(data.train), NanoClips(data.validation) if data.validation else None
    from .data.dataset import open_source

    return open_source(data, train=True), open_source(data, train=False) if data.validation else None
