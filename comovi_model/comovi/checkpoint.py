"""Checkpoints: released CoMoVi files, plain Wan2.2-TI2V-5B as two branches, and files of our own.

Reading maps the files and hands their tensors to a network without memory of its own, so there is never a second copy.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...kernels.dense_attention import AttentionFunction
from ..wan.attention import Parts, WeightReader, read_weight
from ..wan.weights import PICKLES, TensorFiles, open_weights, read_pickle, write_weights
from .config import DualBranchConfig
from .dual_branch import DualBranch
from .names import CONFIG_KEY, Layout, check_fit, find_config, find_layout, group_of, official_name, our_name
from .pose_head import PoseHead


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint is and what it lacks; `lines()` says it to a person."""

    source: str
    layout: str  # "comovi" or "wan2.2"
    config: DualBranchConfig
    found: Mapping[str, int]  # part of the network -> number of tensors taken from the file
    missing: tuple[str, ...]  # parts that the file lacks, which is no error
    parameters: int  # of the network, as far as the file fills it
    dtypes: tuple[str, ...]
    metadata: Mapping[str, str]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        config = self.config
        kind = {"comovi": "CoMoVi checkpoint", "wan2.2": "plain Wan2.2 checkpoint (fills both branches)"}[self.layout]
        return [
            f"{self.source}: {kind}, {self.parameters:,} parameters in {'/'.join(self.dtypes)}",
            f"width {config.dim}, {config.num_layers} layers, {config.num_heads} heads, text {config.text_len} x "
            f"{config.text_dim}; interaction {config.interaction}, interleave {config.interleave}",
            "found: " + ", ".join(f"{group} ({count} tensors)" for group, count in self.found.items()),
            "missing: " + (", ".join(self.missing) or "nothing"),
            *self.notes,
        ]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint opened but not loaded: tensors under our names, mapped from the file."""

    config: DualBranchConfig
    tensors: Mapping[str, Tensor]
    report: LoadReport


def read_checkpoint(path: str | Path, *, new_pose_head: bool = False, **wanted: Any) -> Checkpoint:
    """Open any supported checkpoint and find its configuration.

    wanted: configuration values that the file does not tell or that shall differ, e.g. interaction="single_v2m",
    num_heads=3, interleave=2 for plain Wan. new_pose_head: where the file has no pose head, start a new one to train;
    without it a file without pose head gives a network without one, which is normal and reported.
    """
    files = _read_pickle_as_mapping(path) if Path(path).suffix in PICKLES else open_weights(path)
    source = str(path)
    metadata = files.metadata if isinstance(files, TensorFiles) else {}
    layout = find_layout(files, source)
    names = {name[len(layout.prefix) :]: name for name in files if name.startswith(layout.prefix)}
    shapes = _shapes(files, names)
    config = find_config(shapes, layout, metadata, wanted, source)
    config = replace(config, pose_head=new_pose_head or any(name.startswith("smpl_") for name in names))

    expected = expected_shapes(config)
    origins = {name: _source_name(name, layout, config) for name in expected}
    absent = _absent(origins, names, layout)
    check_fit(shapes, {origin: expected[name] for name, origin in origins.items() if name not in absent}, source)
    tensors = _taken({name: names[origin] for name, origin in origins.items() if name not in absent}, files)
    report = _report(source, layout, config, tensors, metadata, len(files) - len(names))
    tensors |= _fresh(absent, expected, config, tensors["patch_embedding.weight"].dtype)
    return Checkpoint(config, tensors, report)


def load_checkpoint(
    path: str | Path,
    *,
    operations: Any = nn,
    attention: AttentionFunction | None = None,
    weight: WeightReader = read_weight,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    new_pose_head: bool = False,
    **wanted: Any,
) -> tuple[DualBranch, LoadReport]:
    """A network with the weights of a file.

    Without `dtype` and `device` the weights stay where they are, in the mapped file; then the peak of resident memory
    is the size of the file.
    """
    checkpoint = read_checkpoint(path, new_pose_head=new_pose_head, **wanted)
    network = DualBranch(checkpoint.config, operations, attention, "meta", None, weight)
    tensors = {name: _converted(tensor, dtype, device) for name, tensor in checkpoint.tensors.items()}
    network.load_state_dict(tensors, assign=True)
    return network, checkpoint.report


def inspect_checkpoint(path: str | Path, **wanted: Any) -> LoadReport:
    """What `path` is and what it lacks, without building a network."""
    return read_checkpoint(path, **wanted).report


def official_state(network: DualBranch) -> dict[str, Tensor]:
    """The weights under official names."""
    return {official_name(name): tensor for name, tensor in network.state_dict().items()}


def save_checkpoint(
    path: str | Path,
    network: DualBranch,
    *,
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the official layout. What its names cannot tell (mode, heads, text length) goes into the metadata."""
    config = network.config
    about = {"format": "pt", "comovi.interaction": config.interaction, CONFIG_KEY: json.dumps(config.to_dict())}
    state = official_state(network)
    if dtype is not None:
        state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    write_weights(path, state, {**about, **(metadata or {})})


