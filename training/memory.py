"""How much memory a training run takes, before anything of its size is allocated.

Weights are counted on the meta device, which has shapes and no numbers. Activations are measured there too: one forward
and backward pass of the real recipe at real size runs in seconds, and every tensor that it would hold is counted.
What cannot be seen is assumed, and said so: `RESERVE` for the GPU's context and workspaces, `BUCKETS` for DeepSpeed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..comovi_model.wan.attention import Attention
from ..kernels.dispatch import use_backend
from ..kernels.live_memory import LiveBytes
from .batch import Draw, TrainBatch
from .recipe import Recipe

RESERVE = 2e9  # bytes on a GPU: context, workspaces of matrix products, rounding of the allocator
BUCKETS = 2 * 500_000_000 * 2  # bytes: DeepSpeed's bucket of gradients and its copy (engines/deepspeed.py)
LIVE = 1_000_000_000  # weights that ZeRO-3 may hold gathered at once
ADAM = 12  # bytes per trained weight: float32 value and two running means


@dataclass(frozen=True)
class ClipSize:
    """Pixels of a clip, and what follows from them for Wan2.2's autoencoder (4 x 16 x 16, patches of 2 x 2)."""

    frames: int = 81
    height: int = 704
    width: int = 1280

    @property
    def latent(self) -> tuple[int, int, int]:
        return (self.frames - 1) // 4 + 1, self.height // 16, self.width // 16

    @property
    def tokens(self) -> int:
        """Of one branch."""
        frames, rows, columns = self.latent
        return frames * (rows // 2) * (columns // 2)

    def cache_bytes(self, channels: int = 48) -> int:
        """Latents of video and motion map and of their first pictures, bfloat16; about 0.3 MB of text, poses."""
        frames, rows, columns = self.latent
        return 2 * 2 * channels * (frames + 1) * rows * columns + 300_000 + self.frames * 144 * 4


@dataclass(frozen=True)
class Counts:
    """Numbers in the network."""

    total: int
    trained: int
    largest: int  # of one module that is gathered as a whole


def count_weights(recipe: Recipe) -> Counts:
    sizes = {name: weight.numel() for name, weight in recipe.named_parameters()}
    trained = sum(weight.numel() for weight in recipe.parameters() if weight.requires_grad)
    blocks = [sum(weight.numel() for weight in block.parameters()) for block in recipe.blocks()]
    return Counts(sum(sizes.values()), trained, max([*blocks, *sizes.values()]))


class _Flash(torch.autograd.Function):
    """What an attention kernel of a GPU keeps: its inputs, its output and one number per row."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(saved) for saved in ctx.saved_tensors[:3])


def stand_in_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, L, N, d) each; shapes and memory of fused attention, no numbers."""
    out = _Flash.apply(q, k, v)
    assert isinstance(out, Tensor)
    return out


class _OnMeta(LiveBytes):
    """Counts what lives on the meta device only."""

    def watch(self, storage: Any) -> None:
        if storage.device.type == "meta":
            super().watch(storage)


def activation_bytes(recipe: Recipe, size: ClipSize, micro: int = 1, kernels: str = "linear_gelu=torch,triton") -> int:
    """Most bytes that one micro-step holds beside weights and gradients (one is in the making); recipe on meta."""
    for module in recipe.modules():
        if isinstance(module, Attention):
            module.attend = stand_in_attention
    hooks = [
        weight.register_post_accumulate_grad_hook(_forget_gradient)
        for weight in recipe.parameters()
        if weight.requires_grad
    ]
    counted = _OnMeta()
    with use_backend(kernels), counted:
        recipe(meta_batch(recipe, size, micro), Draw(0, 0, 0, 0, 1))["loss"].backward()
    for hook in hooks:
        hook.remove()
    return counted.peak


def _forget_gradient(weight: Tensor) -> None:
    weight.grad = None


def meta_batch(recipe: Recipe, size: ClipSize, micro: int, device: str = "meta") -> TrainBatch:
    """A batch of zeros; on the meta device, of shapes."""
    config = recipe.network.config
    frames, height, width = size.latent

    def empty(*shape: int) -> Tensor:
        return torch.zeros(shape, device=device)

    shape = (micro, config.out_channels, frames, height, width)
    first = (*shape[:2], 1, *shape[3:])
    return TrainBatch(
        ("clip",) * micro, empty(*shape), empty(*shape), empty(*first), empty(*first), ("",) * micro,
        empty(micro, config.text_len, config.text_dim), None, empty(micro, 4 * (frames - 1) + 1, 24, 6),
        empty(micro, 10),
    )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """Bytes per process on its device, and on the host; `lines` of a table."""

    device: dict[str, float]
    host: dict[str, float]

    @property
    def device_bytes(self) -> float:
        return sum(self.device.values())

    @property
    def host_bytes(self) -> float:
        return sum(self.host.values())


def plan_memory(config: Any, counts: Counts, activations: int, world: int) -> Plan:
    """What every process of `world` holds."""
    engine = config.engine
    deepspeed = engine.kind == "deepspeed"
    zero = engine.zero if deepspeed else 0
    width = 2 if engine.precision == "bf16" else 4

    def share(stage: int) -> int:
        return world if zero >= stage else 1

    device: dict[str, float] = {}
    host: dict[str, float] = {}
    weights = width * counts.total / share(3)
    (host if engine.offload_params == "cpu" else device)["weights"] = weights
    if zero == 3:
        device["gathered weights"] = width * min(counts.total, max(LIVE, 2 * counts.largest))
    # ZeRO 2 and 3 keep gradients as they came; otherwise a float32 sum is kept beside the float32 weights.
    gradients = counts.trained * (width if zero >= 2 else 4) / share(2)
    offloaded = engine.offload_optimizer == "cpu"
    (host if offloaded else device)["gradients"] = gradients * (2 if offloaded and zero >= 2 and width == 2 else 1)
    adam = ADAM if engine.precision == "bf16" else 8  # float32 weights are their own copy
    (host if offloaded else device)["optimiser"] = adam * counts.trained / share(1)
    if config.ema.enabled:
        device["running mean"] = 4 * counts.trained / share(1)
    device["activations"] = activations
    if deepspeed and world > 1:
        device["buckets"] = min(BUCKETS, 4 * counts.trained)
    device["reserve"] = RESERVE
    return Plan(device, host)
