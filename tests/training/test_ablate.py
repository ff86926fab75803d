"""The ablation table: variants that train and sample like the full model, maps that show less, honest signs."""

import argparse
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.nano.autoencoder import NanoAutoencoder
from comfyui_comovi.comovi_model.nano.draw import draw_clip
from comfyui_comovi.comovi_model.nano.people import load_nano_body
from comfyui_comovi.comovi_model.nano.scene import sample_scene
from comfyui_comovi.comovi_model.wan.weights import open_weights
from comfyui_comovi.training import ablate, map_looks
from comfyui_comovi.training.ablation_table import PAPER, VARIANTS, compare, markdown, sign
from comfyui_comovi.training.batch import Draw, TrainBatch
from comfyui_comovi.training.config import EngineConfig, ModelConfig, TrainConfig
from comfyui_comovi.training.recipe import build_recipe
from safetensors.torch import save_file

SHAPE = {"dim": 48, "ffn_dim": 32, "num_layers": 2, "pose_layers": 1, "pose_ffn_dim": 16}


def config_of(**model):
    shape = {**SHAPE, **model.pop("shape", {})}
    return TrainConfig(
        model=ModelConfig(kind="nano", shape=shape, **model), engine=EngineConfig(precision="fp32", checkpointing=False)
    )


def batch_of(count=2):
    make = torch.Generator().manual_seed(0)
    video, motion = torch.randn(2, count, 48, 9, 4, 2, generator=make)
    pose = torch.eye(3)[:2].reshape(1, 1, 1, 6) + 0.1 * torch.randn(count, 33, 24, 6, generator=make)
    return TrainBatch(("a",) * count, video, motion, video[:, :, :1], motion[:, :, :1], ("a person jumps",) * count,
                      None, None, pose, None)  # fmt: skip


def shaken(config):
    torch.set_num_threads(1)
    recipe = build_recipe(config)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in recipe.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return recipe


VIDEO_ALONE, JOINT = config_of(variant="video_alone"), config_of(variant="joint_latent")
CUT = config_of(shape={"interaction": "none"})
ONE_WAY = config_of(shape={"interaction": "single_m2v"})


