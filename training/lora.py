"""Low-rank adapters: a layer's change is a product of two thin matrices, and only those are trained.

    y = x W^T + b + (alpha / rank) (x A^T) B^T        A (rank, in), B (out, rank)

A starts random, B at zero, so training begins at the base model. Targets: the layers of `rgb` (the video branch),
`motion` (the motion branch) and `exchange` (the zero-linears). Files carry the names that ComfyUI and
nodes/native/lora.py read: `diffusion_model.` + the layer's name in our network + `.lora_A.weight`, `.lora_B.weight`,
`.alpha`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..comovi_model.errors import ComoviError

OURS = "diffusion_model."
PARTS = ("lora_A.weight", "lora_B.weight")
TARGETS = {  # names of layers in our network
    "rgb": re.compile(r"blocks\.\d+\.(self_attn|cross_attn)\.[qkvo]|blocks\.\d+\.ffn\.[02]"),
    "motion": re.compile(r"motion\.blocks\.\d+\.((self_attn|cross_attn)\.[qkvo]|ffn\.[02])"),
    "exchange": re.compile(r"zero_linear_blocks(_v2m)?\.\d+"),
}


class Thin(nn.Module):
    """One of the two matrices; a module of its own, so that its name in a state dict is `lora_A.weight`."""

    def __init__(self, rows: int, columns: int, like: Tensor):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, columns, dtype=like.dtype, device=like.device))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class LoraLinear(nn.Linear):
    """A linear layer whose own weights are frozen, with an adapter beside them."""

    lora_A: Thin
    lora_B: Thin
    scale: float

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.scale * self.lora_B(self.lora_A(x))


def adapt(network: nn.Module, rank: int, alpha: float, targets: Iterable[str]) -> list[str]:
    """Freeze the network and put adapters on its layers; returns their names.

    The layers become LoraLinear in place, so the names of the frozen weights stay.
    """
    patterns = [TARGETS[target] for target in targets]
    network.requires_grad_(False)
    names = [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and any(pattern.fullmatch(name) for pattern in patterns)
    ]
    if not names:
        raise ComoviError(
            f"adapter.targets {list(targets)} names no layer of this network; choose of {', '.join(TARGETS)} (exchange "
            "needs an interaction other than none)."
        )
    for name in names:
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        if type(layer) is not nn.Linear:
            raise ComoviError(f"{name} already has an adapter; start from a network without.")
        layer.__class__ = LoraLinear
        assert isinstance(layer, LoraLinear)
        layer.lora_A = Thin(rank, layer.in_features, layer.weight)
        layer.lora_B = Thin(layer.out_features, rank, layer.weight)
        layer.scale = (alpha or rank) / rank
        if not layer.weight.is_meta:
            nn.init.kaiming_uniform_(layer.lora_A.weight, a=math.sqrt(5))
    return names


def split_state(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(base weights, adapter weights) of a network's state dict."""
    adapter = {name: tensor for name, tensor in state.items() if name.endswith(PARTS)}
    return {name: tensor for name, tensor in state.items() if name not in adapter}, adapter


def lora_tensors(state: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The tensors of a LoRA file, from a network's state dict."""
    _, adapter = split_state(state)
    if not adapter:
        raise ComoviError("this run has no adapter; export it without --lora, or train with adapter.kind = 'lora'.")
    out = {OURS + name: tensor for name, tensor in adapter.items()}
    rank = 1
    for name, tensor in adapter.items():
        if name.endswith(PARTS[0]):
            rank = tensor.shape[0]
            out[f"{OURS}{name.removesuffix(PARTS[0])}alpha"] = torch.tensor(float(alpha or rank))
    if not any(name.startswith("motion.") for name in adapter):
        out |= _silence_for_motion(state)
    return out


def merged(state: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The network's weights with the adapter's change added, in the dtype of the base."""
    base, adapter = split_state(state)
    for name in [name.removesuffix(PARTS[0]) for name in adapter if name.endswith(PARTS[0])]:
        down, up = (adapter[name + part].float() for part in PARTS)
        weight = base[name + "weight"]
        change = up @ down * ((alpha or down.shape[0]) / down.shape[0])
        base[name + "weight"] = (weight.float() + change).to(weight.dtype)
    return base


def _silence_for_motion(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An adapter of the motion branch that changes nothing.

    Readers give a file that names no layer of the motion branch to both branches, as LoRAs of plain Wan2.2 want it.
    One that was trained on the video branch of two must stay there.
    """
    weight = next((w for n, w in state.items() if TARGETS["motion"].fullmatch(n.removesuffix(".weight"))), None)
    name = next((n for n in state if TARGETS["motion"].fullmatch(n.removesuffix(".weight"))), None)
    if weight is None or name is None:
        return {}
    layer = OURS + name.removesuffix("weight")
    return {
        layer + PARTS[0]: torch.zeros(1, weight.shape[1]),
        layer + PARTS[1]: torch.zeros(weight.shape[0], 1),
        layer + "alpha": torch.tensor(1.0),
    }
