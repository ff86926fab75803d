"""Checkpoints: names and sizes of the real ones, round trips, and what is said about those that do not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from comfyui_comovi.comovi_model.comovi.checkpoint import (
    expected_shapes,
    inspect_checkpoint,
    load_checkpoint,
    official_state,
    save_checkpoint,
)
from comfyui_comovi.comovi_model.comovi.config import DualBranchConfig
from comfyui_comovi.comovi_model.comovi.dual_branch import DualBranch
from comfyui_comovi.comovi_model.comovi.names import find_config, find_layout, our_name
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.wan.weights import open_weights, write_weights

ROOT = Path(sys.modules["comfyui_comovi"].__file__ or "").parent  # the checkout, or where it is installed
KEYS = json.loads((Path(__file__).parent / "golden" / "comovi_5b_keys.json").read_text())["models"]
SMALL = DualBranchConfig(
    dim=48, ffn_dim=64, num_heads=3, num_layers=2, text_dim=20, text_len=6, freq_dim=16, pose_layers=1, pose_ffn_dim=24
)
WANTED = {"num_heads": 3, "text_len": 6}


def network(**changes):
    torch.manual_seed(0)
    return DualBranch(replace(SMALL, **changes))


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def plain_wan(net):
    """The video branch of a network, as a Wan2.2 file would hold it."""
    return {
        name: tensor
        for name, tensor in net.state_dict().items()
        if not name.startswith(("motion.", "zero_", "pose_head."))
    }


@pytest.mark.parametrize("name", [name for name in KEYS if name != "wan2.2_ti2v_5b"])
def test_names_sizes_and_totals_equal_the_real_checkpoints(name):
    model = KEYS[name]
    shapes = {key: tuple(shape) for key, shape in model["keys"].items()}
    config = find_config(shapes, find_layout(shapes, name), {}, {}, name)
    mode = model["mode"]
    assert (config.interaction, config.interleave, config.pose_head) == tuple(mode.values())
    ours = expected_shapes(config)
    assert ours == shapes
    assert sum(torch.Size(shape).numel() for shape in ours.values()) == model["parameters"]


def test_plain_wan_fills_everything_but_exchange_and_pose_head(tmp_path):
    shapes = {key: tuple(shape) for key, shape in KEYS["wan2.2_ti2v_5b"]["keys"].items()}
    layout = find_layout(shapes, "wan")
    config = find_config(shapes, layout, {}, {}, "wan")
    assert layout.name == "wan2.2"
    assert config == DualBranchConfig()
    ours = {our_name(name): shape for name, shape in expected_shapes(config).items()}
    video = {name: shape for name, shape in ours.items() if not name.startswith(("motion.", "zero_"))}
    motion = {name.removeprefix("motion."): shape for name, shape in ours.items() if name.startswith("motion.")}
    assert video == shapes
    assert motion.items() <= shapes.items()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"interaction": "single_v2m"},
        {"interaction": "none"},
        {"interaction": "mutual", "pose_head": True},
        {"interaction": "dual", "interleave": 2},
        {"pose_head": True, "pose_tokens": 8},
    ],
    ids=str,
)
def test_saving_and_loading_gives_the_same_network(tmp_path, changes):
    net = network(**changes)
    save_checkpoint(tmp_path / "a.safetensors", net, metadata={"who": "test"})
    again, report = load_checkpoint(tmp_path / "a.safetensors")
    assert again.config == net.config
    assert same_weights(again, net)
    assert report.missing == (() if net.config.pose_head else ("pose head",))
    assert report.metadata["who"] == "test"


@pytest.mark.parametrize("interaction", ["none", "single_m2v", "mutual"])
def test_without_our_metadata_the_mode_is_found_from_the_names(tmp_path, interaction):
    net = network(interaction=interaction, pose_head=True)
    write_weights(tmp_path / "a.safetensors", official_state(net), {})
    again, report = load_checkpoint(tmp_path / "a.safetensors", **WANTED)
    assert again.config == net.config
    assert any("single_m2v is assumed" in note for note in report.notes) == (interaction == "single_m2v")


def test_the_direction_that_no_name_tells_can_be_given(tmp_path):
    write_weights(tmp_path / "a.safetensors", official_state(network()), {})
    again, _ = load_checkpoint(tmp_path / "a.safetensors", interaction="single_v2m", **WANTED)
    assert again.config.interaction == "single_v2m"


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "state_dict.", "module.", "state_dict.model."])
@pytest.mark.parametrize("layout", ["comovi", "wan2.2"])
def test_a_prefix_is_found_and_neighbours_are_left_alone(tmp_path, prefix, layout):
    net = network()
    state = official_state(net) if layout == "comovi" else plain_wan(net)
    tensors = {prefix + name: tensor for name, tensor in state.items()} | {"vae.conv1.weight": torch.ones(2)}
    write_weights(tmp_path / "a.safetensors", tensors, {})
    again, report = load_checkpoint(tmp_path / "a.safetensors", **WANTED)
    assert report.layout == layout
    assert torch.equal(again.blocks[1].ffn[0].weight, net.blocks[1].ffn[0].weight)
    assert any("1 tensors outside" in note for note in report.notes)


def test_a_plain_wan_file_starts_two_branches_that_learn_apart(tmp_path):
    net = network()
    write_weights(tmp_path / "wan.safetensors", plain_wan(net), {})
    again, report = load_checkpoint(tmp_path / "wan.safetensors", new_pose_head=True, **WANTED)
    assert report.missing == ("exchange", "pose head")
    assert torch.equal(again.motion.blocks[1].self_attn.q.weight, net.blocks[1].self_attn.q.weight)
    assert not any(layer.weight.any() for layer in again.zero_linear_blocks)
    assert again.pose_head.decoders[0].sa.v.weight.any()
    assert not again.pose_head.decoders[0].sa.o.weight.any()
    with torch.no_grad():
        again.motion.blocks[1].self_attn.q.weight.zero_()
    assert torch.equal(again.blocks[1].self_attn.q.weight, net.blocks[1].self_attn.q.weight)


def test_plain_wan_with_interleave_takes_every_second_block_for_the_motion(tmp_path):
    net = network(num_layers=4)
    write_weights(tmp_path / "wan.safetensors", plain_wan(net), {})
    again, _ = load_checkpoint(tmp_path / "wan.safetensors", interleave=2, interaction="dual", **WANTED)
    assert len(again.motion.blocks) == 2
    assert torch.equal(again.motion.blocks[1].ffn[0].weight, net.blocks[2].ffn[0].weight)


def test_a_released_file_can_be_continued_as_mutual_from_a_silent_second_direction(tmp_path):
    write_weights(tmp_path / "a.safetensors", official_state(network()), {})
    again, _ = load_checkpoint(tmp_path / "a.safetensors", interaction="mutual", **WANTED)
    assert again.zero_linear_blocks[0].weight.any()
    assert not again.zero_linear_blocks_v2m[0].weight.any()


def test_shards_and_pickles_load_like_the_single_file(tmp_path):
    net = network()
    names = list(official_state(net))
    parts = {"m-1.safetensors": names[:30], "m-2.safetensors": names[30:]}
    for file, part in parts.items():
        write_weights(tmp_path / file, {name: official_state(net)[name] for name in part}, {})
    weight_map = {name: file for file, part in parts.items() for name in part}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    torch.save({"state_dict": official_state(net)}, tmp_path / "m.pt")
    for path in (tmp_path, tmp_path / "m.pt"):
        assert same_weights(load_checkpoint(path, **WANTED)[0], net)


def test_a_head_that_never_learned_to_see_is_reported(tmp_path):
    net = network(pose_head=True)
    save_checkpoint(tmp_path / "seeing.safetensors", net)
    with torch.no_grad():
        for decoder in net.pose_head.decoders:
            decoder.sa.v.weight.zero_()
            decoder.ca.v.weight.zero_()
    save_checkpoint(tmp_path / "blind.safetensors", net)
    assert not any("cannot see" in line for line in inspect_checkpoint(tmp_path / "seeing.safetensors").lines())
    assert any("cannot see" in line for line in inspect_checkpoint(tmp_path / "blind.safetensors").lines())


def test_saving_in_half_precision_and_loading_in_float32(tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", network(), dtype=torch.float16)
    assert inspect_checkpoint(tmp_path / "a.safetensors").dtypes == ("float16",)
    again, _ = load_checkpoint(tmp_path / "a.safetensors", dtype=torch.float32)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}


def test_missing_misshaped_and_unexpected_tensors_are_counted_and_five_are_named(tmp_path):
    state = official_state(network())
    for name in ("rgb_blocks.0.norm3.weight", "rgb_blocks.0.norm3.bias", "time_embedding.2.bias"):
        del state[name]
    state["motion_blocks.1.self_attn.q.bias"] = torch.zeros(3)
    state |= {f"rgb_blocks.0.lora_{n}": torch.zeros(1) for n in range(4)}
    write_weights(tmp_path / "a.safetensors", state, {})
    with pytest.raises(ComoviError) as caught:
        load_checkpoint(tmp_path / "a.safetensors", **WANTED)
    message = str(caught.value)
    assert "3 tensors missing, 1 of another size, 4 unexpected" in message
    assert "rgb_blocks.0.norm3.weight is missing" in message
    assert "motion_blocks.1.self_attn.q.bias is (3,) instead of (48,)" in message
    assert "and 3 more" in message


def test_a_pose_head_that_is_only_half_there_is_an_error(tmp_path):
    state = official_state(network(pose_head=True))
    del state["smpl_proj_in.bias"]
    write_weights(tmp_path / "a.safetensors", state, {})
    with pytest.raises(ComoviError, match="1 tensors missing.*smpl_proj_in.bias is missing"):
        load_checkpoint(tmp_path / "a.safetensors", **WANTED)


@pytest.mark.parametrize(
    ("tensors", "metadata", "sentence"),
    [
        ({"conv.weight": torch.ones(2)}, {}, "neither a CoMoVi nor a Wan2.2 checkpoint"),
        ({"condition_embedder.time_proj.weight": torch.ones(2)}, {}, "diffusers names"),
        ({"patch_embedding.weight": torch.ones(48, 48, 1, 2, 2)}, {}, "cannot be read off"),
        ({"rgb_patch_embedding.weight": torch.ones(5)}, {}, "cannot be read off"),
        ({"patch_embedding.weight": torch.ones(2)}, {"comovi.config": "{"}, "not JSON"),
        ({"patch_embedding.weight": torch.ones(2)}, {"comovi.config": "[1]"}, "not JSON"),
        ({"patch_embedding.weight": torch.ones(2)}, {"comovi.config": '{"dimension": 3}'}, "unknown configuration key"),
        ({"patch_embedding.weight": torch.ones(2)}, {"comovi.config": '{"dim": "wide"}'}, "wrong kind"),
        ({"patch_embedding.weight": torch.ones(2)}, {"comovi.config": '{"dim": 256.0}'}, "dim is of the wrong kind"),
        ({"patch_embedding.weight": torch.ones(2)}, {"comovi.config": '{"pose_head": "no"}'}, "wrong kind"),
        ({"patch_embedding.weight": torch.ones(2)}, {"comovi.config": '{"patch_size": [1, 2, "2"]}'}, "wrong kind"),
        ({"patch_embedding.weight": torch.ones(2)}, {"comovi.config": '{"eps": NaN}'}, "eps is nan"),
        ({"patch_embedding.weight": torch.ones(2)}, {"comovi.config": "[" * 100_000}, "not JSON"),
        ({"patch_embedding.weight": torch.ones(2)}, {"comovi.config": '{"num_layers": 900000000}'}, "too few"),
        ({"patch_embedding.weight": torch.ones(2)}, {"comovi.config": "{}"}, "too few"),
    ],
)
def test_a_foreign_file_is_refused_in_one_sentence(tmp_path, tensors, metadata, sentence):
    write_weights(tmp_path / "a.safetensors", tensors, metadata)
    with pytest.raises(ComoviError, match=sentence):
        load_checkpoint(tmp_path / "a.safetensors")


def test_head_counts_that_leave_no_trace_are_asked_for(tmp_path):
    write_weights(tmp_path / "a.safetensors", official_state(network()), {})
    with pytest.raises(ComoviError, match="give num_heads"):
        load_checkpoint(tmp_path / "a.safetensors")


MEASURE = """
import sys, importlib.util
spec = importlib.util.spec_from_file_location(
    "comfyui_comovi", sys.argv[1] + "/__init__.py", submodule_search_locations=[sys.argv[1]])
