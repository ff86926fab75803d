"""Our side of the single operations of a golden file: on block 0, the head, the patches and pose decoder 0.

Each operation is one entry of `OPERATIONS`: the golden name of its result (a pattern where the name tells a token
grid) and the formula. An operation whose result is not in the file is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...kernels.norm_modulate import norm_modulate
from ...kernels.qk_norm_rope import rms_norm, rotate_pairs
from ..wan.branch import TimeSignal, sinusoid
from ..wan.rope import RopeTable, axis_angles, grid_rope, pairs_per_axis
from .dual_branch import DualBranch
from .pose_head import PoseDecoder, plain_norm

if TYPE_CHECKING:
    from ..verify import Golden

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Bench:
    """What the operations work on."""

    network: DualBranch
    given: dict[str, Tensor]  # op.*, without "op."

    def rope(self, grid: Grid) -> RopeTable:
        return grid_rope(grid, self.network.config.head_dim, torch.device("cpu"), torch.float32)

    def block_grid(self) -> Grid:
        """The grid of op.block, which the attention operations share; told by the name of its result."""
        return next(find_grid(name) for name in self.given if name.startswith("block.out_"))

    def decoder(self) -> PoseDecoder:
        assert self.network.pose_head is not None
        return self.network.pose_head.decoders[0]

    def features(self) -> Tensor:
        """op.smpl_decoder.fused without latent frame 0: (B, G, S, D)."""
        frames = self.network.config.pose_latent_frames
        return self.given["smpl_decoder.fused"].unflatten(1, (frames, -1))[:, 1:]


def find_grid(name: str) -> Grid:
    """..._grid_2_3_4 -> (2, 3, 4) frames, rows, columns of tokens."""
    frames, rows, columns = re.findall(r"\d+", name.split("_grid_")[1])
    return int(frames), int(rows), int(columns)


def rotate(bench: Bench, name: str) -> Tensor:
    """Tokens beyond the grid are padding and stay as they are."""
    x, grid = bench.given["rope.in"], find_grid(name)
    table, length = bench.rope(grid), math.prod(grid)
    return torch.cat((rotate_pairs(x[:, :length], table.cos, table.sin), x[:, length:]), dim=1)


def rope_angles_wrapped(bench: Bench, name: str) -> Tensor:
    """The angle of positions 0, 1, ... in every pair, between -pi and pi, float64."""
    positions = torch.arange(len(bench.given[name]))
    angles = [axis_angles(positions, pairs) for pairs in pairs_per_axis(bench.network.config.head_dim)]
    angle = torch.cat(angles, dim=1)
    return torch.atan2(angle.sin(), angle.cos())


def block(bench: Bench, name: str) -> Tensor:
    """Block 0 with one e0 for all tokens, or, through the table of rows, one per token."""
    grid, x = find_grid(name), bench.given["block.in"]
    batch, length, dim = x.shape
    unused = torch.zeros(0)
    if "vector" in name:
        time = TimeSignal(unused, bench.given["block.e_vector"][:, None, None])
    else:
        index = torch.arange(batch * length).reshape(batch, grid[0], -1)
        time = TimeSignal(unused, bench.given["block.e_token"].reshape(-1, 6, dim), index)
    first = bench.network.blocks[0]
    text = first.cross_attn.keys_values(bench.given["block.context"])
    return first(x.unflatten(1, (grid[0], -1)), time, bench.rope(grid), text, torch.float32).flatten(1, 2)


def head(bench: Bench, x: Tensor, e: Tensor) -> Tensor:
    """x (B, L, D) with e (B, D) or (B, L, D): every token a frame of its own."""
    rows = e[:, None, None] if e.ndim == 2 else e[:, :, None]
    return bench.network.head(x[:, :, None], TimeSignal(rows, torch.zeros(0)), torch.float32)[:, :, 0]


def self_attention(bench: Bench, name: str) -> Tensor:
    return bench.network.blocks[0].self_attn(bench.given["block.in"], bench.rope(bench.block_grid()))


def cross_attention(bench: Bench, name: str) -> Tensor:
    attention = bench.network.blocks[0].cross_attn
    return attention(bench.given["block.in"], attention.keys_values(bench.given["block.context"]))


def unpatchify(bench: Bench, name: str) -> Tensor:
    grid = find_grid(name)
    return bench.network.unpatchify(bench.given["unpatchify.in"].unflatten(1, (grid[0], -1)), grid)[0]


def small_norm(bench: Bench, name: str) -> Tensor:
    """The bare layer norm of a block, on inputs so small that a wrong epsilon shows."""
    zero = torch.zeros(1)
    return norm_modulate(bench.given["small.in"], zero, zero, bench.network.config.eps)


def small_rms(path: str) -> Callable[[Bench, str], Tensor]:
    """An RMS norm on small inputs, with the weight at `path`."""

    def compute(bench: Bench, name: str) -> Tensor:
        weight = bench.network.get_parameter(path)
        return rms_norm(bench.given["small.in"], weight, bench.network.config.eps)

    return compute


def pose_decoder(bench: Bench, name: str) -> Tensor:
    features = plain_norm(bench.features(), bench.network.config.eps, torch.float32)
    return bench.decoder()(bench.given["smpl_decoder.pose"], features, torch.float32)


OPERATIONS: dict[str, Callable[[Bench, str], Tensor]] = {
    "sinusoid.out_f64": lambda b, n: sinusoid(b.given["sinusoid.t"], b.given[n].shape[-1]),
    "rope.out_grid_*": rotate,
    "rope.angle_f64": rope_angles_wrapped,
    "rms.out": lambda b, n: rms_norm(
        b.given["rms.in"], b.network.blocks[0].self_attn.norm_q.weight, b.network.config.eps
    ),
    "patchify.out": lambda b, n: b.network.patch_embedding(b.given["patchify.in"]),
    "unpatchify.out_grid_*": unpatchify,
    "text_embedding.out": lambda b, n: b.network.text_embedding(b.given["text_embedding.in"]),
    "self_attn.out": self_attention,
    "cross_attn.out": cross_attention,
    "ffn.out": lambda b, n: b.network.blocks[0].ffn(b.given["ffn.in"]),
    "block.out_vector_grid_*": block,
    "block.out_token_grid_*": block,
    "head.out_vector": lambda b, n: head(b, b.given["rms.in"], b.given["head.e_vector"]),
    "head.out_token": lambda b, n: head(b, b.given["rms.in"], b.given["head.e_token"]),
    "smpl_ffn.out_of_ffn_in": lambda b, n: b.decoder().ffn(b.given["ffn.in"]),
    "smpl_sa.out": lambda b, n: b.decoder().sa(b.given["smpl_decoder.pose"], None),
    "smpl_ca.out": lambda b, n: b.decoder().ca(b.given["smpl_decoder.pose"], b.features()),
    "smpl_decoder.out": pose_decoder,
    "small.norm1": small_norm,
    "small.norm2": small_norm,
    "small.norm3": lambda b, n: b.network.blocks[0].norm3(b.given["small.in"]),
    "small.self_attn_norm_q": small_rms("blocks.0.self_attn.norm_q.weight"),
    "small.cross_attn_norm_k": small_rms("blocks.0.cross_attn.norm_k.weight"),
    "small.rgb_head_e_vector_0": lambda b, n: head(b, b.given["small.in"], b.given["head.e_vector"][:1]),
    "small.smpl_norm2": lambda b, n: plain_norm(b.given["small.in"], b.network.config.eps, torch.float32),
    "small.smpl_sa_norm_q": small_rms("pose_head.decoders.0.sa.norm_q.weight"),
}


def run_operations(golden: Golden, network: DualBranch) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(case, our results by full golden name), one case per operation."""
    bench = Bench(network, golden.under("op."))
    for pattern, compute in OPERATIONS.items():
        expression = re.escape(pattern).replace(r"\*", r"[\d_]+")
        for name in (name for name in bench.given if re.fullmatch(expression, name)):
            yield f"op.{name}", {f"op.{name}": compute(bench, name)}
