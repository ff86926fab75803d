"""From a weight file to a MODEL: released CoMoVi files, Wan2.2-5B as two branches, our own, the embedded nano model.

Tensors come as ComfyUI reads them (16 bits, fp8 with or without scales, GGUF), under any of the known names, and leave
under the names of `DualBranch`: the video branch as plain Wan2.2, the motion branch below "motion.".
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import torch
from safetensors import SafetensorError
from torch import Tensor

from ...comovi_model.comovi.checkpoint import expected_shapes
from ...comovi_model.comovi.config import DualBranchConfig
from ...comovi_model.comovi.names import CONFIG_KEY, Layout, find_config, find_layout, official_name, our_name
from ...comovi_model.errors import ComoviError
from ...comovi_model.nano.first_frame import INPUT_CHANNELS, PARAMETRIZATION
from ...comovi_model.nano.model import NETWORK_FILE
from ...comovi_model.nano.people import ASSETS
from .latent_format import HALF
from .model import CONFIG_TENSOR, make_config
from .sampling import install

NANO = "nano (embedded)"
WEIGHT_DTYPES = {
    "default": None,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e4m3fn_fast": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
FORMATS_KEY = "_quantization_metadata"  # metadata of ComfyUI's 8-bit files: {"layers": {layer: its form}} as JSON
SCALES = ("scale_weight", "scale_input", "weight_scale", "weight_scale_2", "input_scale", "comfy_quant")
UNREADABLE = (
    *(SafetensorError, OSError, ValueError, RuntimeError, EOFError, UnpicklingError),
    *(KeyError, TypeError, AttributeError, IndexError),  # of headers and pickles that hold something else
)
BRANCH_PARTS = {  # official names that only one branch, or only both together, need
    "rgb_": ("both", "video only"),
    "motion_": ("both", "motion only"),
    "zero_linear": ("both",),
    "smpl_": ("both",),
}


@dataclass(frozen=True)
class NamedWeights:
    """Tensors under our names, with what is known of the network they belong to."""

    tensors: dict[str, Tensor]
    config: DualBranchConfig
    spreads: tuple[list[float], list[float]] | None  # of the nano model's first-frame wrapper
    notes: tuple[str, ...]


def load_patcher(
    path: str | Path | None,
    weight_dtype: str = "default",
    branches: str = "both",
    disable_dynamic: bool = False,
) -> Any:
    """The MODEL of a file; without a path, the nano model. disable_dynamic: in memory that ComfyUI does not page."""
    source = Path(path) if path is not None else ASSETS / NETWORK_FILE
    tensors, metadata = _read(source)
    named = name_weights(tensors, metadata or {}, source.name, branches)
    patcher = build_patcher(named, branches, weight_dtype, disable_dynamic=disable_dynamic)
    # Lets ComfyUI load it again: for further GPUs, and without paging for LoRAs that are hooked onto a condition.
    patcher.cached_patcher_init = (load_patcher, (None if path is None else str(path), weight_dtype, branches))
    patcher.set_attachments("comovi_source", source.name)  # for the model report
    return install(patcher)


def _read(source: Path) -> tuple[Mapping[str, Tensor], Any]:
    """Tensors and metadata of a file, or a sentence when it holds no weights or half of them."""
    try:
        tensors, metadata = comfy.utils.load_torch_file(str(source), safe_load=True, return_metadata=True)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ComoviError(
            f"model_name: {source.name} cannot be read as model weights ({reason}); download it again."
        ) from error
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ComoviError(
            f"model_name: {source.name} holds more than tensors by name, so it is no file of weights; use the model's "
            ".safetensors file."
        )
    return tensors, metadata


def name_weights(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], source: str, branches: str = "both"
) -> NamedWeights:
    """Find out what a file is; what it lacks without harm (exchange of plain Wan2.2) is filled in."""
    about, metadata = _about(tensors, metadata, source)
    tensors = {name: tensor for name, tensor in tensors.items() if name != CONFIG_TENSOR}
    tensors |= _formats(metadata, source)
    if any(name.endswith("motion.patch_embedding.weight") for name in tensors):  # our own names
        tensors = {_officially(name): tensor for name, tensor in tensors.items()}
    layout = find_layout(tensors, source)
    prefix = layout.prefix
    found = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items() if _module_of(name) is None}
    config = find_config(shapes, layout, metadata, about, source)
    config = replace(config, pose_head=any(name.startswith("smpl_") for name in found))
    spreads = _spreads(metadata, source)
    channels = (config.in_channels, config.out_channels)
    expected = (INPUT_CHANNELS if spreads else HALF, HALF)
    if channels != expected:
        raise ComoviError(
            f"{source} is a network that reads {channels[0]} channels and makes {channels[1]}; expected {expected[0]} "
            f"and {expected[1]}: use a file of CoMoVi or of Wan2.2-TI2V-5B."
        )
    named = _both_branches(found) if layout.name == "wan2.2" else dict(found)
    notes = _complete(named, config, layout, source)
    kept = {our_name(name): tensor for name, tensor in named.items() if _needed(name, branches)}
    return NamedWeights(kept, config, spreads, notes)


def build_patcher(
    named: NamedWeights,
    branches: str,
    weight_dtype: str,
    custom_operations: Any = None,
    disable_dynamic: bool = False,
) -> Any:
    """The ModelPatcher of these weights, with dtypes chosen as ComfyUI's own loader chooses them."""
    management = comfy.model_management
    spreads = named.spreads
    model_config = make_config(named.config, branches, spreads)
    tensors = _with_quantisation(named.tensors, model_config)
    quantised = getattr(model_config, "quant_config", None) is not None
    load_device = management.get_torch_device()
    supported = list(model_config.supported_inference_dtypes)
    dtype = WEIGHT_DTYPES[weight_dtype]
    if dtype is None:
        stored = None if quantised else comfy.utils.weight_dtype(tensors)
        parameters = comfy.utils.calculate_parameters(tensors)
        dtype = management.unet_dtype(model_params=parameters, supported_dtypes=supported, weight_dtype=stored)
    cast = management.unet_manual_cast(None if quantised else dtype, load_device, supported)
    model_config.set_inference_dtype(dtype, cast)
    if custom_operations is not None:
        model_config.custom_operations = custom_operations
    if weight_dtype == "fp8_e4m3fn_fast":
        model_config.optimizations["fp8"] = True
    model = model_config.get_model(tensors)
    kind = comfy.model_patcher.ModelPatcher
    if custom_operations is None and not disable_dynamic:  # layers of the GGUF pack hold their weights themselves
        kind = getattr(comfy.model_patcher, "CoreModelPatcher", kind)
    offload_device = management.unet_offload_device()
    patcher = kind(model, load_device=load_device, offload_device=offload_device)
    dynamic = getattr(patcher, "is_dynamic", lambda: False)()
    if not management.is_device_cpu(offload_device):
        model.to(offload_device)
    model.load_model_weights(tensors, "", **({"assign": True} if dynamic else {}))
    for note in named.notes:
        logging.getLogger(__name__).info("CoMoVi: %s.", note)
    return patcher


