"""Whole blocks and steps with random weights: `python -m comfyui_comovi.comovi_model.comovi.step_benchmark`.

On a GPU the released size, 704 x 1280, 81 frames, with guidance, in bfloat16: the literal order of operations, ours in
plain PyTorch, with fused kernels, under torch.compile and in 8 bits, with the same attention library and with the one
that the released code installs. On a CPU a small network, which proves the harness. Rows are appended to the CSV of
`python -m comfyui_comovi.kernels.benchmark`, which starts this with `--model`. `--work` prints the counted work.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...kernels.attention_libraries import LIBRARIES, missing
from ...kernels.benchmark.timing import Row, about, read_rows, spread, times_of, write_rows
from ...kernels.dense_attention import AttentionFunction, dense_attention
from ...kernels.dispatch import interpreted, use_backend
from ...kernels.live_memory import LiveBytes
from ..wan.eight_bits import use_eight_bits
from .config import WAN22_5B, DualBranchConfig
from .dual_branch import DualBranch
from .literal import LiteralDualBranch

LATENT = (21, 80, 44)  # frames, height, width of 81 frames of 704 x 1280, portrait
SMALL = DualBranchConfig(dim=96, ffn_dim=192, num_heads=4, num_layers=2, text_dim=32, text_len=8, freq_dim=32)
SMALL_LATENT = (3, 8, 6)
SENTENCES = 2  # guidance
AGREEMENT = 0.03  # relative difference of two orders of operations in bfloat16 over all layers
AGREEMENT_8 = 0.3  # with 8-bit products or attention and random weights, whose small differences nothing corrects


class Measured:
    """A network with random weights, and what is timed on it."""

    def __init__(
        self, config: DualBranchConfig, latent: tuple[int, int, int], device: torch.device, dtype: torch.dtype
    ):
        torch.manual_seed(0)
        self.attention: AttentionFunction = dense_attention
        attend = lambda q, k, v: self.attention(q, k, v)  # noqa: E731  (changed from case to case)
        self.device, self.dtype, self.latent = device, dtype, latent
        self.network = DualBranch(config, attention=attend, device=device, dtype=dtype).eval().requires_grad_(False)
        self.literal = LiteralDualBranch(self.network, attend)
        shape = (1, config.in_channels, *latent)
        self.video, self.motion = (torch.randn(shape, device=device).to(dtype) for _ in range(2))
        self.text = torch.randn(SENTENCES, config.text_len, config.text_dim, device=device).to(dtype)
        self.time = torch.full((1, latent[0]), 500.0, device=device)
        self.time[:, 0] = 0
        self.cache = self.network.make_text_cache(self.text)
        grid = self.network.token_grid(self.video)
        self.tokens = torch.randn(SENTENCES, grid[0], grid[1] * grid[2], config.dim, device=device)

    def ours(self) -> Any:
        return self.network(self.video, self.motion, self.time, None, text_cache=self.cache, copies=SENTENCES)

    def in_literal_order(self) -> Any:
        twice = [x.repeat(SENTENCES, *[1] * (x.ndim - 1)) for x in (self.video, self.motion, self.time)]
        return self.literal(twice[0], twice[1], twice[2], self.text)

    def block(self, index: int = 0) -> Callable[[], Tensor]:
        """One video block on tokens of the residual stream."""
        network, grid = self.network, self.network.token_grid(self.video)
        time = network.embed_time(self.time.repeat(SENTENCES, 1), grid, SENTENCES, self.dtype)
        rope = network.rope(grid, self.device, torch.float32)
        return lambda: network.blocks[index](self.tokens, time, rope, self.cache.video.layers[index], self.dtype)


def cases(measured: Measured) -> Iterator[tuple[str, str, Callable[[], Any], str]]:
    """(what, provider, call, COMOVI_KERNELS) with the attention library set."""
    cuda = measured.device.type == "cuda"
    fused = "triton" if cuda or interpreted() else "torch"
    for library in ("torch", "cudnn", "flash", "flash_attn_3") if cuda else ("torch",):
        if cuda and missing(library):
            continue
        measured.attention = LIBRARIES[library].run if cuda else dense_attention
        name = f"/{library}" if cuda else ""
        yield "block", f"torch{name}", measured.block(), "torch"
        if fused == "triton":
            yield "block", f"triton{name}", measured.block(), fused
        yield "step", f"literal{name}", measured.in_literal_order, "torch"
        yield "step", f"torch{name}", measured.ours, "torch"
        if fused == "triton":
            yield "step", f"triton{name}", measured.ours, fused
    if not cuda:
        return
    measured.attention = dense_attention
    for block in (*measured.network.blocks, *measured.network.motion.blocks):
        block.compile()  # 60 blocks share one graph
    yield "step", "compile/auto", measured.ours, "torch"
    yield "step", "compile+triton/auto", measured.ours, "triton"
    for block in (*measured.network.blocks, *measured.network.motion.blocks):
        block._compiled_call_impl = None
    use_eight_bits(measured.network)  # from here on, and for good
    measured.cache = measured.network.make_text_cache(measured.text)
    for library in ("torch", "cudnn", "sage"):
        if not missing(library):
            measured.attention = LIBRARIES[library].run
            yield "step", f"triton+fp8/{library}", measured.ours, "triton"


@torch.inference_mode()
def measure(device: torch.device, seconds: float) -> list[Row]:
    cuda = device.type == "cuda"
    config, latent, dtype = (WAN22_5B, LATENT, torch.bfloat16) if cuda else (SMALL, SMALL_LATENT, torch.float32)
    measured = Measured(config, latent, device, dtype)
    shape = f"{latent[0]}x{latent[1]}x{latent[2]}x{SENTENCES}"
    truths: dict[str, Tensor] = {}
    rows: list[Row] = []
    for op, provider, call, setting in cases(measured):
        row = Row(op, provider, shape, str(dtype).removeprefix("torch."), None, None, None, None, None, None, "s", None,
                  False, "", **about(device))  # fmt: skip
        try:
            with use_backend(setting):
                said = call()
                said = (said if isinstance(said, Tensor) else said.video).float()
                truth = truths.setdefault(op, said)  # of the first provider: the others must agree
                error = float((said - truth).norm() / truth.norm())
                peak = peak_of(call, device)
                median, low, high = spread(times_of([call], device, seconds, 20))
            passed = error <= (AGREEMENT_8 if "fp8" in provider or "sage" in provider else AGREEMENT)
            note = f"{peak / 2**20:,.1f} MiB at most" + ("" if passed else f"; differs by {error:.3f}")
            rows.append(replace(row, ms=median, p20_ms=low, p80_ms=high, rate=median / 1e3, error=error, passed=passed,
                                note=note))  # fmt: skip
        except (RuntimeError, NotImplementedError, ImportError) as failure:  # reported; the others go on
            rows.append(replace(row, note=f"failed: {str(failure).splitlines()[0][:120]}"))
        done = rows[-1]
        sys.stdout.write(f"{done.op:<8} {done.provider:<24} {(done.ms or 0):10.1f} ms  {done.note}\n")
        sys.stdout.flush()
    return rows


def peak_of(call: Callable[[], Any], device: torch.device) -> int:
    """Bytes at the peak: with weights on a GPU, as its allocator saw it; without them on a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return int(torch.cuda.max_memory_allocated(device))
    live = LiveBytes()
    with live:
        call()
    return live.peak


def work() -> dict[str, float]:
    """What a step of the released size computes and moves."""
    from .traffic import one_step

    ours, literal = one_step(replace(WAN22_5B, pose_head=True), LATENT)
    return {
        "elementwise_bytes": ours.elementwise_bytes, "gemm_flops": ours.product_flops,
        "attention_flops": ours.attention_flops, "elementwise_bytes_literal": literal.elementwise_bytes,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="append the rows to this file")
    parser.add_argument(
        "--seconds", type=float, default=None, help="of timing for each row (20 on a GPU, 0.3 on a CPU)"
    )
    parser.add_argument("--work", action="store_true", help="only print the counted work of a step, as JSON")
    options = parser.parse_args()
    if options.work:
        sys.stdout.write(json.dumps(work()) + "\n")
        return 0
    device = torch.device(options.device)
    rows = measure(device, options.seconds or (20.0 if device.type == "cuda" else 0.3))
    if options.csv is not None:
        earlier = read_rows(options.csv) if options.csv.is_file() else []
        write_rows(options.csv, [row for row in earlier if row.op not in ("block", "step")] + rows)
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
