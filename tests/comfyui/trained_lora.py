"""Runs inside ComfyUI's own Python: a LoRA that our trainer wrote, through the node's code, beside the merged weights.

Called as `python trained_lora.py COMFYUI PACKAGE LORA MERGED`; prints one JSON object. The expectations stand in
test_trained_lora.py.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

home, package, file, merged = sys.argv[1:]
sys.argv[1:] = []
sys.path.insert(0, home)
from comfy.cli_args import args  # noqa: E402

args.cpu = True

import torch  # noqa: E402

spec = importlib.util.spec_from_file_location(
    "comovi_pack", str(Path(package) / "__init__.py"), submodule_search_locations=[package]
)
pack = sys.modules["comovi_pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)

from comovi_pack.nodes.native import lora  # noqa: E402
from comovi_pack.nodes.native.checks import comovi_network  # noqa: E402
from comovi_pack.nodes.native.load import load_patcher  # noqa: E402

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
