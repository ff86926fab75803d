"""From a weight file to a MODEL: released CoMoVi files, Wan2.2-5B as two branches, our own, the embedded nano model.

Tensors come as ComfyUI reads them (16 bits, fp8 with or without scales, GGUF), under any of the known names, and leave
under the names of `DualBranch`: the video branch as plain Wan2.2, the motion branch below "motion.".
"""

from __future__ import annotations

import json
import logging
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
from ...comovi_model.nano.first_frame import PARAMETRIZATION
from ...comovi_model.nano.model import NETWORK_FILE
from ...comovi_model.nano.people import ASSETS
from .model import CONFIG_TENSOR, make_config
from .sampling import install

NANO = "nano (embedded)"
WEIGHT_DTYPES = {
    "default": None,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e4m3fn_fast": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
SCALES = ("scale_weight", "scale_input", "weight_scale", "weight_scale_2", "input_scale", "comfy_quant")
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
) -> Any:
    """The MODEL of a file; without a path, the nano model."""
    source = Path(path) if path is not None else ASSETS / NETWORK_FILE
    tensors, metadata = _read(source)
    named = name_weights(tensors, metadata or {}, source.name, branches)
    patcher = build_patcher(named, branches, weight_dtype)
    if path is not None:  # lets ComfyUI make further copies for further GPUs
        patcher.cached_patcher_init = (load_patcher, (str(source), weight_dtype, branches))
    patcher.set_attachments("comovi_source", source.name)  # for the model report
    return install(patcher)


def _read(source: Path) -> tuple[Mapping[str, Tensor], Any]:
    """Tensors and metadata of a file, or a sentence when it holds no weights or half of them."""
    try:
        return comfy.utils.load_torch_file(str(source), safe_load=True, return_metadata=True)
    except (SafetensorError, OSError, ValueError, RuntimeError, EOFError, UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ComoviError(
            f"model_name: {source.name} cannot be read as model weights ({reason}); download it again."
        ) from error


def name_weights(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], source: str, branches: str = "both"
) -> NamedWeights:
    """Find out what a file is; what it lacks without harm (exchange of plain Wan2.2) is filled in."""
    about, metadata = _about(tensors, metadata)
    tensors = {name: tensor for name, tensor in tensors.items() if name != CONFIG_TENSOR}
    if any(name.endswith("motion.patch_embedding.weight") for name in tensors):  # our own names
        tensors = {_officially(name): tensor for name, tensor in tensors.items()}
    layout = find_layout(tensors, source)
    prefix = layout.prefix
    found = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items() if _module_of(name) is None}
    config = find_config(shapes, layout, metadata, about, source)
    config = replace(config, pose_head=any(name.startswith("smpl_") for name in found))
    named = _both_branches(found) if layout.name == "wan2.2" else dict(found)
    notes = _complete(named, config, layout, source)
    kept = {our_name(name): tensor for name, tensor in named.items() if _needed(name, branches)}
    return NamedWeights(kept, config, _spreads(metadata), notes)


def build_patcher(named: NamedWeights, branches: str, weight_dtype: str, custom_operations: Any = None) -> Any:
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
    kind = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    offload_device = management.unet_offload_device()
    patcher = kind(model, load_device=load_device, offload_device=offload_device)
    dynamic = getattr(patcher, "is_dynamic", lambda: False)()
    if not management.is_device_cpu(offload_device):
        model.to(offload_device)
    model.load_model_weights(tensors, "", **({"assign": True} if dynamic else {}))
    for note in named.notes:
        logging.getLogger(__name__).info("CoMoVi: %s.", note)
    return patcher


def _about(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Configuration that a file saved by ComfyUI carries as a tensor, and the metadata without what it overrides."""
    metadata = dict(metadata)
    if CONFIG_TENSOR not in tensors:
        return {}, metadata
    try:
        about = dict(json.loads(bytes(tensors[CONFIG_TENSOR].tolist())))
    except (ValueError, TypeError) as error:
        raise ComoviError(f"the tensor {CONFIG_TENSOR} of this file is damaged; save the model again.") from error
    spreads = about.pop("spreads", None)
    about.pop("branches", None)
    if spreads is not None:
        metadata |= {"parametrization": PARAMETRIZATION}
        metadata |= {"spread_video": json.dumps(spreads[0]), "spread_motion": json.dumps(spreads[1])}
    about["patch_size"] = tuple(about["patch_size"]) if "patch_size" in about else (1, 2, 2)
    metadata.pop(CONFIG_KEY, None)
    return about, metadata


def _spreads(metadata: Mapping[str, str]) -> tuple[list[float], list[float]] | None:
    if metadata.get("parametrization") != PARAMETRIZATION:
        return None
    return json.loads(metadata["spread_video"]), json.loads(metadata["spread_motion"])


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
    scaled = "scaled_fp8" in tensors or any(name.endswith((".scale_weight", ".comfy_quant")) for name in tensors)
    if not hasattr(comfy.utils, "convert_old_quants"):
        if scaled:
            raise ComoviError(
                "this file stores fp8 weights with scales, which this version of ComfyUI would compute wrongly; update "
                "ComfyUI, or use the bf16 file with weight_dtype fp8_e4m3fn."
            )
        return dict(tensors)
    tensors, _ = comfy.utils.convert_old_quants(dict(tensors), "", metadata=None)
    model_config.quant_config = comfy.utils.detect_layer_quantization(tensors, "")
    return tensors