module = importlib.util.module_from_spec(spec)
sys.modules["comfyui_comovi"] = module
spec.loader.exec_module(module)
import torch
from comfyui_comovi.comovi_model.comovi.checkpoint import load_checkpoint
from comfyui_comovi.comovi_model.comovi.config import DualBranchConfig
from comfyui_comovi.comovi_model.comovi.dual_branch import DualBranch
DualBranch(DualBranchConfig(num_layers=1), device="meta")
torch.ones(1000, 1000).sum()
def peak():
    status = open("/proc/self/status").read()  # getrusage begins with the parent's peak
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
before = peak()
network, _ = load_checkpoint(sys.argv[2])
total = sum(float(p.view(torch.uint8)[..., ::512].sum()) for p in network.parameters())  # touches every page
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from Linux's /proc")
def test_loading_needs_no_more_memory_than_the_file(tmp_path):
    shapes = expected_shapes(DualBranchConfig(dim=1024, ffn_dim=4096, num_heads=8, num_layers=6))
    path = tmp_path / "big.safetensors"
    write_weights(path, {name: torch.ones(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}, {})
    size = path.stat().st_size
    assert size > 350e6
    command = [sys.executable, "-c", MEASURE, str(ROOT), str(path)]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0.9 * size < grown <= 1.15 * size


def test_the_mapped_file_is_not_read_before_it_is_needed(tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", network())
    files = open_weights(tmp_path / "a.safetensors")
    assert files._maps == {}
    assert files.shapes()["rgb_head.modulation"] == (1, 2, 48)
    assert files._maps == {}
