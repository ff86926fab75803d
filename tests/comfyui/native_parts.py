"""Runs inside ComfyUI's own Python: nano CLIP and VAE, LoRA files, the model report, the core's loader, GGUF.

Called as `python native_parts.py COMFYUI PACKAGE [GGUF_PACK]`; prints one JSON object, check -> figures or {"error":
...}. The expectations stand in test_native_parts.py. No server: the same objects that the nodes hand to ComfyUI.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import tempfile
import traceback
from pathlib import Path

import in_comfy

# isort: split
import comfy.sample
import comfy.sd
import comfy.utils
import folder_paths
import torch
from comovi_pack.comovi_model.comovi.checkpoint import save_checkpoint
from comovi_pack.comovi_model.comovi.config import DualBranchConfig
from comovi_pack.comovi_model.comovi.dual_branch import DualBranch
from comovi_pack.comovi_model.comovi.names import official_name
from comovi_pack.comovi_model.nano.model import load_autoencoder, load_text_encoder
from comovi_pack.comovi_model.nano.start import draw_start
from comovi_pack.comovi_model.nano.text_encoder import tokenise
from comovi_pack.nodes.native import gguf, lora, stock_loaders
from comovi_pack.nodes.native.load import load_patcher
from comovi_pack.nodes.native.nano_clip import nano_clip
from comovi_pack.nodes.native.nano_vae import nano_vae
from comovi_pack.nodes.native.report import model_report
from safetensors.torch import load_file, save_file

import nodes

gguf_pack = in_comfy.EXTRA
FOLDER = Path(tempfile.mkdtemp())
MODELS = FOLDER / "diffusion_models"
MODELS.mkdir()
# this folder alone, so that what lies in the ComfyUI that we test with plays no part
for kind in [key for key in folder_paths.folder_names_and_paths if key in ("diffusion_models", "unet_gguf")]:
    folder_paths.folder_names_and_paths[kind] = ([str(MODELS)], folder_paths.folder_names_and_paths[kind][1])
torch.set_num_threads(1)
PROMPT = "a person in a red shirt waves with the right hand"


def largest(a, b):
    return float((a - b).abs().max())


def relative(a, b):
    return float((a - b).norm() / b.norm())


class Messages(logging.Handler):
    """What is logged as a warning, while it is open."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())

    def __enter__(self):
        logging.getLogger().addHandler(self)
        return self.lines

    def __exit__(self, *_):
        logging.getLogger().removeHandler(self)


def check_nano_vae():
    vae, own = nano_vae(), load_autoencoder()
    frame = torch.from_numpy(draw_start(PROMPT, 3).frame.copy()).float() / 255
    clip = frame * torch.linspace(0.6, 1, 33)[:, None, None, None]
    latent = vae.encode(clip)
    plain = vae.decode(latent)
    with Messages() as said:
        cut = vae.encode(torch.cat([clip, clip])[:35])
    return {
        "shape": list(latent.shape),
        "encode": largest(latent, own.encode(clip[None] * 2 - 1)),
        "decode": largest(plain, (own.decode(latent).clamp(-1, 1) + 1) / 2),
        "psnr": float(-10 * (plain[0] - clip).square().mean().log10()),
        "one tile": largest(vae.decode_tiled(latent, tile_x=32, tile_y=32, overlap=2), plain),
        "tiles": relative(vae.decode_tiled(latent, tile_x=8, tile_y=8, overlap=4, tile_t=4, overlap_t=1), plain),
        "encoded in tiles": relative(vae.encode_tiled(clip, tile_x=64, tile_y=64, overlap=32), latent),
        "single": list(vae.encode(clip[:1]).shape),
        "cut": list(cut.shape),
        "cut said": said,
        "96 channels": in_comfy.sentence(lambda: vae.decode(torch.zeros(1, 96, 3, 12, 8))),
    }


