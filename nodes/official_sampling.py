"""The sampler and the sigmas of the released pipeline, for SamplerCustomAdvanced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.samplers
import torch
from comfy_api.latest import io
from torch import Tensor

from ..comovi_model.wan.flow import flow_schedule
from ..comovi_model.wan.sampling import UniPC
from .native.network import REFERENCE_TIME
from .schema import ADVANCED, make_schema


class OfficialSampling(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_OfficialSampling",
            "CoMoVi Official Sampling",
            "sampling",
            description=(
                "Sampler and sigmas of the released pipeline: UniPC of order 2 for flow matching. Checked step by step "
                "against it; KSampler with uni_pc and simple comes close."
            ),
            search_aliases=["unipc", "comovi sampler", "comovi sigmas", "wan scheduler", "official schedule"],
            inputs=[
                io.Int.Input("steps", default=50, min=1, max=1000, tooltip="50 as released; 30 is hard to tell apart."),
                io.Float.Input(
                    "shift", default=5.0, min=0.1, max=100.0, step=0.1, tooltip="5 as released; more: longer in noise."
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="1: from noise; less: from the latent.",
                ),
                io.Boolean.Input(
                    "released_rounding",
                    default=True,
                    tooltip="Tell the model the times rounded as the released pipeline rounded them.",
                    **ADVANCED,
                ),
            ],
            outputs=[
                io.Sampler.Output("sampler", display_name="sampler", tooltip="For 'SamplerCustomAdvanced'."),
                io.Sigmas.Output("sigmas", display_name="sigmas", tooltip="steps + 1 noise levels, highest first."),
            ],
        )

    @classmethod
    def execute(cls, steps: int, shift: float, denoise: float, released_rounding: bool) -> io.NodeOutput:
        total = max(steps, round(steps / denoise))
        sigmas = flow_schedule(total, shift).sigmas[-(steps + 1) :]
        sampler = comfy.samplers.KSAMPLER(unipc, {"released_rounding": released_rounding})
        return io.NodeOutput(sampler, torch.tensor(sigmas, dtype=torch.float32))


@torch.no_grad()
def unipc(
    model: Callable[..., Tensor],
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], None] | None = None,
    disable: bool | None = None,
    released_rounding: bool = False,
) -> Tensor:
    """A ComfyUI sampler function around our UniPC: `model` answers with the clean latent seen at a sigma."""
    arguments = dict(extra_args or {})
    if released_rounding:
        options = dict(arguments.get("model_options", {}))
        options["transformer_options"] = {**options.get("transformer_options", {}), REFERENCE_TIME: True}
        arguments["model_options"] = options
    stepper = UniPC([float(sigma) for sigma in sigmas])
    rows = x.new_ones([x.shape[0]])
    for k, sigma in enumerate(stepper.sigmas[:-1]):
        clean = model(x, sigma * rows, **arguments)
        velocity = (x - clean) / sigma
        if callback is not None:
            callback({"x": x, "i": k, "sigma": sigma, "sigma_hat": sigma, "denoised": clean})
        x = stepper.step(k, x, velocity)
    return x


NODES: list[Any] = [OfficialSampling]
