"""Samplers x sampling nodes on both ComfyUIs: what comes out is the clip, its first frame is kept, the nodes agree."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from nano_graph import PROMPT, nano_model, psnr, relative, start

SAMPLERS = ("euler", "dpmpp_2m", "uni_pc", "res_multistep", "lcm")
NODES = ("KSampler", "KSamplerAdvanced", "two passes", "SamplerCustomAdvanced")
STEPS = 4
# How far a sampler may end, at 4 steps, from the latent that our own core makes in one, as a share of that latent.
# Measured: 0.13 (lcm) to 0.29; noise, or a latent that nothing touched, is at 1 and above.
FARTHEST = 0.45
LEAST_LIKENESS = 20.0  # the same in pictures, dB; noise would be at about 8


@cache
def own_clip() -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (96, F, h, w) and video (T, H, W, 3) of our own sampler, without ComfyUI."""
    from comfyui_comovi.comovi_model.nano.generate import NanoInput, generate

    first = start(PROMPT, 0)
    frame, drawn = (torch.from_numpy(picture.copy())[None] for picture in (first.frame, first.motion_map))
    clip = generate(nano_model(), NanoInput(frame, drawn, first.pose.rotations, [PROMPT]))
    return torch.cat([clip.video_latent[0], clip.motion_latent[0]]), clip.video[0].float() / 255


