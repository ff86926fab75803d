"""What the device can do at all: copying, matrix products at the network's shapes, attention by every library.

Floors of operations are computed from these and not from data sheets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch

from ..attention_libraries import LIBRARIES, missing, refusal
from ..dense_attention import dense_attention, two_product_attention
from ..fp8 import FP8, missing_fp8
from .timing import Row, about, spread, times_of


@dataclass(frozen=True)
class Size:
    """A step of the network: the released size on a GPU, a small one that proves the harness on a CPU."""

    batch: int
    frames: int
    tokens: int  # of one latent frame
    dim: int
    ffn_dim: int
    heads: int
    text: int
    pose_heads: int
    dtype: torch.dtype

    @property
    def rows(self) -> int:
        return self.batch * self.frames * self.tokens


REAL = Size(2, 21, 880, 3072, 14336, 24, 512, 12, torch.bfloat16)  # 704 x 1280, 81 frames, guidance
SMALL = Size(2, 3, 24, 192, 576, 4, 24, 4, torch.float32)


@dataclass
class Ceilings:
    """Bytes and multiplications of a second; one multiplication and one addition are two FLOPs."""

    bytes_per_second: float = 1.0
    flops_per_second: float = 1.0

    def floor_ms(self, moved: float, flops: float) -> float:
        """No implementation is faster: the bytes must move and the products must be made."""
        return 1e3 * max(moved / self.bytes_per_second, flops / self.flops_per_second)


def measure(size: Size, device: torch.device, seconds: float) -> tuple[Ceilings, list[Row]]:
    """Ceilings, and a row for each thing that was measured."""
    ceilings, rows = Ceilings(), []
    for op, provider, shape, work, unit, call in things(size, device):
        row = Row(op, provider, shape, name_of(size.dtype), None, None, None, None, None, None, unit, None, False, "",
                  **about(device))  # fmt: skip
        try:  # a library that is here and does not take these shapes
            median, low, high = spread(times_of([call], device, seconds, 200))
        except (RuntimeError, NotImplementedError, ImportError) as failure:
            rows.append(replace(row, note=f"failed: {str(failure).splitlines()[0][:120]}"))
            continue
        rate = work / median / 1e6 if unit == "GB/s" else work / median / 1e9
        if op == "copy":
            ceilings.bytes_per_second = work / median * 1e3
        if op == "product" and provider == "torch":
            ceilings.flops_per_second = max(ceilings.flops_per_second, work / median * 1e3)
        rows.append(replace(row, ms=median, p20_ms=low, p80_ms=high, rate=rate, passed=True, note="ceiling"))
    return ceilings, rows


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def things(size: Size, device: torch.device) -> Iterator[tuple[str, str, str, float, str, Callable[[], object]]]:
    """(what, by what, shape, bytes or FLOPs, unit, call)."""
    count = 2**29 if device.type == "cuda" else 2**23
    source, target = (torch.empty(count, dtype=torch.uint8, device=device) for _ in range(2))
    yield "copy", "torch", f"{count / 2**20:.0f} MiB", 2.0 * count, "GB/s", partial(target.copy_, source)

    def random(*shape: int, dtype: torch.dtype = size.dtype) -> torch.Tensor:
        return torch.randn(shape, device=device, dtype=torch.float32).to(dtype)

    shapes = ((size.rows, size.dim, size.dim), (size.rows, size.ffn_dim, size.dim), (size.rows, size.dim, size.ffn_dim))
    for m, n, k in shapes:
        x, weight = random(m, k), random(n, k)
        yield "product", "torch", f"{m}x{n}x{k}", 2.0 * m * n * k, "TFLOP/s", partial(torch.mm, x, weight.t())
        if device.type == "cuda" and not missing_fp8(device):
            x8, w8 = x.to(FP8), weight.to(FP8)
            one = [torch.ones(s, device=device) for s in ((m, 1), (1, n))]
            yield (
                "product", "fp8", f"{m}x{n}x{k}", 2.0 * m * n * k, "TFLOP/s",
                partial(torch._scaled_mm, x8, w8.t(), one[0], one[1], out_dtype=torch.bfloat16),
            )  # fmt: skip
    m = size.rows // 4
    wide = random(m, size.dim, dtype=torch.float32), random(size.dim, size.dim, dtype=torch.float32)
    flops = 2.0 * m * size.dim**2
    yield "product", "float32", f"{m}x{size.dim}x{size.dim}", flops, "TFLOP/s", partial(torch.mm, *wide)
    yield from attentions(size, device, random)


def attentions(
    size: Size, device: torch.device, random: Callable[..., torch.Tensor]
) -> Iterator[tuple[str, str, str, float, str, Callable[[], object]]]:
    """Self attention and attention to the sentence, by every library that is here."""
    length, head = size.frames * size.tokens, size.dim // size.heads
    for keys in (length, size.text):
        q, k, v = (random(size.batch, n, size.heads, head) for n in (length, keys, keys))
        flops, shape = 4.0 * size.batch * size.heads * length * keys * head, f"{length}x{keys}x{size.heads}x{head}"
        if device.type != "cuda":
            yield "attention", "torch", shape, flops, "TFLOP/s", partial(dense_attention, q, k, v)
            parts = tuple(x.transpose(1, 2) for x in (q, k, v))
            yield "attention", "two products", shape, flops, "TFLOP/s", partial(two_product_attention, *parts)
            continue
        for name, library in LIBRARIES.items():
            if not missing(name) and not refusal(name, q, k, v):
                yield "attention", name, shape, flops, "TFLOP/s", partial(library.run, q, k, v)
