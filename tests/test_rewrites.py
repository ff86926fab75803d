"""Rewrites that change the work and not the numbers: each against the plain form, with its switch for bisecting."""

from __future__ import annotations

import pytest
import torch
from comfyui_comovi.comovi_model.comovi.config import DualBranchConfig
from comfyui_comovi.comovi_model.comovi.dual_branch import DualBranch
from comfyui_comovi.comovi_model.comovi.velocity import DualBranchVelocity
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.wan.flow import flow_schedule
from comfyui_comovi.comovi_model.wan.sampling import Stream, classifier_free, sample
from comfyui_comovi.kernels.dispatch import use_backend
from comfyui_comovi.kernels.live_memory import LiveBytes
from comfyui_comovi.kernels.zero_linear import refusal, zero_linear
from torch import nn

SIZES = {"dim": 48, "ffn_dim": 40, "num_heads": 4, "num_layers": 2, "text_dim": 10, "text_len": 5, "freq_dim": 16}
POSE = {"pose_head": True, "pose_layers": 2, "pose_ffn_dim": 24, "pose_heads": 3, "pose_tokens": 8}


def network(**changes):
    torch.manual_seed(0)
    config = DualBranchConfig(**{**SIZES, **POSE, "in_channels": 4, "out_channels": 4, **changes})
    net = DualBranch(config).double().requires_grad_(False)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net


def randn(*shape, seed=1):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def evaluate(net, layers=(-1,)):
    video, motion, text, pose = randn(2, 4, 3, 4, 6), randn(2, 4, 3, 4, 6, seed=2), randn(2, 5, 10), randn(2, 144)
    return net(video, motion, torch.tensor([300.0, 900.0]), text, init_pose=pose, pose_from_layers=layers)


def close(a, b, limit=1e-11):
    return float((a - b).detach().abs().max()) < limit


@pytest.mark.parametrize(
    "switch",
    [("fuse_exchange",), ("pose_head", "values_last"), ("pose_head", "one_key_product")],
    ids=lambda switch: switch[-1],
)
def test_a_switch_changes_no_number(switch):
    """Poses from the first and from the last layer too: they read features from before the exchange."""
    net = network()
    owner = net.pose_head if switch[0] == "pose_head" else net
    assert getattr(owner, switch[-1]) is True
    ours = evaluate(net, (0, -1))
    setattr(owner, switch[-1], False)
    for a, b in zip(ours, evaluate(net, (0, -1)), strict=True):
        assert close(a, b)


def test_gradients_of_the_pose_head_do_not_depend_on_its_switches():
    found = []
    for values_last in (True, False):
        net = network().requires_grad_()
        net.pose_head.values_last = values_last
        evaluate(net).pose.cos().sum().backward()
        found.append({name: p.grad for name, p in net.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all(close(found[0][name], found[1][name], 1e-9) for name in found[0])


def test_values_of_all_tokens_are_not_made():
    """Counted: with many tokens the head needs much less memory when values come last."""
    peaks = []
    for values_last in (True, False):
        net = network(pose_layers=1)
        net.pose_head.values_last = values_last
        video = randn(1, 3, 400, 48)
        with LiveBytes() as live:
            net.pose_head(0, video, video, randn(1, 8, 144), torch.float64)
        peaks.append(live.peak)
    assert peaks[0] < 0.85 * peaks[1]


def sampled(net, names, **options):
    texts = {"positive": randn(1, 5, 10, seed=3), "negative": randn(1, 5, 10, seed=4)}
    velocity = DualBranchVelocity(net, texts, init_pose=randn(1, 144), **options)
    streams = {name: Stream(randn(1, 4, 3, 4, 6, seed=5 + len(name)), randn(1, 4, 1, 4, 6)) for name in names}
    return sample(velocity, streams, flow_schedule(3), classifier_free(3.0))


def test_sharing_what_guidance_does_not_read_changes_no_sample():
    net = network()
    both = ("video", "motion")
    ours, plain = sampled(net, both), sampled(net, both, share_prefix=False)
    assert all(close(ours.latents[name], plain.latents[name]) for name in both)
    assert close(ours.extras["positive"]["pose"], plain.extras["positive"]["pose"])


def test_a_preview_of_the_motion_alone_is_the_motion_of_the_whole():
    net = network()
    alone, both = sampled(net, ("motion",)), sampled(net, ("video", "motion"))
    assert set(alone.latents) == {"motion"}
    assert close(alone.latents["motion"], both.latents["motion"])
    with pytest.raises(ComoviError, match="hears the video"):
        sampled(network(interaction="mutual", pose_head=False), ("motion",))


def test_the_sum_inside_the_product_is_the_sum_behind_it():
    layer = nn.Linear(24, 16).double().requires_grad_(False)
    residual, source = randn(2, 3, 5, 16), randn(2, 3, 5, 24, seed=2)
    before = residual.clone()
    plain = zero_linear(residual, source, layer, torch.float64)
    with use_backend("triton"):
        assert refusal(residual, source, layer, torch.float64) == ""
        assert close(zero_linear(residual, source, layer, torch.float64), plain)
        assert torch.equal(residual, before)
        with torch.no_grad():
            assert "together need a GPU" in refusal(residual, source, nn.Linear(24, 16), torch.float32)
        assert "not a plain one" in refusal(residual, source, lambda x: x, torch.float64)
        assert "gradients" in refusal(residual, source, nn.Linear(24, 16).double(), torch.float64)
        assert "gradients" in refusal(residual, source.clone().requires_grad_(), layer, torch.float64)
    assert "not timed" in refusal(residual, source, layer, torch.float64)
