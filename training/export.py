"""The weights of a run as files: for ComfyUI and comovi_model in the official layout, as a LoRA, or as a nano model.

comovi-train export runs/stage2 --out comovi.safetensors          everything, adapters merged, bfloat16
comovi-train export runs/stage1 --out part.safetensors --trainable-only
comovi-train export runs/lora_nano --lora my_lora.safetensors
comovi-train export runs/nano --ema --out my_nano                 a folder with the three nano files
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..comovi_model.comovi.config import DualBranchConfig
from ..comovi_model.comovi.dual_branch import DualBranch
from ..comovi_model.comovi.names import CONFIG_KEY
from ..comovi_model.errors import ComoviError
from ..comovi_model.files import atomic_path, require_file
from ..comovi_model.nano.first_frame import FirstFrameWrapper
from ..comovi_model.nano.model import AUTOENCODER_FILE, NanoModel, load_autoencoder, save_network, save_text_encoder
from ..comovi_model.nano.people import ASSETS
from ..comovi_model.nano.text_encoder import NanoTextEncoder
from ..comovi_model.wan.weights import write_weights
from .lora import lora_tensors, merged, split_state
from .recipe import Recipe
from .recipes.start import PART_KEY

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
NAME = "diffusion_pytorch_model"  # of the files in a folder, as the official release calls them
PREFIXES = ("trainee.network.", "network.")  # where a recipe keeps its network


class Converted(Mapping[str, Tensor]):
    """Tensors in the dtype of the file, each converted when it is written, so that no second copy is ever whole."""

    def __init__(self, tensors: Mapping[str, Tensor], dtype: torch.dtype | None):
        self.tensors, self.dtype = tensors, dtype

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.tensors[name]
        return tensor.to(self.dtype) if self.dtype and tensor.is_floating_point() else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def network_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's part of a recipe's state dict, under the network's names."""
    for prefix in PREFIXES:
        found = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
        if found:
            return found
    raise ComoviError("this state dict holds no network.")


def write_shards(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], largest: int) -> list[Path]:
    """A .safetensors file, or, where it would exceed `largest` bytes, shards and their index beside each other."""
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > largest:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    if len(shards) == 1:
        write_weights(path, tensors, metadata)
        return [path]
    paths = [path.with_name(f"{path.stem}-{i:05d}-of-{len(shards):05d}.safetensors") for i in range(1, len(shards) + 1)]
    for shard, names in zip(paths, shards, strict=True):
        write_weights(shard, {name: tensors[name] for name in names}, metadata)
    where = {name: shard.name for shard, names in zip(paths, shards, strict=True) for name in names}
    index = path.with_name(f"{path.stem}.safetensors.index.json")
    with atomic_path(index) as temporary:  # last, so that an index never lists what is not there
        content = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where}
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return [*paths, index]


def export_network(
    recipe: Recipe,
    state: Mapping[str, Tensor],
    out: Path,
    *,
    alpha: float = 0.0,
    only: set[str] | None = None,
    dtype: torch.dtype | None = torch.bfloat16,
    largest: int = 1 << 62,
    about: Mapping[str, str] | None = None,
) -> list[Path]:
    """The official layout. only: names in the recipe that shall be in the file (what was trained), by default all."""
    network: Any = recipe.network
    prefix = next(prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in recipe.state_dict()))
    weights = {prefix + name: tensor for name, tensor in merged(network_state(state), alpha).items()}
    if only is None:
        official = recipe.export_state(weights)
    else:
        changed = {name.replace(".lora_A", "").replace(".lora_B", "") for name in only}
        official = recipe.export_state({name: weights[name] for name in weights if name in changed})
        kept = recipe.export_state({})  # what a recipe adds by itself was not trained
        official = {name: tensor for name, tensor in official.items() if name not in kept}
    metadata = {**network_metadata(network.config), **(about or {})}
    if only is not None:
        metadata[PART_KEY] = "the trained weights only; load them over the weights they were trained from"
    path = out if out.suffix == ".safetensors" else out / f"{NAME}.safetensors"
    return write_shards(path, Converted(official, dtype), metadata, largest)


def network_metadata(config: DualBranchConfig) -> dict[str, str]:
    """What the official names cannot tell."""
    return {"format": "pt", "comovi.interaction": config.interaction, CONFIG_KEY: json.dumps(config.to_dict())}


def export_lora(
    state: Mapping[str, Tensor], out: Path, alpha: float, dtype: torch.dtype, about: Mapping[str, str] | None = None
) -> Path:
    """A LoRA file for the node CoMoVi Apply LoRA, or any reader of Wan2.2 LoRAs."""
    if out.suffix != ".safetensors":
        raise ComoviError(f"a LoRA is one file; give a name that ends in .safetensors instead of {out}.")
    write_weights(out, Converted(lora_tensors(network_state(state), alpha), dtype), {"format": "pt", **(about or {})})
    return out


