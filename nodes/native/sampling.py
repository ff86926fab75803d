"""What happens around a whole sampling run, whichever sampler node starts it."""

from __future__ import annotations

from typing import Any

import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .network import POSE_REQUEST
from .previews import wrap_callback

KEY = "comovi"


def install(patcher: Any) -> Any:
    """Let every run of this MODEL go through `around_sampling`; returns the patcher."""
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, around_sampling)
    return patcher


def around_sampling(
    executor: Any,
    noise: Tensor,
    latent_image: Tensor,
    sampler: Any,
    sigmas: Tensor,
    denoise_mask: Tensor | None = None,
    callback: Any = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """Sample with moving previews, and put given frames back bit for bit.

    Some samplers end a little above sigma 0 (uni_pc) or where they like (dpm_adaptive), and leave noise in frames that
    were given.
    """
    guider = executor.class_obj
    watched = POSE_REQUEST not in guider.model_options.get("transformer_options", {})  # reading a pose shows nothing
    moving = wrap_callback(callback, guider.model_patcher, len(sigmas) - 1) if watched else callback
    try:
        own_sigmas = sigmas.clone()  # the core's uni_pc writes into them, and other nodes of the workflow share them
        samples = executor(noise, latent_image, sampler, own_sigmas, denoise_mask, moving, *args, **kwargs)
    finally:
        close_preview(moving)
    if denoise_mask is None:
        return samples
    mask = denoise_mask.to(samples.device)
    if mask.shape != samples.shape:  # an older ComfyUI fits it to the latent further inside
        mask = comfy.utils.reshape_mask(mask.float(), samples.shape)
    return torch.where(mask == 0, latent_image.to(samples), samples)


def close_preview(callback: Any) -> None:
    """Stop the player, if there is one."""
    close = getattr(callback, "close", None)
    if close is not None:
        close()
