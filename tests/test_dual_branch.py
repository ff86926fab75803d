"""Laws of the network that no golden number is needed for, and what it refuses."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from comfyui_comovi.comovi_model.comovi.config import INTERACTIONS, DualBranchConfig
from comfyui_comovi.comovi_model.comovi.dual_branch import DualBranch
from comfyui_comovi.comovi_model.errors import ComoviError
from torch import nn

SMALL = DualBranchConfig(
    dim=48, ffn_dim=40, num_heads=3, num_layers=2, text_dim=10, text_len=5, freq_dim=16,
    pose_layers=1, pose_ffn_dim=24, pose_tokens=8,
)  # fmt: skip
SHAPE = (2, 48, 3, 4, 6)  # B, C, F, h, w


def network(dtype=torch.float64, **changes):
    torch.manual_seed(0)
    return DualBranch(replace(SMALL, **changes)).to(dtype)


@pytest.fixture
def given():
    generator = torch.Generator().manual_seed(1)

    def randn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return SimpleNamespace(
        video=randn(*SHAPE), motion=randn(*SHAPE), text=randn(2, 5, 10), pose=randn(2, 144),
        t=torch.tensor([300.0, 900.0]),
    )  # fmt: skip


def call(net, given, **changes):
    values = {"timestep": given.t, "text": given.text, "video": given.video, "motion": given.motion, **changes}
    with torch.no_grad():
        return net(values.pop("video"), values.pop("motion"), values.pop("timestep"), values.pop("text"), **values)


def close(a, b, limit=1e-10):
    return float((a - b).detach().abs().max()) < limit


# --- who hears whom -------------------------------------------------------------------------------------------------

HEARS = {  # mode -> (video hears motion, motion hears video)
    "none": (False, False),
    "single_m2v": (True, False),
    "single_v2m": (False, True),
    "dual": (True, True),
    "mutual": (True, True),
}


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_each_mode_couples_exactly_the_branches_it_names(given, interaction):
    net = network(interaction=interaction, interleave=2 if interaction == "dual" else 1)
    base = call(net, given)
    other_motion = call(net, given, motion=given.motion + 1)
    other_video = call(net, given, video=given.video + 1)
    video_hears, motion_hears = HEARS[interaction]
    assert torch.equal(base.video, other_motion.video) != video_hears
    assert torch.equal(base.motion, other_video.motion) != motion_hears


@pytest.mark.parametrize("interaction", [mode for mode in INTERACTIONS if mode != "none"])
def test_zero_weights_leave_both_branches_untouched(given, interaction):
    interleave = 2 if interaction == "dual" else 1
    net = network(interaction=interaction, interleave=interleave)
    apart = network(interaction="none", interleave=interleave)
    apart.load_state_dict({name: net.state_dict()[name] for name in apart.state_dict()})
    for layer in (*net.zero_linear_blocks, *net.zero_linear_blocks_v2m):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    coupled, alone = call(net, given), call(apart, given)
    assert torch.equal(coupled.video, alone.video)
    assert torch.equal(coupled.motion, alone.motion)


def test_mutual_exchanges_the_values_from_before(given):
    """With one layer the two directions can be written down from the uncoupled features."""
    net = network(interaction="mutual", num_layers=1)
    seen = {}
    net.blocks[0].register_forward_hook(lambda _, i, out: seen.update(video=out))
    net.motion.blocks[0].register_forward_hook(lambda _, i, out: seen.update(motion=out))
    net.head.register_forward_pre_hook(lambda _, i: seen.update(video_after=i[0]))
    net.motion.head.register_forward_pre_hook(lambda _, i: seen.update(motion_after=i[0]))
    call(net, given)
    assert close(seen["video_after"], seen["video"] + net.zero_linear_blocks[0](seen["motion"]))
    assert close(seen["motion_after"], seen["motion"] + net.zero_linear_blocks_v2m[0](seen["video"]))


def test_mutual_with_a_silent_second_direction_is_single_m2v(given):
    net, one_way = network(interaction="mutual"), network(interaction="single_m2v")
    one_way.load_state_dict({name: net.state_dict()[name] for name in one_way.state_dict()})
    for layer in net.zero_linear_blocks_v2m:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert torch.equal(call(net, given).video, call(one_way, given).video)


def test_a_branch_alone_is_that_branch_without_exchange(given):
    net = network(interaction="mutual")
    apart = network(interaction="none")
    apart.load_state_dict({name: net.state_dict()[name] for name in apart.state_dict()})
    both = call(apart, given)
    assert torch.equal(call(net, given, video=None).motion, both.motion)
    assert torch.equal(call(net, given, motion=None).video, both.video)
    assert call(net, given, video=None).video is None


# --- time -----------------------------------------------------------------------------------------------------------


def test_times_per_sample_frame_and_token_say_the_same(given):
    net = network(interaction="mutual")
    once = call(net, given)
    per_frame = given.t[:, None].expand(2, 3)
    per_token = given.t[:, None].expand(2, 18)
    for timestep in (given.t[:, None], per_frame, per_token):
        assert close(call(net, given, timestep=timestep).video, once.video)


def test_a_time_of_its_own_for_every_frame_equals_the_same_times_for_its_tokens(given):
    frames = torch.tensor([[0.0, 500.0, 700.0], [0.0, 20.0, 999.0]])
    net = network()
    per_frame = call(net, given, timestep=frames)
    per_token = call(net, given, timestep=frames.repeat_interleave(6, dim=1))
    assert torch.equal(per_frame.video, per_token.video)


def test_times_that_differ_inside_a_frame_go_through_a_table_of_the_distinct_ones(given):
    """One token of the second frame is told another time; through the table, or with a row for every token."""
    net = network(interaction="none")
    tokens = torch.full((2, 18), 500.0)
    tokens[:, 8] = 10.0
    time = net.embed_time(tokens, (3, 2, 3), 2, torch.float64)
    assert time.e.shape == (2, 48)  # two distinct times, not 36
    assert time.index.shape == (2, 3, 6)
    out = call(net, given, timestep=tokens)
    assert not close(out.video, call(net, given, timestep=torch.full((2,), 500.0)).video, 1e-4)
    # The same tokens, reordered so that the odd one stands elsewhere, must give another answer there.
    moved = tokens.roll(1, dims=1)
    assert not close(out.video, call(net, given, timestep=moved).video, 1e-4)


def test_the_motion_branch_may_have_a_time_of_its_own(given):
    net = network(interaction="none")
    split = call(net, given, motion_timestep=given.t / 2)
    assert torch.equal(split.video, call(net, given).video)
    assert torch.equal(split.motion, call(net, given, timestep=given.t / 2).motion)


# --- text -----------------------------------------------------------------------------------------------------------


def test_the_text_cache_changes_nothing(given):
    net = network(interaction="mutual")
    cache = net.make_text_cache(given.text)
    assert torch.equal(call(net, given, text=None, text_cache=cache).video, call(net, given).video)
    assert torch.equal(call(net, given, text=None, text_cache=cache).motion, call(net, given).motion)


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_what_does_not_read_the_sentence_may_be_computed_once(given, interaction):
    """Two sentences over the same latents: as with the latents repeated, for every kind of time."""
    net = network(interaction=interaction, interleave=2 if interaction == "dual" else 1,
                  pose_head=interaction == "single_m2v").eval()  # fmt: skip
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    text = torch.randn(4, 5, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    asked = {"init_pose": given.pose, "pose_from_layers": (0, -1)} if net.pose_head is not None else {}
    tokens = torch.rand(2, 18, dtype=torch.float64) * 1000  # a time per token
    for time in (given.t, given.t[:, None].expand(2, 3), tokens):
        shared = call(net, given, text=text, timestep=time, motion_timestep=0.5 * time, copies=2, **asked)
        doubled = {name: getattr(given, name).repeat(2, *[1] * (getattr(given, name).dim() - 1))
                   for name in ("video", "motion")}  # fmt: skip
        times = {"timestep": time.repeat(2, *[1] * (time.dim() - 1))}
        times["motion_timestep"] = 0.5 * times["timestep"]
        asked_twice = {**asked, "init_pose": given.pose.repeat(2, 1)} if asked else {}
        apart = call(net, given, text=text, **doubled, **times, **asked_twice)
        for ours, theirs in zip(shared, apart, strict=True):
            assert ours is theirs is None or close(ours, theirs)


def test_a_list_of_sentences_equals_the_padded_tensor(given):
    net = network()
    short = [given.text[0, :2], given.text[1]]
    padded = given.text.clone()
    padded[0, 2:] = 0
    assert torch.equal(call(net, given, text=short).video, call(net, given, text=padded).video)
    assert not close(call(net, given, text=short).video, call(net, given).video, 1e-6)


# --- pose -----------------------------------------------------------------------------------------------------------


def test_the_pose_head_reads_the_features_from_before_the_exchange(given):
    net = network(interaction="mutual", pose_head=True, num_layers=1)
    base = call(net, given, init_pose=given.pose, pose_from_layers=(-1,)).pose
    for layer in (*net.zero_linear_blocks, *net.zero_linear_blocks_v2m):
        nn.init.zeros_(layer.weight)
    assert torch.equal(base, call(net, given, init_pose=given.pose, pose_from_layers=(0,)).pose)


def test_asking_for_poses_changes_no_velocity_and_keeps_the_order_of_layers(given):
    net = network(interaction="mutual", pose_head=True)
    both = call(net, given, init_pose=given.pose, pose_from_layers=(1, 0))
    last = call(net, given, init_pose=given.pose[:, None].expand(-1, 8, -1), pose_from_layers=(-1,))
    assert both.pose.shape == (2, 2, 8, 144)
    assert torch.equal(both.pose[:, :1], last.pose)
    assert torch.equal(both.video, call(net, given).video)
    assert call(net, given).pose is None


def test_pose_tokens_read_their_own_latent_frame_only(given):
    """Features of latent frame 2 must not reach the poses of pixel frames 1 to 4, nor latent frame 0 any pose."""
    net = network(pose_head=True)
    for decoder in net.pose_head.decoders:
        nn.init.zeros_(decoder.sa.o.weight)  # pose tokens may speak to each other; not in this test
    video, motion = torch.randn(2, 3, 6, 48).double(), torch.randn(2, 3, 6, 48).double()
    pose = given.pose[:, None].expand(-1, 8, -1)
    base = net.pose_head(1, video, motion, pose, torch.float64)
    for frame, unchanged in ((0, slice(0, 8)), (1, slice(4, 8)), (2, slice(0, 4))):
        changed = motion.clone()
        changed[:, frame] += torch.randn(6, 48)
        other = net.pose_head(1, video, changed, pose, torch.float64)
        assert torch.equal(base[:, unchanged], other[:, unchanged])
        if frame:
            assert not close(base, other, 1e-6)


def test_a_new_network_predicts_nothing_and_keeps_the_pose_but_every_part_can_learn(given):
    net = network(interaction="mutual", pose_head=True)
    net.init_weights()
    for step in range(3):
        out = net(
            given.video, given.motion, given.t, given.text, init_pose=given.pose, pose_from_layers=(0, 1)
        )  # fmt: skip
        if step == 0:
            assert not out.video.any()
            assert torch.equal(out.pose, given.pose[:, None, None].expand_as(out.pose))
        loss = (out.video - 1).square().mean() + (out.motion - 1).square().mean() + (out.pose - 1).square().mean()
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter -= 1e-2 * gradient
    silent = [name for (name, _), g in zip(net.named_parameters(), gradients, strict=True) if not g.any()]
    assert silent == []


# --- numbers, copies, hosts -----------------------------------------------------------------------------------------


def test_bfloat16_weights_keep_sums_in_float32_and_stay_close(given):
    net = network(torch.float32, interaction="mutual", pose_head=True)
    low = copy.deepcopy(net).bfloat16()
    pose = {"init_pose": given.pose.float(), "pose_from_layers": (-1,)}
    single = SimpleNamespace(
        video=given.video.float(), motion=given.motion.float(), text=given.text.float(), t=given.t
    )  # fmt: skip
    high_out, low_out = call(net, single, **pose), call(low, single, **pose)
    assert low_out.video.dtype == low_out.pose.dtype == torch.float32
    assert float((low_out.video - high_out.video).norm() / high_out.video.norm()) < 0.03  # measured 0.010
    with torch.autocast("cpu", torch.bfloat16):
        auto = call(net, single, **pose)
    assert float((auto.video - high_out.video).norm() / high_out.video.norm()) < 0.03  # measured 0.009


def test_a_network_can_be_copied_and_pickled(given):
    net = network(interaction="mutual", pose_head=True)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(call(twin, given).video, call(net, given).video)


def test_a_host_brings_its_own_layers_attention_and_way_to_read_weights(given):
    made, read, attended = [], [], []

    class Linear(nn.Linear):
        def __init__(self, *arguments, **named):
            made.append("linear")
            super().__init__(*arguments, **named)

    def weight(owner, name, like):
        read.append(name)
        return getattr(owner, name).to(like.dtype)

    def attention(q, k, v):
        attended.append(q.shape)
        scores = torch.einsum("blnd,bmnd->bnlm", q, k) / q.shape[-1] ** 0.5
        return torch.einsum("bnlm,bmnd->blnd", scores.softmax(-1), v)

    operations = SimpleNamespace(Linear=Linear, Conv3d=nn.Conv3d, LayerNorm=nn.LayerNorm)
    torch.manual_seed(0)
    hosted = DualBranch(SMALL, operations, attention, weight=weight).double()
    hosted.load_state_dict(network().state_dict())
    assert close(call(hosted, given).video, call(network(), given).video)
    assert len(made) == 2 * (2 * 10 + 1) + 5 + 2
    assert set(read) == {"modulation", "weight", "bias"}
    assert attended[0] == (2, 18, 3, 16)
    assert len(attended) == 8


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"interaction": "both"}, "choose one of none, single_m2v"),
        ({"interaction": "dual"}, "needs interleave 2 or more"),
        ({"interleave": 3}, "does not divide the 2 layers"),
        ({"interleave": 2, "pose_head": True}, "use interleave 1"),
        ({"interleave": 2, "interaction": "dual", "pose_head": True}, "use interleave 1"),
        ({"pose_head": True, "pose_heads": 7}, "do not divide dim 48"),
        ({"pose_head": True, "pose_tokens": 6}, "multiple of 4"),
        ({"num_heads": 5}, "cannot be split into 5 heads"),
        ({"dim": 51}, "cannot be split"),
        ({"freq_dim": 15}, "must be even"),
        ({"patch_size": (2, 2, 2)}, "patch_size"),
        ({"num_layers": 0}, "at least 1"),
    ],
)
def test_configurations_that_cannot_work_are_refused_when_built(changes, sentence):
    with pytest.raises(ComoviError, match=sentence):
        replace(SMALL, **changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"motion": torch.zeros(2, 48, 4, 4, 6)}, "they must be equal"),
        ({"video": None, "motion": None}, "both latents are missing"),
        ({"video": torch.zeros(2, 48, 3, 5, 6), "motion": torch.zeros(2, 48, 3, 5, 6)}, "multiples of 32 pixels"),
        ({"video": torch.zeros(2, 16, 3, 4, 6), "motion": torch.zeros(2, 16, 3, 4, 6)}, r"\(batch, 48, frames"),
        ({"video": torch.zeros(48, 3, 4, 6), "motion": torch.zeros(48, 3, 4, 6)}, r"\(batch, 48, frames"),
        ({"timestep": torch.zeros(3)}, r"expected \(2,\), \(2, 3\)"),
        ({"timestep": torch.zeros(2, 5)}, r"or \(2, 18\) with one per token"),
        ({"timestep": torch.zeros(2, 1, 1)}, "timestep has shape"),
        ({"motion_timestep": torch.zeros(2, 5)}, "timestep has shape"),
        ({"text": None}, "2 latents need 2 encoded sentences; got none"),
        ({"text": torch.zeros(1, 5, 10)}, "got 1"),
        ({"text": torch.zeros(2, 6, 10)}, "has 6 tokens; at most 5 fit"),
        ({"text": torch.zeros(2, 5, 11)}, "another text encoder"),
        ({"pose_from_layers": (-1,)}, "needs the first frame's pose"),
        ({"pose_from_layers": (7,), "init_pose": torch.zeros(2, 144)}, "layers are 0 to 1"),
        ({"pose_from_layers": (-1,), "init_pose": torch.zeros(1, 144)}, r"expected \(2, 144\) or \(2, 8, 144\)"),
        ({"pose_from_layers": (-1,), "init_pose": torch.zeros(2, 144), "video": None}, "reads both branches"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_in_one_sentence(given, changes, sentence):
    net = network(pose_head=True)
    with pytest.raises(ComoviError, match=sentence) as caught:
        call(net, given, **changes)
    assert "\n" not in str(caught.value)


def test_the_pose_head_refuses_another_length_instead_of_mixing_frames(given):
    net = network(pose_head=True, pose_tokens=80)
    with pytest.raises(ComoviError, match=r"fits 21 latent frames \(81 pictures\) but got 3"):
        call(net, given, init_pose=given.pose, pose_from_layers=(-1,))
    with pytest.raises(ComoviError, match="has no pose head"):
        call(network(), given, init_pose=given.pose, pose_from_layers=(-1,))


def test_unknown_configuration_keys_are_refused_with_the_known_ones():
    assert DualBranchConfig.from_dict(SMALL.to_dict()) == SMALL
    with pytest.raises(ComoviError, match="unknown configuration key 'depth'; known keys: dim, ffn_dim"):
        DualBranchConfig.from_dict({"depth": 3})
