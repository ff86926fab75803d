"""Where training of the dual-branch network starts: which weights, and which of them move.

In this order: `model.base`, plain Wan2.2-TI2V-5B, which fills both branches; over it `model.init`, any CoMoVi file (the
export of an earlier stage, whole or with only what was trained, or the released weights); without either, random
numbers of the shape `model.shape`. Weights stay in the mapped file until they are written to, so that many processes on
one machine share one copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...comovi_model.comovi.checkpoint import Checkpoint, read_checkpoint
from ...comovi_model.comovi.config import WAN22_5B, DualBranchConfig
from ...comovi_model.comovi.names import CONFIG_KEY, our_name
from ...comovi_model.errors import ComoviError
from ...comovi_model.wan.weights import open_weights
from ..counters import key
from ..lora import adapt
from .network import TrainedNetwork

PART_KEY = "comovi.part"  # metadata of a file that holds only what was trained


@dataclass(frozen=True)
class Start:
    """The network, and the weights of a whole file that it does without (stage 1: the video branch)."""

    network: TrainedNetwork
    left_out: Mapping[str, Tensor]  # by our names


def start_network(config: Any, device: str | None = None) -> Start:
    """Random numbers are drawn on `device` itself; those of files stay in the file.

    device "meta": shapes only; of files, which then need not exist, only the header is read.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.run.seed, "weights", 0))
        network = _build(config, device)
        left_out = _leave_out_video(network) if config.stage.kind == "motion" else {}
        _choose_trainable(network, config)
    return Start(network, left_out)


def network_config(config: Any) -> DualBranchConfig:
    """The configuration of a network of random numbers, or of full size."""
    wants_head = config.stage.kind == "joint" and config.stage.smpl.enabled
    values = {**WAN22_5B.to_dict(), "interaction": config.model.interaction, "pose_head": wants_head}
    return DualBranchConfig.from_dict({**values, **config.model.shape})


def _build(config: Any, device: str | None) -> TrainedNetwork:
    dtype = torch.bfloat16 if config.engine.precision == "bf16" else torch.float32
    base, init = config.model.base, config.model.init
    if device == "meta":
        there = Path(base or init).exists() if base or init else False
        shape = _read(base or init, config).config if there else network_config(config)
        return TrainedNetwork(shape, device="meta", dtype=dtype)
    if not (base or init):
        network = TrainedNetwork(network_config(config), device=device, dtype=dtype)
        network.init_weights()
        return network
    found = _read(base or init, config)
    tensors = dict(found.tensors)
    if base and init:
        tensors |= _overlay(init, tensors)
    network = TrainedNetwork(found.config, device="meta")
    network.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()}, assign=True)
    return network


def _read(path: str, config: Any) -> Checkpoint:
    if Path(path).suffix == ".safetensors" and PART_KEY in open_weights(path).metadata:
        raise ComoviError(f"{path} holds trained weights only; name what they were trained from in model.base.")
    wants_head = config.stage.kind == "joint" and config.stage.smpl.enabled and config.adapter.kind == "none"
    wanted = {"interaction": config.model.interaction, **config.model.shape}
    found = read_checkpoint(path, new_pose_head=wants_head, **wanted)
    if config.stage.kind == "joint" and config.stage.smpl.enabled and not found.config.pose_head:
        raise ComoviError(
            f"{path} has no pose head, and an adapter does not train one: set stage.smpl.enabled = false, or start "
            "from weights with a pose head."
        )
    return found


def _overlay(path: str, known: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a CoMoVi file, whole or partial, that replace those of the base."""
    file = open_weights(Path(path))
    tensors = {our_name(name): name for name in file}
    problems = [name for name in tensors if name not in known]
    problems += [
        name for name, origin in tensors.items()
        if name in known and file.entries[origin].shape != tuple(known[name].shape)
    ]  # fmt: skip
    if problems:
        about = "its metadata tells another shape" if CONFIG_KEY in file.metadata else "it belongs to another network"
        raise ComoviError(f"{path} does not fit over model.base: {problems[0]} and {len(problems) - 1} more; {about}.")
    return {name: file[origin] for name, origin in tensors.items()}


def _leave_out_video(network: TrainedNetwork) -> dict[str, Tensor]:
    """Take out of the network what the motion branch alone never reads."""
    out: dict[str, Tensor] = {}
    for part in ("blocks", "zero_linear_blocks", "zero_linear_blocks_v2m"):
        modules = network.get_submodule(part)
        out |= {f"{part}.{name}": tensor for name, tensor in modules.state_dict().items()}
        setattr(network, part, nn.ModuleList())
    if network.pose_head is not None:
        out |= {f"pose_head.{name}": tensor for name, tensor in network.pose_head.state_dict().items()}
        network.pose_head = None
    return out


def _choose_trainable(network: TrainedNetwork, config: Any) -> None:
    network.requires_grad_(False)
    if config.adapter.kind == "lora":
        targets = config.adapter.targets
        if config.stage.kind == "motion":
            targets = [target for target in targets if target == "motion"]
        adapt(network, config.adapter.rank, config.adapter.alpha, targets)
        return
    network.motion.requires_grad_(True)
    if config.stage.kind == "motion":
        return
    network.zero_linear_blocks.requires_grad_(True)
    network.zero_linear_blocks_v2m.requires_grad_(True)
    if network.pose_head is not None and config.stage.smpl.enabled:
        network.pose_head.requires_grad_(True)
    if config.stage.train_video:
        for part in (network.patch_embedding, network.blocks, network.head):
            part.requires_grad_(True)
