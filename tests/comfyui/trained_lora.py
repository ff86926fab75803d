"""Runs inside ComfyUI's own Python: a LoRA that our trainer wrote, through the node's code, beside the merged weights.

Called as `python trained_lora.py COMFYUI PACKAGE LORA MERGED`; prints one JSON object. The expectations stand in
test_trained_lora.py.
"""

from __future__ import annotations

import json

import in_comfy

# isort: split
import torch
from comovi_pack.nodes.native import lora
from comovi_pack.nodes.native.checks import comovi_network
from comovi_pack.nodes.native.load import load_patcher

file, merged = in_comfy.EXTRA
torch.set_num_threads(1)


def weights(model):
    """The network's weights as they compute, patches applied."""
    model.patch_model(device_to=torch.device("cpu"), force_patch_weights=True)
    return {name: tensor.float().clone() for name, tensor in comovi_network(model).named_parameters()}


def distance(one, other):
    """Between two sets of weights."""
    return float(sum((one[name] - other[name]).square().sum() for name in one).sqrt())


with torch.inference_mode():
    before = weights(load_patcher(None))
    changed, lines = lora.apply_lora(load_patcher(None), file, lora.Strengths(1.0, 1.0, 1.0))
    expected, found = weights(load_patcher(merged)), weights(changed)
    figures = {"error": distance(found, expected), "change": distance(expected, before)}
    print(json.dumps({"lines": lines, **figures}))
