"""Lets the core's "Load Diffusion Model" node, and packs that load as it does, open CoMoVi files.

ComfyUI has no place where a pack can register an architecture. One function of it, `load_diffusion_model_state_dict`,
turns the tensors of a file into a MODEL; `register` puts ours in front of it. Ours takes files with a motion branch and
hands every other one on, untouched. Nothing of CoMoVi needs this: "Load CoMoVi Model" does not go this way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import comfy.sd
import torch
from torch import Tensor

from ...comovi_model.errors import ComoviError
from .load import WEIGHT_DTYPES, build_patcher, name_weights
from .sampling import install

MOTION_BRANCH = ("motion_patch_embedding.weight", "motion.patch_embedding.weight")
LATENT_CHANNELS = 48
WIDE = (torch.float32, torch.bfloat16, torch.float16)
SOURCE = "this file"


def register() -> None:
    """Put our function in front of the core's, once, whatever name the pack is loaded under."""
    core = comfy.sd.load_diffusion_model_state_dict
    if not hasattr(core, "comovi_core"):
        comfy.sd.load_diffusion_model_state_dict = in_front_of(core)


def in_front_of(core: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(core)
    def load_diffusion_model_state_dict(sd: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        if not has_motion_branch(sd):
            return core(sd, *args, **kwargs)
        options = args[0] if args else kwargs.get("model_options")
        metadata = args[1] if len(args) > 1 else kwargs.get("metadata")
        paged = not (args[2] if len(args) > 2 else kwargs.get("disable_dynamic", False))
        return load_state_dict(sd, options or {}, metadata or {}, paged)

    load_diffusion_model_state_dict.comovi_core = core  # type: ignore[attr-defined]
    return load_diffusion_model_state_dict


def has_motion_branch(names: Iterable[str]) -> bool:
    return any(name.endswith(MOTION_BRANCH) for name in names)


def load_state_dict(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any], metadata: Mapping[str, str], paged: bool = True
) -> Any:
    """A MODEL as our own loader makes it, with the dtype and the operations that the calling node asks for."""
    patches = next(tensor for name, tensor in tensors.items() if name.endswith(MOTION_BRANCH))
    if patches.shape[1] != LATENT_CHANNELS and not metadata:
        raise ComoviError(
            "this file carries notes, as the nano model's does, that this ComfyUI does not hand on to us; load it with "
            "'Load CoMoVi Model'."
        )
    named = name_weights(tensors, metadata, SOURCE)
    weight_dtype = named_dtype(options.get("dtype"), bool(options.get("fp8_optimizations")))
    if weight_dtype is None:
        wide = {name: tensor for name, tensor in named.tensors.items() if tensor.dtype in WIDE}
        named.tensors.update({name: tensor.to(options["dtype"]) for name, tensor in wide.items()})
    operations = options.get("custom_operations")
    return install(build_patcher(named, "both", weight_dtype or "default", operations, disable_dynamic=not paged))


def named_dtype(dtype: torch.dtype | None, fast: bool) -> str | None:
    """The entry of our loader's list for what the core's loader asks; None when it has no such entry."""
    if dtype is torch.float8_e4m3fn and fast:
        return "fp8_e4m3fn_fast"
    return next((name for name, listed in WEIGHT_DTYPES.items() if listed is dtype), None)
