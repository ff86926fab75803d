"""The usual nodes of a nano prompt, so that a test adds only what it is about.

g = nano(comfyui)                     # loaders, sentence, first frame and map, conditioning
samples = g.ksampler(steps=3)         # or g.custom(...), g.advanced(...)
saved = g.save_latent(samples)
latent = comfyui.run(g).latent(saved)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from comfy_graph import Graph, Node
from comfyui_comovi.comovi_model.nano.demo import find_nano_weights
from comfyui_comovi.comovi_model.nano.model import NanoModel, load_nano
from comfyui_comovi.comovi_model.nano.start import Start, draw_start

PROMPT = "a woman in a green shirt and blue trousers waves with her left hand slowly"
WIDTH, HEIGHT, LENGTH = 128, 192, 33


@cache
def start(prompt: str, seed: int) -> Start:
    """First frame, its motion map and its pose, drawn here and given to the server as picture files."""
    return draw_start(prompt, seed)


@cache
def nano_model() -> NanoModel:
    """Our own core's nano model, for second opinions."""
    return load_nano(find_nano_weights(None))


@dataclass
class NanoGraph(Graph):
    """A graph that begins with everything up to the latent; its nodes are attributes."""

    model: Node | None = None
    clip: Any = None
    vae: Any = None
    positive: Any = None
    negative: Any = None
    latent: Any = None
    first_frame: Node | None = None
    first_map: Node | None = None

    @classmethod
    def begin(
        cls,
        server: Any,
        *,
        prompt: str = PROMPT,
        negative: str = "",
        seed: int = 0,
        length: int = LENGTH,
        batch_size: int = 1,
        first: bool = True,
        model: dict[str, Any] | None = None,
    ) -> NanoGraph:
        """`seed` chooses the first frame (drawn for `prompt`); first=False leaves the first frames out."""
        g = cls()
        g.model = g.add("CoMoVi_LoadModel", **{**LOADED, **(model or {})})
        loaded = g.add("CoMoVi_LoadNanoClipVae")
        g.clip, g.vae = loaded[0], loaded[1]
        g.positive = g.encode(prompt)
        g.negative = g.encode(negative)
        pictures = {}
        if first:
            drawn = start(PROMPT, seed)
            for name, pixels in (("first_frame", drawn.frame), ("first_map", drawn.motion_map)):
                file = server.upload_image(pixels / 255, f"{name} {seed} {os.getpid()}.png")
                pictures[name] = g.add("LoadImage", image=file)
            g.first_frame, g.first_map = pictures["first_frame"], pictures["first_map"]
        made = g.add(
            "CoMoVi_Conditioning",
            positive=g.positive,
            negative=g.negative,
            vae=g.vae,
            width=WIDTH,
            height=HEIGHT,
            length=length,
            batch_size=batch_size,
            **pictures,
        )
        g.positive, g.negative, g.latent = made[0], made[1], made[2]
        return g

    def encode(self, text: str) -> Node:
        return self.add("CLIPTextEncode", clip=self.clip, text=text)

    def ksampler(self, model: Any = None, **settings: Any) -> Node:
        """A KSampler: 3 steps of euler at cfg 1 unless told otherwise."""
        return self.add("KSampler", **{**self._conditions(model), **SAMPLING, **settings})

    def advanced(self, model: Any = None, **settings: Any) -> Node:
        """A KSamplerAdvanced from the first step to the last unless told otherwise."""
        usual = {key: value for key, value in SAMPLING.items() if key not in ("seed", "denoise")}
        steps = {
            "start_at_step": 0,
            "end_at_step": 10000,
            "add_noise": "enable",
            "return_with_leftover_noise": "disable",
        }
        return self.add(
            "KSamplerAdvanced", **{**self._conditions(model), **usual, "noise_seed": 1, **steps, **settings}
        )

    def custom(self, model: Any = None, **settings: Any) -> Node:
        """The same as `ksampler`, in the parts of SamplerCustomAdvanced."""
        s = {**SAMPLING, **settings}
        model = model or self.model
        sampler = self.add("KSamplerSelect", sampler_name=s["sampler_name"])
        sigmas = self.add(
            "BasicScheduler", model=model, scheduler=s["scheduler"], steps=s["steps"], denoise=s["denoise"]
        )
        noise = self.add("RandomNoise", noise_seed=s["seed"])
        guider = self.add("CFGGuider", model=model, positive=self.positive, negative=self.negative, cfg=s["cfg"])
        latent = s.get("latent_image", self.latent)
        parts = {"noise": noise, "guider": guider, "sampler": sampler, "sigmas": sigmas, "latent_image": latent}
        return self.add("SamplerCustomAdvanced", **parts)

    def decode(self, samples: Any, decoder: str = "VAEDecode", **settings: Any) -> tuple[Node, Node]:
        """Pictures of the video and of the motion map."""
        halves = self.add("CoMoVi_SplitLatent", latent=samples)
        video, motion = (self.add(decoder, samples=halves[i], vae=self.vae, **settings) for i in (0, 1))
        return video, motion

    def _conditions(self, model: Any) -> dict[str, Any]:
        given = {"positive": self.positive, "negative": self.negative, "latent_image": self.latent}
        return {"model": model or self.model, **given}


LOADED = {"model_name": "nano (embedded)", "weight_dtype": "default", "branches": "both"}
SAMPLING = {"seed": 1, "steps": 3, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}


def psnr(a: Any, b: Any, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB of two arrays; infinite when equal."""
    error = float(((torch.as_tensor(a).double() - torch.as_tensor(b).double()) ** 2).mean())
    return float("inf") if error == 0 else 10 * float(torch.log10(torch.tensor(peak**2 / error, dtype=torch.float64)))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """The norm of a - b, as a share of the norm of b."""
    return float((a.double() - b.double()).norm() / b.double().norm())
