"""Runs inside ComfyUI's own Python: which files our network loads from, what it checks of them, what it refuses.

Called as `python native_files.py COMFYUI PACKAGE`; prints one JSON object, check -> figures or {"error": ...}. The
expectations stand in test_native_files.py. No server: the same loader that the nodes call.
"""

from __future__ import annotations

import inspect
import json

import in_comfy

# isort: split
import comfy.ops
import torch
from comovi_pack.comovi_model.comovi.checkpoint import official_state
from comovi_pack.nodes.native import network as native_network
from comovi_pack.nodes.native.load import load_patcher
from native_cases import FOLDER, NanoCase, TinyCase, halves, largest, report, tiny, write


def check_kinds_of_files():
    """Every layout and number format gives the network of the plain official file."""
    network = tiny(interaction="single_m2v")
    case, state = TinyCase(network), official_state(network)
    plain = write("official.safetensors", state)
    truth = case.comfy(load_patcher(plain))
    scaled = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name, tensor in state.items():
        if tensor.ndim == 2 and name.endswith(".weight"):
            scale = tensor.abs().max() / 448
            scaled[name] = (tensor / scale).to(torch.float8_e4m3fn)
            scaled[name.removesuffix("weight") + "scale_weight"] = scale.reshape(())
        else:
            scaled[name] = tensor.to(torch.bfloat16)
    matrices = {name: tensor for name, tensor in state.items() if tensor.ndim == 2}
    eight = {
        name: tensor.to(torch.float8_e4m3fn if name in matrices else torch.bfloat16) for name, tensor in state.items()
    }
    files = {
        "prefixed": write("prefixed.safetensors", {f"model.diffusion_model.{k}": v for k, v in state.items()}),
        "own names": write("own.safetensors", network.state_dict()),
        "bf16": write("bf16.safetensors", {name: tensor.bfloat16() for name, tensor in state.items()}),
        "fp8": write("fp8.safetensors", eight),
    }
    figures = {name: halves(case.comfy(load_patcher(path)), truth) for name, path in files.items()}
    figures["loaded as fp8"] = halves(case.comfy(load_patcher(plain, "fp8_e4m3fn")), truth)
    figures["size"] = float(truth.abs().mean())
    try:
        figures["scaled fp8"] = halves(case.comfy(load_patcher(write("scaled.safetensors", scaled))), truth)
    except ValueError as error:
        figures["scaled fp8"] = str(error)
    return figures


def check_wan_file_fills_both_branches():
    network = tiny(interaction="single_m2v")
    state = {k: v for k, v in network.state_dict().items() if not k.startswith(("motion.", "zero_linear"))}
    weights = load_patcher(write("wan.safetensors", state)).model.diffusion_model.state_dict()
    return {
        "motion block": largest(weights["motion.blocks.1.ffn.0.weight"], state["blocks.1.ffn.0.weight"]),
        "exchange": float(sum(v.abs().sum() for k, v in weights.items() if k.startswith("zero_linear"))),
    }


def check_saved_nano_loads_again():
    model = load_patcher(None)
    takes_unet = "unet_state_dict" in inspect.signature(model.model.state_dict_for_saving).parameters
    saved = model.model.state_dict_for_saving(*([model.model.diffusion_model.state_dict()] if takes_unet else []))
    again = load_patcher(write("saved.safetensors", saved))
    case = NanoCase()
    return {"error": largest(case.comfy(again), case.comfy(model))}


def check_forms_of_eight_bits():
    """Scales are used or refused, whether keys or metadata tell the form."""
    network = tiny(interaction="single_m2v")
    case, state = TinyCase(network), official_state(network)
    tensors, layers = {}, {}
    for name, tensor in state.items():
        layer, ends, _ = name.rpartition(".weight")
        if tensor.ndim == 2 and ends and "blocks" in name:
            tensors[f"{layer}.weight_scale"] = scale = tensor.abs().max() / 448
            tensors[name] = (tensor / scale).to(torch.float8_e4m3fn)
            layers[f"model.{layer}"] = {"format": "float8_e4m3fn"}
        else:
            tensors[name] = tensor.bfloat16()
    tensors = {f"model.{name}": tensor for name, tensor in tensors.items()}
    told = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}
    out = {"untold": in_comfy.sentence(lambda: load_patcher(write("untold.safetensors", tensors)))}
    damaged = write("damaged8.safetensors", tensors, {"_quantization_metadata": "[1]"})
    out["damaged"] = in_comfy.sentence(lambda: load_patcher(damaged))
    try:
        made = case.comfy(load_patcher(write("told.safetensors", tensors, told)))
        truth = case.comfy(load_patcher(write("plain8.safetensors", state)))
        out["told"] = largest(made, truth) / float(truth.abs().mean())
    except ValueError as error:
        out["told"] = str(error)
    return out


