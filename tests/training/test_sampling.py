"""Samples of a run: pictures, poses and latents of held-out clips, the same clips and noise at every step."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.nano.generate import NanoInput, NanoSettings, generate
from comfyui_comovi.comovi_model.nano.model import load_nano
from comfyui_comovi.comovi_model.nano.people import ASSETS, load_nano_body
from comfyui_comovi.comovi_model.video import read_video
from comfyui_comovi.comovi_model.wan.weights import open_weights
from comfyui_comovi.training.batch import Draw
from comfyui_comovi.training.config import DataConfig, EngineConfig, EvalConfig, ModelConfig, TrainConfig
from comfyui_comovi.training.nano_clips import make_shard
from comfyui_comovi.training.recipe import build_recipe, open_sources
from comfyui_comovi.training.sampling import generate_like, read_prompts, rotation_error, sample_now

sys.path.append(str(Path(__file__).parent))
from engine_jobs import CLIPS, small_config

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    """The embedded model as a recipe, and two drawn clips."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("drawn")
    make_shard(folder / "shard-910000000.safetensors", 910_000_000, 2, str(ASSETS / "nano_autoencoder.safetensors"))
    config = TrainConfig(
        model=ModelConfig(kind="nano", init=str(ASSETS)),
        data=DataConfig(kind="nano", train=(str(folder),)),
        engine=EngineConfig(precision="fp32", checkpointing=False),
        eval=EvalConfig(sample_clips=1),
    )
    source = open_sources(config.data)[0]
    return config, source, build_recipe(config, source).eval()


def test_a_nano_sample_is_a_video_with_its_motion_map_above_the_clip_itself(nano, tmp_path):
    config, source, recipe = nano
    [row] = sample_now(recipe, config, tmp_path, 7, 0, CPU, source)
    frames, fps = read_video(tmp_path / row["video"])
    assert frames.shape == (33, 2 * 192, 2 * 128, 3) and fps == 16
    above, below = frames[:, :192].astype(float), frames[:, 192:].astype(float)
    assert np.abs(above[0] - below[0]).mean() < 4  # both begin with the given pictures
    assert np.abs(above - below).mean() < 20  # and the trained model does not draw noise
    motion = BodyMotion.load(tmp_path / row["pose"])
    assert len(motion) == 33 and row["pose_degrees"] < 8
    assert json.loads((tmp_path / "samples.json").read_text())[0]["step"] == 7


def test_the_same_weights_give_the_same_samples_and_other_ranks_write_nothing(nano, tmp_path):
    config, source, recipe = nano
    draw = Draw(config.run.seed, 0, 0, 0, 1, quantile=1.0)
    once, again = (generate_like(recipe, source.read([0], draw), config, draw, None) for _ in range(2))
    assert all(torch.equal(once.latents[name], again.latents[name]) for name in ("video", "motion"))
    assert sample_now(recipe, config, tmp_path / "none", 7, 1, CPU, source) == []
    assert not (tmp_path / "none").exists()


def test_nano_samples_are_those_of_the_shipped_sampler(nano):
    """The first frame has to be encoded again there, so latents agree as far as the autoencoder returns its own."""
    config, source, recipe = nano
    draw = Draw(config.run.seed, 0, 0, 0, 1, quantile=1.0)
    batch, model = source.read([0], draw), load_nano(ASSETS)
    made = generate_like(recipe, batch, config, draw, None)
    from comfyui_comovi.comovi_model.body.rotations import matrix_from_6d_rows
    from comfyui_comovi.comovi_model.nano.draw import draw_clip
    from comfyui_comovi.comovi_model.nano.scene import sample_scene

    body = load_nano_body()
    clip = draw_clip(sample_scene(910_000_000, body), body)
    start = NanoInput(
        torch.from_numpy(clip.video[:1]),
        torch.from_numpy(clip.motion_map[:1]),
        matrix_from_6d_rows(batch.pose[:, 0]),
        list(batch.sentences),
    )
    shipped = generate(model, start, NanoSettings(shift=config.noise.shift), seed=3)
    moved = (shipped.motion_latent - batch.first_motion).std()
    assert (made.latents["motion"] - shipped.motion_latent).square().mean().sqrt() < 0.1 * moved


def test_the_papers_network_is_sampled_with_guidance_and_its_pose_head(tmp_path, monkeypatch):
    config = small_config(tmp_path, "small", "eval.sample_clips=2", "eval.sample_steps=3")
    recipe = build_recipe(config, CLIPS).eval()
    with torch.no_grad():  # away from the zeros of the start, where the sentence says nothing
        for weight in recipe.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    monkeypatch.setattr("comfyui_comovi.training.sampling.open_decoder", lambda *_: (None, "no pictures here"))
    rows = sample_now(recipe, config, tmp_path, 1, 0, CPU, CLIPS)
    assert [row["clip"] for row in rows] == ["random-0", "random-1"] and rows[0]["note"] == "no pictures here"
    latents = open_weights(tmp_path / rows[0]["latents"])
    assert tuple(latents["video"].shape) == (4, 3, 4, 4) and latents["motion"].isfinite().all()
    draw = Draw(config.run.seed, 0, 0, 0, 1, quantile=1.0)
    batch = CLIPS.read([0], draw)
    plain = generate_like(recipe, batch, config, draw, None)
    guided = generate_like(recipe, batch, config, draw, torch.zeros(2, 8))
    assert torch.equal(plain.latents["video"][:, :, 0], batch.first_video[:, :, 0])  # the first frame is given
    assert not torch.equal(plain.latents["video"], guided.latents["video"])
    assert guided.extras["positive"]["pose"].shape == (1, 8, 144)


def test_stage_one_samples_the_motion_alone(tmp_path):
    config = small_config(tmp_path, "first", "stage.kind=motion", "eval.sample_steps=2")
    recipe = build_recipe(config, CLIPS).eval()
    draw = Draw(config.run.seed, 0, 0, 0, 1, quantile=1.0)
    assert set(generate_like(recipe, CLIPS.read([0], draw), config, draw, None).latents) == {"motion"}


def test_sentences_of_a_file_take_the_place_of_the_clips_own(nano, tmp_path):
    config, source, recipe = nano
    (tmp_path / "words.txt").write_text("a person walks\n\na man jumps\n")
    named = replace(config, eval=replace(config.eval, sample_prompts=str(tmp_path / "words.txt"), sample_clips=2))
    rows = sample_now(recipe, named, tmp_path / "out", 1, 0, CPU, source)
    assert [row["sentence"] for row in rows] == ["a person walks", "a man jumps"]
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ComoviError, match="no sentence"):
        read_prompts(str(tmp_path / "empty.txt"))


def test_the_error_of_a_quarter_turn_is_ninety_degrees():
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    still = torch.eye(3).expand(3, 24, 3, 3)
    assert rotation_error(still, turn.expand(3, 24, 3, 3)) == pytest.approx(90)
    assert rotation_error(still, still) == 0
