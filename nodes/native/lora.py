"""Low-rank adapters (LoRA) for two branches: which layers of a file go where, each group with its own strength.

A file made for plain Wan2.2-TI2V-5B names the layers of one branch, `blocks.0.self_attn.q`; both branches have such a
layer, so it may act on either or on both. A file that names the motion branch too was made for CoMoVi, and each of its
layers acts where it says. Files spell the names in many ways; `spellings` lists those that are known.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.lora_convert
import comfy.utils
import torch
from torch import Tensor

from ...comovi_model.comovi.names import official_name
from ...comovi_model.errors import ComoviError
from .checks import comovi_network

OURS = "diffusion_model."  # in front of our names in ComfyUI's MODEL
GROUPS = ("video", "motion", "couplings")
DIFFUSERS = (  # (pattern in our names, the name in diffusers)
    (r"\.self_attn\.", ".attn1."),
    (r"\.cross_attn\.", ".attn2."),
    (r"\.(q|k|v)$", r".to_\1"),
    (r"\.o$", ".to_out.0"),
    (r"\.ffn\.0$", ".ffn.net.0.proj"),
    (r"\.ffn\.2$", ".ffn.net.2"),
)


@dataclass(frozen=True)
class Strengths:
    video: float
    motion: float
    couplings: float


@dataclass(frozen=True)
class Adapter:
    """What a file holds for a model: patches by group, each {name of a weight in the MODEL: patch}."""

    source: str
    groups: dict[str, dict[str, Any]]
    strangers: tuple[str, ...]  # layers of the file that the model does not have

    def report(self, strengths: Strengths) -> list[str]:
        lines = []
        for group in GROUPS:
            count, strength = len(self.groups[group]), getattr(strengths, group)
            if count:
                layers = "1 layer" if count == 1 else f"{count} layers"
                lines.append(f"{group}: {layers} at strength {strength:g}" + (" (left out)" * (strength == 0)))
        if self.strangers:
            few = ", ".join(self.strangers[:3])
            lines.append(f"{len(self.strangers)} layers of the file are not in this model ({few})")
        return [f"{self.source}: {line}" for line in lines]


def apply_lora(model: Any, path: str | Path, strengths: Strengths) -> tuple[Any, list[str]]:
    """A clone of the MODEL with the file's patches, and what was done. A strength of 0 leaves its group untouched."""
    adapter = read_adapter(model, read_file(path), Path(path).name)
    patched = model.clone()
    for group, patches in adapter.groups.items():
        strength = getattr(strengths, group)
        if patches and strength != 0:
            patched.add_patches(patches, strength)
    lines = adapter.report(strengths)
    for line in lines:
        logging.getLogger(__name__).info("CoMoVi LoRA %s", line)
    return patched, lines


