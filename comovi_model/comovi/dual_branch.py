"""The network of Fig. 4: two Wan2.2 branches side by side, the exchange between them, and the pose head.

B batch, C latent channels, F latent frames, h, w latent size, S tokens of one latent frame, D width, P pose tokens.

The video branch is the network itself, under the names of plain Wan2.2 (`blocks.0...`), so that what was made for
Wan2.2, low-rank adapters above all, fits without renaming. The motion branch lives below `motion.`. Time and text are
shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...kernels.dense_attention import AttentionFunction, dense_attention
from ..errors import ComoviError
from ..wan.attention import Parts, WeightReader, read_weight
from ..wan.branch import TextCache, TimeSignal, WanBranch, WanModel, stream_dtype
from ..wan.rope import RopeTable, grid_rope
from .config import DualBranchConfig
from .exchange import build_zero_linears, exchange_after, exchange_before
from .pose_head import PoseHead


@dataclass(frozen=True)
class DualTextCache:
    """Keys and values of the sentence for every layer of both branches: constant over a sampling run."""

    video: TextCache
    motion: TextCache


class DualBranchOutput(NamedTuple):
    video: Tensor | None  # velocity (B, C, F, h, w) = noise - clean (the code's sign; Eq. 5 prints the opposite)
    motion: Tensor | None  # the same for the motion map
    pose: Tensor | None  # (B, number of layers asked for, P, 144)


@dataclass(frozen=True)
class Step:
    """What every layer of one evaluation reads."""

    rope: RopeTable
    video_time: TimeSignal
    motion_time: TimeSignal
    embedded_text: Tensor | None  # (B, text_len, D) unless there is a cache
    text_cache: DualTextCache | None
    dtype: torch.dtype
    copies: int = 1  # sentences per latent: what does not read them is computed once
    pose_layers: Sequence[int] = ()  # after which the pose head reads
    init_pose: Tensor | None = None  # (B, P, 144)
    poses: dict[int, Tensor] = field(default_factory=dict)  # layer -> what the head said, filled on the way


class DualBranch(WanModel):
    def __init__(
        self,
        config: DualBranchConfig,
        operations: Any = nn,
        attention: AttentionFunction | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        weight: WeightReader = read_weight,
    ):
        parts = Parts(operations, attention or dense_attention, weight, device, dtype)
        super().__init__(config, parts)
        self.config: DualBranchConfig = config
        self.motion = WanBranch(
            replace(config, num_layers=config.num_motion_layers, interleave=1, interaction="none"), parts
        )
        self.zero_linear_blocks, self.zero_linear_blocks_v2m = build_zero_linears(config, parts)
        self.pose_head = PoseHead(config, parts) if config.pose_head else None
        self.fuse_exchange = True  # False: the exchange is a sum of its own, for bisecting

    def forward(
        self,
        video: Tensor | None,
        motion: Tensor | None,
        timestep: Tensor,
        text: Tensor | list[Tensor] | None,
        *,
        motion_timestep: Tensor | None = None,
        init_pose: Tensor | None = None,
        pose_from_layers: Sequence[int] = (),
        text_cache: DualTextCache | None = None,
        copies: int = 1,
    ) -> DualBranchOutput:
        """Velocities of both noisy latents (B, C, F, h, w), and the poses that were asked for.

        timestep: on the 0..1000 scale, (B,), (B, F) one per latent frame, or (B, L) one per token; `motion_timestep`
        is the motion branch's own, by default the same. text: encoded sentences (B, n, text_dim) or a list of (n_i,
        text_dim); not read when there is a `text_cache`. init_pose: the first frame's pose, (B, 144) or (B, P, 144).
        pose_from_layers: which layers' features the pose head reads, counted from 0 or, negative, from the end; at
        inference the last one, at the last step only. Either latent may be None: then the other branch runs alone,
        without any exchange (first training stage).
        copies: K sentences for every latent (guidance). Latents, times and poses are given once, (B, ...), sentences
        as (K*B, ...), B after B, and so come the answers. The same numbers as with latents repeated K times, without
        computing K times what has not read the sentence yet.
        """
        latent = self._one_size(video, motion)
        batch, dtype = latent.shape[0], self.product_dtype(latent.device)
        grid = self.token_grid(latent)
        layers = [layer + self.config.num_layers if layer < 0 else layer for layer in pose_from_layers]
        if layers:
            init_pose = self._check_pose(video, motion, init_pose, layers).repeat(copies, 1, 1)
        video_time = motion_time = self.embed_time(timestep, grid, batch, dtype)
        if motion_timestep is not None:
            motion_time = self.embed_time(motion_timestep, grid, batch, dtype)
        rope = self.rope(grid, latent.device, stream_dtype(dtype))
        embedded = None if text_cache else self.embed_text(self._check_text(text, batch * copies), dtype)
        step = Step(rope, video_time, motion_time, embedded, text_cache, dtype, copies, layers, init_pose)

        x_v = None if video is None else self.embed(video, dtype)  # (B, F, S, D)
        x_m = None if motion is None else self.motion.embed(motion, dtype)
        for i in range(self.config.num_layers):
            x_v, x_m = self.layer(i, x_v, x_m, step)
            if i == 0 and copies > 1:  # the first layer has read the sentences
                video_time, motion_time = video_time.repeat(copies), motion_time.repeat(copies)
                step = replace(step, video_time=video_time, motion_time=motion_time, copies=1)

        return DualBranchOutput(
            None if x_v is None else self.velocity(x_v, video_time, grid, dtype),
            None if x_m is None else self.motion.velocity(x_m, motion_time, grid, dtype),
            torch.stack([step.poses[layer] for layer in layers], dim=1) if layers else None,
        )

    def layer(self, i: int, x_v: Tensor | None, x_m: Tensor | None, step: Step) -> tuple[Tensor | None, Tensor | None]:
        """Video block i with the motion block beside it, if it has one, and their exchange; tokens (B, F, S, D)."""
        j, rest = divmod(i, self.config.interleave)
        if rest:  # the motion branch waits
            return self._video_block(i, x_v, step), x_m
        if x_v is None or x_m is None:  # alone, without exchange
            return self._video_block(i, x_v, step), self._motion_block(j, x_m, step)
        x_m = self._motion_block(j, exchange_before(self, i, x_v, x_m, step.dtype), step)
        assert x_m is not None
        if self.fuse_exchange and self.config.interaction == "single_m2v" and i not in step.pose_layers:
            # What the motion says is known before the video block ends, and rides on its last sum.
            return self._video_block(i, x_v, step, self.zero_linear_blocks[j](x_m.to(step.dtype))), x_m
        x_v = self._video_block(i, x_v, step)
        if i in step.pose_layers and self.pose_head is not None:  # Eq. 7-9, on features from before the exchange
            step.poses[i] = self.pose_head(i, x_v, x_m, step.init_pose, step.dtype)
        return exchange_after(self, i, x_v, x_m, step.dtype)

    def rope(self, grid: tuple[int, int, int], device: torch.device, dtype: torch.dtype) -> RopeTable:
        """The rotary positions of a grid (frames, rows, columns) of tokens."""
        return grid_rope(grid, self.config.head_dim, device, dtype)

    def make_text_cache(self, text: Tensor | list[Tensor]) -> DualTextCache:
        """Keys and values of these sentences for all layers; give it to `forward` instead of the text, every step.

        At 5B and two sentences it holds 755 MB in bfloat16 and saves about 2 TFLOP per step.
        """
        embedded = self.embed_text(text, self.product_dtype(self.patch_embedding.weight.device))
        return DualTextCache(self.cache_text(embedded), self.motion.cache_text(embedded))

    @torch.no_grad()
    def init_weights(self) -> None:
        """Start of training: as torch makes it, with zeros wherever a part adds to what is there already."""
        for layer in (*self.zero_linear_blocks, *self.zero_linear_blocks_v2m, self.head.head, self.motion.head.head):
            layer.weight.zero_()
            layer.bias.zero_()
        if self.pose_head is not None:
            self.pose_head.init_weights()

    def _video_block(self, i: int, x: Tensor | None, step: Step, addend: Tensor | None = None) -> Tensor | None:
        if x is None:
            return None
        block = self.blocks[i]
        text = step.text_cache.video.layers[i] if step.text_cache else block.cross_attn.keys_values(step.embedded_text)
        return block(x, step.video_time, step.rope, text, step.dtype, step.copies, addend)

    def _motion_block(self, j: int, x: Tensor | None, step: Step) -> Tensor | None:
        if x is None:
            return None
        block = self.motion.blocks[j]
        text = step.text_cache.motion.layers[j] if step.text_cache else block.cross_attn.keys_values(step.embedded_text)
        return block(x, step.motion_time, step.rope, text, step.dtype, step.copies)

    def _one_size(self, video: Tensor | None, motion: Tensor | None) -> Tensor:
        if video is None and motion is None:
            raise ComoviError("both latents are missing; give the video, the motion map, or both.")
        if video is not None and motion is not None and video.shape != motion.shape:
            raise ComoviError(
                f"the video latent has shape {tuple(video.shape)} but the motion latent {tuple(motion.shape)}; "
                "they must be equal."
            )
        return motion if video is None else video

    def _check_text(self, text: Tensor | list[Tensor] | None, batch: int) -> Tensor | list[Tensor]:
        if text is None or len(text) != batch:
            came = "none" if text is None else str(len(text))
            raise ComoviError(f"{batch} latents need {batch} encoded sentences; got {came}.")
        return text

    def _check_pose(
        self, video: Tensor | None, motion: Tensor | None, pose: Tensor | None, layers: list[int]
    ) -> Tensor:
        if self.pose_head is None:
            raise ComoviError("this network has no pose head; take the motion from the motion map instead.")
        if video is None or motion is None:
            raise ComoviError("the pose head reads both branches; give both latents, or ask for no pose.")
        return self.pose_head.check(pose, video.shape[0], video.shape[2], layers)
