"""What the tests of the fused kernels share: poisoned outputs, inputs as the model has them, and the rule for errors.

Rule: at most 1.5 times the error of plain PyTorch in the same dtype against float64, plus a little.
"""

from __future__ import annotations

import importlib
import pkgutil
from contextlib import contextmanager

import torch
from comfyui_comovi.kernels.dispatch import use_backend
from triton_interpreter import exact_bf16

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CAP = {torch.float32: 1e-6, torch.bfloat16: 1e-5, torch.float16: 1e-5}


@contextmanager
def fused_kernels(monkeypatch):
    """Ask for the fused kernels, interpreted where there is no GPU, with outputs that begin as NaN."""

    def poisoned(make):
        def made(*args, **kwargs):
            out = make(*args, **kwargs)
            return out.fill_(float("nan")) if out.is_floating_point() and not out.is_meta else out

        return made

    from comfyui_comovi.kernels import triton_impl

    fake = type("torch", (), {"__getattr__": lambda _, name: getattr(torch, name)})()
    fake.empty, fake.empty_like = poisoned(torch.empty), poisoned(torch.empty_like)
    for found in pkgutil.iter_modules(triton_impl.__path__):
        module = importlib.import_module(f"{triton_impl.__name__}.{found.name}")
        if hasattr(module, "torch"):
            monkeypatch.setattr(module, "torch", fake)
    with use_backend("triton"), exact_bf16():
        yield


def numbers(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def rows(batch, frames, dim, count=3):
    """Modulation rows as the model has them: views into one tensor, one row per frame."""
    return numbers(batch, frames, 1, 6, dim, seed=9).unbind(-2)[:count]


def wide(value):
    return value.double() if isinstance(value, torch.Tensor) else value


def relative(ours, truth):
    return float((ours.double() - truth).norm() / truth.norm().clamp_min(1e-12))


def as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


def check(fused, formula, inputs, dtype, **options):
    """Both against float64, twice the same bits, inputs untouched."""
    before = [value.clone() if isinstance(value, torch.Tensor) else value for value in inputs]
    wide_options = {name: torch.float64 if name == "out_dtype" else value for name, value in options.items()}
    truth = formula(*map(wide, inputs), **wide_options)
    plain, ours, again = formula(*inputs, **options), fused(*inputs, **options), fused(*inputs, **options)
    for mine, repeated, eager, exact in zip(*map(as_tuple, (ours, again, plain, truth)), strict=True):
        assert mine.shape == eager.shape
        assert mine.dtype == eager.dtype
        assert torch.equal(mine, repeated)
        assert relative(mine, exact) <= 1.5 * relative(eager, exact) + CAP[dtype]
    for value, kept in zip(inputs, before, strict=True):
        assert value is kept or not isinstance(value, torch.Tensor) or torch.equal(value, kept)


def gradients(function, inputs, learn):
    """Gradients of the inputs whose positions are in `learn`, for a loss that weighs every output differently."""
    fresh = [value.detach().clone() if isinstance(value, torch.Tensor) else value for value in inputs]
    for index in learn:
        fresh[index].requires_grad_()
    loss = 0.0
    for out in as_tuple(function(*fresh)):
        weights = torch.linspace(-1, 1, out.numel(), device=out.device, dtype=torch.float64)
        loss = loss + (out.double() * weights.view(out.shape).cos()).sum()
    return torch.autograd.grad(loss, [fresh[index] for index in learn])


def check_gradients(fused, formula, inputs, learn, dtype):
    """Gradients against float64 differentiation of the formula, no worse than those of plain PyTorch."""
    truth = gradients(formula, [wide(value) for value in inputs], learn)
    plain, ours, again = gradients(formula, inputs, learn), *(gradients(fused, inputs, learn) for _ in range(2))
    for mine, repeated, eager, exact in zip(ours, again, plain, truth, strict=True):
        assert mine.shape == eager.shape
        assert mine.dtype == eager.dtype
        assert torch.equal(mine, repeated)
        assert relative(mine, exact) <= 1.5 * relative(eager, exact) + CAP[dtype]