def read_file(path: str | Path) -> dict[str, Tensor]:
    try:
        tensors = comfy.utils.load_torch_file(str(path), safe_load=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ComoviError(f"the LoRA file {Path(path).name} cannot be read ({reason}).") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ComoviError(f"the LoRA file {Path(path).name} does not hold tensors by name; use a .safetensors file.")
    return comfy.lora_convert.convert_lora(tensors)


def read_adapter(model: Any, tensors: dict[str, Tensor], source: str) -> Adapter:
    """Find the model's layers in a file. A file with none of them is an error that says what it holds."""
    network = comovi_network(model)
    weights = {OURS + name: weight for name, weight in network.named_parameters()}
    maps = key_maps(weights, beginnings(tensors), network.config.interleave)
    groups = {group: comfy.lora.load_lora(tensors, maps[group], log_missing=False) for group in GROUPS}
    if not any(groups.values()):
        raise ComoviError(no_match(tensors, source))
    for patches in groups.values():
        check_sizes(patches, weights, source)
    known = {start for group in maps.values() for start in group}
    strangers = {layer_of(name) for name in tensors if not known.intersection(beginnings([name]))}
    return Adapter(source, groups, tuple(sorted(strangers)))


def key_maps(weights: Iterable[str], starts: set[str], interleave: int) -> dict[str, dict[str, str]]:
    """For each group {beginning of names in the file: name of the weight in the MODEL}."""
    maps: dict[str, dict[str, str]] = {group: {} for group in GROUPS}
    for weight in weights:
        layer = weight.removeprefix(OURS).removesuffix(".weight")
        for spelling in spellings(layer):
            if spelling in starts:
                maps[group_of(layer)][spelling] = weight
    if not maps["motion"]:  # made for one branch: its layers fit the other one too
        for weight in weights:
            layer = weight.removeprefix(OURS).removesuffix(".weight")
            for spelling in spellings(twin_of(layer, interleave)) if layer.startswith("motion.") else ():
                if spelling in starts:
                    maps["motion"][spelling] = weight
    return maps


def group_of(layer: str) -> str:
    """ "video", "motion" (with the pose head) or "couplings" (the exchange between the branches)."""
    if layer.startswith("zero_linear"):
        return "couplings"
    return "motion" if layer.startswith(("motion.", "pose_head.")) else "video"


def twin_of(layer: str, interleave: int) -> str:
    """The layer of the video branch that stands beside a layer of the motion branch."""
    layer = layer.removeprefix("motion.")
    if not layer.startswith("blocks."):
        return layer
    _, index, rest = layer.split(".", 2)
    return f"blocks.{int(index) * interleave}.{rest}"


def spellings(layer: str) -> list[str]:
    """How files may begin the names of a layer's patches: ours, the released model's, plain Wan2.2's, diffusers'."""
    dotted = list(dict.fromkeys((layer, official_name(layer), diffusers_name(layer))))
    prefixes = ("", OURS, "model." + OURS, "transformer.", "unet.", "base_model.model.")
    flat = ("lora_unet_", "lora_unet__", "lora_transformer_", "lycoris_")
    names = [prefix + name for name in dotted for prefix in prefixes]
    return names + [prefix + name.replace(".", "_") for name in dotted for prefix in flat]


def diffusers_name(layer: str) -> str:
    for ours, theirs in DIFFUSERS:
        layer = re.sub(ours, theirs, layer)
    return layer


def beginnings(names: Iterable[str]) -> set[str]:
    """Everything that stands in front of a dot in these names, and in front of "_lora."."""
    found: set[str] = set()
    for name in names:
        parts = name.split(".")
        found.update(".".join(parts[:count]) for count in range(1, len(parts)))
        if "_lora." in name:
            found.add(name.split("_lora.")[0])
    return found


def layer_of(name: str) -> str:
    """A name in a file without what says which part of a patch it is."""
    return re.sub(r"\.(lora_.*|lora\..*|alpha|dora_scale|diff|diff_b|hada_.*|lokr_.*|oft_.*|set_weight)$", "", name)


def no_match(tensors: Mapping[str, Tensor], source: str) -> str:
    layers = list(dict.fromkeys(layer_of(name) for name in tensors))
    if not layers:
        return f"the LoRA file {source} is empty."
    few = ", ".join(layers[:3])
    return (
        f"the LoRA file {source} holds nothing for this model: its {len(layers)} layers ({few}, ...) belong to another "
        f"network; expected names such as {OURS}blocks.0.self_attn.q.lora_A.weight, as in LoRAs of Wan2.2-TI2V-5B."
    )


def check_sizes(patches: Mapping[str, Any], weights: Mapping[str, Tensor], source: str) -> None:
    """ComfyUI would skip a patch of another size with a log line only; that LoRA is for another model."""
    for name, patch in patches.items():
        came, expected = patch_size(patch), tuple(weights[name].shape) if name in weights else None
        if came is not None and expected is not None and came != (expected[0], weights[name].shape[1:].numel()):
            raise ComoviError(
                f"the LoRA file {source} is for a network of another size: {name.removeprefix(OURS)} is "
                f"{' x '.join(map(str, expected))} here and {came[0]} x {came[1]} there; use a LoRA that was trained "
                "on this model (for the released one also any of Wan2.2-TI2V-5B)."
            )


def patch_size(patch: Any) -> tuple[int, int] | None:
    """(rows, columns) of the change, for plain low-rank patches and whole differences; None for other kinds."""
    if isinstance(patch, tuple):
        change = torch.atleast_1d(patch[1][0])
        return (change.shape[0], change.shape[1:].numel())
    if getattr(patch, "name", "") != "lora" or patch.weights[3] is not None or patch.weights[5] is not None:
        return None
    up, down = (torch.atleast_1d(matrix).flatten(1) for matrix in patch.weights[:2])
    if up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0]:
        return (0, 0)  # not a product of two matrices: fits nothing
    return (up.shape[0], down.shape[1])
