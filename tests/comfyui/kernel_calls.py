"""Runs inside ComfyUI's own Python: counts which fused operations a sampling run calls, however the weights are kept.

Called as `python kernel_calls.py COMFYUI PACKAGE`; prints one JSON object. The expectations stand in
test_kernel_calls.py. Triton need not be here: the guards are told that it is, and every operator is its plain formula
with a counter in front, so what is tested is who calls what, with which tensors.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import in_comfy  # noqa: F401  (opens the pack inside ComfyUI)

# isort: split
import comfy.sample
import torch
from comovi_pack.comovi_model.comovi.checkpoint import save_checkpoint
from comovi_pack.comovi_model.comovi.config import DualBranchConfig
from comovi_pack.comovi_model.comovi.dual_branch import DualBranch
from comovi_pack.kernels import dispatch, join_norm, library, norm_modulate, qk_norm_rope
from comovi_pack.nodes.native.load import load_patcher
from comovi_pack.nodes.native.report import model_report

torch.set_num_threads(1)
CALLS: Counter[str] = Counter()
FORMULAS = {
    "norm_modulate": norm_modulate.norm_modulate_formula,
    "join": join_norm.join_formula,
    "join_norm_modulate": join_norm.join_norm_modulate_formula,
    "join_norm_affine": join_norm.join_norm_affine_formula,
    "qk_norm_rope": qk_norm_rope.qk_norm_rope_formula,
    "norm_heads": qk_norm_rope.norm_heads_formula,
}


def counted(name, formula):
    def call(*inputs):
        CALLS[name] += 1
        return formula(*inputs)

    return call


for name, formula in FORMULAS.items():
    setattr(library, name, counted(name, formula))
dispatch.triton_missing = lambda: ""
dispatch.interpreted = lambda: True


def tiny():
    torch.manual_seed(0)
    sizes = {"dim": 384, "ffn_dim": 512, "num_heads": 3, "num_layers": 2, "freq_dim": 64, "text_dim": 64}
    network = DualBranch(DualBranchConfig(**sizes))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network.eval().requires_grad_(False)


def sampled(model):
    """Two steps with guidance; no given frame. Samples, and the calls that they took."""
    noise = torch.randn(1, 96, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    texts = [[[torch.randn(1, 512, 64, generator=torch.Generator().manual_seed(seed)), {}]] for seed in (2, 3)]
    CALLS.clear()
    made = comfy.sample.sample(
        model, noise, 2, 3.0, "euler", "simple", *texts, torch.zeros_like(noise), seed=1, disable_pbar=True
    )
    return made, dict(CALLS)


def with_lora(model):
    done, generator = model.clone(), torch.Generator().manual_seed(5)
    for layer in ("blocks.0.self_attn.q", "motion.blocks.1.ffn.0", "zero_linear_blocks.0"):
        key = f"diffusion_model.{layer}.weight"
        rows, columns = model.model.state_dict()[key].shape
        done.add_patches({key: ("diff", (0.02 * torch.randn(rows, columns, generator=generator),))}, 1.0)
    return done


def offloaded(model):
    """A model of which next to nothing is loaded: its layers fetch and patch their weights at every call."""
    load = model.load

    def load_little(device_to=None, lowvram_model_memory=0, **more):
        more.pop("full_load", None)
        return load(device_to, lowvram_model_memory=2**12, **more)

    model.load = load_little
    return model


def main():
    path = Path(tempfile.mkdtemp()) / "tiny.safetensors"
    save_checkpoint(path, tiny())
    makers = {
        "plain": lambda: load_patcher(path),
        "lora": lambda: with_lora(load_patcher(path)),
        "offloaded": lambda: offloaded(load_patcher(path)),
        "offloaded lora": lambda: offloaded(with_lora(load_patcher(path))),
        "fp8": lambda: load_patcher(path, "fp8_e4m3fn"),
        "fp8 lora": lambda: with_lora(load_patcher(path, "fp8_e4m3fn")),
    }
    found, samples = {}, {}
    with torch.inference_mode():
        for name, make in makers.items():
            for setting in ("torch", "triton"):
                with dispatch.use_backend(setting):
                    model = make()
                    samples[name, setting], calls = sampled(model)
                    found[f"{name} {setting}"] = calls
            layers = [m for m in model.model.modules() if hasattr(m, "weight_function")]
            found[f"{name} casts"] = sum(bool(getattr(m, "comfy_cast_weights", False)) for m in layers)
            found[f"{name} patched on the way"] = sum(bool(m.weight_function) for m in layers)
            difference = samples[name, "triton"] - samples[name, "torch"]
            found[f"{name} error"] = float(difference.norm() / samples[name, "torch"].norm())
        found["lora moves"] = float((samples["lora", "torch"] - samples["plain", "torch"]).norm())
        found["offloaded as loaded"] = float(
            (samples["offloaded lora", "triton"] - samples["lora", "triton"]).abs().max()
        )
        with dispatch.use_backend("triton"):
            found["report"] = [line for line in model_report(load_patcher(path)) if line.startswith("kernel")]
    print(json.dumps(found))


main()
