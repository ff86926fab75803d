"""Runs inside ComfyUI's own Python: builds small networks and compares what ComfyUI samples with our own core.

Called as `python native_checks.py COMFYUI PACKAGE`; prints one JSON object, check -> figures or {"error": ...}. The
expectations stand in test_native_model.py. No server: the same classes that the nodes hand to ComfyUI.
"""

from __future__ import annotations

import inspect
import json
import tempfile
import traceback
from pathlib import Path

import in_comfy

# isort: split
import comfy.ops
import comfy.sample
import comfy.samplers
import torch
from comovi_pack.comovi_model.body.rotations import matrix_from_6d_rows, matrix_to_6d_rows
from comovi_pack.comovi_model.comovi.checkpoint import official_state
from comovi_pack.comovi_model.comovi.config import DualBranchConfig
from comovi_pack.comovi_model.comovi.dual_branch import DualBranch
from comovi_pack.comovi_model.comovi.velocity import DualBranchVelocity
from comovi_pack.comovi_model.nano import generate
from comovi_pack.comovi_model.nano.model import load_nano
from comovi_pack.comovi_model.nano.start import make_start
from comovi_pack.comovi_model.nano.text_encoder import tokenise
from comovi_pack.comovi_model.wan.flow import FlowSchedule, flow_schedule
from comovi_pack.comovi_model.wan.sampling import Stream, classifier_free, sample
from comovi_pack.nodes.native import network as native_network
from comovi_pack.nodes.native.load import load_patcher
from safetensors.torch import save_file

NODES = in_comfy.pack_nodes()
PROMPT = "a woman in a red shirt and blue trousers raises both arms"
FOLDER = Path(tempfile.mkdtemp())
torch.set_num_threads(1)


class NanoCase:
    """One nano start, as latents, sentences and noise."""

    def __init__(self):
        self.nano, self.start = load_nano(), make_start(PROMPT, 3)
        pictures = [torch.from_numpy(p.copy())[None] for p in (self.start.frame, self.start.motion_map)]
        self.first = [generate.encode_first(self.nano, picture) for picture in pictures]
        self.latent = torch.zeros(1, 96, 9, *self.first[0].shape[3:])
        self.latent[:, :48, :1], self.latent[:, 48:, :1] = self.first
        self.mask = torch.ones_like(self.latent)
        self.mask[:, :, 0] = 0
        ids, _ = tokenise([PROMPT])
        self.text = {"positive": self.nano.text_encoder(ids), "negative": self.nano.text_encoder(torch.zeros_like(ids))}
        self.noise = comfy.sample.prepare_noise(self.latent, 5)

    def comfy(self, model, steps=3, cfg=1.0, sampler="euler", scheduler="simple", **options):
        conds = [[[self.text[name], {}]] for name in ("positive", "negative")]
        return comfy.sample.sample(
            model, self.noise, steps, cfg, sampler, scheduler, *conds, self.latent, noise_mask=self.mask, seed=5,
            disable_pbar=True, **options,
        )  # fmt: skip

    def ours(self, sigmas, cfg):
        """(video, motion, pose) of our own sampler with the same noise."""
        conditions = [term.condition for term in classifier_free(cfg)]
        cache = self.nano.network.make_text_cache(torch.cat([self.text[name] for name in conditions]))
        pose = matrix_to_6d_rows(self.start.pose.rotations[:1]).flatten(1)
        firsts = dict(zip(("video", "motion"), self.first, strict=True))
        velocity = generate.NanoVelocity(self.nano, self.nano.network, firsts, {"+".join(conditions): cache}, pose)
        schedule = FlowSchedule(tuple(sigmas))
        halves = {"video": self.noise[:, :48], "motion": self.noise[:, 48:]}
        streams = {name: Stream(halves[name], firsts[name], schedule) for name in halves}
        made = sample(velocity, streams, schedule, classifier_free(cfg), sampler="euler")
        return torch.cat([made.latents["video"], made.latents["motion"]], 1), made.extras["positive"]["pose"]


def largest(a, b):
    return float((a - b).abs().max())


def check_euler_equals_our_core():
    case, model = NanoCase(), load_patcher(None)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 4).tolist()
    return {f"cfg {cfg}": largest(case.comfy(model, 4, cfg), case.ours(sigmas, cfg)[0]) for cfg in (1.0, 3.0)}


def check_pose_equals_our_core():
    case, model = NanoCase(), load_patcher(None)
    latent, pose = case.ours([1.0, 0.0], 1.0)
    conds = [[case.text["positive"], {}]]
    node = NODES["CoMoVi_PoseFromLatent"]
    motion = node.execute(model, conds, {"samples": latent}, case.start.pose, 1.0, 0).args[0]
    expected = matrix_from_6d_rows(pose[0].unflatten(-1, (24, 6)))
    low = node.execute(model, conds, {"samples": latent}, case.start.pose, 0.0, 0).args[0]
    return {
        "error": largest(motion.rotations[1:], expected),
        "first": largest(motion.rotations[:1], case.start.pose.rotations[:1]),
        "low noise": float((low.rotations[1:] - expected).square().sum((-1, -2)).sqrt().mean()),
        "moves": float((low.rotations - low.rotations[:1]).square().sum((-1, -2)).sqrt().mean()),
    }


