"""How much one denoising step computes and moves, counted over the modules themselves on the meta device: no weights.

Every operator that PyTorch is asked for is seen. Matrix products and attention count as FLOPs; of everything else the
bytes read and written are counted, which is what its time on a GPU is made of. Views move nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ...kernels.dispatch import use_backend
from ..files import atomic_path
from ..wan.flow import flow_schedule
from ..wan.sampling import Stream, classifier_free, sample
from .config import WAN22_5B, DualBranchConfig
from .dual_branch import DualBranch
from .literal import LiteralDualBranch
from .velocity import DualBranchVelocity

FRAMES, HEIGHT, WIDTH = 21, 80, 44  # latent of 81 frames of 704 x 1280, portrait
ROWS = 2  # with and without the sentence: guidance is on
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "linear", "_addmm_activation"}
SILENT = {"empty", "empty_strided", "empty_like", "new_empty", "detach", "lift_fresh", "arange", "scalar_tensor"}


@dataclass
class Work:
    """What was counted."""

    elementwise_bytes: int = 0
    product_flops: int = 0
    attention_flops: int = 0
    by_operator: Counter[str] = field(default_factory=Counter)  # bytes


class Counting(TorchDispatchMode):
    """Counts every operator until it is left."""

    def __init__(self) -> None:
        super().__init__()
        self.work = Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        if name in SILENT or func.is_view or name in ("_unsafe_view", "alias"):
            return result
        inputs = [value for value in flat((args, kwargs)) if isinstance(value, Tensor)]
        outputs = [value for value in flat(result) if isinstance(value, Tensor)]
        if name in PRODUCTS or name == "convolution":
            self.work.product_flops += product_flops(name, inputs, outputs[0])
            return result
        read = sum({id(value): distinct_bytes(value) for value in inputs}.values())
        moved = read + sum(value.numel() * value.element_size() for value in outputs)
        self.work.elementwise_bytes += moved
        self.work.by_operator[name] += moved
        return result

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Stands for the library's fused attention: 2 products, nothing stored in between."""
        batch, length, heads, size = q.shape
        self.work.attention_flops += 4 * batch * heads * length * k.shape[1] * size
        return q.new_empty(q.shape)


def flat(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [inner for part in value for inner in flat(part)]
    if isinstance(value, dict):
        return flat(list(value.values()))
    return [value]


def distinct_bytes(tensor: Tensor) -> int:
    """Bytes of memory behind a tensor; what is repeated by a stride of 0 is read from the cache."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else 1
    return count * tensor.element_size()


def product_flops(name: str, inputs: list[Tensor], output: Tensor) -> int:
    """Two for every multiplication."""
    if name == "convolution":
        return 2 * output.numel() * inputs[1].numel() // inputs[1].shape[0]
    matrices = [value for value in inputs if value.dim() >= 2]
    return 2 * output.numel() * matrices[-2].shape[-1]


def one_step(config: DualBranchConfig, latent: tuple[int, int, int]) -> tuple[Work, Work]:
    """(ours, literal) work of one step with guidance; fused kernels where they exist, whatever is installed."""
    frames, height, width = latent
    shape = (1, config.in_channels, frames, height, width)

    def meta(*size: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    once, time = meta(*shape), meta(1, frames, dtype=torch.float32)
    repeated, times = meta(ROWS, *shape[1:]), meta(ROWS, frames, dtype=torch.float32)
    text, pose = meta(ROWS, config.text_len, config.text_dim), meta(ROWS, config.pose_dim)
    works = []
    with torch.no_grad(), use_backend("triton"):
        counting = Counting()
        network = DualBranch(config, attention=counting.attention, device="meta", dtype=torch.bfloat16)
        cache = network.make_text_cache(text)
        with counting:
            network(once, once, time, None, text_cache=cache, copies=ROWS)
        works.append(counting.work)
        counting = Counting()
        literal = LiteralDualBranch(network, counting.attention)
        with counting:
            literal(repeated, repeated, times, text, init_pose=pose, pose_from_layers=(-1,))
        works.append(counting.work)
    return works[0], works[1]


def least_product_flops(config: DualBranchConfig, latent: tuple[int, int, int]) -> int:
    """Matrix products that no order of operations avoids.

    Keys and values of the sentence are kept from before, and both rows share what comes before they read it: patches
    and q, k, v, o of the first block.
    """
    frames, height, width = latent
    tokens = frames * (height // config.patch_size[1]) * (width // config.patch_size[2])
    block = 6 * config.dim**2 + 2 * config.dim * config.ffn_dim  # q k v o, cross q o; up and down
    patch = config.patch_size[1] * config.patch_size[2] * config.dim
    exchanges = config.num_motion_layers * config.dim**2
    blocks = (config.num_layers + config.num_motion_layers) * block
    shared = 2 * (patch * config.in_channels + 4 * config.dim**2)  # of both branches
    ends = 2 * patch * (config.in_channels + config.out_channels)
    return 2 * tokens * (ROWS * (blocks + exchanges + ends) - (ROWS - 1) * shared)


def pose_head_calls(config: DualBranchConfig, steps: int = 3) -> int:
    """How often a whole sampling run asks the pose head, counted on a small network of the same kind."""
    small = replace(config, dim=48, ffn_dim=32, num_heads=4, num_layers=2, text_dim=8, text_len=4, freq_dim=8,
                    pose_layers=1, pose_ffn_dim=16, pose_heads=4, pose_tokens=4)  # fmt: skip
    network = DualBranch(small)
    calls = []
    assert network.pose_head is not None
    network.pose_head.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[1])))
    texts = {name: torch.zeros(1, 4, 8) for name in ("positive", "negative")}
    velocity = DualBranchVelocity(network, texts, init_pose=torch.zeros(1, small.pose_dim))
    streams = {name: Stream(torch.zeros(1, small.in_channels, 2, 2, 2)) for name in ("video", "motion")}
    sample(velocity, streams, flow_schedule(steps), classifier_free(5.0))
    return len(calls)


def evaluate_traffic(latent: tuple[int, int, int] = (FRAMES, HEIGHT, WIDTH)) -> dict[str, float]:
    """The figures of `comovi evaluate traffic`, for the released size with its pose head."""
    config = replace(WAN22_5B, pose_head=True)
    ours, literal = one_step(config, latent)
    least = least_product_flops(config, latent)
    return {
        "ratio": ours.elementwise_bytes / literal.elementwise_bytes,
        "elementwise_bytes": ours.elementwise_bytes,
        "elementwise_bytes_reference": literal.elementwise_bytes,
        "smpl_head_calls_per_video": pose_head_calls(config),
        "gemm_flops": ours.product_flops,
        "gemm_flops_reference": literal.product_flops,
        "gemm_flops_least": least,
        "attention_flops": ours.attention_flops,
    }


def run(json_file: Path | None = None) -> int:
    """Print the figures, and write them where asked."""
    figures = evaluate_traffic()
    for name, value in figures.items():
        print(f"{name:<28} {value:,.4f}" if name == "ratio" else f"{name:<28} {value:,}")
    if json_file is not None:
        with atomic_path(json_file) as path:
            path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0
