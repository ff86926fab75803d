"""Which implementation of an operation runs, and why.

Back ends, in order: `triton` (our fused kernels, GPU), `comfy-kitchen` (ComfyUI's, where it is installed), `torch`
(plain PyTorch, everywhere). The choice is made for each call by guards, which answer with a reason in words when they
refuse; nothing is tried and caught. `COMOVI_KERNELS` sets it for a process, `use_backend` for a block of code:

    COMOVI_KERNELS=triton                       fused kernels, where they refuse comfy-kitchen, else plain
    COMOVI_KERNELS=comfy-kitchen                comfy-kitchen where it can, else plain
    COMOVI_KERNELS=qk_norm_rope=triton,torch    fused for one operation, plain for the others

Without a setting ("auto") an operation takes what the benchmark measured to be fastest on this GPU (choices.py). Where
nobody has measured, everything is plain: what is not measured to be faster is not the default.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from .choices import measured

BACKENDS = ("triton", "comfy-kitchen", "torch")
OPERATIONS = (
    "norm_modulate",
    "join_norm",
    "qk_norm_rope",
    "pose_attention",
    "linear_gelu",
    "zero_linear",
    "quantise_rows",
)
VARIABLE = "COMOVI_KERNELS"
LARGEST_WIDTH = 16384  # channels of a row that one program holds in registers
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
Question = TypeVar("Question", bound=Callable[..., Any])

_chosen: ContextVar[str | None] = ContextVar("comovi_kernels", default=None)


@contextmanager
def use_backend(setting: str) -> Iterator[None]:
    """Within the block, `setting` is used as if it stood in COMOVI_KERNELS. Threads and tasks have their own."""
    parse(setting)
    token = _chosen.set(setting)
    try:
        yield
    finally:
        _chosen.reset(token)


@lru_cache(maxsize=32)
def parse(setting: str) -> dict[str, str]:
    """Operation -> "auto" or a back end, from text such as "auto" or "join_norm=torch,triton"."""
    chosen = dict.fromkeys(OPERATIONS, "auto")
    for part in (part.strip() for part in setting.split(",")):
        name, equals, backend = part.partition("=")
        if not equals:
            name, backend = "", part
        if backend not in ("auto", *BACKENDS) or (name and name not in OPERATIONS):
            raise ValueError(
                f"{VARIABLE} is {setting!r}; expected auto, {', '.join(BACKENDS)}, or OPERATION=BACKEND with one of "
                f"{', '.join(OPERATIONS)}, separated by commas."
            )
        chosen |= {name: backend} if name else {key: backend for key in chosen if f"{key}=" not in setting}
    return chosen


def constant(function: Question) -> Question:
    """Let torch.compile ask once and keep the answer.

    torch.compiler.assume_constant_result does the same and imports the whole compiler for it: 1.3 s of every start.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant
def wanted(operation: str) -> str:
    """What the settings ask for: a back end, or "auto" where nothing is set and nothing was measured."""
    setting = _chosen.get() or os.environ.get(VARIABLE) or "auto"
    asked = parse(setting)[operation]
    return measured().get(operation, "auto") if asked == "auto" else asked


@constant
def triton_missing() -> str:
    """Why Triton cannot be used at all; empty when it can."""
    return _triton_missing()


@lru_cache(maxsize=1)
def _triton_missing() -> str:
    return "" if importlib.util.find_spec("triton") else "triton is not installed"


@constant
def current_gpu() -> int:
    return torch.cuda.current_device()


@constant
def interpreted() -> bool:
    """Whether Triton kernels are interpreted (tests on a CPU)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def refusal(operation: str, *tensors: Tensor | None) -> str:
    """Why the fused kernel is not used for these tensors; empty when it is."""
    asked = wanted(operation)
    if asked != "triton":
        return not_asked(asked)
    first = next(tensor for tensor in tensors if tensor is not None)
    kind = first.device.type
    if kind != "meta":  # on meta tensors nothing runs; work is only counted
        if kind != "cuda" and not (kind == "cpu" and interpreted()):
            return f"tensors on {kind}, and fused kernels run on a GPU"
        if triton_missing():
            return triton_missing()
        if kind == "cuda" and first.device.index != current_gpu():
            return f"tensors on {first.device}, and Triton launches on the current GPU, cuda:{current_gpu()}"
    for tensor in tensors:
        if tensor is None:
            continue
        if tensor.dtype not in FLOATS:
            return f"dtype {tensor.dtype}"
        if tensor.stride(-1) != 1:
            return "a tensor whose channels do not lie side by side"
        if tensor.device != first.device:
            return "tensors on several devices"
    if first.shape[-1] > LARGEST_WIDTH:
        return f"{first.shape[-1]} channels; a program holds {LARGEST_WIDTH}"
    return ""


def not_asked(asked: str) -> str:
    """Why a back end other than "triton" is taken."""
    if asked == "auto":
        return f"not timed on this GPU yet; {VARIABLE}=triton uses it"
    return "plain PyTorch was asked for" if asked == "torch" else f"{asked} was asked for"


def one_row(*rows: Tensor | None) -> bool:
    """Whether modulation rows are (B, F, 1, D), one per latent frame: fused kernels read no row per token."""
    return all(row is None or (row.dim() == 4 and row.shape[2] == 1) for row in rows)


def explain(device: str = "cuda") -> list[str]:
    """One line per operation: what runs on tensors of this kind of device, and why not what stands before it."""
    from . import kitchen

    lines = []
    for operation in OPERATIONS:
        asked = wanted(operation)
        if asked not in ("triton", "comfy-kitchen"):
            lines.append(f"{operation}: torch ({not_asked(asked)})")
            continue
        reasons = {}
        if asked == "triton":
            usable = device == "cuda" or (device == "cpu" and interpreted())
            reasons["triton"] = triton_missing() if usable else f"fused kernels run on a GPU, not on {device}"
        if device == "cuda" or asked == "comfy-kitchen":
            reasons["comfy-kitchen"] = kitchen.missing(operation, device)
        else:
            reasons["comfy-kitchen"] = f"fast on a GPU, not on {device}"
        runs = next((name for name, reason in reasons.items() if not reason), "torch")
        before = [f"{name}: {reason}" for name, reason in reasons.items() if reason and name != runs]
        if runs == "triton":
            before = []
        lines.append(f"{operation}: {runs}" + (f" ({'; '.join(before)})" if before else ""))
    return lines