def check_nano_clip():
    clip, own = nano_clip(), load_text_encoder()
    encode = nodes.CLIPTextEncode().encode

    def features(text):
        return encode(clip, text)[0][0][0]

    plain, empty = features(PROMPT), features("")
    weighted = features("a person in a (red:1.3) shirt waves with the right hand")
    with Messages() as said:
        features("a zebra and a zebra hops " + "walks " * 30)
    positive, negative = encode(clip, PROMPT)[0], encode(clip, "")[0]
    return {
        "shape": list(plain.shape),
        "plain": largest(plain, own(tokenise([PROMPT])[0])),
        "empty": largest(empty, own(torch.zeros(1, 24, dtype=torch.long))),
        "weighted rows": ((weighted - plain).abs().amax(-1)[0] > 1e-6).nonzero().flatten().tolist(),
        "weight": largest(weighted[0, 4], empty[0, 4] + 1.3 * (plain[0, 4] - empty[0, 4])),
        "escaped": largest(features(PROMPT.replace("red", r"\(red\)")), plain),
        "said": said,
        "combined": len(nodes.ConditioningCombine().combine(positive, negative)[0]),
        "averaged": list(nodes.ConditioningAverage().addWeighted(positive, negative, 0.5)[0][0][0].shape),
        "foreign tokens": in_comfy.sentence(lambda: clip.encode_from_tokens({"l": [[(1, 1.0)]]})),
    }


def matrices(model, name):
    """A low-rank pair for a layer of the MODEL, the same in every run."""
    weight = model.model.state_dict()[f"diffusion_model.{name}.weight"]
    generator = torch.Generator().manual_seed(len(name))
    return torch.randn(2, weight.shape[1], generator=generator), torch.randn(weight.shape[0], 2, generator=generator)


def lora_file(name, model, spelled, ends=("lora_A.weight", "lora_B.weight")):
    tensors = {}
    for layer, spelling in spelled.items():
        for end, matrix in zip(ends, matrices(model, layer), strict=True):
            tensors[f"{spelling}.{end}"] = matrix
    save_file(tensors, str(FOLDER / name))
    return FOLDER / name


def check_lora():
    model = load_patcher(None)
    one, other, between = "blocks.2.self_attn.q", "motion.blocks.2.ffn.0", "zero_linear_blocks.1"
    kohya = ("lora_down.weight", "lora_up.weight")
    files = {
        "plain": lora_file("plain.safetensors", model, {one: f"diffusion_model.{one}"}),
        "kohya": lora_file("kohya.safetensors", model, {one: "lora_unet_blocks_2_self_attn_q"}, kohya),
        "wan fun": lora_file("fun.safetensors", model, {one: "lora_unet__blocks_2_self_attn_q"}, kohya),
        "diffusers": lora_file("diffusers.safetensors", model, {one: "transformer.blocks.2.attn1.to_q"}),
        "peft": lora_file("peft.safetensors", model, {one: f"base_model.model.{one}"}),
        "official": lora_file("official.safetensors", model, {n: official_name(n) for n in (one, other, between)}),
        "ours": lora_file("ours.safetensors", model, {n: f"diffusion_model.{n}" for n in (one, other, between)}),
    }

    def patched(path, *strengths):
        done, lines = lora.apply_lora(model, path, lora.Strengths(*strengths))
        found = {k.removeprefix("diffusion_model."): v[0][0] for k, v in done.patches.items()}
        return {key.removesuffix(".weight"): strength for key, strength in found.items()}, lines

    out = {name: patched(path, 1.0, 0.5, 0.25)[0] for name, path in files.items()}
    out["left out"] = patched(files["ours"], 0.0, 0.0, 0.25)[0]
    out["lines"] = patched(files["ours"], 1.0, 0.0, 0.25)[1]
    out["untouched"] = len(model.patches)
    stock, _ = comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(str(files["plain"])), 1.0, 0)
    out["as the core"] = sorted(stock.patches) == ["diffusion_model.blocks.2.self_attn.q.weight"]

    foreign = {"lora_unet_down_blocks_0.lora_down.weight": torch.zeros(2, 2)}
    large = {f"diffusion_model.{one}.lora_A.weight": torch.zeros(2, 5120)}
    large[f"diffusion_model.{one}.lora_B.weight"] = torch.zeros(5120, 2)
    torn = {f"diffusion_model.{one}.lora_A.weight": torch.zeros(3, 192)}
    torn[f"diffusion_model.{one}.lora_B.weight"] = torch.zeros(192, 2)
    for name, tensors in (("foreign", foreign), ("large", large), ("torn", torn), ("empty", {})):
        save_file(tensors, str(FOLDER / f"{name}.safetensors"))
    (FOLDER / "damaged.safetensors").write_bytes(b"no tensors in here")
    torch.save({"a": 1}, FOLDER / "numbers.pt")
    for name in ("foreign.safetensors", "large.safetensors", "torn.safetensors", "empty.safetensors",
                 "damaged.safetensors", "numbers.pt"):  # fmt: skip
        out[name] = in_comfy.sentence(lambda path=FOLDER / name: patched(path, 1.0, 1.0, 1.0))
    return out


