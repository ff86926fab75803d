"""The second back end: comfy-kitchen, the kernels that ComfyUI itself brings along.

It offers a layer norm with modulation (`adaln`) and rotary positions (`apply_rope`). Neither rounds to the dtype of
the products itself, and its RMS norms are per head, so a part of every operation stays plain:

    norm_modulate   adaln, then the cast
    join_norm       plain sum, adaln, the cast; the affine form not at all
    qk_norm_rope    plain RMS norm over all heads, apply_rope

Its own plain forms are no gain and are taken on a CPU only, and only when asked for by name: for tests.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import FLOATS, constant, not_asked, wanted

OFFERS = {"norm_modulate": "adaln", "join_norm": "adaln", "qk_norm_rope": "apply_rope"}
HALVES = (torch.bfloat16, torch.float16)


@constant
def missing(operation: str, device: str) -> str:
    """Why comfy-kitchen has nothing for an operation on a kind of device; empty when it has."""
    return _missing(OFFERS.get(operation, ""), device)


@lru_cache(maxsize=16)
def _missing(function: str, device: str) -> str:
    if not function:
        return "comfy-kitchen has no such operation"
    if importlib.util.find_spec("comfy_kitchen") is None:
        return "comfy-kitchen is not installed"
    try:  # a probe, once: its wheel forgets to name what it needs
        found = importlib.import_module("comfy_kitchen").list_backends()
    except ImportError as error:
        return f"comfy-kitchen cannot be imported ({error})"
    names = ("eager",) if device == "cpu" else ("cuda", "hip", "triton")
    reasons = []
    for name in names:
        state = found.get(name, {"available": False, "disabled": False, "unavailable_reason": "not there"})
        if state["available"] and not state["disabled"] and function in state["capabilities"]:
            return ""
        reasons.append(f"{name}: {state['unavailable_reason'] or 'not offered'}")
    return f"comfy-kitchen has no fast {function} here ({'; '.join(reasons)})"


def refusal(operation: str, *tensors: Tensor | None) -> str:
    """Why comfy-kitchen is not used for these tensors; empty when it is."""
    asked = wanted(operation)
    if asked not in ("triton", "comfy-kitchen"):
        return not_asked(asked)
    given = [tensor for tensor in tensors if tensor is not None]
    kind = given[0].device.type
    if kind != "cuda" and not (kind == "cpu" and asked == "comfy-kitchen"):
        return f"tensors on {kind}, and comfy-kitchen is fast on a GPU"
    if missing(operation, kind):
        return missing(operation, kind)
    if any(tensor.dtype not in FLOATS for tensor in given):
        return f"dtypes {', '.join(sorted({str(tensor.dtype) for tensor in given}))}"
    if operation == "qk_norm_rope" and kind == "cuda" and given[0].dtype not in HALVES:
        return f"its rotary positions are for 16-bit numbers, not {given[0].dtype}"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        return "gradients are wanted, and comfy-kitchen has none"
    return ""


def norm_modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float, out_dtype: torch.dtype) -> Tensor:
    """norm_modulate.py by `adaln`: (B, F, S, D), rows (B or 1, F or 1, 1, D)."""
    batch, frames, _, channels = x.shape
    rows = [row.to(x.dtype).expand(batch, frames, 1, channels) for row in (scale, shift)]
    return torch.ops.comfy_kitchen.adaln(x, *rows, eps).to(out_dtype)


def qk_norm_rope(
    q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, num_heads: int, eps: float
) -> tuple[Tensor, Tensor]:
    """qk_norm_rope.py by `apply_rope`: (B, L, D) x 2, tables (L, P) -> (B, L, N, d) x 2."""
    turn = torch.stack((cos, -sin, sin, cos), dim=-1).unflatten(-1, (2, 2))[None, :, None]  # (1, L, 1, P, 2, 2)
    heads = [
        F.rms_norm(x, x.shape[-1:], weight.to(x.dtype), eps).unflatten(-1, (num_heads, -1))
        for x, weight in ((q, q_weight), (k, k_weight))
    ]
    turned = torch.ops.comfy_kitchen.apply_rope(*heads, turn.to(torch.float32))
    return turned[0], turned[1]