def _about(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], source: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Configuration that a file saved by ComfyUI carries as a tensor, and the metadata without what it overrides."""
    metadata = dict(metadata)
    if CONFIG_TENSOR not in tensors:
        return {}, metadata
    try:
        about = dict(json.loads(bytes(tensors[CONFIG_TENSOR].tolist())))
        spreads = about.pop("spreads", None)
        if spreads is not None:
            metadata |= {"parametrization": PARAMETRIZATION}
            metadata |= {"spread_video": json.dumps(spreads[0]), "spread_motion": json.dumps(spreads[1])}
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ComoviError(f"{source}: its tensor {CONFIG_TENSOR} is damaged; save the model again.") from error
    branches = about.pop("branches", "both")
    if branches != "both":
        raise ComoviError(
            f"{source} was saved from a model that was loaded with branches {branches!r}, so it holds half a network; "
            "load the file that it came from, with the same choice."
        )
    about.setdefault("patch_size", (1, 2, 2))
    metadata.pop(CONFIG_KEY, None)
    return about, metadata


def _spreads(metadata: Mapping[str, str], source: str) -> tuple[list[float], list[float]] | None:
    """Of video and motion, HALF positive numbers each, where the file says that the network is wrapped."""
    if metadata.get("parametrization") != PARAMETRIZATION:
        return None
    try:
        video, motion = ([float(s) for s in json.loads(metadata[f"spread_{half}"])] for half in ("video", "motion"))
    except (KeyError, ValueError, TypeError, RecursionError):
        video, motion = [], []
    if not all(len(row) == HALF and all(math.isfinite(s) and s > 0 for s in row) for row in (video, motion)):
        raise ComoviError(
            f"{source}: its metadata spread_video and spread_motion must be {HALF} positive numbers each; save the "
            "file again."
        )
    return video, motion


def _formats(metadata: Mapping[str, str], source: str) -> dict[str, Tensor]:
    """A note beside every layer that the metadata calls quantised: the form in which ComfyUI reads it."""
    if FORMATS_KEY not in metadata:
        return {}
    try:
        forms = dict(json.loads(metadata[FORMATS_KEY])["layers"]).items()
        return {f"{layer}.comfy_quant": torch.tensor(list(json.dumps(form).encode())).byte() for layer, form in forms}
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise ComoviError(f"{source}: its metadata {FORMATS_KEY} is damaged; download the file again.") from error


def _officially(name: str) -> str:
    """An own name, perhaps below a prefix, as an official one."""
    for prefix in ("model.diffusion_model.", "diffusion_model."):
        if name.startswith(prefix):
            return prefix + official_name(name[len(prefix) :])
    return official_name(name)


def _module_of(name: str) -> str | None:
    """The layer that a scale or a quantisation note belongs to; None for a weight."""
    module, _, last = name.rpartition(".")
    return module if last in SCALES else None


def _both_branches(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Plain Wan2.2 under official CoMoVi names: blocks, head and patch embedding go into both branches."""
    named: dict[str, Tensor] = {}
    for name, tensor in found.items():
        if name.startswith(("blocks.", "head.", "patch_embedding.")):
            named[f"rgb_{name}"] = named[f"motion_{name}"] = tensor
        else:
            named[name] = tensor
    return named


