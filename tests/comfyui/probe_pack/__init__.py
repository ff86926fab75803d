"""Nodes that only the tests load: they count what a model does and make inputs that no stock node makes.

The servers of the tests have this folder in their custom_nodes beside the pack. Old-style nodes, because they need
nothing of it and every ComfyUI reads them.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from json import loads

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.supported_models
import torch


class CountCalls:
    """MODEL -> MODEL whose network calls are counted. Put it last: what was added before may skip calls."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL", "PROBE_COUNT"), "count", "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "tag": ("INT", {"default": 0, "max": 2**31})}}

    def count(self, model, tag):
        calls: list[int] = []

        def wrapper(executor, x, *args, **kwargs):
            calls.append(int(x.shape[0]))
            return executor(x, *args, **kwargs)

        model = model.clone()
        kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
        model.add_wrapper_with_key(kind, f"probe_count_{tag}", wrapper)
        return model, calls


class ShowCalls:
    """Tells how many calls were counted until `after` was there, and the rows of each."""

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "show", "probe", True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"calls": ("PROBE_COUNT",), "after": ("LATENT",)}}

    def show(self, calls, after):
        return {"ui": {"text": [json.dumps({"calls": len(calls), "rows": calls})]}}


class MakeImage:
    """An IMAGE that files cannot hold: not-a-number, no frames, one channel; or plain noise of a seed."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "make", "probe"

    @classmethod
    def INPUT_TYPES(cls):
        kinds = ["noise", "grey", "nan", "no frames", "one channel", "four channels", "nothing wide"]
        size = ("INT", {"default": 64, "max": 4096})
        return {"required": {"kind": (kinds,), "width": size, "height": size, "frames": size, "seed": size}}

    def make(self, kind, width, height, frames, seed):
        image = torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(seed))
        if kind == "grey":
            image = torch.full_like(image, 0.5)
        elif kind == "nan":
            image[:, ::2] = torch.nan
        elif kind == "no frames":
            image = image[:0]
        elif kind == "one channel":
            image = image[..., :1]
        elif kind == "four channels":
            image = torch.cat([image, torch.ones_like(image[..., :1])], -1)
        elif kind == "nothing wide":
            image = image[:, :, :0]
        return (image,)


class BreakMotion:
    """A COMOVI_BODY_MOTION with something wrong in every array, which our own readers would not let in."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("COMOVI_BODY_MOTION",), "spoil", "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"motion": ("COMOVI_BODY_MOTION",), "kind": (["nan", "infinite", "no frames"],)}}

    def spoil(self, motion, kind):
        spoiled = copy.copy(motion)
        frames = len(motion)
        for field in dataclasses.fields(motion):
            value = getattr(motion, field.name)
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                continue
            value = value.clone()
            if kind == "no frames":
                value = value[:0] if value.ndim and len(value) == frames else value
            else:
                value.view(-1)[::2] = torch.nan if kind == "nan" else torch.inf
            object.__setattr__(spoiled, field.name, value)
        return (spoiled,)


class MakeLatent:
    """A LATENT of any number of channels, zeros or noise."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("LATENT",), "make", "probe"

    @classmethod
    def INPUT_TYPES(cls):
        number = ("INT", {"default": 1, "max": 4096})
        names = ("batch", "channels", "frames", "height", "width", "seed")
        return {"required": dict.fromkeys(names, number)}

    def make(self, batch, channels, frames, height, width, seed):
        generator = torch.Generator().manual_seed(seed)
        return ({"samples": torch.randn(batch, channels, frames, height, width, generator=generator)},)


class MakeValue:
    """Whatever other packs would send, from JSON: keypoints, boxes, people of SAM 3D Body."""

    RETURN_TYPES = ("POSE_KEYPOINT", "BBOX", "MHR_POSE_DATA", "SAM3_TRACK_DATA")
    FUNCTION, CATEGORY = "make", "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"json": ("STRING", {"multiline": True})}}

    def make(self, json):
        return (loads(json),) * 4


class OverrideAttention:
    """MODEL -> MODEL with its attention asked through an override, as packs with their own attention do it."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL", "PROBE_COUNT"), "patch", "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "scale": ("FLOAT", {"default": 1.0, "max": 10.0})}}

    def patch(self, model, scale):
        calls: list[int] = []

        def override(function, *args, **kwargs):
            calls.append(len(args[0]))
            return function(*args, **kwargs) * scale

        model = model.clone()
        options = model.model_options.get("transformer_options", {})
        model.model_options["transformer_options"] = {**options, "optimized_attention_override": override}
        return model, calls


class OtherModel:
    """A MODEL that is not CoMoVi's: it has a diffusion_model, and nothing else that ours has."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "make", "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        config = comfy.supported_models.SD15({"disable_unet_model_creation": True})
        model = comfy.model_base.BaseModel(config, device="cpu")
        model.diffusion_model = torch.nn.Linear(1, 1)
        return (comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu")),)


class MakeText:
    """CONDITIONING as another text encoder makes it."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("CONDITIONING",), "make", "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"width": ("INT", {"default": 768, "max": 8192})}}

    def make(self, width):
        return ([[torch.zeros(1, 77, width), {}]],)


class Wait:
    """Does nothing for a while, but stops when told to."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("LATENT",), "wait", "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seconds": ("FLOAT", {"default": 1.0, "max": 1e4})}}

    def wait(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.02)
        return ({"samples": torch.zeros(1, 4, 8, 8)},)


class Fail:
    """Fails while it runs."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("LATENT",), "fail", "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"default": ""})}}

    def fail(self, text):
        raise ValueError("this fails on purpose\nin two lines")


NODES = (
    CountCalls, ShowCalls, MakeImage, BreakMotion, MakeValue, MakeLatent, OverrideAttention, OtherModel, MakeText, Wait,
    Fail,
)  # fmt: skip
NODE_CLASS_MAPPINGS = {f"Probe_{node.__name__}": node for node in NODES}