def check_first_frames_stay():
    case, model = NanoCase(), load_patcher(None)
    samplers = ("euler", "dpmpp_2m", "uni_pc", "uni_pc_bh2", "res_multistep", "lcm", "dpm_adaptive", "euler_ancestral")
    out = {}
    for name in samplers:
        made = case.comfy(model, 3, sampler=name)
        out[name] = [largest(made[:, :, 0], case.latent[:, :, 0]), bool(torch.isfinite(made).all())]
    return out


def tiny(**more):
    torch.manual_seed(0)
    sizes = {"dim": 256, "ffn_dim": 512, "num_heads": 2, "num_layers": 2, "freq_dim": 64}
    values = {**sizes, "text_dim": 64, "text_len": 512}
    network = DualBranch(DualBranchConfig(**{**values, **more}))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network.eval().requires_grad_(False)


def write(name, tensors, metadata=None):
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, str(FOLDER / name), metadata=metadata)
    return FOLDER / name


class TinyCase:
    """A random network in the layout of the released files."""

    def __init__(self, network):
        self.network = network
        generator = torch.Generator().manual_seed(1)
        self.latent = torch.randn(1, 96, 3, 6, 4, generator=generator)
        self.mask = torch.ones_like(self.latent)
        self.mask[:, :, 0] = 0
        self.text = [torch.randn(1, 512, 64, generator=generator) for _ in range(2)]
        self.noise = comfy.sample.prepare_noise(self.latent, 1)

    def comfy(self, model, steps=2, cfg=2.0, sampler="euler", scheduler="simple", mask=None, latent=None, **options):
        conds = [[[text, {}]] for text in self.text]
        return comfy.sample.sample(
            model, self.noise, steps, cfg, sampler, scheduler, *conds, self.latent if latent is None else latent,
            noise_mask=self.mask if mask is None else mask, seed=1, disable_pbar=True, **options,
        )  # fmt: skip

    def custom(self, model, sampler, sigmas, cfg=2.0):
        conds = [[[text, {}]] for text in self.text]
        return comfy.sample.sample_custom(
            model, self.noise, cfg, sampler, sigmas, *conds, self.latent, noise_mask=self.mask, seed=1,
            disable_pbar=True,
        )  # fmt: skip


def halves(a, b):
    return [largest(a[:, :48], b[:, :48]), largest(a[:, 48:], b[:, 48:])]


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


def check_branches_alone():
    """In a one-way model the motion branch alone gives the motion of both."""
    network = tiny(interaction="single_m2v")
    case, path = TinyCase(network), write("one_way.safetensors", official_state(network))
    both = case.comfy(load_patcher(path))
    alone = load_patcher(path, branches="motion only")
    kept = sum(p.numel() for p in alone.model.diffusion_model.parameters())
    return {
        "motion": halves(case.comfy(alone), both)[1],
        "share of parameters": kept / sum(p.numel() for p in network.parameters()),
        "video alone": bool(torch.isfinite(case.comfy(load_patcher(path, branches="video only"))).all()),
    }


def check_official_sampling():
    """Sampler, sigmas and rounding of the node are those of our own pipeline, which is checked with golden numbers."""
    network = tiny(interaction="single_m2v", text_len=512)
    case = TinyCase(network)
    latent = load_patcher(write("official2.safetensors", official_state(network)))
    sampler, sigmas = NODES["CoMoVi_OfficialSampling"].execute(6, 5.0, 1.0, True).args
    made = case.custom(latent, sampler, sigmas)
    clean = latent.model.process_latent_in(case.latent)
    schedule = flow_schedule(6, 5.0)
    start = schedule.sigmas[0] * case.noise + (1 - schedule.sigmas[0]) * clean
    streams = {
        "video": Stream(start[:, :48], clean[:, :48, :1]),
        "motion": Stream(start[:, 48:], clean[:, 48:, :1]),
    }
    texts = dict(zip(("positive", "negative"), case.text, strict=True))
    ours = sample(DualBranchVelocity(network, texts), streams, schedule, classifier_free(2.0)).latents
    expected = latent.model.process_latent_out(torch.cat([ours["video"], ours["motion"]], 1))
    return {
        "error": largest(made[:, :, 1:], expected[:, :, 1:]),
        "sigmas": largest(sigmas, torch.tensor(schedule.sigmas)),
    }


