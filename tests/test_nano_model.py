"""The nano model: its autoencoder, its first-frame wrapper, its sampler, and the shipped weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.nano.autoencoder import (
    NanoAutoencoder,
    frames_to_groups,
    groups_to_frames,
    groups_to_patches,
    patches_to_groups,
)
from comfyui_comovi.comovi_model.nano.draw import draw_clip
from comfyui_comovi.comovi_model.nano.first_frame import FirstFrameWrapper
from comfyui_comovi.comovi_model.nano.generate import NanoInput, NanoSettings, generate, schedules
from comfyui_comovi.comovi_model.nano.model import load_nano
from comfyui_comovi.comovi_model.nano.people import load_nano_body
from comfyui_comovi.comovi_model.nano.scene import sample_scene
from comfyui_comovi.training.nano_clips import pixels_to_unit
from comfyui_comovi.training.nano_objective import NoiseLaw

HELD_OUT = 1_900_000_000  # a seed that nothing was trained on


@pytest.fixture(scope="module")
def shipped():
    torch.set_num_threads(1)
    return load_nano()


@pytest.fixture(scope="module")
def clip():
    body = load_nano_body()
    scene = sample_scene(HELD_OUT, body)
    return scene, draw_clip(scene, body), torch.from_numpy(scene.camera_motion(body)[0]).float()


def latents(seed=0, frames=9):
    return torch.randn((2, 48, frames, 4, 2), generator=torch.Generator().manual_seed(seed))


def test_groups_and_patches_are_only_rearrangements():
    frames = torch.rand(1, 9, 32, 16, 3)
    groups = frames_to_groups(frames)
    assert groups.shape == (1, 3, 4, 32, 16, 3)
    assert torch.equal(patches_to_groups(groups_to_patches(groups)), groups)
    assert torch.allclose(groups_to_frames(groups), frames)
    with pytest.raises(ValueError, match="1 \\+ 4 k; got 8"):
        frames_to_groups(frames[:, :8])


def test_the_autoencoder_is_causal_and_a_still_picture_has_one_latent():
    torch.manual_seed(0)
    model = NanoAutoencoder(16, 32).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.05)
    frames = torch.rand(1, 9, 32, 32, 3)
    changed = frames.clone()
    changed[:, 5:] = 0
    with torch.no_grad():
        assert torch.equal(model.encode(frames)[:, :, :2], model.encode(changed)[:, :, :2])
        z = model.encode(frames[:, :1].expand(-1, 9, -1, -1, -1))
        assert torch.allclose(z, z[:, :, :1].expand_as(z), atol=1e-6)
        shown, shown_changed = model.decode(model.encode(frames)), model.decode(model.encode(changed))
        assert torch.allclose(shown[:, :5], shown_changed[:, :5], atol=1e-6)


@pytest.mark.parametrize("sigma", [0.02, 0.3, 0.7, 1.0])
def test_the_right_answer_of_the_network_is_the_true_velocity(sigma):
    wrapper = FirstFrameWrapper(torch.rand(48) + 0.2)
    x0, noise, sigmas = latents(1), latents(2), torch.full((2,), sigma)
    x = (1 - sigma) * x0 + sigma * noise
    target = wrapper.target(x0, x, sigmas)
    net = torch.cat([torch.zeros_like(x0[:, :, :1]), target], 2)
    velocity = wrapper.velocity(net, x, sigmas, x0[:, :, :1])
    assert (velocity - (noise - x0))[:, :, 1:].abs().max() < 1e-3
    assert not velocity[:, :, 0].any()


def test_still_cells_need_no_answer_and_the_first_step_sees_no_noise():
    wrapper = FirstFrameWrapper(torch.full((48,), 0.5))
    still = latents(1)[:, :, :1].expand(-1, -1, 9, -1, -1)
    noise, sigma = latents(2), torch.full((2,), 0.2)
    x = 0.8 * still + 0.2 * noise
    clean = x - 0.2 * wrapper.velocity(torch.zeros_like(x), x, sigma, still[:, :, :1])
    assert (clean - still)[:, :, 1:].abs().mean() < 0.25 * 0.2 * 0.8  # the linear part alone takes most noise out
    start = wrapper.network_input(noise, torch.ones(2), still[:, :, :1])
    assert start.shape[1] == 112
    assert not start[:, :48, 1:].any()


def test_schedules_fall_from_one_to_zero_and_the_map_may_lead():
    video, motion = schedules(NanoSettings(steps=6, motion_lead=0.5))
    assert (video.sigmas[0], video.sigmas[-1], motion.sigmas[-1]) == (1, 0, 0)
    assert all(m <= v for v, m in zip(video.sigmas, motion.sigmas, strict=True))


def test_the_noise_law_shares_most_sigmas_and_starts_half_the_samples_at_one():
    video, motion = NoiseLaw().sample(4000, torch.Generator().manual_seed(0))
    assert 0.80 < float((video == motion).float().mean()) < 0.95
    assert 0.50 < float((video == 1).float().mean()) < 0.62
    assert float((motion == 0).float().mean()) > 0.01


def test_the_shipped_autoencoder_keeps_its_promise(shipped, clip):
    # Means over 200 clips are 29.8 and 29.2 dB (docs/nano_evaluation.json); this one is fast, which is harder.
    for frames, least in ((clip[1].video, 27.0), (clip[1].motion_map, 26.0)):
        x = pixels_to_unit(frames)
        y = shipped.autoencoder.decode(shipped.autoencoder.encode(x)).clamp(-1, 1)
        assert 10 * np.log10(4 / float((x - y).square().mean())) > least


def test_the_shipped_model_moves_the_named_side_and_repeats_itself(shipped, clip):
    _, drawn, rotations = clip
    image, motion_map = (torch.from_numpy(x[:1]) for x in (drawn.video, drawn.motion_map))
    start = NanoInput(
        image.expand(2, -1, -1, -1), motion_map.expand(2, -1, -1, -1), rotations[:1].expand(2, -1, -1, -1),
        ["a person waves with the left hand", "a person waves with the right hand"],
    )  # fmt: skip
    output, again = generate(shipped, start, seed=4), generate(shipped, start, seed=4)
    assert torch.equal(output.video, again.video)
    assert output.video.shape == (2, 33, 192, 128, 3)
    assert torch.equal(output.rotations[:, 0], start.pose)
    left_shoulder, right_shoulder = 16, 17
    moved = (output.rotations[:, -1] - output.rotations[:, 0]).abs().sum((-1, -2))  # (2, 24)
    assert moved[0, left_shoulder] > 3 * moved[0, right_shoulder]
    assert moved[1, right_shoulder] > 3 * moved[1, left_shoulder]
    body = (output.motion_map[0, -1].float().min(-1).values < 230).float()
    assert 0.05 < body.mean() < 0.4


@pytest.mark.parametrize("given", ["video", "motion"])
def test_a_given_half_stays_and_shapes_the_other(shipped, clip, given):
    """The sentence names no action, so what moves can only be read from the given half."""
    _, drawn, rotations = clip
    other = {"video": "motion", "motion": "video"}[given]
    true = {
        "video": shipped.autoencoder.encode(pixels_to_unit(drawn.video)),
        "motion": shipped.autoencoder.encode(pixels_to_unit(drawn.motion_map)),
    }
    plain = NanoInput(
        *(torch.from_numpy(x[:1]) for x in (drawn.video, drawn.motion_map)), rotations[:1], ["a person"]
    )  # fmt: skip
    alone, led = generate(shipped, plain, seed=4), generate(shipped, replace(plain, given={given: true[given]}), seed=4)
    kept, made = (getattr(led, f"{name}_latent") for name in (given, other))
    assert torch.equal(kept[:, :, 1:], true[given][:, :, 1:])
    unled = getattr(alone, f"{other}_latent")
    assert (made - true[other]).square().mean() < 0.8 * (unled - true[other]).square().mean()
    assert (led.rotations - rotations).abs().mean() < (alone.rotations - rotations).abs().mean()
