"""DeepSpeed in two processes beside plain torch: acceptance tests 1, 2, 3 and 11 of the training specification.

All runs are made once, by two groups of processes (training/engine_jobs.py); the tests compare what they left.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from comfyui_comovi.comovi_model.wan.weights import open_weights
from comfyui_comovi.training import trainer
from comfyui_comovi.training.checkpoint import AVERAGE, Pieces, checkpoint_folder, consolidated_state
from comfyui_comovi.training.engines.base import FIRST, SECOND, WEIGHT
from comfyui_comovi.training.metrics import read_log
from comfyui_comovi.training.processes import environment, free_port

sys.path.append(str(Path(__file__).parent))
from engine_jobs import CLIPS, small_config

pytestmark = pytest.mark.skipif(
    not os.environ.get("COMOVI_TRAINING_TESTS"), reason="takes a minute or two: make test-training"
)

FP32, BF16 = "engine.precision=fp32", "engine.precision=bf16"
OFFLOAD = ("engine.offload_optimizer=cpu", "engine.offload_params=cpu", "engine.zero=3")
ENGINES = {
    "zero0": ("engine.zero=0", FP32),
    "zero1": ("engine.zero=1", FP32),
    "zero2": ("engine.zero=2", FP32, "engine.offload_optimizer=cpu"),
    "zero3": ("engine.zero=3", FP32, "engine.checkpointing=true", "ema.enabled=true"),
    "zero3_offload": (*OFFLOAD, FP32, "engine.checkpointing=true", "engine.keep_whole=0"),
}
HALF = {"zero1_bf16": ("engine.zero=1", BF16, "ema.enabled=true"), "zero3_bf16": (*OFFLOAD, BF16, "ema.enabled=true")}
LORA = ("adapter.kind=lora", "adapter.rank=4", "stage.smpl.enabled=false", "engine.checkpointing=true")
RESUMED = ("zero0", "zero2", "zero3", "zero3_offload", "zero1_bf16", "zero3_bf16")


def run_jobs(world: int, out: Path, jobs: list[dict]) -> None:
    worker = [sys.executable, str(Path(__file__).with_name("engine_jobs.py")), str(out), json.dumps(jobs)]
    port = free_port()
    group = [
        subprocess.Popen(
            worker, env={**environment(rank, world, port), "OMP_NUM_THREADS": "1"}, stdout=-1, stderr=subprocess.STDOUT
        )
        for rank in range(world)
    ]
    try:
        said = [process.communicate(timeout=1500)[0].decode() for process in group]
    finally:
        for process in group:
            process.kill()
    assert [process.returncode for process in group] == [0] * world, "\n".join(said)[-6000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with all runs: eight steps each, and the same again from the checkpoint after step 4."""
    pytest.importorskip("deepspeed")
    out = tmp_path_factory.mktemp("runs")
    jobs = [{"name": name, "set": ["engine.kind=deepspeed", *changes]} for name, changes in {**ENGINES, **HALF}.items()]
    jobs += [
        {**job, "name": f"{job['name']}_again", "start": str(checkpoint_folder(out / job["name"], 4))}
        for job in jobs
        if job["name"] in RESUMED
    ]
    measured = [*ENGINES["zero3"], "engine.keep_whole=100", "eval.every=2"]
    jobs.append({"name": "zero3_measured", "set": ["engine.kind=deepspeed", *measured]})
    jobs.append({"name": "lora", "set": ["engine.kind=deepspeed", *OFFLOAD, *LORA]})
    run_jobs(2, out, jobs)
    alone = ["engine.kind=deepspeed", "batch.accumulate=4", *ENGINES["zero3"]]
    start = str(checkpoint_folder(out / "zero3", 4))
    run_jobs(1, out, [{"name": "zero3_one_process", "set": alone, "start": start, "elastic": True}])
    return out


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Plain torch in one process: the clips of both ranks in its four micro-steps."""
    out = tmp_path_factory.mktemp("plain")
    config = small_config(out, "plain", "batch.accumulate=4", "ema.enabled=true", "eval.every=2")
    trainer.train(config, source=CLIPS, held_out=CLIPS)
    return out / "plain"


def losses(run: Path) -> list[tuple[float, float]]:
    return [(line["loss"], line["grad_norm"]) for line in read_log(run)]


@pytest.mark.parametrize("name", ENGINES)
def test_every_zero_stage_computes_what_plain_torch_computes(runs, plain, name):
    """Over eight steps with random pose layers; logged with 7 digits (measured: 2e-7)."""
    torch.testing.assert_close(torch.tensor(losses(runs / name)), torch.tensor(losses(plain)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ENGINES)
def test_weights_after_eight_steps_are_those_of_plain_torch(runs, plain, name):
    ours, theirs = (Pieces(checkpoint_folder(run, 8)) for run in (runs / name, plain))
    assert ours.places.keys() == theirs.places.keys()
    for weight in theirs.places:
        torch.testing.assert_close(ours.whole(weight, WEIGHT), theirs.whole(weight, WEIGHT), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_ends_with_the_same_bits(runs, name):
    for rank in (0, 1):
        files = [checkpoint_folder(runs / run, 8) / f"rank-{rank:04d}.safetensors" for run in (name, f"{name}_again")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_of_two_processes_goes_on_in_one(runs):
    """Same clips and draws, other sums: equal but for rounding."""
    rest = losses(runs / "zero3")[4:]
    torch.testing.assert_close(torch.tensor(losses(runs / "zero3_one_process")), torch.tensor(rest), rtol=1e-6, atol=0)


def test_measuring_the_running_mean_under_zero3_changes_nothing(runs, plain):
    """Weights are swapped in and out, and some of them are whole, some in shares, while that happens."""
    files = [checkpoint_folder(runs / run, 8) / "rank-0001.safetensors" for run in ("zero3", "zero3_measured")]
    assert files[0].read_bytes() == files[1].read_bytes()
    ours, theirs = (
        [line for line in read_log(run) if "validation/loss" in line] for run in (runs / "zero3_measured", plain)
    )
    assert [line["step"] for line in ours] == [line["step"] for line in theirs] == [2, 4, 6, 8]
    for name in ("validation/loss@0.5", "validation/loss@1", "validation/pose"):
        assert [line[name] for line in ours] == pytest.approx([line[name] for line in theirs], rel=1e-6)


def test_adapters_learn_under_zero3_as_under_plain_torch(runs, tmp_path):
    trainer.train(small_config(tmp_path, "lora", "batch.accumulate=4", *LORA), source=CLIPS)
    ours, theirs = losses(runs / "lora"), losses(tmp_path / "lora")
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-6, atol=0)
    trained = Pieces(checkpoint_folder(runs / "lora", 8)).places
    assert trained.keys() == Pieces(checkpoint_folder(tmp_path / "lora", 8)).places.keys()
    assert all("lora" in name for name in trained)


@pytest.mark.parametrize("name", ["zero3", "zero3_bf16", "zero1_bf16"])
def test_ranks_hold_every_number_once(runs, name):
    pieces = Pieces(checkpoint_folder(runs / name, 8))
    for weight, shape in pieces.state.shapes.items():
        held = sum(file.entries[f"{WEIGHT}/{weight}"].shape[0] for _, file in pieces.places[weight])
        assert held == torch.Size(shape).numel()
        for part in (FIRST, SECOND, AVERAGE):
            assert pieces.whole(weight, part).isfinite().all()


def test_the_sharded_running_mean_is_that_of_plain_torch(runs, plain):
    ours, theirs = (Pieces(checkpoint_folder(run, 8)) for run in (runs / "zero3", plain))
    for weight in theirs.places:
        torch.testing.assert_close(ours.whole(weight, AVERAGE), theirs.whole(weight, AVERAGE), rtol=1e-3, atol=2e-5)
    assert ours.state.ema_updates == 8


def test_the_consolidated_state_fits_the_recipe(runs):
    folder = checkpoint_folder(runs / "zero3_bf16", 8)
    state = consolidated_state(folder)
    recipe = trainer.build_recipe(small_config(runs, "zero3_bf16"))
    recipe.load_state_dict(state)
    moved = [name for name, weight in recipe.named_parameters() if weight.requires_grad]
    assert sorted(moved) == sorted(Pieces(folder).places)
    assert set(consolidated_state(folder, averaged=True, trainable_only=True)) == set(moved)


def test_checkpoints_need_no_unpickling(runs):
    files = list(checkpoint_folder(runs / "zero3", 8).iterdir())
    assert sorted(path.name for path in files) == [
        "buffers.safetensors",
        "rank-0000.safetensors",
        "rank-0001.safetensors",
        "state.json",
    ]
    assert len(open_weights(files[0].parent / "rank-0001.safetensors")) > 0
