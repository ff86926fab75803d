"""The pose head: from the features of both branches to SMPL rotations (Eq. 7-9).

B batch, F latent frames, S tokens of one frame, D width, P pose tokens (one per pixel frame after the first), 144 =
24 joints x 6 numbers (the first two rows of each rotation matrix, row 0 then row 1; camera frame of the given pose).

    fused = x_m + Fusion(x_v)
    q     = position + ProjIn(first pose)
    q    <- q + SelfAttention(LN(q));  q <- q + CrossAttention(LN(q), LN(fused));  q <- q + FFN(LN(q))      per layer
    pose  = first pose + ProjOut(q)

The cross attention is local in time: pose tokens 4g .. 4g+3 read latent frame g+1, the one that holds their pixel
frames. The diffusion time does not enter. The head predicts neither translation nor body shape.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.pose_attention import pose_attention, pose_attention_values_last
from ..errors import ComoviError
from ..wan.attention import Attention, KeysValues, Parts, SelfAttention
from ..wan.branch import stream_dtype
from .config import DualBranchConfig


class FrameCrossAttention(Attention):
    """Pose tokens read the features of their own latent frame."""

    def forward(self, q: Tensor, features: Tensor, keys: Tensor | None = None) -> Tensor:
        """Pose tokens (B, P, D), features (B, G, S, D) of latent frames 1.. -> (B, P, D).

        keys: (B, G, S, D), the projection of the features before its norm; with it values are made after the sum.
        """
        groups = features.shape[1]
        if keys is not None:
            key_weight = self.read(self.norm_k, "weight", keys)
            v_weight, v_bias = (self.read(self.v, name, keys) for name in ("weight", "bias"))
            seen = pose_attention_values_last(self.queries(q), keys, key_weight, features, v_weight, v_bias, self.eps)
            return self.o(seen.flatten(2))
        kv = KeysValues(*self.keys_values(features.flatten(1, 2)))
        return self.o(pose_attention(self.queries(q), kv.keys, kv.values, groups, self.attend).flatten(2))


class PoseDecoder(nn.Module):
    def __init__(self, config: DualBranchConfig, parts: Parts):
        super().__init__()
        self.eps = config.eps
        self.sa = SelfAttention(config.dim, config.pose_heads, config.eps, parts)
        self.ca = FrameCrossAttention(config.dim, config.pose_heads, config.eps, parts)
        self.ffn = parts.mlp(config.dim, config.pose_ffn_dim, config.dim, nn.GELU(approximate="tanh"))

    def forward(self, q: Tensor, features: Tensor, dtype: torch.dtype, keys: Tensor | None = None) -> Tensor:
        """q (B, P, D) float32 or wider; features (B, G, S, D) already normed, in `dtype`; keys as in `ca`."""
        q = q + self.sa(plain_norm(q, self.eps, dtype), None)
        q = q + self.ca(plain_norm(q, self.eps, dtype), features, keys)
        return q + self.ffn(plain_norm(q, self.eps, dtype))


class PoseHead(nn.Module):
    def __init__(self, config: DualBranchConfig, parts: Parts):
        super().__init__()
        self.config, self.read = config, parts.weight
        dim = config.dim
        # One fusion per layer that may feed the head in training; inference reads the last layer only.
        self.fusion_layers = nn.ModuleList(parts.linear(dim, dim) for _ in range(config.num_motion_layers))
        self.pe = parts.noise(1, config.pose_tokens, dim)
        self.proj_in = parts.linear(config.pose_dim, dim)
        self.decoders = nn.ModuleList(PoseDecoder(config, parts) for _ in range(config.pose_layers))
        self.proj_out = parts.linear(dim, config.pose_dim)
        self.values_last = True  # False: values of all tokens before they are weighed, for bisecting
        self.one_key_product = True  # False: the keys of every layer by themselves, for small memory and bisecting

    def forward(self, layer: int, video: Tensor, motion: Tensor, init_pose: Tensor, dtype: torch.dtype) -> Tensor:
        """Tokens (B, F, S, D) of both branches after `layer`, before its exchange; first pose -> (B, P, 144)."""
        fused = motion + self.fusion_layers[layer](video.to(dtype))
        # The norm in front of every cross attention has no weights, so one serves all layers. Frame 0 is never read.
        features = plain_norm(fused[:, 1:], self.config.eps, dtype)
        q = self.proj_in(init_pose.to(dtype)) + self.read(self, "pe", fused)
        all_keys = self.keys(features)
        for index, decoder in enumerate(self.decoders):
            keys = decoder.ca.k(features) if self.values_last and all_keys is None else None
            q = decoder(q, features, dtype, keys if all_keys is None else all_keys[index])
        return init_pose.to(q.dtype) + self.proj_out(q.to(dtype))

    def keys(self, features: Tensor) -> tuple[Tensor, ...] | None:
        """The raw keys of all layers by one matrix product, where the layers are plain ones; (B, G, S, D) each."""
        layers = [decoder.ca.k for decoder in self.decoders]
        if not (self.values_last and self.one_key_product) or any(type(layer) is not nn.Linear for layer in layers):
            return None
        weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
        return F.linear(features, weight, bias).chunk(len(layers), dim=-1)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Start of training: only the output projections are zero, so the head begins with "the pose stays".

        The official code starts *every* linear at zero. Most of them then never get a gradient, and the head never
        sees the video.
        """
        silent = [*self.fusion_layers, self.proj_out]
        for decoder in self.decoders:
            silent += [decoder.sa.o, decoder.ca.o, decoder.ffn[2]]
        for layer in silent:
            layer.weight.zero_()
            layer.bias.zero_()

    def check(self, init_pose: Tensor | None, batch: int, latent_frames: int, layers: Iterable[int]) -> Tensor:
        """The first pose as (B, P, 144), or a sentence that says what does not fit."""
        config = self.config
        if latent_frames != config.pose_latent_frames:
            raise ComoviError(
                f"the pose head fits {config.pose_latent_frames} latent frames ({config.pose_tokens + 1} pictures) "
                f"but got {latent_frames}; generate that length, or leave the pose head out and fit the motion map."
            )
        for layer in layers:
            if not 0 <= layer < config.num_layers:
                raise ComoviError(
                    f"the pose head was asked for layer {layer}; layers are 0 to {config.num_layers - 1}."
                )
        if init_pose is None:
            raise ComoviError(f"the pose head needs the first frame's pose, {config.pose_dim} numbers per sample.")
        expected = ((batch, config.pose_dim), (batch, config.pose_tokens, config.pose_dim))
        if tuple(init_pose.shape) not in expected:
            raise ComoviError(f"init_pose has shape {tuple(init_pose.shape)}; expected {expected[0]} or {expected[1]}.")
        if init_pose.ndim == 2:
            init_pose = init_pose[:, None].expand(-1, config.pose_tokens, -1)
        return init_pose


def plain_norm(x: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Layer norm without weights, computed in float32 or wider, given in `dtype`."""
    return F.layer_norm(x.to(stream_dtype(x.dtype)), x.shape[-1:], eps=eps).to(dtype)
