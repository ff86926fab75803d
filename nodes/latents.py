"""Taking the two halves of a CoMoVi latent apart and putting them together."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..comovi_model.errors import ComoviError
from .native.latent_format import CHANNELS, HALF, motion_half, video_half
from .schema import make_schema

Latent = dict[str, Any]  # ComfyUI's LATENT: "samples", perhaps "noise_mask" and more


class SplitLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_SplitLatent",
            "Split CoMoVi Latent",
            "latent",
            description="Takes the sampled latent apart, so that VAE Decode can turn each half into pictures.",
            search_aliases=["comovi decode", "video and motion", "separate latent", "split motion map"],
            inputs=[io.Latent.Input("latent", tooltip="96 channels, as sampled with a CoMoVi model.")],
            outputs=[
                io.Latent.Output("video", display_name="video", tooltip="48 channels; decodes to the video."),
                io.Latent.Output("motion_map", display_name="motion_map", tooltip="48 channels; decodes to the map."),
            ],
        )

    @classmethod
    def execute(cls, latent: Latent) -> io.NodeOutput:
        samples = check_samples(latent, CHANNELS, "latent", "that a CoMoVi model sampled")
        return io.NodeOutput({"samples": video_half(samples)}, {"samples": motion_half(samples)})


class JoinLatents(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_JoinLatents",
            "Join CoMoVi Latents",
            "latent",
            description="Puts a video and a motion-map latent of one size together, as CoMoVi models sample them.",
            search_aliases=["comovi encode", "merge latent", "combine video and motion"],
            inputs=[
                io.Latent.Input("video", tooltip="48 channels: VAE Encode of the video."),
                io.Latent.Input("motion_map", tooltip="48 channels: VAE Encode of the motion map, same size."),
            ],
            outputs=[io.Latent.Output("latent", display_name="latent", tooltip="96 channels.")],
        )

    @classmethod
    def execute(cls, video: Latent, motion_map: Latent) -> io.NodeOutput:
        halves = [
            check_samples(video, HALF, "video", "of the video"),
            check_samples(motion_map, HALF, "motion_map", "of the motion map"),
        ]
        if halves[0].shape != halves[1].shape:
            raise ComoviError(
                f"the video latent is {tuple(halves[0].shape)} and the motion_map latent {tuple(halves[1].shape)}; "
                "they must be equal: encode pictures of one size and one length."
            )
        return io.NodeOutput({"samples": torch.cat(halves, dim=1)})


def check_samples(latent: Latent, channels: int, name: str, what: str) -> torch.Tensor:
    """The tensor of a LATENT (B, channels, F, h, w), or a sentence that says what came instead."""
    samples = latent["samples"]
    if getattr(samples, "is_nested", False) or samples.ndim != 5 or samples.shape[1] != channels:
        came = "a pair of latents" if getattr(samples, "is_nested", False) else f"shape {tuple(samples.shape)}"
        raise ComoviError(
            f"{name}: expected the latent {what}, (batch, {channels}, frames, height, width); got {came}."
        )
    return samples


NODES: list[Any] = [SplitLatent, JoinLatents]