def expected_shapes(config: DualBranchConfig) -> dict[str, tuple[int, ...]]:
    """Official name -> shape of every tensor of this configuration."""
    state = DualBranch(config, device="meta").state_dict()
    return {official_name(name): tuple(tensor.shape) for name, tensor in state.items()}


def _source_name(official: str, layout: Layout, config: DualBranchConfig) -> str:
    """The name in the file of what fills `official`: in plain Wan2.2 both branches read the same tensor."""
    if layout.name == "comovi":
        return official
    if official.startswith("motion_blocks."):
        _, index, rest = official.split(".", 2)
        return f"blocks.{int(index) * config.interleave}.{rest}"
    return official.removeprefix("rgb_").removeprefix("motion_")


def _absent(origins: Mapping[str, str], names: Mapping[str, str], layout: Layout) -> set[str]:
    """What a file may lack if it lacks all of it: the pose head, our second exchanges; plain Wan2.2 any exchange."""
    optional = {"smpl_", "zero_linear_blocks_v2m."} | ({"zero_linear_blocks."} if layout.name == "wan2.2" else set())
    lacking = tuple(group for group in optional if not any(name.startswith(group) for name in names))
    return {name for name in origins if name.startswith(lacking)}


def _taken(wanted: Mapping[str, str], files: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under our names. What both branches take (plain Wan2.2) is mapped twice, so that they can learn apart."""
    second = files.again() if isinstance(files, TensorFiles) else {}
    tensors, seen = {}, set()
    for name, origin in wanted.items():
        if origin not in seen:
            tensors[our_name(name)] = files[origin]
        else:
            tensors[our_name(name)] = second[origin] if second else files[origin].clone()
        seen.add(origin)
    return tensors


def _fresh(
    names: set[str], expected: Mapping[str, tuple[int, ...]], config: DualBranchConfig, dtype: torch.dtype
) -> dict[str, Tensor]:
    """What the file lacks: zero for the exchange, which must begin from nothing, and a new pose head."""
    fresh = {our_name(name): torch.zeros(expected[name], dtype=dtype) for name in names if "zero_linear" in name}
    if any(group_of(name) == "pose head" for name in names):
        head = PoseHead(config, Parts(dtype=dtype))
        head.init_weights()
        fresh |= {f"pose_head.{name}": tensor for name, tensor in head.state_dict().items()}
    return fresh


def _report(
    source: str,
    layout: Layout,
    config: DualBranchConfig,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    outside: int,
) -> LoadReport:
    """What came from the file; `tensors` does not hold yet what it lacks."""
    found = Counter(group_of(official_name(name)) for name in tensors)
    notes = []
    if outside:
        notes.append(f"{outside} tensors outside {layout.prefix!r} were not read")
    if "exchange" not in found and config.interaction != "none":
        notes.append("no exchange in the file: it starts at zero, so the branches ignore each other until trained")
    elif CONFIG_KEY not in metadata and config.interaction == "single_m2v":
        notes.append("the file does not tell its direction; single_m2v is assumed, as released (else: single_v2m)")
    if "pose head" not in found:
        notes.append("no pose head in the file: the motion has to be fitted to the motion map")
    elif _head_is_blind(config, tensors):
        notes.append("this head cannot see the video (all its value weights are zero): prefer the motion-map fit")
    return LoadReport(
        source=source,
        layout=layout.name,
        config=config,
        found=dict(found),
        missing=tuple(group for group in ("exchange", "pose head") if group not in found and _has(config, group)),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        dtypes=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})),
        metadata=dict(metadata),
        notes=tuple(notes),
    )


def _has(config: DualBranchConfig, group: str) -> bool:
    return group == "pose head" or config.interaction != "none"


def _head_is_blind(config: DualBranchConfig, tensors: Mapping[str, Tensor]) -> bool:
    """The official training starts the whole head at zero; value weights that still are never got a gradient."""
    values = (f"pose_head.decoders.{n}.{kind}.v.weight" for n in range(config.pose_layers) for kind in ("sa", "ca"))
    return not any(bool(tensors[name].to(torch.float32).any()) for name in values)


def _converted(tensor: Tensor, dtype: torch.dtype | None, device: torch.device | str | None) -> Tensor:
    return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)


def _shapes(files: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    if isinstance(files, TensorFiles):
        return {name: files.entries[origin].shape for name, origin in names.items()}
    return {name: tuple(files[origin].shape) for name, origin in names.items()}


def _read_pickle_as_mapping(path: str | Path) -> Mapping[str, Tensor]:
    return read_pickle(Path(path))
