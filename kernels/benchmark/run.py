"""Runs every case in every provider: first whether it is right, then how long it takes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..dispatch import BACKENDS, interpreted, parse, use_backend
from ..kitchen import OFFERS
from ..kitchen import missing as kitchen_missing
from .cases import Case, bytes_of, cases
from .ceilings import Ceilings, Size, name_of
from .timing import COLD_BYTES, Row, about, spread, times_of

ALLOWED = 1.5  # times the error of our formula in the same dtype, against float64
CAP = 1e-5
LITERAL = 6.0  # other orders round more often, and the eager one keeps its sums in 16 bits
KEPT = 0.95  # a back end becomes the choice when it takes at most this share of the time of plain and compiled


def providers(case: Case, device: torch.device) -> Iterator[tuple[str, Callable[..., Any], Any]]:
    """(name, what to call, context to call it in)."""
    for name, call in case.others.items():
        yield name, call, use_backend("torch")
    for name in reversed(BACKENDS):
        if name == "triton" and not (device.type == "cuda" or interpreted()):
            continue
        operation = case.op.split()[0].replace("norm_heads", "qk_norm_rope").removesuffix("_")
        operation = "join_norm" if operation == "join" else operation
        if name == "comfy-kitchen":
            fits = operation in OFFERS and case.op in OFFERS and not kitchen_missing(operation, device.type)
            if not fits:
                continue
        yield name, case.run, use_backend(name)
    if case.precise and device.type == "cuda":
        yield "compile", torch.compile(case.run, dynamic=False), use_backend("torch")


def measure(
    size: Size, small: Size, device: torch.device, ceilings: Ceilings, seconds: float, say: Callable[[str], None]
) -> list[Row]:
    """A row for every operation and provider; those that are wrong have no time."""
    rows = []
    checks = {case.op: case for case in cases(small, device)}
    for case in cases(size, device):
        for name, call, context in providers(case, device):
            row = one(case, checks[case.op], name, call, context, device, ceilings, seconds, size)
            rows.append(row)
            time = "not timed" if row.ms is None else f"{row.ms:9.3f} ms {row.pct_floor or 0:5.0f} % of floor"
            say(f"{row.op:<24} {row.provider:<14} {time:<34} error {row.error or 0:.1e}  {row.note}")
        torch.compiler.reset()
    return rows


def one(
    case: Case, check: Case, name: str, call: Callable[..., Any], context: Any, device: torch.device,
    ceilings: Ceilings, seconds: float, size: Size,
) -> Row:  # fmt: skip
    floor = ceilings.floor_ms(case.moved, case.flops)
    unit = "TFLOP/s" if case.flops * ceilings.bytes_per_second > case.moved * ceilings.flops_per_second else "GB/s"
    row = Row(case.op, name, case.shape, name_of(size.dtype), None, None, None, floor, None, None, unit, None, False,
              "", **about(device))  # fmt: skip
    try:  # a provider that fails here is reported, and the others are still measured
        with context:
            error, allowed = error_of(check, name, call)
            if error > allowed:
                return replace(row, error=error, note=f"wrong: {allowed:.1e} allowed")
            median, low, high = spread(times_of(timed_calls(case, call, device), device, seconds, 200))
    except (RuntimeError, NotImplementedError, ImportError, TypeError) as failure:
        return replace(row, note=f"failed: {str(failure).splitlines()[0][:120]}")
    work = case.flops / 1e9 if unit == "TFLOP/s" else case.moved / 1e6
    return replace(row, ms=median, p20_ms=low, p80_ms=high, pct_floor=100 * floor / median, rate=work / median,
                   error=error, passed=True)  # fmt: skip


def timed_calls(case: Case, call: Callable[..., Any], device: torch.device) -> list[Callable[[], object]]:
    """The call on several sets of inputs, together larger than the caches of a GPU."""
    held = bytes_of(*case.inputs)
    sets = 1 if device.type != "cuda" or not held else int(min(max(COLD_BYTES // held, 1), 8))
    made: list[Callable[[], object]] = []
    for index in range(sets):
        inputs = case.inputs if index == 0 else copied(case.inputs)
        made.append(bound(call, inputs, case.learn))
    return made


def copied(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.clone() if isinstance(x, Tensor) else x for x in inputs)


def bound(call: Callable[..., Any], inputs: tuple[Any, ...], learn: tuple[int, ...]) -> Callable[[], object]:
    if not learn:

        def forward() -> object:
            with torch.no_grad():
                return call(*inputs)

        return forward
    return lambda: gradients(call, inputs, learn)


def gradients(call: Callable[..., Any], inputs: tuple[Any, ...], learn: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Forward and backward; ones come back."""
    fresh = [x.detach().requires_grad_(i in learn) if isinstance(x, Tensor) else x for i, x in enumerate(inputs)]
    outputs = [out for out in as_tuple(call(*fresh)) if out.requires_grad]
    back = [weights_of(out) for out in outputs]
    return torch.autograd.grad(outputs, [fresh[i] for i in learn], back)


