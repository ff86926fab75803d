"""Plans: shapes of full size, their keys, their shares on 32 ranks, and memory that agrees with a real run."""

import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from comfyui_comovi.comovi_model.comovi.names import official_name
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.wan.attention import Attention
from comfyui_comovi.kernels.dispatch import use_backend
from comfyui_comovi.kernels.live_memory import LiveBytes
from comfyui_comovi.training.batch import Draw
from comfyui_comovi.training.config import (
    AdapterConfig,
    EngineConfig,
    ModelConfig,
    SmplConfig,
    SmplWeights,
    StageConfig,
    TrainConfig,
)
from comfyui_comovi.training.memory import (
    ClipSize,
    activation_bytes,
    count_weights,
    meta_batch,
    plan_memory,
    stand_in_attention,
)
from comfyui_comovi.training.partition import partition, partition_recipe
from comfyui_comovi.training.plan import MACHINES, check_size, format_report, make_report, plan_machine
from comfyui_comovi.training.recipe import build_recipe

GOLDEN = Path(__file__).parents[1] / "golden" / "comovi_5b_keys.json"
POSE = SmplConfig(layers_per_step=2, weights=SmplWeights(1.0, 0.0, 0.0))
TINY = {"dim": 48, "ffn_dim": 96, "num_heads": 2, "num_layers": 3, "text_dim": 8, "text_len": 6, "freq_dim": 8,
        "pose_layers": 1, "pose_ffn_dim": 16, "pose_tokens": 8}  # fmt: skip
TINY_CONFIG = TrainConfig(
    model=ModelConfig(shape=TINY), stage=StageConfig(smpl=POSE), engine=EngineConfig(precision="fp32")
)
TINY_SIZE = ClipSize(9, 64, 96)
LORA = AdapterConfig(kind="lora", rank=2)
FULL = TrainConfig(engine=EngineConfig(kind="deepspeed"))


@pytest.fixture(scope="module")
def full():
    torch.set_num_threads(1)
    return build_recipe(FULL, device="meta")


def test_a_full_size_stage_two_has_the_released_keys_and_shapes(full):
    golden = json.loads(GOLDEN.read_text())["models"]
    wanted = next(m for m in golden.values() if m["mode"]["predict_smpl"] and m["mode"]["interaction"] == "single_m2v")
    found = {official_name(name): list(t.shape) for name, t in full.network.state_dict().items()}
    assert found == wanted["keys"]
    assert count_weights(full).total == wanted["parameters"] == 11_082_470_928


def test_what_stage_two_trains_is_all_but_the_video_branch_and_what_both_share(full):
    assert count_weights(full).trained == 4_910_890_176 + 283_207_680 + 888_585_360
    stage1 = build_recipe(replace(FULL, stage=StageConfig(kind="motion")), device="meta")
    assert count_weights(stage1).trained == 4_910_890_176


def test_thirty_two_ranks_hold_every_number_exactly_once(full):
    shares = partition_recipe(full, 32)
    assert sum(shares.held) == 11_082_470_928
    assert max(shares.held) == shares.allocated
    assert shares.allocated * 32 - sum(shares.held) < 32 * len(list(full.parameters()))  # padding
    for name, weight in full.named_parameters():
        pieces = [rank[name] for rank in shares.pieces]
        assert pieces[0].start == 0 and pieces[-1].stop == weight.numel()
        assert all(one.stop == two.start for one, two in pairwise(pieces))
    trained = partition_recipe(full, 32, trained=True)
    assert sum(trained.held) == 6_082_683_216


def test_small_weights_leave_some_ranks_with_nothing():
    shares = partition({"a": 5, "b": 1}, 4)
    assert [[(r["a"].start, r["a"].stop), r["b"].count] for r in shares.pieces] == [
        [(0, 2), 1], [(2, 4), 0], [(4, 5), 0], [(5, 5), 0],
    ]  # fmt: skip
    assert shares.held == (3, 2, 1, 0) and shares.allocated == 3
    with pytest.raises(ComoviError, match="at least 1"):
        partition({"a": 5}, 0)


