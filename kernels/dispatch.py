"""Which implementation of an operation runs, and why.

Back ends: `torch` (plain PyTorch, everywhere) and `triton` (fused kernels, GPU). The choice is made for each call by a
guard, which answers with a reason in words when it refuses; nothing is tried and caught. `COMOVI_KERNELS` sets it for a
process, `use_backend` for a block of code:

    COMOVI_KERNELS=triton                       fused kernels wherever they can run
    COMOVI_KERNELS=qk_norm_rope=triton,torch    fused for one operation, plain for the others

Without a setting ("auto") everything is plain: the fused kernels are proven on a CPU and by their compiler, but no GPU
has timed them yet, and what is not measured to be faster is not the default.
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

BACKENDS = ("triton", "torch")
OPERATIONS = ("norm_modulate", "join_norm", "qk_norm_rope", "pose_attention", "linear_gelu")
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
    chosen = dict.fromkeys(OPERATIONS, "auto")  # as "torch" is today
    for part in (part.strip() for part in setting.split(",")):
        name, equals, backend = part.partition("=")
        if not equals:
            name, backend = "", part
        if backend not in ("auto", *BACKENDS) or (name and name not in OPERATIONS):
            raise ValueError(
                f"{VARIABLE} is {setting!r}; expected auto, torch, triton, or OPERATION=BACKEND with one of "
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
    """What the settings ask for: "auto" or a back end."""
    setting = _chosen.get() or os.environ.get(VARIABLE) or "auto"
    return parse(setting)[operation]


@constant
def triton_missing() -> str:
    """Why Triton cannot be used at all; empty when it can."""
    return _triton_missing()


@lru_cache(maxsize=1)
def _triton_missing() -> str:
    return "" if importlib.util.find_spec("triton") else "triton is not installed"


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
    return "plain PyTorch was asked for" if asked == "torch" else f"not timed on a GPU yet; {VARIABLE}=triton uses it"


def one_row(*rows: Tensor | None) -> bool:
    """Whether modulation rows are (B, F, 1, D), one per latent frame: fused kernels read no row per token."""
    return all(row is None or (row.dim() == 4 and row.shape[2] == 1) for row in rows)


def explain(device: str = "cuda") -> list[str]:
    """One line per operation: what runs on tensors of this device, and why."""
    lines = []
    for operation in OPERATIONS:
        asked = wanted(operation)
        if asked != "triton":
            reason = not_asked(asked)
        elif device != "cuda":
            reason = f"fused kernels run on a GPU, not on {device}"
        else:
            reason = triton_missing()
        lines.append(f"{operation}: {'torch (' + reason + ')' if reason else 'triton'}")
    return lines