def weights_of(out: Tensor) -> Tensor:
    """What comes back in the backward pass: neither random nor the same everywhere."""
    row = torch.linspace(-1, 1, out.shape[-1], device=out.device, dtype=torch.float32)
    return row.to(out.dtype).expand_as(out)


def as_tuple(value: Any) -> tuple[Tensor, ...]:
    if isinstance(value, Tensor):
        return (value,)
    return tuple(part for inner in value for part in as_tuple(inner))


def widened(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, nn.Module):
        return copy.deepcopy(value).double()
    return torch.float64 if isinstance(value, torch.dtype) else value


def error_of(check: Case, name: str, call: Callable[..., Any]) -> tuple[float, float]:
    """(relative error against float64 of the worst result, what is allowed), at the small size."""
    if not check.precise:
        with torch.no_grad():
            ours = [part.widen() for part in rows8(call(*check.inputs))]
            with use_backend("torch"):
                plain = [part.widen() for part in rows8(check.run(*check.inputs))]
        return max(relative(a, b.double()) for a, b in zip(ours, plain, strict=True)), 0.02

    def results(run: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
        if check.learn:
            return gradients(run, inputs, check.learn)
        with torch.no_grad():
            return as_tuple(run(*inputs))

    with use_backend("torch"):
        truth = results(check.run, tuple(widened(x) for x in check.inputs))
        plain_ones = results(check.run, check.inputs)
    found = results(call, check.inputs)
    eager = max(relative(a, b) for a, b in zip(plain_ones, truth, strict=True))
    factor = LITERAL if name in ("literal", "eager") else ALLOWED
    extra = 4e-3 if name == "eager" else CAP  # which keeps its sums in 16 bits
    return max(relative(a, b) for a, b in zip(found, truth, strict=True)), factor * eager + extra


def rows8(value: Any) -> list[Any]:
    from ..fp8 import Rows8

    found = value if isinstance(value, tuple) and not isinstance(value, Rows8) else (value,)
    return [part for part in found if isinstance(part, Rows8)]


def relative(ours: Tensor, truth: Tensor) -> float:
    return float((ours.double() - truth).norm() / truth.norm().clamp_min(1e-12))


def winners(rows: list[Row]) -> dict[str, str]:
    """Operation -> back end 5 % or more ahead of plain and compiled PyTorch; and the fastest exact attention."""
    chosen: dict[str, str] = {}
    for operation in parse("auto"):
        times = {row.provider: row.ms for row in rows if row.op == operation and row.passed and row.ms is not None}
        plain = min((times[name] for name in ("torch", "compile") if name in times), default=None)
        ahead = {name: times[name] for name in ("triton", "comfy-kitchen") if name in times}
        if plain is not None and ahead:
            best = min(ahead, key=ahead.__getitem__)
            chosen[operation] = best if ahead[best] <= KEPT * plain else "torch"
    from ..attention_libraries import LIBRARIES

    speeds = [row for row in rows if row.op == "attention" and row.provider in LIBRARIES and row.rate]
    exact = [row for row in speeds if not LIBRARIES[row.provider].eight_bits]
    if exact:
        longest = max(exact, key=lambda row: (row.ms or 0) * (row.rate or 0))  # the shape with most work
        same = [row for row in exact if row.shape == longest.shape]
        chosen["attention"] = max(same, key=lambda row: row.rate or 0).provider
    return chosen
