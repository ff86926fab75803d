"""How much memory a step takes in which mode, and on which cards it fits:
`python -m comfyui_comovi.comovi_model.comovi.memory_modes [--measure]`.

Counted, not guessed: weights and the tensors that are alive at once, operator by operator, over the network of the
released size on the meta device. `--measure` also runs the modes that this machine's GPU holds, with random weights.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import torch
from torch import Tensor

from ...kernels.dispatch import use_backend
from ...kernels.live_memory import LiveBytes
from .config import WAN22_5B
from .dual_branch import DualBranch

SIZES = {"704x1280x81": (21, 80, 44), "480x832x81": (21, 52, 30)}
CARDS = (24, 16, 12)  # GB on the box, which are GiB of memory
KEPT_BACK = 1.0  # GiB: CUDA's own, and what the allocator cannot use
GIB = 2**30


@dataclass(frozen=True)
class Mode:
    """Choices that a node, a flag of ComfyUI or a sampler's argument makes."""

    name: str
    eight_bits: bool = False  # matrices of the blocks in fp8
    branches: str = "both"  # or "motion", "video"
    sentences: int = 2  # evaluated together; 1: one after the other
    keep_text: bool = True  # keys and values of the sentences
    streamed: bool = False  # blocks come from main memory, two pairs at a time on the card


MODES = (
    Mode("everything on the card, bf16"),
    Mode("bf16, sentences in turn, text not kept", sentences=1, keep_text=False),
    Mode("fp8 weights", eight_bits=True),
    Mode("fp8 weights, sentences in turn, text not kept", eight_bits=True, sentences=1, keep_text=False),
    Mode("bf16, blocks streamed from main memory", streamed=True, keep_text=False),
    Mode("bf16, streamed, sentences in turn", streamed=True, sentences=1, keep_text=False),
    Mode("preview: motion alone, bf16", branches="motion"),
    Mode("preview: motion alone, fp8", branches="motion", eight_bits=True),
    Mode("two cards, the motion's", branches="motion", keep_text=False),
    Mode("two cards, the video's", branches="video", keep_text=False),
)


@dataclass(frozen=True)
class Need:
    """GiB of each part."""

    weights: float
    text: float
    step: float

    @property
    def total(self) -> float:
        return self.weights + self.text + self.step + KEPT_BACK


def stored_result_only(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Memory of a fused attention."""
    return torch.empty_like(q, memory_format=torch.contiguous_format)


@lru_cache(maxsize=1)
def network() -> DualBranch:
    config = replace(WAN22_5B, pose_head=False)
    return DualBranch(config, attention=stored_result_only, device="meta", dtype=torch.bfloat16).requires_grad_(False)


def weight_bytes(mode: Mode) -> float:
    """Of the weights that lie on the card at once."""
    total = 0.0
    for name, parameter in network().named_parameters():
        motion = name.startswith("motion.")
        if (mode.branches == "motion" and (name.startswith(("blocks.", "head."))) and not motion) or (
            mode.branches == "video" and (motion or name.startswith("zero_linear"))
        ):
            continue
        in_block = "blocks." in name
        if mode.streamed and in_block and not any(f"blocks.{i}." in name for i in (0, 1)):
            continue
        total += parameter.numel() * (1 if mode.eight_bits and in_block and parameter.dim() == 2 else 2)
    return total


@cache
def step_bytes(latent: tuple[int, int, int], sentences: int, branches: str, fused: bool) -> int:
    """Tensors that are alive at once in one evaluation, besides weights and kept text."""
    net, config = network(), network().config

    def meta(*size: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    text = meta(sentences, config.text_len, config.text_dim)
    with torch.no_grad(), use_backend("triton" if fused else "torch"):
        cache = net.make_text_cache(text)
        live = LiveBytes()
        with live:
            latents = [None if branches == other else meta(1, config.in_channels, *latent)
                       for other in ("motion", "video")]  # fmt: skip
            times = meta(1, latent[0], dtype=torch.float32)
            net(*latents, times, None, text_cache=cache, copies=sentences)
    return live.peak


def text_bytes(mode: Mode) -> float:
    """Kept keys and values, or those of one block at a time."""
    config = network().config
    layers = config.num_layers * (2 if mode.branches == "both" else 1) if mode.keep_text else 1
    return 2.0 * layers * mode.sentences * config.text_len * config.dim * 2


def need(mode: Mode, latent: tuple[int, int, int], fused: bool) -> Need:
    step = step_bytes(latent, mode.sentences, mode.branches, fused)
    dequantised = 2.0 * WAN22_5B.dim * WAN22_5B.ffn_dim if mode.eight_bits else 0.0  # one matrix in bf16 at a time
    return Need(weight_bytes(mode) / GIB, text_bytes(mode) / GIB, (step + dequantised) / GIB)


def table(fused: bool = False) -> list[str]:
    """The modes as Markdown."""
    head = "| mode | size | weights | text | step | together | " + " | ".join(f"{card} GB" for card in CARDS) + " |"
    lines = [head, "|---" * (6 + len(CARDS)) + "|"]
    for mode in MODES:
        for size, latent in SIZES.items():
            found = need(mode, latent, fused)
            fits = " | ".join("yes" if found.total <= card else "no" for card in CARDS)
            lines.append(f"| {mode.name} | {size} | {found.weights:.1f} | {found.text:.1f} | {found.step:.1f} | "
                         f"{found.total:.1f} | {fits} |")  # fmt: skip
    return lines


def measured(mode: Mode, latent: tuple[int, int, int]) -> float:
    """GiB at the peak of one step on the GPU, as its allocator saw it."""
    config = replace(WAN22_5B, pose_head=False)
    net = DualBranch(config, device="cuda", dtype=torch.bfloat16).requires_grad_(False)
    text = torch.randn(mode.sentences, config.text_len, config.text_dim, device="cuda", dtype=torch.bfloat16)
    latents = [None if mode.branches == other else torch.randn(1, config.in_channels, *latent, device="cuda")
               for other in ("motion", "video")]  # fmt: skip
    times = torch.full((1, latent[0]), 500.0, device="cuda")
    cache = net.make_text_cache(text) if mode.keep_text else None
    with torch.inference_mode():
        torch.cuda.reset_peak_memory_stats()
        net(*latents, times, text, text_cache=cache, copies=mode.sentences)
    return torch.cuda.max_memory_allocated() / GIB


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fused", action="store_true", help="with fused kernels, which store less in between")
    parser.add_argument("--measure", action="store_true", help="also run what this machine's GPU holds")
    options = parser.parse_args()
    sys.stdout.write(f"GiB, counted; 'together' includes {KEPT_BACK:.0f} GiB that CUDA keeps for itself\n\n")
    sys.stdout.write("\n".join(table(options.fused)) + "\n")
    if options.measure and torch.cuda.is_available():
        free = torch.cuda.mem_get_info()[0] / GIB
        for mode in MODES:
            for size, latent in SIZES.items():
                runs = not mode.eight_bits and not mode.streamed and mode.branches == "both"
                if runs and need(mode, latent, False).total < free:
                    sys.stdout.write(f"measured: {mode.name}, {size}: {measured(mode, latent):.1f} GiB at most\n")
                    torch.cuda.empty_cache()
    elif options.measure:
        sys.stdout.write("nothing measured: there is no GPU\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
