"""GGUF files: weights in 2 to 8 bits, unpacked on the way into each product by the pack ComfyUI-GGUF.

That pack brings the operations; we bring the network that is built of them. Without the pack a GGUF file is an error
that names it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import folder_paths

from ...comovi_model.errors import ComoviError
from .load import build_patcher, name_weights
from .sampling import install

ENDING = ".gguf"
PACK = "ComfyUI-GGUF (by city96)"
LOADER_NODE = "UnetLoaderGGUF"  # by which the pack is found, whatever its folder is called
NEEDED = ("gguf_sd_loader", "GGMLOps", "GGUFModelPatcher")


def is_gguf(name: str) -> bool:
    return name.lower().endswith(ENDING)


def gguf_files() -> list[str]:
    """GGUF files below models/diffusion_models. ComfyUI's own lists leave them out; with the pack there is a list."""
    if "unet_gguf" in folder_paths.folder_names_and_paths:
        return [name for name in folder_paths.get_filename_list("unet_gguf") if is_gguf(name)]
    found = set()
    for folder in folder_paths.get_folder_paths("diffusion_models"):
        for place, _, names in os.walk(folder, followlinks=True):
            found |= {os.path.relpath(os.path.join(place, name), folder) for name in names if is_gguf(name)}
    return sorted(found)


def gguf_path(name: str) -> str:
    """The file behind an entry of `gguf_files`."""
    path = folder_paths.get_full_path("diffusion_models", name)
    if path is None and "unet_gguf" in folder_paths.folder_names_and_paths:
        path = folder_paths.get_full_path("unet_gguf", name)
    if path is None:
        raise ComoviError(f"there is no file {name!r} in models/diffusion_models; copy it there and press R to reload.")
    return path


def load_gguf(path: str | Path, branches: str = "both") -> Any:
    """The MODEL of a GGUF file, made with the operations of the GGUF pack."""
    name = Path(path).name
    pack = gguf_pack(name)
    try:
        tensors = pack.gguf_sd_loader(str(path))
    except Exception as error:  # the pack's and the reader's errors are of many kinds
        reason = " ".join(str(error).split())[:200]
        raise ComoviError(f"{name} cannot be read as a GGUF file of an image model ({reason}).") from error
    named = name_weights(tensors, {}, name, branches)
    patcher = install(build_patcher(named, branches, "default", pack.GGMLOps()))
    patcher.set_attachments("comovi_source", name)  # for the model report
    return pack.GGUFModelPatcher.clone(patcher)


def gguf_pack(name: str) -> ModuleType:
    """The module of the installed pack that has what we need."""
    every_node = sys.modules["nodes"].NODE_CLASS_MAPPINGS  # ComfyUI's own: by now all packs are loaded
    loader = every_node.get(LOADER_NODE)
    if loader is None:
        raise ComoviError(
            f"{name} is a GGUF file, which needs the node pack {PACK}; install it with the ComfyUI Manager and start "
            "ComfyUI again, or use a .safetensors file."
        )
    module = sys.modules[loader.__module__]
    missing = [wanted for wanted in NEEDED if not hasattr(module, wanted)]
    if missing:
        raise ComoviError(f"the installed pack {PACK} is another version: it lacks {', '.join(missing)}; update it.")
    return module
