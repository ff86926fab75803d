"""What a sampling run starts from: its size, the first frame with its motion map, and a half that is given whole."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.utils
import node_helpers
import torch
from comfy_api.latest import io
from torch import Tensor

from ..comovi_model.errors import ComoviError
from .choices import listed
from .latents import Latent, check_samples
from .native.latent_format import CHANNELS, HALF
from .native.model import GIVEN_CLEAN
from .schema import make_schema

MAX_SIDE, MAX_FRAMES = 4096, 1025  # frames: 4 n + 1
GIVEN = {"motion map": slice(HALF, CHANNELS), "video": slice(0, HALF)}
MANNERS = ("re-noised", "clean")


class Conditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_Conditioning",
            "CoMoVi Conditioning",
            "sampling",
            description=(
                "Makes the latent to sample: video and motion map of one size and length, with the first frame of each "
                "where it is given. A given first frame stays as it is, whatever the sampler."
            ),
            search_aliases=["comovi image to video", "empty comovi latent", "first frame", "wan image to video"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="What happens: an encoded sentence."),
                io.Conditioning.Input("negative", tooltip="What shall not be seen. Not read at cfg 1."),
                io.Vae.Input("vae", tooltip="Wan2.2 VAE for the real model, the nano VAE for the nano model."),
                io.Int.Input("width", default=704, min=32, max=MAX_SIDE, step=32, tooltip="Of the video, in pixels."),
                io.Int.Input("height", default=1280, min=32, max=MAX_SIDE, step=32, tooltip="Of the video, in pixels."),
                io.Int.Input(
                    "length",
                    default=81,
                    min=1,
                    max=MAX_FRAMES,
                    step=4,
                    tooltip="Frames: 4 n + 1. The released model was trained on 81, at 16 a second; nano on 33.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=64, tooltip="How many clips to sample together."),
                io.Image.Input("first_frame", optional=True, tooltip="The picture that the video starts with."),
                io.Image.Input(
                    "first_map", optional=True, tooltip="The motion map of that picture's person ('Draw Motion Map')."
                ),
            ],
            outputs=[
                io.Conditioning.Output("positive_out", display_name="positive", tooltip="For the sampler."),
                io.Conditioning.Output("negative_out", display_name="negative", tooltip="For the sampler."),
                io.Latent.Output(
                    "latent", display_name="latent", tooltip="96 channels, with the mask of given frames."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, width: int = 32, height: int = 32, length: int = 1) -> bool | str:
        if not all(isinstance(number, int) for number in (width, height, length)):
            return True  # the core says itself that this is no number
        return size_problem(width, height, length) or True

    @classmethod
    def execute(
        cls,
        positive: Any,
        negative: Any,
        vae: Any,
        width: int,
        height: int,
        length: int,
        batch_size: int,
        first_frame: Tensor | None = None,
        first_map: Tensor | None = None,
    ) -> io.NodeOutput:
        problem = size_problem(width, height, length)
        if problem:
            raise ComoviError(problem)
        frames, ratio = (length - 1) // 4 + 1, spatial_ratio(vae)
        shape = (batch_size, CHANNELS, frames, height // ratio, width // ratio)
        latent = torch.zeros(shape, device=comfy.model_management.intermediate_device())
        mask = torch.ones((1, CHANNELS, *shape[2:]), device=latent.device)
        for name, half, picture in (("first_frame", "video", first_frame), ("first_map", "motion map", first_map)):
            if picture is not None:
                encoded = encode(vae, fitted(picture[:1], width, height, name), name)
                latent[:, GIVEN[half], :1] = encoded.to(latent)
                mask[:, GIVEN[half], :1] = 0.0
        made: Latent = {"samples": latent}
        if first_frame is not None or first_map is not None:
            made["noise_mask"] = mask
        return io.NodeOutput(positive, negative, made)


class GiveHalf(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_GiveHalf",
            "CoMoVi Give Half",
            "sampling",
            description=(
                "Gives one half whole and leaves the other to the model: a motion map of your own drives the video, or "
                "your video gets its motion."
            ),
            search_aliases=["drive video with motion", "video to motion", "motion control", "given motion map"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="From 'CoMoVi Conditioning'."),
                io.Conditioning.Input("negative", tooltip="From 'CoMoVi Conditioning'."),
                io.Latent.Input("latent", tooltip="From 'CoMoVi Conditioning', with its first frames."),
                io.Vae.Input("vae", tooltip="The VAE that 'CoMoVi Conditioning' has."),
                io.Combo.Input("half", options=list(GIVEN), default="motion map", tooltip="Which half the frames are."),
                io.Image.Input("frames", tooltip="As many frames as the latent holds; further ones are not read."),
                io.Combo.Input(
                    "manner",
                    options=list(MANNERS),
                    default="re-noised",
                    tooltip=(
                        "re-noised: the given half carries the noise of each step, as in training, so any model can do "
                        "it. clean: it is read as it is, which helps models that were trained so (nano)."
                    ),
                ),
            ],
            outputs=[
                io.Conditioning.Output("positive_out", display_name="positive", tooltip="For the sampler."),
                io.Conditioning.Output("negative_out", display_name="negative", tooltip="For the sampler."),
                io.Latent.Output("latent_out", display_name="latent", tooltip="With the given half in it."),
            ],
        )

    @classmethod
    def validate_inputs(cls, half: str | None = None, manner: str | None = None) -> bool | str:
        return listed(cls, {"half": half, "manner": manner})

    @classmethod
    def execute(
        cls, positive: Any, negative: Any, latent: Latent, vae: Any, half: str, frames: Tensor, manner: str
    ) -> io.NodeOutput:
        samples = check_samples(latent, CHANNELS, "latent", "of 'CoMoVi Conditioning'").clone()
        count, ratio = samples.shape[2], spatial_ratio(vae)
        width, height = samples.shape[4] * ratio, samples.shape[3] * ratio
        wanted = 4 * (count - 1) + 1
        if len(frames) < wanted:
            raise ComoviError(
                f"frames: {len(frames)} are given and the latent holds {wanted}; set the length of "
                f"'CoMoVi Conditioning' to {max(1, (len(frames) - 1) // 4 * 4 + 1)} or give more frames."
            )
        given = encode(vae, fitted(frames[:wanted], width, height, "frames"), "frames").to(samples)
        mask = latent.get("noise_mask")
        mask = torch.ones_like(samples[:1]) if mask is None else full_mask(mask, samples)
        samples[:, GIVEN[half]] = given
        mask[:, GIVEN[half]] = 0.0
        if manner == "clean":
            positive, negative = (
                node_helpers.conditioning_set_values(c, {GIVEN_CLEAN: True}) for c in (positive, negative)
            )
        return io.NodeOutput(positive, negative, {**latent, "samples": samples, "noise_mask": mask})


def size_problem(width: int, height: int, length: int) -> str | None:
    """What is wrong with a size, as a sentence, or None."""
    for name, side in (("width", width), ("height", height)):
        if side % 32 or not 32 <= side <= MAX_SIDE:
            fitting = min(max(32, round(side / 32) * 32), MAX_SIDE)
            return f"{name} is {side}; it must be a multiple of 32 from 32 to {MAX_SIDE}, for example {fitting}."
    if not 1 <= length <= MAX_FRAMES:
        return f"length is {length}; it must be 4 n + 1 frames, from 1 to {MAX_FRAMES}."
    if length % 4 != 1:
        return f"length is {length}; it must be 4 n + 1 frames, for example {max(1, (length - 1) // 4 * 4 + 1)}."
    return None


def spatial_ratio(vae: Any) -> int:
    """Pixels of one latent cell; a VAE of another family is refused."""
    ratio, channels = vae.spacial_compression_encode(), vae.latent_channels
    if channels != HALF:
        raise ComoviError(
            f"vae: this VAE makes latents of {channels} channels and CoMoVi needs {HALF}; load the Wan2.2 VAE "
            "(wan2.2_vae.safetensors), or the nano VAE for the nano model."
        )
    return int(ratio)


def fitted(pictures: Tensor, width: int, height: int, name: str) -> Tensor:
    """Pictures (T, H, W, 3) in 0..1 at this size, cut to its shape about the middle where theirs is another."""
    if pictures.ndim != 4 or 0 in pictures.shape or pictures.shape[-1] < 3:
        raise ComoviError(f"{name}: expected pictures (frames, height, width, 3); got shape {tuple(pictures.shape)}.")
    pictures = pictures[..., :3]
    if not torch.isfinite(pictures).all():
        raise ComoviError(f"{name} holds numbers that are not finite (NaN); check the node that makes it.")
    if tuple(pictures.shape[1:3]) == (height, width):
        return pictures
    return comfy.utils.common_upscale(pictures.movedim(-1, 1), width, height, "lanczos", "center").movedim(1, -1)


def full_mask(mask: Tensor, samples: Tensor) -> Tensor:
    """A LATENT's mask with a number for every channel of `samples`, as samplers would spread it."""
    return comfy.utils.reshape_mask(mask.float(), samples.shape).to(samples).clone()


def encode(vae: Any, pictures: Tensor, name: str) -> Tensor:
    """Latent (1, 48, F, h, w) of pictures (T, H, W, 3)."""
    encoded = vae.encode(pictures)
    if encoded.ndim != 5:
        raise ComoviError(f"vae: it made a latent of shape {tuple(encoded.shape)} of {name}; a video VAE is needed.")
    return encoded[:1]


NODES: list[Any] = [Conditioning, GiveHalf]
