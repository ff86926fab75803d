"""The names that weights have in files, and what can be read off them.

Official CoMoVi files call the branches `rgb_` and `motion_`; here the video branch has the plain Wan2.2 names and the
motion branch lives below `motion.`. A checkpoint may sit below a prefix (`model.diffusion_model.`, `state_dict.`, ...).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ComoviError
from .config import DualBranchConfig

Shapes = Mapping[str, tuple[int, ...]]

CONFIG_KEY = "comovi.config"  # metadata of our own files: the configuration as JSON

# (official, ours); every other name is the same in both.
RENAMED = (
    ("rgb_patch_embedding.", "patch_embedding."),
    ("motion_patch_embedding.", "motion.patch_embedding."),
    ("rgb_blocks.", "blocks."),
    ("motion_blocks.", "motion.blocks."),
    ("rgb_head.", "head."),
    ("motion_head.", "motion.head."),
    ("smpl_", "pose_head."),
)

GROUPS = {  # what to call the parts of a file, by official name
    "rgb_patch_embedding": "video branch",
    "rgb_blocks": "video branch",
    "rgb_head": "video branch",
    "motion_patch_embedding": "motion branch",
    "motion_blocks": "motion branch",
    "motion_head": "motion branch",
    "text_embedding": "text and time",
    "time_embedding": "text and time",
    "time_projection": "text and time",
    "zero_linear_blocks": "exchange",
    "zero_linear_blocks_v2m": "exchange",
}


def our_name(official: str) -> str:
    for theirs, ours in RENAMED:
        if official.startswith(theirs):
            return ours + official[len(theirs) :]
    return official


def official_name(ours: str) -> str:
    for theirs, mine in RENAMED:
        if ours.startswith(mine):
            return theirs + ours[len(mine) :]
    return ours


def group_of(official: str) -> str:
    """The part of the network that a tensor belongs to: "video branch", "exchange", "pose head", ..."""
    first = official.split(".")[0]
    return "pose head" if first.startswith("smpl_") else GROUPS.get(first, "unknown")


@dataclass(frozen=True)
class Layout:
    name: str  # "comovi" or "wan2.2"
    prefix: str  # in front of every name


def find_layout(names: Mapping[str, Any], source: str) -> Layout:
    """Which kind of file this is, by the name of its first layer."""
    for layout, anchor in (("comovi", "rgb_patch_embedding.weight"), ("wan2.2", "patch_embedding.weight")):
        prefixes = [name[: -len(anchor)] for name in names if name.endswith(anchor)]
        prefixes = [prefix for prefix in prefixes if prefix == "" or prefix.endswith(".")]
        if prefixes:
            return Layout(layout, min(prefixes, key=len))
    if any(name.startswith("condition_embedder.") for name in names):
        raise ComoviError(
            f"{source} has diffusers names; use the original Wan2.2-TI2V-5B files or ComfyUI's single file instead."
        )
    few = ", ".join(list(names)[:3]) or "nothing"
    raise ComoviError(
        f"{source} is neither a CoMoVi nor a Wan2.2 checkpoint; it holds {len(names)} tensors ({few}, ...)."
    )


def find_config(
    shapes: Shapes, layout: Layout, metadata: Mapping[str, str], wanted: Mapping[str, Any], source: str
) -> DualBranchConfig:
    """The configuration behind these (unprefixed) names and shapes.

    Not everything leaves a trace: the head counts, text_len and eps do not, and single_m2v and single_v2m have the same
    names. Files of our own carry the configuration as metadata; else the released model's values are taken. `wanted`
    overrides both.
    """
    if CONFIG_KEY in metadata:
        try:
            values = dict(json.loads(metadata[CONFIG_KEY]))
        except (ValueError, TypeError, RecursionError) as error:
            raise ComoviError(f"{source}: its metadata {CONFIG_KEY} is not JSON; save the file again.") from error
        return _config({**values, **wanted}, shapes, source)
    try:
        values = _values_from_shapes(shapes, layout)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise ComoviError(
            f"{source} looks like a {layout.name} checkpoint, but the size of the network cannot be read off it "
            f"({error}); it is incomplete or has another shape."
        ) from error
    if "num_heads" not in wanted and values["dim"] % 128:
        raise ComoviError(
            f"{source} does not say how many attention heads its width {values['dim']} has; give num_heads."
        )
    return _config({**values, "num_heads": values["dim"] // 128, **wanted}, shapes, source)


def _config(values: dict[str, Any], shapes: Shapes, source: str) -> DualBranchConfig:
    try:
        config = DualBranchConfig.from_dict(values)
    except ComoviError as error:
        raise ComoviError(f"{source}: {error}") from error
    if max(config.num_layers, config.pose_layers) > len(shapes):
        raise ComoviError(f"{source} holds {len(shapes)} tensors, too few for {config.num_layers} layers.")
    return config


def _values_from_shapes(shapes: Shapes, layout: Layout) -> dict[str, Any]:
    video, head = ("rgb_blocks", "rgb_head") if layout.name == "comovi" else ("blocks", "head")
    patch = shapes["rgb_patch_embedding.weight" if layout.name == "comovi" else "patch_embedding.weight"]
    dim, in_channels, *patch_size = patch
    layers = count_layers(shapes, video)
    values = {
        "dim": dim,
        "ffn_dim": shapes[f"{video}.0.ffn.0.weight"][0],
        "num_layers": layers,
        "in_channels": in_channels,
        "out_channels": shapes[f"{head}.head.weight"][0] // (patch_size[-2] * patch_size[-1]),
        "text_dim": shapes["text_embedding.0.weight"][1],
        "freq_dim": shapes["time_embedding.0.weight"][1],
        "patch_size": tuple(patch_size),
    }
    if layout.name == "wan2.2":
        return values
    pairs = count_layers(shapes, "motion_blocks")
    values["interleave"] = layers // pairs
    values["interaction"] = _interaction(shapes, layers, pairs)
    values["pose_head"] = any(name.startswith("smpl_") for name in shapes)
    if values["pose_head"]:
        values["pose_layers"] = count_layers(shapes, "smpl_decoders")
        values["pose_ffn_dim"] = shapes["smpl_decoders.0.ffn.0.weight"][0]
        values["pose_tokens"] = shapes["smpl_pe"][1]
        values["num_joints"] = shapes["smpl_proj_out.weight"][0] // 6
    return values


def _interaction(shapes: Shapes, layers: int, pairs: int) -> str:
    exchanges = count_layers(shapes, "zero_linear_blocks")
    if count_layers(shapes, "zero_linear_blocks_v2m"):
        return "mutual"
    if exchanges == 0:
        return "none"
    return "dual" if exchanges == layers > pairs else "single_m2v"


def count_layers(shapes: Shapes, group: str) -> int:
    """One more than the highest index of `group`.<index>."""
    pattern = re.compile(re.escape(group) + r"\.(\d+)\.")
    return 1 + max((int(match[1]) for match in map(pattern.match, shapes) if match), default=-1)


def check_fit(found: Shapes, expected: Shapes, source: str) -> None:
    """One error that counts what is missing, unexpected and mis-shaped, and names the first five."""
    missing = [f"{name} is missing" for name in expected if name not in found]
    unexpected = [f"{name} is unexpected" for name in found if name not in expected]
    misshaped = [
        f"{name} is {found[name]} instead of {expected[name]}"
        for name in expected
        if name in found and tuple(found[name]) != tuple(expected[name])
    ]
    problems = missing + misshaped + unexpected
    if problems:
        rest = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ComoviError(
            f"{source} does not fit the network: {len(missing)} tensors missing, {len(misshaped)} of another size, "
            f"{len(unexpected)} unexpected ({'; '.join(problems[:5])}{rest})."
        )
