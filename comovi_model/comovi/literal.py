"""The same network in the literal order of operations of the released code: slow, and a second opinion on ours.

Per token where ours is per frame (time, modulation), complex128 rotary positions, float32 copies between all steps,
keys and values of the sentence at every step, the pose head at every step. Numbers agree with `DualBranch.forward` up
to rounding; what differs is the work. Tests compare the two, `traffic.py` counts them.

B batch, F latent frames, S tokens of one frame, L = F * S, D width, N heads, d head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.dense_attention import AttentionFunction, dense_attention
from ..wan.attention import Attention, NormWeight
from ..wan.branch import Block, Head, WanBranch, sinusoid
from ..wan.rope import rope_angles
from .dual_branch import DualBranch, DualBranchOutput
from .exchange import exchange_after, exchange_before
from .pose_head import PoseHead


class LiteralDualBranch:
    """A `DualBranch` evaluated step by step; weights are those of the given network, in `dtype` products."""

    def __init__(self, network: DualBranch, attention: AttentionFunction = dense_attention):
        self.network, self.attend = network, attention
        self.dtype = network.patch_embedding.weight.dtype

    def __call__(
        self,
        video: Tensor,
        motion: Tensor,
        timestep: Tensor,
        text: Tensor,
        *,
        init_pose: Tensor | None = None,
        pose_from_layers: Sequence[int] = (),
    ) -> DualBranchOutput:
        """Arguments as of DualBranch.forward; timestep (B, F), the same for both branches; text (B, n, text_dim)."""
        network = self.network
        grid = network.token_grid(video)
        tokens = timestep.repeat_interleave(grid[1] * grid[2], dim=1)  # (B, L): one time per token
        e, e0 = self.time(tokens)
        context = network.text_embedding(F.pad(text, (0, 0, 0, network.config.text_len - text.shape[1])).to(self.dtype))
        frames, rows, columns = (torch.arange(count, dtype=torch.float64, device=video.device) for count in grid)
        angles = rope_angles(frames, rows, columns, network.config.head_dim)
        freqs = torch.polar(torch.ones_like(angles), angles)  # (L, d / 2) complex128
        x_v, x_m = self.patches(network, video), self.patches(network.motion, motion)
        layers = [layer + network.config.num_layers if layer < 0 else layer for layer in pose_from_layers]
        poses = {}
        for i in range(network.config.num_layers):
            j, rest = divmod(i, network.config.interleave)
            if not rest:
                x_m = exchange_before(network, i, x_v, x_m, self.dtype)
                x_m = self.block(network.motion.blocks[j], x_m, e0, freqs, context)
            x_v = self.block(network.blocks[i], x_v, e0, freqs, context)
            if i in layers and network.pose_head is not None and init_pose is not None:
                poses[i] = self.pose(network.pose_head, i, x_v, x_m, init_pose, grid)
            if not rest:
                x_v, x_m = exchange_after(network, i, x_v, x_m, self.dtype)
        return DualBranchOutput(
            self.velocity(network, x_v, e, grid),
            self.velocity(network.motion, x_m, e, grid),
            torch.stack([poses[layer] for layer in layers], dim=1) if layers else None,
        )

    def time(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L) -> e (B, L, D), e0 (B, L, 6, D), float32."""
        first, activation, second = self.network.time_embedding
        last = self.network.time_projection[1]
        wave = sinusoid(tokens, self.network.config.freq_dim).float()
        e = F.linear(activation(self.wide(first, wave)), second.weight.float(), second.bias.float())
        return e, self.wide(last, F.silu(e)).unflatten(-1, (6, -1))

    def wide(self, layer: torch.nn.Module, x: Tensor) -> Tensor:
        return F.linear(x, layer.weight.float(), layer.bias.float())

    def patches(self, branch: WanBranch, latent: Tensor) -> Tensor:
        """(B, C, F, h, w) -> (B, L, D) float32."""
        return branch.patch_embedding(latent.to(self.dtype)).flatten(2).transpose(1, 2).float()

    def block(self, block: Block, x: Tensor, e0: Tensor, freqs: Tensor, context: Tensor) -> Tensor:
        rows = (block.modulation.float().unsqueeze(0) + e0).chunk(6, dim=2)
        shift1, scale1, gate1, shift2, scale2, gate2 = (row.squeeze(2) for row in rows)
        y = F.layer_norm(x.float(), x.shape[-1:], eps=block.eps) * (1 + scale1) + shift1
        y = self.self_attention(block.self_attn, y.to(self.dtype), freqs)
        x = x + y.float() * gate1
        norm = block.norm3
        y = F.layer_norm(x.float(), x.shape[-1:], norm.weight.float(), norm.bias.float(), block.eps)
        x = x + self.cross_attention(block.cross_attn, y.to(self.dtype), context).float()
        y = F.layer_norm(x.float(), x.shape[-1:], eps=block.eps) * (1 + scale2) + shift2
        y = block.ffn[2](F.gelu(block.ffn[0](y.to(self.dtype)), approximate="tanh"))
        return x + y.float() * gate2

    def norm(self, x: Tensor, weight: NormWeight, eps: float) -> Tensor:
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + eps)
        return scaled.to(x.dtype) * weight.weight

    def rotate(self, x: Tensor, freqs: Tensor) -> Tensor:
        """(B, L, N, d), sample by sample in complex128."""
        turned = []
        for sample in x:
            pairs = torch.view_as_complex(sample.to(torch.float64).unflatten(-1, (-1, 2)).contiguous())
            turned.append(torch.view_as_real(pairs * freqs.unsqueeze(1)).flatten(2))
        return torch.stack(turned).to(self.dtype)

    def heads(self, part: Attention, x: Tensor) -> Tensor:
        return x.unflatten(-1, (part.num_heads, -1))

    def self_attention(self, part: Attention, x: Tensor, freqs: Tensor) -> Tensor:
        q = self.heads(part, self.norm(part.q(x), part.norm_q, part.eps))
        k = self.heads(part, self.norm(part.k(x), part.norm_k, part.eps))
        v = self.heads(part, part.v(x))
        q, k = self.rotate(q, freqs), self.rotate(k, freqs)
        k, v = (torch.cat(tuple(value), dim=0).unflatten(0, (len(x), -1)) for value in (k, v))  # "variable" lengths
        return part.o(self.attend(q, k, v).flatten(2))

    def cross_attention(self, part: Attention, x: Tensor, context: Tensor) -> Tensor:
        q = self.heads(part, self.norm(part.q(x), part.norm_q, part.eps))
        k = self.heads(part, self.norm(part.k(context), part.norm_k, part.eps))
        return part.o(self.attend(q, k, self.heads(part, part.v(context))).flatten(2))

    def velocity(self, branch: WanBranch, x: Tensor, e: Tensor, grid: tuple[int, int, int]) -> Tensor:
        head: Head = branch.head
        shift, scale = (head.modulation.float().unsqueeze(0) + e.unsqueeze(2)).chunk(2, dim=2)
        y = F.layer_norm(x.float(), x.shape[-1:], eps=head.eps) * (1 + scale.squeeze(2)) + shift.squeeze(2)
        return branch.unpatchify(head.head(y.to(self.dtype)).float(), grid)

    def pose(
        self, head: PoseHead, layer: int, x_v: Tensor, x_m: Tensor, init_pose: Tensor, grid: tuple[int, int, int]
    ) -> Tensor:
        """Every decoder norms, copies and projects the features again."""
        frames, eps = grid[0], head.config.eps
        fused = (x_m + head.fusion_layers[layer](x_v.to(self.dtype))).unflatten(1, (frames, -1))
        if init_pose.ndim == 2:
            init_pose = init_pose[:, None].expand(-1, head.config.pose_tokens, -1)
        q = head.proj_in(init_pose.to(self.dtype)) + head.pe
        for decoder in head.decoders:
            normed = F.layer_norm(q.float(), q.shape[-1:], eps=eps).to(self.dtype)
            part = decoder.sa
            queries, keys = (
                self.heads(part, self.norm(project(normed), weight, part.eps))
                for project, weight in ((part.q, part.norm_q), (part.k, part.norm_k))
            )
            q = q + part.o(self.attend(queries, keys, self.heads(part, part.v(normed))).flatten(2))
            features = F.layer_norm(fused.float(), fused.shape[-1:], eps=eps).to(self.dtype)[:, 1:].contiguous()
            normed = F.layer_norm(q.float(), q.shape[-1:], eps=eps).to(self.dtype)
            part, groups = decoder.ca, frames - 1
            queries = self.heads(part, self.norm(part.q(normed), part.norm_q, part.eps))
            keys = self.heads(part, self.norm(part.k(features.flatten(1, 2)), part.norm_k, part.eps))
            values = self.heads(part, part.v(features.flatten(1, 2)))
            grouped = (value.unflatten(1, (groups, -1)).flatten(0, 1) for value in (queries, keys, values))
            seen = self.attend(*grouped).unflatten(0, (-1, groups)).flatten(1, 2)
            q = q + part.o(seen.flatten(2))
            normed = F.layer_norm(q.float(), q.shape[-1:], eps=eps).to(self.dtype)
            q = q + decoder.ffn(normed)
        return init_pose + head.proj_out(q.to(self.dtype))
