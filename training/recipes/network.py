"""The dual-branch network as training needs it: blocks recomputed in the backward pass, and nothing left untouched."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...comovi_model.comovi.dual_branch import DualBranch, Step
from ...comovi_model.comovi.pose_head import PoseHead


class RecomputedPoseHead(PoseHead):
    """A pose head that keeps only its inputs for the backward pass."""

    recompute = False

    def forward(self, *inputs: Any) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return _again(super().forward, *inputs)
        return super().forward(*inputs)


class TrainedNetwork(DualBranch):
    """A dual-branch network of the same weights and names."""

    recompute = False
    keep_layers = 0
    _within = False  # a layer that decides for all its parts is running

    def __init__(self, *settings: Any, **named: Any):
        super().__init__(*settings, **named)
        if self.pose_head is not None:
            self.pose_head.__class__ = RecomputedPoseHead  # the same weights, another forward pass

    def recompute_blocks(self, wanted: bool, keep_layers: int = 0) -> None:
        """Keep only the input of every layer and of the pose head, and compute the rest again when it is needed.

        The last `keep_layers` layers are kept whole: what they hold is the first that the backward pass gives back.
        """
        self.recompute, self.keep_layers = wanted, keep_layers
        if isinstance(self.pose_head, RecomputedPoseHead):
            self.pose_head.recompute = wanted

    def touch(self, layers: tuple[int, ...]) -> Tensor:
        """0, through every weight that a forward pass with these pose layers does not use.

        ZeRO-3 re-applies old gradients of weights that get none in a micro-step, or drops those of earlier ones.
        """
        token = torch.zeros(1, self.config.dim, dtype=self.patch_embedding.weight.dtype,
                            device=self.patch_embedding.weight.device)  # fmt: skip
        idle = []
        if self.pose_head is not None:
            idle += [layer for i, layer in enumerate(self.pose_head.fusion_layers) if i not in layers]
        if self.config.interaction == "dual":
            used = {i + k for i in range(0, self.config.num_layers, self.config.interleave) for k in (0, 1)}
            idle += [layer for i, layer in enumerate(self.zero_linear_blocks) if i not in used]
        total = torch.zeros((), device=token.device)
        for layer in idle:
            if any(weight.requires_grad for weight in layer.parameters()):
                total = total + 0 * layer(token).float().sum()
        return total

    def layer(self, i: int, x_v: Tensor | None, x_m: Tensor | None, step: Step) -> tuple[Tensor | None, Tensor | None]:
        """Recomputed as a whole, so that of the exchange nothing is kept; where the pose head reads, part by part."""
        if not self._recomputes():
            return super().layer(i, x_v, x_m, step)
        if i >= self.config.num_layers - self.keep_layers:
            return self._whole_layer(i, x_v, x_m, step)
        if i in step.pose_layers or x_v is None or x_m is None:
            return super().layer(i, x_v, x_m, step)
        out = checkpoint(self._whole_layer, i, x_v, x_m, step, use_reentrant=False, preserve_rng_state=False)
        return out[0], out[1]

    def _whole_layer(
        self, i: int, x_v: Tensor | None, x_m: Tensor | None, step: Step
    ) -> tuple[Tensor | None, Tensor | None]:
        self._within = True
        try:
            return super().layer(i, x_v, x_m, step)
        finally:
            self._within = False

    def _video_block(self, i: int, x: Tensor | None, step: Step, *more: Any, **named: Any) -> Tensor | None:
        if x is None or not self._recomputes():
            return super()._video_block(i, x, step, *more, **named)
        return _again(super()._video_block, i, x, step, *more, **named)

    def _motion_block(self, j: int, x: Tensor | None, step: Step, *more: Any, **named: Any) -> Tensor | None:
        if x is None or not self._recomputes():
            return super()._motion_block(j, x, step, *more, **named)
        return _again(super()._motion_block, j, x, step, *more, **named)

    def _recomputes(self) -> bool:
        return self.recompute and not self._within and torch.is_grad_enabled()


def _again(function: Any, *inputs: Any, **named: Any) -> Tensor:
    """Call it, keep the inputs alone, and call it again in the backward pass; nothing is drawn inside."""
    out = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False, **named)
    assert isinstance(out, Tensor)
    return out
