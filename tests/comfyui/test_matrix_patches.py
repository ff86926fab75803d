"""What people put between the loader and the sampler: LoRA, caches, shift, guidance, fp8, other attention."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch
from comfyui_comovi.comovi_model.nano.generate import NanoSettings
from nano_graph import LOADED, nano_model, psnr, relative

FP8_ERROR = 0.03  # of the whole latent, against the weights as they are; measured 0.012 (e4m3fn), 0.022 (e5m2)
RANK = 4


@pytest.fixture(scope="module")
def lora_files() -> dict[str, bytes]:
    """Small random LoRAs in the forms that are about: plain Wan2.2 in two spellings, and CoMoVi (both branches)."""
    generator = torch.Generator().manual_seed(7)
    shapes = {name[:-7]: value.shape for name, value in nano_model().network.state_dict().items() if value.dim() == 2}
    wan, kohya, comovi = {}, {}, {}
    for name, (out, into) in shapes.items():
        bare = name.removeprefix("motion.")
        if not bare.startswith("blocks."):
            continue
        down, up = (torch.randn(n, generator=generator) for n in ((RANK, into), (out, RANK)))
        down, up = down / into**0.5, 0.5 * up / RANK**0.5
        comovi |= {f"diffusion_model.{name}.lora_A.weight": down, f"diffusion_model.{name}.lora_B.weight": up}
        if name == bare:
            wan |= {f"diffusion_model.{name}.lora_A.weight": down, f"diffusion_model.{name}.lora_B.weight": up}
            flat = f"lora_unet_{name.replace('.', '_')}"
            kohya |= {
                f"{flat}.lora_down.weight": down,
                f"{flat}.lora_up.weight": up,
                f"{flat}.alpha": torch.tensor(float(RANK)),
            }
    return {name: safetensors.torch.save(sd) for name, sd in {"wan": wan, "kohya": kohya, "comovi": comovi}.items()}


@pytest.fixture
def loras(comfyui, lora_files) -> dict[str, str]:
    folder = comfyui.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    for name, content in lora_files.items():
        (folder / f"test_{name}.safetensors").write_bytes(content)
    return {name: f"test_{name}.safetensors" for name in lora_files}


def halves(latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return latent[:, :48, 1:], latent[:, 48:, 1:]


def test_lora_strengths(comfyui, nano, loras):
    g = nano(comfyui)

    alone = g.add("CoMoVi_LoadModel", **{**LOADED, "branches": "motion only"})

    def stock(file: str, strength: float):
        return g.add("LoraLoaderModelOnly", model=g.model, lora_name=loras[file], strength_model=strength)

    def ours(file: str, video: float, motion: float, model=g.model):
        strengths = {"strength_video": video, "strength_motion": motion, "strength_couplings": 0.0}
        return g.add("CoMoVi_ApplyLora", model=model, lora_name=loras[file], **strengths)

    models = {
        "none": g.model,
        "stock 0": stock("wan", 0.0),
        "stock .5": stock("wan", 0.5),
        "stock 1": stock("wan", 1.0),
        "kohya 1": stock("kohya", 1.0),
        "both by stock": stock("comovi", 1.0),
        "ours 0 0": ours("wan", 0.0, 0.0),
        "ours 1 0": ours("wan", 1.0, 0.0),
        "ours 0 1": ours("wan", 0.0, 1.0),
        "ours 1 .5": ours("wan", 1.0, 0.5),
        "ours comovi 1 1": ours("comovi", 1.0, 1.0),
        "alone, none": alone,
        "alone, video's": ours("wan", 1.0, 0.0, alone),
        "alone, motion's": ours("wan", 0.0, 1.0, alone),
    }
    saved = {name: g.save_latent(g.ksampler(model, steps=1)) for name, model in models.items()}
    result = comfyui.run(g)
    latents = {name: result.latent(node) for name, node in saved.items()}

    def moved(name: str) -> list[float]:
        """How far video and motion map went from those without a LoRA."""
        return [relative(a, b) for a, b in zip(halves(latents[name]), halves(latents["none"]), strict=True)]

    assert torch.equal(latents["stock 0"], latents["none"]) and torch.equal(latents["ours 0 0"], latents["none"])
    assert 0.005 < moved("stock .5")[0] < moved("stock 1")[0] < 1
    assert relative(latents["kohya 1"], latents["stock 1"]) < 1e-5
    assert relative(latents["ours 1 0"], latents["stock 1"]) < 1e-5  # a Wan2.2 LoRA by stock node: the video branch
    assert relative(latents["ours comovi 1 1"], latents["both by stock"]) < 1e-5
    assert moved("ours 0 1")[1] > moved("ours 1 0")[1]  # how far a branch follows the other one's LoRA is learned ...
    # ... but where the motion branch is alone, the video's strength changes no bit
    assert torch.equal(halves(latents["alone, video's"])[1], halves(latents["alone, none"])[1])
    assert relative(halves(latents["alone, motion's"])[1], halves(latents["alone, none"])[1]) > 0.01
    assert moved("ours 1 0")[0] > 0.01  # the video follows the motion branch too, so no more can be said of it
    different = ["stock .5", "stock 1", "ours 0 1", "ours 1 .5", "both by stock"]
    distances = [relative(latents[a], latents[b]) for i, a in enumerate(different) for b in different[:i]]
    assert min(distances) > 1e-3
    assert not [line for line in comfyui.log().splitlines() if "lora key not loaded" in line]


def test_easy_cache_saves_calls(comfyui, nano, record_property):
    """The nano model was trained for few steps and takes a skipped one badly: 0.02 instead of the node's usual 0.2."""
    steps = 12
    g = nano(comfyui)
    full = g.count_calls(g.model)
    cached = g.count_calls(
        g.add("EasyCache", model=g.model, reuse_threshold=0.02, start_percent=0.15, end_percent=0.95, verbose=False)
    )
    samples = [g.ksampler(model, steps=steps) for model in (full, cached)]
    calls = [g.show_calls(counter, sample) for counter, sample in zip((full, cached), samples, strict=True)]
    shown = [[g.save_images(node) for node in g.decode(sample)] for sample in samples]
    kept, given = g.save_latent(samples[1]), g.save_latent(g.latent)
    result = comfyui.run(g)
    counts = [len(result.calls(node)) for node in calls]
    assert counts[0] == steps and 1 < counts[1] < steps
    assert torch.equal(result.latent(kept)[:, :, 0], result.latent(given)[:, :, 0])
    likeness = [psnr(result.images(b), result.images(a)) for a, b in zip(*shown, strict=True)]
    record_property("easycache", f"{counts[1]} of {steps} calls, {likeness[0]:.1f} dB video, {likeness[1]:.1f} dB map")
    print(f"EasyCache: {counts[1]} of {steps} calls; PSNR to the full run {likeness[0]:.1f}, {likeness[1]:.1f} dB")
    assert min(likeness) > 20