def check_hostile_metadata():
    """What a file says about itself is checked before a network is built of it."""
    network = tiny(interaction="single_m2v")
    state, config = official_state(network), network.config.to_dict()
    wrapped = {"parametrization": "first_frame_edm"}

    def noted(text):
        return {**state, "comovi_config": torch.tensor(list(text.encode()), dtype=torch.uint8)}

    files = {
        "no spreads": (state, wrapped),
        "few spreads": (state, {**wrapped, "spread_video": "[1.0]", "spread_motion": "[1.0]"}),
        "zero spreads": (state, {**wrapped, **dict.fromkeys(("spread_video", "spread_motion"), str([0.0] * 48))}),
        "wrapped by mistake": (state, {**wrapped, **dict.fromkeys(("spread_video", "spread_motion"), str([1.0] * 48))}),
        "spreads of another kind": (noted(json.dumps({**config, "spreads": 3})), None),
        "patch of another kind": (noted(json.dumps({**config, "patch_size": 3})), None),
        "half a network": (noted(json.dumps({**config, "branches": "motion only"})), None),
        "16 channels": (official_state(tiny(interaction="single_m2v", in_channels=16, out_channels=16)), None),
    }
    out = {
        name: in_comfy.sentence(lambda f=f: load_patcher(write("hostile.safetensors", *f))) for name, f in files.items()
    }
    for name, content in {"a list": [1, 2], "numbers": {"a": 1, "b": 2}, "a tensor": torch.zeros(2)}.items():
        torch.save(content, FOLDER / "hostile.pt")
        out[name] = in_comfy.sentence(lambda: load_patcher(FOLDER / "hostile.pt"))
    return out


def check_loaded_again_without_paging():
    """As ComfyUI does for hooked LoRAs and further GPUs."""
    network = tiny(interaction="single_m2v")
    found = {}
    for name, path in (("file", write("again.safetensors", official_state(network))), ("nano", None)):
        function, values = load_patcher(path).cached_patcher_init
        again = function(*values, disable_dynamic=True)
        found[name] = sum(p.numel() for p in again.model.parameters())
    found["expected"] = sum(p.numel() for p in network.parameters())
    return found


def check_small_parts_stay_wide_where_weights_come_later():
    """With memory that ComfyUI pages, layers have no weights yet when the network is built."""
    management = getattr(comfy, "memory_management", None)
    if not hasattr(management, "aimdo_enabled"):
        return {}
    management.aimdo_enabled = True
    try:
        operations = comfy.ops.manual_cast
        config = tiny().config.to_dict()
        network = native_network.ComfyDualBranch(operations=operations, dtype=torch.float8_e4m3fn, **config)
    finally:
        management.aimdo_enabled = False
    planned = {name: str(getattr(layer, "weight_comfy_model_dtype", "")) for name, layer in network.named_modules()}
    return {name: planned[name] for name in ("time_embedding.0", "motion.head.head", "blocks.0.ffn.0")}


def check_bad_files():
    network = tiny(interaction="single_m2v")
    state = official_state(network)
    lacking = {k: v for k, v in state.items() if k != "rgb_blocks.1.ffn.2.weight"}
    misshaped = {**state, "motion_head.head.bias": torch.zeros(7)}
    foreign = {"unet.conv_in.weight": torch.zeros(4, 4)}
    sentences = {}
    for name, tensors in (("lacking", lacking), ("misshaped", misshaped), ("foreign", foreign)):
        try:
            load_patcher(write(f"{name}.safetensors", tensors))
            sentences[name] = ""
        except ValueError as error:
            sentences[name] = str(error)
    return sentences


report(globals())
