"""The MODEL around the network: which latent it samples, how given frames enter, how much memory a step takes."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import comfy.conds
import comfy.supported_models_base
import torch
from comfy.model_base import BaseModel, ModelType
from torch import Tensor

from ...comovi_model.comovi.config import DualBranchConfig
from ...comovi_model.comovi.names import official_name
from .latent_format import CoMoViLatent, NanoLatent
from .network import ComfyDualBranch

CONFIG_TENSOR = "comovi_config"  # in files that ComfyUI saves, which has no place for metadata: JSON as bytes
GIVEN_CLEAN = "comovi_given_clean"  # conditioning: given frames are read clean, not at the noise of the step


class CoMoViConfig(comfy.supported_models_base.BASE):
    """What ComfyUI asks a model about. The dictionary it is made from holds the keywords of ComfyDualBranch."""

    unet_config: ClassVar[dict[str, Any]] = {"image_model": "comovi"}
    unet_extra_config: ClassVar[dict[str, Any]] = {}
    latent_format = CoMoViLatent
    sampling_settings: ClassVar[dict[str, float]] = {"shift": 5.0}  # as released
    memory_usage_factor = 2.0  # of the 5B network with both branches; see memory_factor
    supported_inference_dtypes: ClassVar[list[torch.dtype]] = [torch.bfloat16, torch.float16, torch.float32]

    def get_model(self, state_dict: Any, prefix: str = "", device: Any = None) -> CoMoViModel:
        return CoMoViModel(self, device=device)

    def process_unet_state_dict_for_saving(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Official names, below the prefix that ComfyUI's own files have."""
        named = {f"model.diffusion_model.{official_name(name)}": tensor for name, tensor in state_dict.items()}
        about = {k: v for k, v in self.unet_config.items() if k not in ("dtype", "image_model")}
        named[CONFIG_TENSOR] = torch.tensor(list(json.dumps(about).encode()), dtype=torch.uint8)
        return named


class NanoConfig(CoMoViConfig):
    """The nano model: its own latents, and float32, for which its first-frame wrapper was made."""

    latent_format = NanoLatent
    supported_inference_dtypes: ClassVar[list[torch.dtype]] = [torch.float32]


def make_config(
    config: DualBranchConfig, branches: str = "both", spreads: tuple[list[float], list[float]] | None = None
) -> CoMoViConfig:
    """The ComfyUI configuration of a network."""
    about = {"image_model": "comovi", "branches": branches, **config.to_dict()}
    made: CoMoViConfig = NanoConfig({**about, "spreads": spreads}) if spreads else CoMoViConfig(about)
    made.memory_usage_factor = memory_factor(config, branches)
    return made


def memory_factor(config: DualBranchConfig, branches: str) -> float:
    """ComfyUI reserves positions * bytes per number * 0.01 MiB * this for one step.

    tools/measure_memory.py counts 1.43 for the 5B network at 704x1280x81 in bfloat16 and 1.12 for one branch alone, and
    by the same count 1.00 for plain Wan2.2-5B, for which ComfyUI reserves 1.38: the same head room makes 2.0 and 1.55.
    """
    factor = CoMoViConfig.memory_usage_factor if branches == "both" else 1.55
    return factor * config.dim / 3072


class CoMoViModel(BaseModel):
    """Flow matching over both halves, with first frames that stay clean."""

    def __init__(self, model_config: CoMoViConfig, device: Any = None):
        super().__init__(model_config, ModelType.FLOW, device=device, unet_model=ComfyDualBranch)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        conds = super().extra_conds(**kwargs)
        text = kwargs.get("cross_attn")
        if text is not None:
            conds["c_crossattn"] = comfy.conds.CONDRegular(text)
        mask = kwargs.get("denoise_mask")
        if mask is not None:
            conds["denoise_mask"] = comfy.conds.CONDRegular(mask)
            if kwargs.get(GIVEN_CLEAN):
                conds["given_latent"] = comfy.conds.CONDRegular(kwargs["latent_image"])
        return conds

    def scale_latent_inpaint(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, **_: Any) -> Tensor:
        """What given frames look like at this sigma: the first one clean, later ones at the noise of the step."""
        sigmas = sigma.reshape(-1, *[1] * (noise.ndim - 1))
        noisy = self.model_sampling.noise_scaling(sigmas, noise, latent_image)
        return torch.cat((latent_image[:, :, :1].expand_as(noisy[:, :, :1]), noisy[:, :, 1:]), dim=2)
