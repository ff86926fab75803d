"""The training loop on plain torch: stops, resumes to the bit, survives full disks and lost clips, measures apart."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.training import checkpoint, trainer
from comfyui_comovi.training.config import OptimConfig
from comfyui_comovi.training.engines.base import WEIGHT
from comfyui_comovi.training.metrics import read_log
from comfyui_comovi.training.optim import rate_at

sys.path.append(str(Path(__file__).parent))
from engine_jobs import CLIPS, small_config


class Watched:
    """The usual clips, with something done at the first read for a given step."""

    def __init__(self, step: int, do):
        self.step, self.do = step, do

    def __len__(self):
        return len(CLIPS)

    def bucket_of(self, index):
        return CLIPS.bucket_of(index)

    def read(self, indices, draw):
        if draw.step == self.step:
            self.do()
        return CLIPS.read(indices, draw)


def run(out: Path, name: str, *changes: str, source=CLIPS, **more) -> Path:
    trainer.train(small_config(out, name, *changes), source=source, **more)
    return out / name


def weights_file(folder: Path, step: int) -> bytes:
    return (checkpoint.checkpoint_folder(folder, step) / "rank-0000.safetensors").read_bytes()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Eight steps with a running mean, a checkpoint after each."""
    return run(tmp_path_factory.mktemp("straight"), "straight", "save.every=1", "ema.enabled=true")


def test_a_resumed_run_ends_with_the_same_bits(straight, tmp_path):
    start = checkpoint.checkpoint_folder(straight, 5)
    again = run(tmp_path, "again", "ema.enabled=true", start=start)
    assert weights_file(again, 8) == weights_file(straight, 8)


def test_a_resumed_run_in_bfloat16_ends_with_the_same_bits(tmp_path):
    half = run(tmp_path, "half", "engine.precision=bf16", "batch.readers=0")
    again = run(tmp_path, "again", "engine.precision=bf16", start=checkpoint.checkpoint_folder(half, 4))
    assert weights_file(again, 8) == weights_file(half, 8)


def test_the_running_mean_is_the_mean_of_what_was_saved(straight):
    mean = None
    for step in range(1, 9):
        pieces = checkpoint.Pieces(checkpoint.checkpoint_folder(straight, step))
        live = {name: pieces.whole(name, WEIGHT).double() for name in pieces.places}
        if mean is None:
            mean = start_weights(straight)
        decay = min(0.999, step / (step + 10))
        mean = {name: decay * mean[name] + (1 - decay) * live[name] for name in live}
    for name, value in mean.items():
        torch.testing.assert_close(pieces.whole(name, checkpoint.AVERAGE).double(), value, rtol=1e-5, atol=1e-7)


def start_weights(folder: Path) -> dict[str, torch.Tensor]:
    recipe = trainer.build_recipe(small_config(folder.parent, folder.name))
    return {name: weight.detach().double() for name, weight in recipe.named_parameters() if weight.requires_grad}