def test_shift_counts(comfyui, nano):
    g = nano(comfyui)
    usual = NanoSettings().shift
    saved = {
        shift: g.save_latent(g.ksampler(g.add("ModelSamplingSD3", model=g.model, shift=shift), steps=3))
        for shift in (usual, 1.0)
    }
    default = g.save_latent(g.ksampler(steps=3))
    result = comfyui.run(g)
    assert torch.equal(result.latent(saved[usual]), result.latent(default))
    assert relative(result.latent(saved[1.0]), result.latent(default)) > 1e-3


def test_cfg_one_asks_only_the_positive(comfyui, nano):
    g = nano(comfyui, negative="a man in a red shirt jumps")
    rows, saved = {}, {}
    for cfg in (1.0, 3.0):
        model = g.count_calls(g.model)
        sample = g.ksampler(model, steps=2, cfg=cfg)
        rows[cfg], saved[cfg] = g.show_calls(model, sample), g.save_latent(sample)
    other = g.save_latent(g.ksampler(steps=2, negative=g.encode("something else")))
    result = comfyui.run(g)
    assert result.calls(rows[1.0]) == [1, 1]
    assert sum(result.calls(rows[3.0])) == 4
    assert torch.equal(result.latent(other), result.latent(saved[1.0]))
    assert relative(result.latent(saved[3.0]), result.latent(saved[1.0])) > 1e-3


