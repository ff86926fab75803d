"""The nano recipe: the losses of its objective, and nothing drawn from anywhere but the micro-step's name."""

from dataclasses import replace

import pytest
import torch
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.nano.sentences import UNKNOWN
from comfyui_comovi.training.batch import Draw
from comfyui_comovi.training.config import (
    BatchConfig,
    DataConfig,
    EngineConfig,
    ModelConfig,
    NoiseConfig,
    TrainConfig,
)
from comfyui_comovi.training.nano_clips import load_clips
from comfyui_comovi.training.recipe import build_recipe, open_sources
from safetensors.torch import save_file

SMALL = {"dim": 48, "ffn_dim": 32, "num_layers": 3, "pose_layers": 1, "pose_ffn_dim": 16}
CONFIG = TrainConfig(
    model=ModelConfig(kind="nano", shape=SMALL),
    noise=NoiseConfig(shift=4.0, start=0.55, shared=0.85, clean=0.4),
    batch=BatchConfig(micro=4, text_dropout=0.3, word_dropout=0.2),
    engine=EngineConfig(precision="fp32", checkpointing=False),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    folder = tmp_path_factory.mktemp("clips")
    for first in (0, 8):
        video, motion = torch.randn(2, 8, 48, 9, 4, 2, generator=generator)
        labels = torch.tensor([[i, 1, i % 3, i % 8, 3] for i in range(8)])
        pose = torch.eye(3)[:2].reshape(1, 1, 1, 6) + 0.1 * torch.randn(8, 33, 24, 6, generator=generator)
        tensors = {"video": video.half(), "motion": motion.half(), "pose": pose.half(), "labels": labels}
        save_file(tensors, str(folder / f"shard-{first:09d}.safetensors"))
    return folder


@pytest.fixture(scope="module")
def source(folder):
    return open_sources(DataConfig(kind="nano", train=(str(folder),)))[0]


@pytest.fixture(scope="module")
def recipe(source):
    recipe = build_recipe(CONFIG, source)
    with torch.no_grad():  # away from the zeros of the start, where most gradients vanish
        for weight in recipe.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    return recipe


def draw(step=3, rank=0, **more):
    return Draw(seed=5, step=step, micro=0, rank=rank, world=2, **more)


def test_clips_come_from_their_shards_in_the_order_of_seeds(folder, source):
    batch = source.read([1, 9], draw())
    clips = load_clips(folder)
    assert len(source) == 16 and source.bucket_of(9) == (9, 4, 2)
    assert batch.names == ("1", "9")
    assert torch.equal(batch.video, clips.video[[1, 9]].float())
    assert torch.equal(batch.pose, clips.pose[[1, 9]].float())
    assert torch.equal(batch.first_motion, clips.motion[[1, 9], :, :1].float())
    assert source.read([1, 9], draw()).sentences == batch.sentences
    moved = clips.motion[:, :, 1:].float() - clips.motion[:, :, :1].float()
    assert torch.allclose(source.spread("motion"), moved.square().mean((0, 2, 3, 4)).sqrt())


def test_the_losses_are_those_of_the_plain_objective(source, recipe):
    batch = source.read([0, 5, 9, 12], draw())
    found = recipe(batch, draw())
    plain = recipe.trainee(recipe.noisy(batch, draw()))
    assert all(torch.equal(found[name], plain[name]) for name in plain)
    loss = plain["video"] + plain["motion"] + 8 * plain["pose"] + 4 * plain["pose_early"]
    assert torch.allclose(found["loss"], loss)


def test_a_micro_step_is_a_function_of_its_name_alone(source, recipe):
    batch = source.read([0, 5, 9, 12], draw())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = recipe(batch, draw())["loss"]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(recipe(batch, draw())["loss"], first)
    for other in (draw(step=4), draw(rank=1)):
        assert not torch.equal(recipe(batch, other)["loss"], first)


def test_every_trained_weight_is_touched_and_most_learn(source, recipe):
    recipe.zero_grad()
    recipe(source.read([0, 5, 9, 12], draw()), draw())["loss"].backward()
    silent = [n for n, p in recipe.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert silent == []
    assert [n for n, p in recipe.named_parameters() if not p.requires_grad] == [
        f"trainee.network.pose_head.fusion_layers.0.{kind}" for kind in ("weight", "bias")
    ]


def test_validation_drops_no_word_and_has_one_sigma(source, recipe):
    batch = source.read([0, 5, 9, 12], draw())
    dropped = recipe.noisy(batch, draw())
    held = recipe.noisy(batch, draw(quantile=0.5))
    assert ((dropped.ids == UNKNOWN) & (held.ids > 0)).any()
    assert (dropped.ids == 0).all(1).any() or (dropped.ids == UNKNOWN).sum() > 0
    assert (held.ids > UNKNOWN).any(1).all() and not (held.ids == UNKNOWN).any()
    assert held.sigma_video.tolist() == held.sigma_motion.tolist() == pytest.approx([4 * 0.5 / 2.5] * 4)
    assert recipe.noisy(batch, draw(quantile=1.0)).sigma_video.tolist() == [1.0] * 4


def test_a_start_is_the_same_on_every_rank_and_differs_by_seed(source):
    torch.manual_seed(1)
    one = build_recipe(CONFIG, source)
    torch.manual_seed(2)
    two = build_recipe(CONFIG, source)
    other = build_recipe(replace(CONFIG, run=replace(CONFIG.run, seed=1)), source)
    names = one.state_dict()
    assert all(torch.equal(names[k], two.state_dict()[k]) for k in names)
    assert not all(torch.equal(names[k], other.state_dict()[k]) for k in names)
    assert torch.equal(one.spread_video, source.spread("video"))


def test_what_cannot_be_is_a_sentence(source, tmp_path):
    with pytest.raises(ComoviError, match=r"data.train is empty"):
        open_sources(DataConfig(kind="nano"))
    with pytest.raises(ComoviError, match="no nano clips"):
        open_sources(DataConfig(kind="nano", train=(str(tmp_path),)))
    with pytest.raises(ComoviError, match="autocast"):
        build_recipe(replace(CONFIG, engine=EngineConfig(precision="bf16")), source)
    (tmp_path / "shard-1.safetensors").write_bytes(b"no")
    with pytest.raises(ComoviError, match="safetensors"):
        open_sources(DataConfig(kind="nano", train=(str(tmp_path),)))