def nano_model(
    state: Mapping[str, Tensor], config: DualBranchConfig, autoencoder: Path, alpha: float = 0.0
) -> NanoModel:
    """The model that a nano recipe's state dict describes; autoencoder: a folder that holds one."""
    network = DualBranch(config)
    network.load_state_dict(merged(network_state(state), alpha))
    text = NanoTextEncoder()
    words = "trainee.text_encoder."
    text.load_state_dict({name[len(words) :]: t for name, t in state.items() if name.startswith(words)})
    video, motion = (FirstFrameWrapper(state[f"spread_{branch}"].float()) for branch in ("video", "motion"))
    return NanoModel(load_autoencoder(autoencoder), text, network, video, motion)


def export_nano(
    state: Mapping[str, Tensor], config: DualBranchConfig, out: Path, command: str, *, autoencoder: Path = ASSETS,
    alpha: float = 0.0,
) -> list[Path]:  # fmt: skip
    """A folder with the three files of a nano model, which every `--model` option and the nodes take."""
    if out.suffix == ".safetensors":
        raise ComoviError(f"a nano model is a folder of three files; give a folder instead of {out}.")
    source = require_file(autoencoder / AUTOENCODER_FILE, "autoencoder of the nano model")
    model = nano_model(state, config, autoencoder, alpha)
    out.mkdir(parents=True, exist_ok=True)
    if source.resolve() != (out / AUTOENCODER_FILE).resolve():
        with atomic_path(out / AUTOENCODER_FILE) as temporary:
            shutil.copyfile(source, temporary)
    save_text_encoder(model.text_encoder, out, command)
    save_network(model, out, command)
    return sorted(out.glob("nano*.safetensors"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="folder of a run, or of one of its checkpoints")
    parser.add_argument("--step", type=int, help="checkpoint of this step (default: the last one)")
    parser.add_argument("--out", type=Path, help="file or folder to write (default: RUN/export)")
    parser.add_argument("--lora", type=Path, metavar="FILE", help="write the adapter alone, as a LoRA file")
    parser.add_argument("--ema", action="store_true", help="the running mean of the weights (ema.enabled)")
    parser.add_argument("--trainable-only", action="store_true", help="only what was trained")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16", help="of the file; nano files are always fp16")
    parser.add_argument("--max-shard", type=float, default=0, metavar="GB", help="largest file; 0 writes one")
    parser.add_argument("--autoencoder", type=Path, default=ASSETS, help="folder with the nano model's autoencoder")


def run(options: argparse.Namespace) -> int:
    for path in export_run(options):
        print(f"{path}: {path.stat().st_size / 1e6:,.1f} MB")
    return 0


def export_run(options: argparse.Namespace) -> list[Path]:
    """What the command does; returns the files that were written."""
    from .checkpoint import consolidated_state, read_state
    from .config_file import RESOLVED, load_resolved
    from .recipe import build_recipe

    folder = find_checkpoint(options.run, options.step)
    home = folder.parent.parent
    config = load_resolved(home)
    state = consolidated_state(folder, averaged=options.ema)
    recipe = build_recipe(config)
    settings = hashlib.sha256((home / RESOLVED).read_bytes()).hexdigest()[:16]
    step = read_state(folder).step
    about = {
        "comovi.training": json.dumps(
            {"run": config.run.name, "step": step, "ema": bool(options.ema), "settings": settings}
        )
    }
    out = options.out or home / "export"
    dtype, alpha = DTYPES[options.dtype], config.adapter.alpha
    if options.lora:
        return [export_lora(state, options.lora, alpha, dtype, about)]
    if config.model.kind == "nano" and not options.trainable_only:
        clips = step * config.batch.micro * config.batch.accumulate * read_state(folder).world
        command = f"comovi-train train, {clips} samples"
        network: Any = recipe.network
        return export_nano(state, network.config, out, command, autoencoder=options.autoencoder, alpha=alpha)
    if options.trainable_only and not options.lora and split_state(state)[1]:
        raise ComoviError("what this run trained is an adapter: export it with --lora FILE.")
    return export_network(
        recipe,
        state,
        out,
        alpha=alpha,
        only=set(recipe.trainable()) if options.trainable_only else None,
        dtype=dtype,
        largest=int(options.max_shard * 1e9) or 1 << 62,
        about=about,
    )


def find_checkpoint(run: Path, step: int | None = None) -> Path:
    """The folder of a checkpoint: itself, or the last or the named one of a run."""
    from .checkpoint import checkpoint_folder, latest

    run = Path(os.path.abspath(run))  # the settings lie two folders above a checkpoint
    if (run / "state.json").exists():
        return run
    if step is None:
        return latest(run)
    folder = checkpoint_folder(run, step)
    if not (folder / "state.json").exists():
        raise ComoviError(f"{run} has no checkpoint of step {step}; leave --step out for the last one.")
    return folder
