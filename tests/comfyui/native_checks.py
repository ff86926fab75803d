"""Runs inside ComfyUI's own Python: compares what ComfyUI samples with our own core, and what other nodes may do to it.

Called as `python native_checks.py COMFYUI PACKAGE`; prints one JSON object, check -> figures or {"error": ...}. The
expectations stand in test_native_model.py. No server: the same classes that the nodes hand to ComfyUI.
"""

from __future__ import annotations

from dataclasses import replace

import in_comfy

# isort: split
import comfy.sample
import comfy.samplers
import torch
from comovi_pack.comovi_model.body.rotations import matrix_from_6d_rows
from comovi_pack.comovi_model.comovi.checkpoint import official_state
from comovi_pack.comovi_model.comovi.velocity import DualBranchVelocity
from comovi_pack.comovi_model.wan.flow import flow_schedule
from comovi_pack.comovi_model.wan.sampling import Stream, classifier_free, sample
from comovi_pack.nodes.native import network as native_network
from comovi_pack.nodes.native.load import load_patcher
from native_cases import NanoCase, TinyCase, halves, largest, report, tiny, write

NODES = in_comfy.pack_nodes()


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
    quick = replace(case.start.pose, fps=120.0)  # of the file that the pose came from
    low = node.execute(model, conds, {"samples": latent}, case.start.pose, 0.0, 0).args[0]
    return {
        "error": largest(motion.rotations[1:], expected),
        "rate": node.execute(model, conds, {"samples": latent}, quick, 1.0, 0).args[0].fps,
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


report(globals())
