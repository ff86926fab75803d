"""Libraries for dense attention on a GPU, which of them are here, and which one runs.

We write no dense attention of our own: the libraries are at 80 % of what the hardware can do. `COMOVI_ATTENTION` names
one; "auto" takes what the benchmark measured to be fastest on this GPU among those that compute in 16 bits or more
(choices.py), and PyTorch's own choice where nobody has measured. ComfyUI brings its own attention function, with all
its switches, and never asks here.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .choices import measured
from .dispatch import constant

VARIABLE = "COMOVI_ATTENTION"
HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Library:
    """One way to compute softmax(q k^T / sqrt(d)) v of (B, L, N, d), (B, M, N, d) -> (B, L, N, d)."""

    module: str  # what must be importable; empty for PyTorch itself
    run: Callable[[Tensor, Tensor, Tensor], Tensor]
    eight_bits: bool = False  # fast and not exact: only when asked for by name


def by_torch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch picks FlashAttention, cuDNN or its own by shape and GPU."""
    return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


def by_back_end(name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """PyTorch with one of its back ends fixed."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(getattr(SDPBackend, name)):
            return by_torch(q, k, v)

    return run


def by_flash_attn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return importlib.import_module("flash_attn").flash_attn_func(q, k, v)


def by_flash_attn_3(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = importlib.import_module("flash_attn_interface").flash_attn_func(q, k, v)
    return out[0] if isinstance(out, tuple) else out


def by_sage(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return importlib.import_module("sageattention").sageattn(q, k, v, tensor_layout="NHD")


def by_xformers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return importlib.import_module("xformers.ops").memory_efficient_attention(q, k, v)


LIBRARIES = {
    "torch": Library("", by_torch),
    "cudnn": Library("", by_back_end("CUDNN_ATTENTION")),
    "flash": Library("", by_back_end("FLASH_ATTENTION")),
    "efficient": Library("", by_back_end("EFFICIENT_ATTENTION")),
    "flash_attn": Library("flash_attn", by_flash_attn),
    "flash_attn_3": Library("flash_attn_interface", by_flash_attn_3),
    "xformers": Library("xformers", by_xformers),
    "sage": Library("sageattention", by_sage, eight_bits=True),
}


@constant
def missing(name: str) -> str:
    """Why a library cannot be used on a GPU; empty when it can."""
    return _missing(name)


@lru_cache(maxsize=32)
def _missing(name: str) -> str:
    library = LIBRARIES[name]
    if library.module and importlib.util.find_spec(library.module) is None:
        return f"{library.module} is not installed"
    if name in ("cudnn", "flash", "efficient"):
        enabled = {
            "cudnn": torch.backends.cuda.cudnn_sdp_enabled,
            "flash": torch.backends.cuda.flash_sdp_enabled,
            "efficient": torch.backends.cuda.mem_efficient_sdp_enabled,
        }
        if not enabled[name]():
            return f"PyTorch's {name} attention is switched off"
    return "" if torch.cuda.is_available() else "there is no GPU"


@constant
def chosen() -> str:
    """The library that dense attention uses on a GPU."""
    asked = os.environ.get(VARIABLE) or "auto"
    if asked != "auto" and asked not in LIBRARIES:
        raise ValueError(f"{VARIABLE} is {asked!r}; expected auto or one of {', '.join(LIBRARIES)}.")
    if asked != "auto":
        return asked
    best = measured().get("attention", "torch")
    return best if best in LIBRARIES and not missing(best) else "torch"


def refusal(name: str, q: Tensor, k: Tensor, v: Tensor) -> str:
    """Why the library is not used for these tensors; empty when it is."""
    if q.device.type != "cuda":
        return f"tensors on {q.device.type}"
    if missing(name):
        return missing(name)
    if name == "torch":
        return ""
    if name != "efficient" and q.dtype not in HALVES:
        return f"{q.dtype}; it takes 16-bit numbers"
    if torch.is_grad_enabled() and name in ("sage",) and any(x.requires_grad for x in (q, k, v)):
        return "gradients are wanted, and it has none"
    limit = 128 if name in ("cudnn", "sage") else 256
    return f"heads of {q.shape[-1]} numbers; it takes {limit}" if q.shape[-1] > limit else ""


def explain() -> str:
    """What dense attention runs on a GPU, and what else is here."""
    asked = os.environ.get(VARIABLE) or "auto"
    why = f"{VARIABLE}={asked}" if asked != "auto" else "measured here" if "attention" in measured() else "not measured"
    here = [name for name in LIBRARIES if not missing(name)]
    return f"attention: {chosen()} ({why}; usable here: {', '.join(here) or 'none, there is no GPU'})"