class Runs:
    """The results of one sampler on one server: all nodes in one prompt, run once."""

    def __init__(self, server, nano, sampler: str) -> None:
        g = nano(server)
        settings = {"sampler_name": sampler, "steps": STEPS}
        part = {"return_with_leftover_noise": "enable", "end_at_step": STEPS // 2}
        half = g.advanced(**settings, **part)
        samples = {
            "KSampler": g.ksampler(**settings),
            "KSamplerAdvanced": g.advanced(**settings),
            "two passes": g.advanced(**settings, add_noise="disable", start_at_step=STEPS // 2, latent_image=half),
            "SamplerCustomAdvanced": g.custom(**settings),
        }
        saved = {name: g.save_latent(node) for name, node in {**samples, "half": half, "given": g.latent}.items()}
        result = server.run(g)
        self.latents = {name: result.latent(node) for name, node in saved.items()}


@pytest.fixture(scope="module")
def runs(nano):
    return cache(lambda server, sampler: Runs(server, nano, sampler))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("node", NODES)
def test_every_sampler_makes_the_clip_in_every_node(comfyui, runs, node, sampler):
    run = runs(comfyui, sampler)
    latent = run.latents[node]
    assert latent.shape == (1, 96, 9, 12, 8) and torch.isfinite(latent).all()
    assert torch.equal(latent[:, :, 0], run.latents["given"][:, :, 0]), "the given first frame has changed"
    own = own_clip()[0]
    for half in (slice(0, 48), slice(48, 96)):
        assert relative(latent[0, half, 1:], own[half, 1:]) < FARTHEST


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_nodes_agree(comfyui, runs, sampler):
    latents = runs(comfyui, sampler).latents
    assert torch.equal(latents["KSampler"], latents["KSamplerAdvanced"])
    difference = relative(latents["KSampler"], latents["SamplerCustomAdvanced"])
    # For uni_pc the KSamplers make one step more and leave out the last but one sigma; BasicScheduler does not.
    assert difference < 0.3 if sampler == "uni_pc" else difference == 0


def test_uni_pc_leaves_other_samplers_alone(comfyui, nano):
    """The core's uni_pc writes 0.001 over the last sigma; nodes that share the sigmas must not see it."""
    g = nano(comfyui)
    sigmas = g.add("BasicScheduler", model=g.model, scheduler="beta", steps=3, denoise=1.0)
    noise = g.add("RandomNoise", noise_seed=1)
    guider = g.add("CFGGuider", model=g.model, positive=g.positive, negative=g.negative, cfg=1.0)
    parts = {"noise": noise, "guider": guider, "sigmas": sigmas}
    last, saved = g.latent, []
    for name in ("res_multistep", "uni_pc", "res_multistep"):
        sampler = g.add("KSamplerSelect", sampler_name=name)
        latent = g.add("LatentBlend", samples1=g.latent, samples2=last, blend_factor=1.0)  # so that each waits
        last = g.add("SamplerCustomAdvanced", **parts, sampler=sampler, latent_image=latent)
        saved.append(g.save_latent(last))
    result = comfyui.run(g)
    assert torch.equal(result.latent(saved[0]), result.latent(saved[2]))
    assert relative(result.latent(saved[1]), result.latent(saved[0])) > 1e-3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_two_passes_go_on_where_the_first_stopped(comfyui, runs, sampler):
    """Euler has no memory, so two passes are one. The others start their memory, or their noise, anew."""
    latents = runs(comfyui, sampler).latents
    assert relative(latents["half"][:, :, 1:], latents["KSampler"][:, :, 1:]) > 0.3, "the first pass left no noise"
    difference = relative(latents["two passes"], latents["KSampler"])
    assert difference < (1e-5 if sampler == "euler" else 0.35)


@pytest.mark.parametrize("scheduler", ["normal", "karras", "beta", "sgm_uniform", "linear_quadratic"])
def test_schedulers_end_at_the_clip(new_comfyui, nano, scheduler):
    g = nano(new_comfyui)
    shown = g.save_images(g.decode(g.ksampler(scheduler=scheduler, steps=STEPS))[0])
    assert psnr(new_comfyui.run(g).images(shown), own_clip()[1]) > LEAST_LIKENESS


def test_official_sampling_is_one_of_the_samplers(comfyui, nano):
    g = nano(comfyui)
    official = g.add("CoMoVi_OfficialSampling", steps=STEPS, shift=5.0, denoise=1.0, released_rounding=False)
    noise = g.add("RandomNoise", noise_seed=1)
    guider = g.add("CFGGuider", model=g.model, positive=g.positive, negative=g.negative, cfg=1.0)
    parts = {"noise": noise, "guider": guider, "sampler": official[0], "sigmas": official[1], "latent_image": g.latent}
    sampled = g.add("SamplerCustomAdvanced", **parts)
    saved, given = g.save_latent(sampled), g.save_latent(g.latent)
    shown = g.save_images(g.decode(sampled)[0])
    result = comfyui.run(g)
    assert torch.equal(result.latent(saved)[:, :, 0], result.latent(given)[:, :, 0])
    assert psnr(result.images(shown), own_clip()[1]) > LEAST_LIKENESS


def test_seeds_differ_and_repeat(comfyui, nano):
    g = nano(comfyui)
    saved = [g.save_latent(g.ksampler(seed=seed, steps=2)) for seed in (1, 2)]
    first = comfyui.run(g)
    assert relative(first.latent(saved[0]), first.latent(saved[1])) > 1e-3
    comfyui.forget()
    again = comfyui.run(g)
    assert len(again.executed()) > 5, "the caches were not emptied"
    assert torch.equal(again.latent(saved[0]), first.latent(saved[0]))


def test_the_decoded_first_frame_is_the_picture(comfyui, nano):
    """Frame 0 of the video and of the map against what the autoencoder makes of the picture alone: at least 40 dB."""
    g = nano(comfyui)
    video, drawn = (g.save_images(node) for node in g.decode(g.ksampler(seed=5)))
    alone = [
        g.save_images(g.add("VAEDecode", samples=g.add("VAEEncode", pixels=picture, vae=g.vae), vae=g.vae))
        for picture in (g.first_frame, g.first_map)
    ]
    result = comfyui.run(g)
    for sampled, single in zip((video, drawn), alone, strict=True):
        frames = result.images(sampled)
        assert frames.shape == (33, 192, 128, 3)
        assert psnr(frames[0], result.images(single)[0]) >= 40
        assert np.abs(frames[-1] - frames[0]).max() > 0.2, "nothing moves"


def test_tiled_decoding_is_decoding(comfyui, nano, record_property):
    g = nano(comfyui)
    samples = g.ksampler(seed=5)
    whole = [g.save_images(node) for node in g.decode(samples)]
    tiles = {"tile_size": 128, "overlap": 32, "temporal_size": 16, "temporal_overlap": 8}
    tiled = [g.save_images(node) for node in g.decode(samples, "VAEDecodeTiled", **tiles)]
    result = comfyui.run(g)
    for one, other, name in zip(whole, tiled, ("video", "map"), strict=True):
        likeness = psnr(result.images(other), result.images(one))
        record_property(f"tiled_{name}_db", round(likeness, 1))
        assert likeness > 45


def test_a_batch_of_two_is_two_clips(comfyui, nano):
    g = nano(comfyui, batch_size=2)
    both = g.save_latent(g.ksampler())
    single = [
        g.save_latent(g.ksampler(latent_image=g.add("LatentFromBatch", samples=g.latent, batch_index=i, length=1)))
        for i in (0, 1)
    ]
    result = comfyui.run(g)
    batch = result.latent(both)
    assert batch.shape[0] == 2 and relative(batch[:1], batch[1:]) > 1e-3
    for i, node in enumerate(single):
        assert relative(batch[i : i + 1], result.latent(node)) < 1e-5


def test_prompt_weights_count(comfyui, nano):
    g = nano(comfyui)
    texts = {
        "plain": PROMPT,
        "one": PROMPT.replace("green", "(green:1.0)"),
        "more": PROMPT.replace("green", "(green:1.6)"),
    }
    saved = {name: g.save_latent(g.ksampler(positive=g.encode(text))) for name, text in texts.items()}
    result = comfyui.run(g)
    latents = {name: result.latent(node) for name, node in saved.items()}
    assert torch.equal(latents["plain"], latents["one"])
    assert 1e-4 < relative(latents["more"], latents["plain"]) < 0.5