def check_given_half():
    """A given motion half comes back bit for bit and decides the video; re-noised and clean differ."""
    network = tiny(interaction="single_m2v")
    case = TinyCase(network)
    model = load_patcher(write("given.safetensors", official_state(network)))
    mask = case.mask.clone()
    mask[:, 48:] = 0
    renoised = case.comfy(model, mask=mask)
    other = case.latent.clone()
    other[:, 48:, 1:] += 1
    moved = case.comfy(model, mask=mask, latent=other)
    conds = [[[text, {"comovi_given_clean": True}]] for text in case.text]
    clean = comfy.sample.sample(
        model, case.noise, 2, 2.0, "euler", "simple", *conds, case.latent, noise_mask=mask, seed=1, disable_pbar=True
    )
    return {
        "motion": halves(renoised, case.latent)[1],
        "clean motion": halves(clean, case.latent)[1],
        "video follows": halves(moved, renoised)[0],
        "manners differ": halves(clean, renoised)[0],
        "free": halves(case.comfy(model), renoised)[0],
    }


def check_saved_nano_loads_again():
    model = load_patcher(None)
    takes_unet = "unet_state_dict" in inspect.signature(model.model.state_dict_for_saving).parameters
    saved = model.model.state_dict_for_saving(*([model.model.diffusion_model.state_dict()] if takes_unet else []))
    again = load_patcher(write("saved.safetensors", saved))
    case = NanoCase()
    return {"error": largest(case.comfy(again), case.comfy(model))}


def check_patches_of_other_nodes():
    """Layer replacement, attention override, stretched positions and odd sizes reach the network."""
    network = tiny(interaction="mutual")
    case = TinyCase(network)
    model = load_patcher(write("patched.safetensors", official_state(network)))
    plain = case.comfy(model)
    sharing = native_network.conditions_alike
    native_network.conditions_alike = lambda *_: 1  # every condition computes all layers, as it does with patches
    unshared = case.comfy(model)
    native_network.conditions_alike = sharing
    seen, calls = [], []

    def passed_through(given, extra):
        seen.append(given["transformer_options"]["block_index"])
        return extra["original_block"](given)

    same = model.clone()
    same.set_model_patch_replace(passed_through, "dit", "double_block", 1)
    skipped = model.clone()
    skipped.set_model_patch_replace(lambda given, extra: {"img": given["img"]}, "dit", "double_block", 1)
    watched = model.clone()

    def override(function, *values, **more):
        calls.append(values[0].shape)
        return function(*values, **more)

    watched.model_options.setdefault("transformer_options", {})["optimized_attention_override"] = override
    stretched = model.clone()
    stretched.model_options.setdefault("transformer_options", {})["rope_options"] = {"scale_x": 2.0, "shift_t": 1.0}
    results = {
        "passed through": largest(case.comfy(same), unshared),
        "shared": largest(plain, unshared),
        "blocks seen": sorted(set(seen)),
        "skipped": largest(case.comfy(skipped), plain),
        "watched": largest(case.comfy(watched), plain),
        "attention calls": len(calls),
        "stretched": largest(case.comfy(stretched), plain),
    }
    odd = TinyCase(network)
    odd.latent = torch.randn(1, 96, 2, 5, 3)
    odd.mask, odd.noise = torch.ones_like(odd.latent), torch.randn_like(odd.latent)
    results["odd size"] = list(odd.comfy(model).shape)
    return results


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


def check_masks_of_other_nodes():
    """A mask of one channel, or of the picture's size as 'Set Latent Noise Mask' makes it, with whole batches."""
    network = tiny(interaction="single_m2v")
    case = TinyCase(network)
    model = load_patcher(write("masks.safetensors", official_state(network)))
    small = case.mask[:, :1]
    picture = torch.ones(1, 1, 96, 64)
    picture[..., :48, :] = 0
    made = {name: case.comfy(model, 1, 1.0, mask=mask) for name, mask in (("small", small), ("picture", picture))}
    return {
        "small": largest(made["small"][:, :, 0], case.latent[:, :, 0]),
        "picture": largest(made["picture"][..., :3, :], case.latent[..., :3, :]),
        "free": largest(made["picture"][..., 3:, :], case.latent[..., 3:, :]),
    }


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


def check_the_first_pose_is_not_rounded():
    head = {"pose_head": True, "pose_layers": 1, "pose_ffn_dim": 64, "pose_tokens": 8}
    network = tiny(interaction="single_m2v", dim=384, num_heads=3, num_layers=1, **head)
    torch.nn.init.zeros_(network.pose_head.proj_out.weight)
    torch.nn.init.zeros_(network.pose_head.proj_out.bias)
    state = {name: tensor.bfloat16() for name, tensor in official_state(network).items()}
    inner = load_patcher(write("pose.safetensors", state)).model.diffusion_model
    request = native_network.PoseRequest(torch.rand(1, 144))
    latent, text = torch.randn(1, 96, 3, 6, 4).bfloat16(), torch.randn(1, 512, 64).bfloat16()
    inner.to(torch.bfloat16)(latent, torch.tensor([90.0]), text, None, {native_network.POSE_REQUEST: request})
    return {"error": largest(request.poses, request.init_pose.expand_as(request.poses[0]))}


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


def main():
    results = {}
    for name, function in list(globals().items()):
        if name.startswith("check_"):
            try:
                with torch.no_grad():
                    results[name.removeprefix("check_")] = function()
            except Exception:
                results[name.removeprefix("check_")] = {"error": traceback.format_exc()[-2000:]}
    print(json.dumps(results))


main()
