"""Networks that the paper compares itself with, in miniature: no motion branch, and one branch for both latents.

They take and give what the dual-branch network does, so objective, sampler and evaluation stay the same. Their one
stack of blocks is the video branch's, so they have about half the weights. Tokens are (B, F, S, D), as in it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...comovi_model.comovi.dual_branch import DualBranch, Step


class OneStack(DualBranch):
    """No motion blocks. The pose head reads the one stack's features twice over."""

    def __init__(self, *settings: Any, **named: Any):
        super().__init__(*settings, **named)
        self.motion.blocks = nn.ModuleList()
        self.zero_linear_blocks = nn.ModuleList()
        self.zero_linear_blocks_v2m = nn.ModuleList()

    def one_layer(self, i: int, x: Tensor, step: Step) -> Tensor:
        out = self._video_block(i, x, step)
        assert out is not None
        if i in step.pose_layers and self.pose_head is not None:
            step.poses[i] = self.pose_head(i, out, out, step.init_pose, step.dtype)
        return out


class VideoAlone(OneStack):
    """Without motion branch: the video never sees the motion map, the pose is read off the video's features, and the
    motion map that comes out is the first frame's."""

    def __init__(self, *settings: Any, **named: Any):
        super().__init__(*settings, **named)
        self.motion.requires_grad_(False)

    def layer(self, i: int, x_v: Tensor | None, x_m: Tensor | None, step: Step) -> tuple[Tensor | None, Tensor | None]:
        if x_v is None:
            return super().layer(i, x_v, x_m, step)
        video = self.one_layer(i, x_v, step)
        if x_m is not None and len(x_m) != len(video):  # several sentences for every latent
            x_m = x_m.repeat(len(video) // len(x_m), 1, 1, 1)
        return video, x_m


class JointLatent(OneStack):
    """VideoJAM's way: both latents are embedded into the same tokens, and two heads read them."""

    def layer(self, i: int, x_v: Tensor | None, x_m: Tensor | None, step: Step) -> tuple[Tensor | None, Tensor | None]:
        if x_v is None or x_m is None:
            return super().layer(i, x_v, x_m, step)
        both = self.one_layer(i, x_v + x_m if i == 0 else x_v, step)
        return both, both


VARIANTS: dict[str, type[DualBranch]] = {"full": DualBranch, "video_alone": VideoAlone, "joint_latent": JointLatent}