@pytest.mark.parametrize("again", [False, True])
def test_activations_counted_on_meta_are_those_of_a_real_step(again):
    config = replace(TINY_CONFIG, engine=EngineConfig(precision="fp32", checkpointing=again))
    counted = activation_bytes(build_recipe(config, device="meta"), TINY_SIZE, micro=2, kernels="torch")
    recipe = build_recipe(config)
    for module in recipe.modules():
        if isinstance(module, Attention):
            module.attend = stand_in_attention  # the same attention, whose inside neither count sees
    for weight in recipe.parameters():
        if weight.requires_grad:
            weight.register_post_accumulate_grad_hook(lambda weight: setattr(weight, "grad", None))
    batch = meta_batch(recipe, TINY_SIZE, 2, device="cpu")
    live = LiveBytes()
    with use_backend("torch"), live:
        recipe(batch, Draw(0, 0, 0, 0, 1))["loss"].backward()
    assert counted == pytest.approx(live.peak, rel=0.08)  # a few operations differ between devices


def test_recomputing_saves_memory():
    held = []
    for again, kept in ((False, 0), (True, 2), (True, 0)):
        config = replace(TINY_CONFIG, engine=EngineConfig(precision="fp32", checkpointing=again, keep_layers=kept))
        held.append(activation_bytes(build_recipe(config, device="meta"), ClipSize(9, 128, 128)))
    assert held[2] < 0.6 * held[0]
    assert held[2] < held[1] < held[0]


def test_memory_follows_the_stage_of_zero():
    counts = count_weights(build_recipe(TINY_CONFIG, device="meta"))
    total, trained = counts.total, counts.trained

    def plan(**engine):
        return plan_memory(replace(TINY_CONFIG, engine=EngineConfig(**engine)), counts, 0, 4)

    alone = plan(kind="single")
    assert alone.device["weights"] == 2 * total
    assert alone.device["optimiser"] == 12 * trained
    assert alone.device["gradients"] == 4 * trained
    assert not alone.host
    one, two, three = (plan(kind="deepspeed", zero=zero) for zero in (1, 2, 3))
    assert one.device["optimiser"] == two.device["optimiser"] == 3 * trained
    assert two.device["gradients"] == three.device["gradients"] == trained / 2
    assert three.device["weights"] == total / 2
    offloaded = plan(kind="deepspeed", zero=3, offload_optimizer="cpu", offload_params="cpu")
    assert offloaded.host["optimiser"] == 3 * trained
    assert offloaded.host["weights"] == total / 2
    assert "weights" not in offloaded.device


def test_sizes_of_clips_are_those_of_the_paper():
    size = ClipSize()
    assert size.latent == (21, 44, 80) and size.tokens == 18_480
    assert size.cache_bytes() == pytest.approx(14.2e6 + 0.68e6 + 0.35e6, rel=0.02)  # latents, first pictures, text
    for wrong in (ClipSize(80, 64, 64), ClipSize(81, 60, 64)):
        with pytest.raises(ComoviError):
            check_size(wrong)


def test_a_report_tells_whether_it_fits():
    small, large = (
        make_report(TINY_CONFIG, 2, TINY_SIZE, name="test", gpu_gigabytes=gpu, gpus_per_host=1) for gpu in (1.0, 80.0)
    )
    assert "IT DOES NOT FIT" in "\n".join(format_report(small))
    text = "\n".join(format_report(large, clips=1000))
    assert "it fits" in text and "0.000 B" in text and "tokens per branch" in text
    assert json.loads(json.dumps(large.to_dict()))["hosts"] == 2
    with pytest.raises(ComoviError, match="pose head"):
        make_report(TINY_CONFIG, 1, ClipSize(13, 64, 64))
    lora = replace(TINY_CONFIG, stage=StageConfig(smpl=SmplConfig(enabled=False)), adapter=LORA)
    assert make_report(lora, 1, ClipSize(13, 64, 64)).counts.trained < 20_000


@pytest.mark.skipif(not os.environ.get("COMOVI_TRAINING_TESTS"), reason="takes a minute: make test-training")
def test_the_four_machines_hold_what_is_planned_for_them():
    reports = [plan_machine(machine) for machine in MACHINES]
    assert [report.fits for report in reports] == [True] * 4
    assert [report.world for report in reports] == [1, 1, 8, 32]
    assert [report.clips_per_step for report in reports[1:]] == [96, 96, 96]  # the paper's
    adapter, alone, eight, nodes = (report.plan for report in reports)
    assert adapter.host["weights"] == pytest.approx(2 * 10.28e9, rel=0.01)
    assert alone.host["optimiser"] == 12 * 6_082_683_216
    assert eight.device["optimiser"] == 4 * nodes.device["optimiser"]
    assert eight.device["activations"] == pytest.approx(22e9, rel=0.15)
    assert reports[3].hosts == 4 and reports[3].smallest_share > 11_082_470_928 // 32 - 2000