def _needed(official: str, branches: str) -> bool:
    return all(branches in kept for part, kept in BRANCH_PARTS.items() if official.startswith(part))


def _complete(named: dict[str, Tensor], config: DualBranchConfig, layout: Layout, source: str) -> tuple[str, ...]:
    """Check names and shapes, and fill what may be absent; one error lists the first of what does not fit."""
    expected = expected_shapes(config)
    notes = []
    for group in ("zero_linear_blocks.", "zero_linear_blocks_v2m."):
        absent = [name for name in expected if name.startswith(group)]
        if absent and not any(name in named for name in absent):
            if layout.name != "wan2.2" and group == "zero_linear_blocks.":
                continue
            dtype = torch.float16 if layout.name == "wan2.2" else next(iter(named.values())).dtype
            named |= {name: torch.zeros(expected[name], dtype=dtype) for name in absent}
            notes.append(f"{source} has no exchange between the branches; they do not see each other")
    if not config.pose_head:
        notes.append(f"{source} has no pose head; take the motion from the motion map")
    problems = [f"{name} is missing" for name in expected if name not in named]
    for name, tensor in named.items():
        module = _module_of(name)
        if name == "scaled_fp8" or (module is not None and f"{module}.weight" in expected):
            continue
        if name not in expected:
            problems.append(f"{name} is unexpected")
        elif tuple(tensor.shape) != expected[name]:
            problems.append(f"{name} is {tuple(tensor.shape)} instead of {expected[name]}")
    if problems:
        few = "; ".join(problems[:3])
        raise ComoviError(f"{source} does not fit a CoMoVi network in {len(problems)} places ({few}).")
    return tuple(notes)


def _with_quantisation(tensors: dict[str, Tensor], model_config: Any) -> dict[str, Tensor]:
    """fp8 weights with scales, in the form that this ComfyUI computes with."""
    scales = [name for name in tensors if name.endswith((".scale_weight", ".weight_scale"))]
    scaled = scales or "scaled_fp8" in tensors or any(name.endswith(".comfy_quant") for name in tensors)
    if not hasattr(comfy.utils, "convert_old_quants"):
        if scaled:
            raise ComoviError(
                "this file stores fp8 weights with scales, which this version of ComfyUI would compute wrongly; update "
                "ComfyUI, or use the bf16 file with weight_dtype fp8_e4m3fn."
            )
        return dict(tensors)
    tensors, _ = comfy.utils.convert_old_quants(dict(tensors), "", metadata=None)
    untold = [name for name in scales if f"{_module_of(name)}.comfy_quant" not in tensors]
    if untold:
        raise ComoviError(
            f"this file stores {len(untold)} weights with scales (the first is {untold[0]}) and does not say in which "
            "form, so they would be computed wrongly; use a file in ComfyUI's own form, or the bf16 file."
        )
    model_config.quant_config = comfy.utils.detect_layer_quantization(tensors, "")
    return tensors