@pytest.mark.parametrize("config", [VIDEO_ALONE, JOINT, CUT, ONE_WAY])
def test_a_variant_learns_with_all_that_it_trains(config):
    recipe = shaken(config)
    recipe(batch_of(), Draw(0, 0, 0, 0, 1))["loss"].backward()
    silent = [n for n, p in recipe.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert silent == []


def answer(recipe, video, motion):
    text = torch.zeros(1, 24, 128)
    pose = torch.zeros(1, 144)
    with torch.no_grad():
        return recipe.network(video, motion, torch.tensor([700.0]), text, init_pose=pose, pose_from_layers=(-1,))


@pytest.mark.parametrize(
    ("config", "video_sees", "motion_sees"),
    [
        (config_of(), True, True),
        (VIDEO_ALONE, False, False),
        (CUT, False, False),
        (ONE_WAY, True, False),
        (JOINT, True, True),
    ],
)
def test_who_sees_whom(config, video_sees, motion_sees):
    recipe = shaken(config)
    one, two = torch.randn(2, 1, 112, 9, 4, 2, generator=torch.Generator().manual_seed(1))
    plain, other_motion, other_video = answer(recipe, one, one), answer(recipe, one, two), answer(recipe, two, one)
    assert torch.equal(plain.video, other_motion.video) != video_sees
    assert torch.equal(plain.motion, other_video.motion) != motion_sees
    assert not torch.equal(plain.pose, other_video.pose)  # the pose head always sees the video
    blind = config is VIDEO_ALONE
    assert torch.equal(plain.pose, other_motion.pose) == blind


def test_a_variant_runs_with_several_sentences_per_latent():
    recipe = shaken(VIDEO_ALONE)
    latent, times = torch.randn(1, 112, 9, 4, 2), torch.tensor([700.0])
    with torch.no_grad():
        out = recipe.network(latent, latent, times, torch.zeros(2, 24, 128), copies=2)
    assert out.video.shape == (2, 48, 9, 4, 2) and out.motion.shape == (2, 48, 9, 4, 2)


@pytest.fixture(scope="module")
def drawn():
    return draw_clip(sample_scene(5, load_nano_body()), load_nano_body()).motion_map


def test_a_look_takes_out_its_channels_and_nothing_else(drawn):
    background = drawn.min(-1) == 255
    body = drawn.min(-1) < 150
    assert body.sum() > 5000 and np.array_equal(map_looks.change_look(drawn, "full"), drawn)
    normals, parts = (map_looks.change_look(drawn, look) for look in ("normals", "parts"))
    assert np.array_equal(normals[..., 1:], drawn[..., 1:]) and set(normals[body][:, 0]) == {map_looks.GREY}
    assert np.array_equal(parts[..., 0], drawn[..., 0]) and set(parts[body][:, 1:].flatten()) == {map_looks.GREY}
    for frames in (normals, parts):
        assert (frames[background] == 255).all()
    with pytest.raises(ComoviError, match="no look"):
        map_looks.change_look(drawn, "depth")


def test_restyled_clips_differ_in_their_maps_alone(drawn, tmp_path):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    autoencoder = NanoAutoencoder(fine=8, coarse=16).eval()
    latent = map_looks.encode(drawn, autoencoder)
    tensors = {"video": torch.randn(1, *latent.shape).half(), "motion": latent[None].contiguous(),
               "labels": torch.zeros(1, 5).long(), "pose": torch.zeros(1, 33, 24, 6).half()}  # fmt: skip
    (tmp_path / "clips").mkdir()
    save_file(tensors, str(tmp_path / "clips" / "shard-000000005.safetensors"))
    assert map_looks.restyle_clips(tmp_path / "clips", tmp_path / "x", "full", autoencoder) == tmp_path / "clips"
    out = map_looks.restyle_clips(tmp_path / "clips", tmp_path / "parts", "parts", autoencoder)
    found = open_weights(out / "shard-000000005.safetensors")
    assert all(torch.equal(found[name], tensors[name]) for name in ("video", "labels", "pose"))
    assert found["motion"].shape == tensors["motion"].shape
    assert not torch.equal(found["motion"], tensors["motion"])
    before = (out / "shard-000000005.safetensors").stat().st_mtime_ns
    map_looks.restyle_clips(tmp_path / "clips", tmp_path / "parts", "parts", autoencoder)
    assert (out / "shard-000000005.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ComoviError, match="no nano clips"):
        map_looks.restyle_clips(tmp_path / "empty", tmp_path / "y", "parts", autoencoder)


def row(error, actions, video, cases=64):
    return {"joint_error_mm": error, "action_accuracy": actions, "video_change_iou": video, "cases": cases, "clips": 10,
            "seed": 0, "trained": 8_700_000}  # fmt: skip


def test_signs_are_called_by_what_is_better():
    assert sign(40.0, 20.0, False, 1.0) == "worse" and sign(20.5, 20.0, False, 1.0) == "same"
    assert sign(0.9, 0.5, True, 0.01) == "better"
    results = {"full": row(20, 0.9, 0.5), "video_alone": row(50, 0.5, 0.6), "one_way": row(20, 0.9, 0.5),
               "cut": row(60, 0.4, 0.3)}  # fmt: skip
    signs = compare(results)
    assert signs["video_alone"]["FID"] == {"ours": "worse", "paper": "worse", "agree": "yes"}
    assert signs["video_alone"]["SC"] == {"ours": "better", "paper": "worse", "agree": "no"}
    assert signs["one_way"]["R@1"] == {"ours": "same", "paper": "better", "agree": "no"}
    assert signs["cut"]["FID"]["agree"] == "–"
    text = markdown(results)
    assert "Same sign as the paper in 2 of 6 comparisons." in text
    assert "| exchange cut | 8.7 M | 60.0, worse (–) |" in text


def test_the_papers_figures_are_those_of_table_4():
    assert PAPER["ours"] == (0.349, 0.565, 0.955) and PAPER["fused into motion"] == (0.718, 0.466, 0.911)
    assert [v.name for v in VARIANTS] == ["full", "video_alone", "normals", "parts", "cut", "one_way", "joint_latent"]


def options_of(tmp_path, **changes):
    parser = argparse.ArgumentParser()
    ablate.add_arguments(parser)
    words = ["--clips", str(tmp_path / "clips"), "--out", str(tmp_path / "out"), "--only", "cut"]
    words += ["--steps", "2", "--batch", "2", "--cases", "2"]
    words += [f"--set=model.shape.{name}={value}" for name, value in SHAPE.items()]
    return argparse.Namespace(**{**vars(parser.parse_args(words)), **changes})


def test_the_command_makes_rows_and_keeps_those_it_has(tmp_path, capsys):
    make = torch.Generator().manual_seed(0)
    (tmp_path / "clips").mkdir()
    batch = batch_of(4)
    tensors = {"video": torch.randn(4, 48, 9, 4, 2, generator=make).half(), "motion": batch.motion.half().contiguous(),
               "labels": torch.tensor([[i, 1, 0, 0, 1] for i in range(4)]), "pose": batch.pose.half()}  # fmt: skip
    save_file(tensors, str(tmp_path / "clips" / "shard-000000000.safetensors"))
    options = options_of(tmp_path)
    assert ablate.run(options) == 0
    table = (tmp_path / "out" / "ablation.md").read_text()
    assert table in capsys.readouterr().out and "| exchange cut |" in table
    results = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert results["cut"]["clips"] == 4 and results["cut"]["trained"] < results["full"]["trained"]

    (tmp_path / "out" / "cut.json").write_text(json.dumps({**results["cut"], "joint_error_mm": 1.0}))
    ablate.run(options)
    assert json.loads((tmp_path / "out" / "ablation.json").read_text())["cut"]["joint_error_mm"] == 1.0
    ablate.run(replace_options(options, only=["full"]))  # rows of another call stay in the table
    assert "| exchange cut |" in (tmp_path / "out" / "ablation.md").read_text()
    with pytest.raises(ComoviError, match="other settings"):
        ablate.run(replace_options(options, batch=1))
    with pytest.raises(ComoviError, match="at least 1"):
        ablate.run(replace_options(options, steps=0))


def replace_options(options, **changes):
    return argparse.Namespace(**{**vars(options), **changes})


def test_every_row_differs_in_what_it_says_alone(tmp_path):
    from comfyui_comovi.training.config_file import load_config

    options = options_of(tmp_path)
    rows = {v.name: load_config("nano", ablate.settings_of(v, options, tmp_path)) for v in VARIANTS}
    plain = rows["full"]
    for name, config in rows.items():
        same = replace(config, run=plain.run, model=plain.model)
        assert same == plain, name
        assert config.run.seed == plain.run.seed and config.run.max_steps == plain.run.max_steps
    assert rows["normals"].model == plain.model
    assert dict(rows["cut"].model.shape)["interaction"] == "none"