def check_report():
    model = load_patcher(None)
    file = lora_file("report.safetensors", model, {"blocks.0.self_attn.q": "diffusion_model.blocks.0.self_attn.q"})
    changed, _ = lora.apply_lora(model, file, lora.Strengths(1.0, 1.0, 1.0))
    changed.model_options["transformer_options"]["optimized_attention_override"] = lambda function, *a, **k: None
    path = MODELS / "blind.safetensors"
    save_checkpoint(path, tiny(blind=True))
    return {
        "nano": model_report(model),
        "changed": model_report(changed),
        "motion only": model_report(load_patcher(None, branches="motion only")),
        "fp8": model_report(load_patcher(None, "fp8_e4m3fn")),
        "blind": model_report(load_patcher(path)),
    }


def tiny(blind=False):
    torch.manual_seed(0)
    sizes = {"dim": 384, "ffn_dim": 512, "num_heads": 3, "num_layers": 2, "freq_dim": 64, "text_dim": 64}
    head = {"pose_head": True, "pose_layers": 1, "pose_ffn_dim": 64, "pose_tokens": 8}
    network = DualBranch(DualBranchConfig(**sizes, **head))
    for name, parameter in network.named_parameters():
        torch.nn.init.normal_(parameter, std=0.05)
        if blind and ".v.weight" in name and name.startswith("pose_head"):
            parameter.zero_()
    return network.eval().requires_grad_(False)