@pytest.mark.parametrize("dtype", ["fp8_e4m3fn", "fp8_e5m2"])
def test_fp8_weights_are_near(comfyui, nano, dtype, record_property):
    latents = {}
    for weights in ("default", dtype):
        g = nano(comfyui, model={"weight_dtype": weights})
        saved = g.save_latent(g.ksampler(steps=2))
        latents[weights] = comfyui.run(g).latent(saved)
    error = relative(latents[dtype], latents["default"])
    record_property(f"{dtype}_error", round(error, 4))
    print(f"{dtype}: relative error {error:.3f}")
    assert 1e-4 < error < FP8_ERROR * (1 if dtype == "fp8_e4m3fn" else 2)


@pytest.mark.parametrize(("branches", "kept"), [("video only", slice(0, 48)), ("motion only", slice(48, 96))])
def test_one_branch_alone_leaves_the_other_half_as_it_was(comfyui, nano, branches, kept):
    g = nano(comfyui, model={"branches": branches})
    saved = g.save_latent(g.ksampler(steps=2))
    latent = comfyui.run(g).latent(saved)
    assert torch.isfinite(latent).all()
    assert float((latent[0, kept, 1:] - latent[0, kept, :1]).std()) > 0.05


def test_an_attention_override_is_asked(comfyui, nano):
    """Packs like SageAttention put their function into transformer_options; ours must pass there, and count."""
    g = nano(comfyui)
    plain = g.save_latent(g.ksampler(steps=1))
    overridden = g.add("Probe_OverrideAttention", model=g.model, scale=1.0)
    same = g.ksampler(overridden, steps=1)
    louder = g.save_latent(g.ksampler(g.add("Probe_OverrideAttention", model=g.model, scale=1.5), steps=1))
    count = g.add("Probe_ShowCalls", calls=overridden[1], after=same)
    saved = g.save_latent(same)
    result = comfyui.run(g)
    network = nano_model().network.config.num_layers
    assert len(result.calls(count)) >= 4 * network  # self and cross attention of two branches
    assert torch.equal(result.latent(saved), result.latent(plain))
    assert relative(result.latent(louder), result.latent(plain)) > 1e-3


def test_guidance_nodes_of_the_core_work(comfyui, nano):
    """RescaleCFG, SkipLayerGuidanceDiT and CFGZeroStar change the result and leave the first frame."""
    g = nano(comfyui, negative="a man in a red shirt jumps")
    skip = {"double_layers": "1", "single_layers": "", "scale": 3.0, "start_percent": 0.0, "end_percent": 1.0}
    models = {
        "plain": g.model,
        "rescale": g.add("RescaleCFG", model=g.model, multiplier=0.7),
        "skip layer": g.add("SkipLayerGuidanceDiT", model=g.model, **skip, rescaling_scale=0.0),
        "zero star": g.add("CFGZeroStar", model=g.model),
    }
    saved = {name: g.save_latent(g.ksampler(model, steps=2, cfg=3.0)) for name, model in models.items()}
    given = g.save_latent(g.latent)
    result = comfyui.run(g)
    first = result.latent(given)[:, :, 0]
    plain = result.latent(saved["plain"])
    for name in models:
        latent = result.latent(saved[name])
        assert torch.equal(latent[:, :, 0], first), name
        assert name == "plain" or 1e-4 < relative(latent, plain) < 1, name
    assert np.isfinite(plain.numpy()).all()
