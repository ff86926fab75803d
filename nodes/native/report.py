"""What a MODEL is and how it will run here, in lines that a person can read."""

from __future__ import annotations

from collections import Counter
from typing import Any

import comfy.ldm.modules.attention as comfy_attention
import comfy.model_management as management
import torch
from comfy.cli_args import args

from ...kernels.choices import measured
from ...kernels.dispatch import explain
from .checks import comovi_network
from .network import ComfyDualBranch

EXCHANGES = {
    "none": "none: the branches do not see each other",
    "single_m2v": "from motion to video only, as released",
    "single_v2m": "from video to motion only",
    "dual": "both ways, in turn",
    "mutual": "both ways in every layer",
}
ATTENTIONS = {  # function: what it is
    "attention_sage": "SageAttention",
    "attention3_sage": "SageAttention 3",
    "attention_flash": "FlashAttention",
    "attention_xformers": "xformers",
    "attention_pytorch": "PyTorch's scaled_dot_product_attention",
    "attention_split": "ComfyUI's split attention",
    "attention_sub_quad": "ComfyUI's sub-quadratic attention",
    "attention_basic": "plain attention",
}
FLAGS = (  # arguments of ComfyUI that choose the attention
    "use_sage_attention",
    "use_flash_attention",
    "use_pytorch_cross_attention",
    "use_split_cross_attention",
    "use_quad_cross_attention",
    "use_ck_attention",
    "disable_xformers",
)
SIZES = ((81, 704, 1280), (81, 480, 832))  # frames, height, width
NANO_SIZES = ((33, 192, 128),)
MEBIBYTE = 2**20


def model_report(model: Any) -> list[str]:
    """One line a fact about a CoMoVi MODEL (a ModelPatcher)."""
    network = comovi_network(model)
    return [
        *what_it_is(model, network),
        *weights(model, network),
        *attention(model),
        *memory(model, network),
        *changes(model),
    ]


def what_it_is(model: Any, network: ComfyDualBranch) -> list[str]:
    config = network.config
    name = "nano model" if network.wrappers else "CoMoVi network"
    source = getattr(model, "attachments", {}).get("comovi_source")
    count = sum(parameter.numel() for parameter in network.parameters())
    return [
        f"model: {name}{f' from {source}' if source else ''}, {config.num_layers} layers of width {config.dim}, "
        f"{count / 1e6:,.1f} million numbers",
        f"branches: {network.branches}; exchange: {exchange(network)}",
        f"pose head: {pose_head(network)}",
    ]


def exchange(network: ComfyDualBranch) -> str:
    if network.branches != "both":
        return "none, one branch runs alone"
    layers = [*network.zero_linear_blocks, *network.zero_linear_blocks_v2m]
    if layers and not any(bool(to_plain(layer.weight).any()) for layer in layers):
        return f"{network.config.interaction}, but all its weights are zero: the branches do not see each other yet"
    return EXCHANGES.get(network.config.interaction, network.config.interaction)


def pose_head(network: ComfyDualBranch) -> str:
    """Whether 'Pose from Latent' has something to ask."""
    head = network.pose_head
    if head is None:
        return "none; take the motion from the motion map"
    values = [getattr(decoder, kind).v.weight for decoder in head.decoders for kind in ("sa", "ca")]
    if not any(bool(to_plain(value).any()) for value in values):
        return (
            "there, but it cannot see the video (all its value weights are zero); take the motion from the motion map"
        )
    frames = network.config.pose_tokens + 1
    return f"there, for clips of {frames} frames"


def to_plain(weight: torch.Tensor) -> torch.Tensor:
    """Numbers that can be compared with zero, also of weights stored in 8 bits."""
    return weight.detach().to(torch.float32)


def weights(model: Any, network: ComfyDualBranch) -> list[str]:
    sizes: Counter[str] = Counter()
    for parameter in network.parameters():
        sizes[str(parameter.dtype).removeprefix("torch.")] += parameter.numel() * parameter.element_size()
    stored = ", ".join(f"{size / MEBIBYTE:.0f} MiB {name}" for name, size in sizes.most_common())
    inside = str(model.model.manual_cast_dtype or model.model.get_dtype()).removeprefix("torch.")
    loaded, size = model.loaded_size(), model.model_size()
    place = f"{loaded / MEBIBYTE:.0f} of {size / MEBIBYTE:.0f} MiB are on {model.load_device} now"
    if model.load_device == model.offload_device:
        place = f"{size / MEBIBYTE:.0f} MiB on {model.load_device}"
    elif loaded < size:
        place += f", the rest waits on {model.offload_device}"
    return [f"weights: {stored}; products in {inside}", f"place: {place}"]


def attention(model: Any) -> list[str]:
    """Which function runs, and who chose it."""
    function = comfy_attention.optimized_attention.__name__
    asked = [flag for flag in FLAGS if getattr(args, flag, False)]
    why = "because of --" + " --".join(flag.replace("_", "-") for flag in asked) if asked else "ComfyUI's choice here"
    lines = [f"attention: {ATTENTIONS.get(function, function)} ({function}), {why}"]
    override = model.model_options.get("transformer_options", {}).get("optimized_attention_override")
    if override is not None:
        name = getattr(override, "__qualname__", type(override).__name__)
        lines.append(f"attention override: {name}, set by a node of this workflow; it is asked first")
    lines += [f"kernel {line}" for line in explain(model.load_device.type)]
    if not measured():
        lines.append(
            "kernels: nothing was timed on this GPU; after `pip install -e .` in this pack's folder, with ComfyUI's "
            "Python, `python -m comfyui_comovi.kernels.benchmark --keep` does it"
        )
    return lines


def memory(model: Any, network: ComfyDualBranch) -> list[str]:
    """What ComfyUI will keep free for one evaluation, with and without a negative prompt beside it."""
    lines = []
    for frames, height, width in NANO_SIZES if network.wrappers else SIZES:
        shape = [1, 96, (frames - 1) // 4 + 1, height // 16, width // 16]
        one, two = (model.memory_required([rows, *shape[1:]]) / MEBIBYTE for rows in (1, 2))
        lines.append(
            f"memory for {frames} frames of {width} x {height}: {one:.0f} MiB beside the weights, {two:.0f} MiB when "
            "positive and negative run together"
        )
    total, free = management.get_total_memory(model.load_device), management.get_free_memory(model.load_device)
    return [*lines, f"{model.load_device}: {free / MEBIBYTE:.0f} of {total / MEBIBYTE:.0f} MiB are free"]


def changes(model: Any) -> list[str]:
    """What other nodes did to the model."""
    patches = getattr(model, "patches", {})
    most = max((len(patch) for patch in patches.values()), default=0)
    lora = f"{len(patches)} weights, up to {most} on one" if patches else "none"
    lines = [f"LoRA patches: {lora}"]
    sampling = model.get_model_object("model_sampling")
    lines.append(f"shift: {getattr(sampling, 'shift', 'unknown')} ({type(sampling).__mro__[1].__name__})")
    options = model.model_options.get("transformer_options", {})
    replaced = sum(len(blocks) for blocks in options.get("patches_replace", {}).values())
    wrappers = sorted({key for kind in model.wrappers.values() for key, found in kind.items() if found} - {"comovi"})
    if wrappers:
        lines.append(f"wrapped by: {', '.join(wrappers)}")
    if replaced:
        lines.append(f"replaced blocks: {replaced}")
    return lines