def sampled(model):
    """Two steps of euler; no given frame."""
    noise = torch.randn(1, 96, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    text = [[torch.randn(1, 512, 64, generator=torch.Generator().manual_seed(2)), {}]]
    empty = torch.zeros_like(noise)
    return comfy.sample.sample(model, noise, 2, 1.0, "euler", "simple", text, text, empty, seed=1, disable_pbar=True)


def check_the_cores_loader():
    network, path = tiny(), MODELS / "core.safetensors"
    save_checkpoint(path, network, dtype=torch.bfloat16)
    state = load_file(path)
    save_file({f"model.diffusion_model.{k}": v for k, v in state.items()}, str(MODELS / "below.safetensors"))
    save_file({"foo.weight": torch.zeros(3, 3)}, str(MODELS / "foreign.safetensors"))
    expected, load = sampled(load_patcher(path)), nodes.UNETLoader().load_unet
    untouched = comfy.sd.load_diffusion_model_state_dict
    stock_loaders.register()
    stock_loaders.register()
    out = {"registered once": comfy.sd.load_diffusion_model_state_dict.comovi_core is untouched}
    for name, dtype in (("core", "default"), ("below", "default"), ("core", "fp8_e4m3fn"), ("core", "fp8_e5m2")):
        model = load(f"{name}.safetensors", dtype)[0]
        out[f"{name} {dtype}"] = relative(sampled(model), expected)
    half = comfy.sd.load_diffusion_model(str(path), {"dtype": torch.float16})
    out["half"] = relative(sampled(half), expected)
    try:
        load("foreign.safetensors", "default")
    except RuntimeError as error:
        out["foreign"] = str(error)
    out["nano"] = in_comfy.sentence(
        lambda: stock_loaders.load_state_dict(
            load_file(Path(in_comfy.package) / "comovi_model/assets/nano.safetensors"), {}, {}
        )
    )
    return out


def check_gguf_without_the_pack():
    (MODELS / "x.gguf").write_bytes(b"GGUF")
    (MODELS / "sub").mkdir()
    (MODELS / "sub" / "y.GGUF").write_bytes(b"GGUF")
    (MODELS / "no.safetensors").write_bytes(b"")
    return {
        "listed": gguf.gguf_files(),
        "path": gguf.gguf_path("x.gguf") == str(MODELS / "x.gguf"),
        "outside": gguf.gguf_path("../../x.gguf") == str(MODELS / "x.gguf"),
        "absent": in_comfy.sentence(lambda: gguf.gguf_path("z.gguf")),
        "said": in_comfy.sentence(lambda: gguf.load_gguf(gguf.gguf_path("x.gguf"))),
    }


def check_gguf_with_the_pack():
    if not gguf_pack or importlib.util.find_spec("gguf") is None:
        return {"skipped": "no ComfyUI-GGUF beside this ComfyUI, or its library gguf is missing"}
    assert asyncio.run(nodes.load_custom_node(gguf_pack[0]))
    folder_paths.folder_names_and_paths["unet_gguf"] = ([str(MODELS)], {".gguf"})
    network, path = tiny(), MODELS / "tiny.safetensors"
    save_checkpoint(path, network, dtype=torch.bfloat16)
    write_gguf(load_file(path), MODELS / "tiny.gguf")
    plain, packed = load_patcher(path), gguf.load_gguf(gguf.gguf_path("tiny.gguf"))
    theirs = nodes.NODE_CLASS_MAPPINGS["UnetLoaderGGUF"]().load_unet("tiny.gguf")[0]
    expected = sampled(plain)
    spelled = {name: f"diffusion_model.{name}" for name in ("blocks.0.self_attn.q", "blocks.1.ffn.0")}
    file = lora_file("gguf.safetensors", plain, spelled)
    changed = [sampled(lora.apply_lora(m, file, lora.Strengths(0.1, 0.05, 1.0))[0]) for m in (plain, packed)]
    return {
        "listed": gguf.gguf_files(),
        "q8": relative(sampled(packed), expected),
        "their loader": relative(sampled(theirs), sampled(packed)),
        "one branch": relative(sampled(gguf.load_gguf(str(MODELS / "tiny.gguf"), "motion only"))[:, 48:],
                               sampled(load_patcher(path, branches="motion only"))[:, 48:]),
        "lora": relative(changed[0], expected),
        "lora q8": relative(changed[1], changed[0]),
        "damaged": in_comfy.sentence(lambda: gguf.load_gguf(str(MODELS / "x.gguf"))),
    }  # fmt: skip


def write_gguf(state, path):
    """A GGUF file as the pack's converter writes it: Q8_0 matrices in the blocks, the rest float32."""
    import gguf as library
    import numpy as np

    kind = library.GGMLQuantizationType.Q8_0
    writer = library.GGUFWriter(str(path), "wan")
    for name, tensor in state.items():
        numbers = tensor.float().numpy()
        if numbers.ndim > 4:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", [int(n) for n in numbers.shape])
            numbers = numbers.reshape(numbers.shape[0], -1)
        if tensor.ndim == 2 and numbers.shape[1] % 32 == 0 and "blocks" in name:
            writer.add_tensor(name, library.quants.quantize(numbers, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, numbers.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    results = {}
    for name, function in list(globals().items()):
        if name.startswith("check_"):
            try:
                with torch.inference_mode():  # as ComfyUI runs nodes
                    results[name.removeprefix("check_")] = function()
            except Exception:
                results[name.removeprefix("check_")] = {"error": traceback.format_exc()[-2000:]}
    print(json.dumps(results))


main()