def test_a_half_written_checkpoint_is_none(straight, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(straight, folder)
    (checkpoint.checkpoint_folder(folder, 8) / "state.json").unlink()
    (folder / "checkpoints" / ".tmp-step-000009").mkdir()
    assert checkpoint.latest(folder) == checkpoint.checkpoint_folder(folder, 7)
    run(tmp_path, "cut", "ema.enabled=true", start=checkpoint.latest(folder))
    assert weights_file(folder, 8) == weights_file(straight, 8)
    assert not list((folder / "checkpoints").glob(".tmp-*"))


def test_a_checkpoint_that_was_cut_short_is_named(straight, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(checkpoint.checkpoint_folder(straight, 8), folder)
    file = folder / "rank-0000.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ComoviError, match=r"rank-0000\.safetensors"):
        checkpoint.Pieces(folder)


def test_someone_who_asks_to_stop_gets_a_checkpoint_within_a_step(straight, tmp_path):
    source = Watched(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    config = small_config(tmp_path, "stopped", "ema.enabled=true", "batch.readers=0")
    assert trainer.train(config, source=source) == trainer.INTERRUPTED
    assert [path.name for path in checkpoint.checkpoints(tmp_path / "stopped")] == ["step-000003"]
    config = replace(config, save=replace(config.save, keep=2))
    trainer.train(config, source=CLIPS, start=checkpoint.latest(tmp_path / "stopped"))
    assert weights_file(tmp_path / "stopped", 8) == weights_file(straight, 8)
    assert [line["step"] for line in read_log(tmp_path / "stopped")] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_lost_clips_end_in_one_sentence(tmp_path):
    def vanish():
        raise FileNotFoundError(2, "No such file", "shard-0003.safetensors")

    with pytest.raises(ComoviError, match=r"shard-0003.safetensors: it does not exist.*stopped after step 5") as caught:
        run(tmp_path, "lost", source=Watched(5, vanish))
    assert "\n" not in str(caught.value)
    assert checkpoint.latest(tmp_path / "lost").name == "step-000004"


def test_a_disk_that_fills_up_ends_in_one_sentence_and_harms_nothing(straight, tmp_path):
    """The limit on file sizes makes the operating system refuse to write, as a full disk does."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = len(weights_file(straight, 4))

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))

    try:
        with pytest.raises(ComoviError, match=r"cannot write .*step-000008") as caught:
            run(tmp_path, "full", "ema.enabled=true", "batch.readers=0", source=Watched(6, fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "full" / "checkpoints").iterdir()] == ["step-000004"]
    run(tmp_path, "full", "ema.enabled=true", start=checkpoint.latest(tmp_path / "full"))
    assert weights_file(tmp_path / "full", 8) == weights_file(straight, 8)


def test_only_the_newest_checkpoints_stay(tmp_path):
    folder = run(tmp_path, "few", "save.every=2", "save.keep=2")
    assert [path.name for path in checkpoint.checkpoints(folder)] == ["step-000006", "step-000008"]


def test_a_run_that_goes_on_from_an_earlier_step_keeps_what_it_saves_then(tmp_path):
    folder = run(tmp_path, "way", "save.every=1", "save.keep=2", "run.max_steps=3")
    (folder / "checkpoints" / "step-notes").mkdir()  # somebody else's
    start = checkpoint.checkpoint_folder(folder, 2)
    asked = Watched(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    config = small_config(tmp_path, "way", "save.every=9", "save.keep=1", "run.max_steps=9", "batch.readers=0")
    assert trainer.train(config, start=start, source=asked) == trainer.INTERRUPTED
    assert [path.name for path in checkpoint.checkpoints(folder)] == ["step-000002"]
    assert (folder / "checkpoints" / "aside-step-000003" / "state.json").exists()
    assert (folder / "checkpoints" / "step-notes").exists()


def test_validation_changes_nothing_but_the_log(straight, tmp_path):
    config = small_config(tmp_path, "measured", "ema.enabled=true", "eval.every=4")
    trainer.train(config, source=CLIPS, held_out=CLIPS)
    assert weights_file(tmp_path / "measured", 8) == weights_file(straight, 8)
    lines = [line for line in read_log(tmp_path / "measured") if "validation/loss" in line]
    assert [line["step"] for line in lines] == [4, 8]
    assert lines[0]["validation/loss@1"] != lines[1]["validation/loss@1"]


def test_a_list_of_sentences_that_is_missing_is_told_before_the_first_step(tmp_path):
    with pytest.raises(ComoviError, match=r"nowhere\.txt does not exist"):
        run(tmp_path, "asked", "eval.sample_every=500", f"eval.sample_prompts={tmp_path / 'nowhere.txt'}")
    assert not (tmp_path / "asked").exists()


def test_a_run_does_not_overwrite_another(straight):
    with pytest.raises(ComoviError, match="holds a run already"):
        run(straight.parent, "straight")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("run.seed=1", "keep the seed"),
        ("batch.accumulate=1", "pass --elastic"),
        ("stage.smpl.layers_per_step=1", "start a new run"),
    ],
)
def test_another_run_is_not_taken_for_this_one(straight, change, words):
    start = checkpoint.checkpoint_folder(straight, 4)
    with pytest.raises(ComoviError, match=words):
        run(straight.parent, "straight", change, start=start)


def test_single_refuses_to_be_several(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ComoviError, match="set engine.kind=deepspeed, or start one"):
        run(tmp_path, "several")


def test_the_rate_warms_up_stays_and_falls():
    config = OptimConfig(lr=1.0, warmup=4, cosine=0.5, final=0.1)
    rates = [rate_at(config, step, 20) for step in (0, 3, 4, 10, 15, 20)]
    assert rates == pytest.approx([0.25, 1.0, 1.0, 1.0, 0.55, 0.1])
