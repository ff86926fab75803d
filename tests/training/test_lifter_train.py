"""The training of the keypoint lifter: whom it sees, what it minimises, how it is resumed and shared out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.rotations import rotation_angle
from comfyui_comovi.training import lifter_train
from comfyui_comovi.training.keypoint_evaluation import procrustes_errors
from comfyui_comovi.training.lifter_everyday import LEGS
from comfyui_comovi.training.lifter_people import TRAINING_NOISE, USUAL_NOISE, draw_people, together
from comfyui_comovi.training.lifter_poses import UPRIGHT, everyday_poses, random_poses
from comfyui_comovi.training.processes import environment, free_port


@pytest.fixture
def small(monkeypatch):
    for name, value in {"BATCH": 6, "ACTION_POOL": 12, "SAVE_EVERY": 1, "LOG_EVERY": 2, "WARM_UP": 1}.items():
        monkeypatch.setattr(lifter_train, name, value)


def numbers(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_run_that_was_interrupted_is_the_same_run(small, tmp_path, monkeypatch):
    lifter_train.train(tmp_path / "whole", steps=4, seed=3)
    people = lifter_train.Source.people

    def until(self, step, *rest):
        if step == 2:
            raise KeyboardInterrupt
        return people(self, step, *rest)

    monkeypatch.setattr(lifter_train.Source, "people", until)
    with pytest.raises(KeyboardInterrupt):
        lifter_train.train(tmp_path / "parts", steps=4, seed=3)
    monkeypatch.setattr(lifter_train.Source, "people", people)
    lifter_train.train(tmp_path / "parts", steps=4, seed=3)
    whole, parts = (
        torch.load(tmp_path / name / "state.pt", weights_only=True)["average"] for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    lifter_train.export(tmp_path / "whole", tmp_path / "lifter.safetensors")
    assert (tmp_path / "lifter.safetensors").stat().st_size < 15e6


def test_two_processes_take_the_mean_of_their_gradients(small, tmp_path):
    """After one step Adam's first moment is a tenth of the gradient."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "import conftest  # makes the checkout importable under its name\n"
        "from pathlib import Path\n"
        "from comfyui_comovi.training import lifter_train as t\n"
        "t.BATCH, t.ACTION_POOL = 6, 12\n"
        f"t.train(Path({str(tmp_path)!r}), 1, 3)\n"
    )
    port = free_port()
    group = [
        subprocess.Popen([sys.executable, "-c", script], env=environment(rank, 2, port), stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=120)[1].decode() for process in group]
    assert [process.returncode for process in group] == [0, 0], "\n".join(said)[-3000:]
    moments = torch.load(tmp_path / "state.pt", weights_only=True)["optimiser"]["state"]
    means = []
    torch.manual_seed(3)
    lifter, source = lifter_train.Lifter(), lifter_train.Source(3)
    for stream in ((), (1,)):
        rng = lifter_train.numbers("lifter focal", 3, 0, *stream)
        lifter_train.objective(lifter, source.people(0, 6, *stream), source.body, rng)["loss"].backward()
        means.append([p.grad.clone() for p in lifter.parameters()])
        lifter.zero_grad()
    parameters = list(lifter.parameters())
    for parameter, first, second in zip(parameters, *means, strict=True):
        parameter.grad = (first + second) / 2
    assert not torch.allclose(means[0][0], means[1][0])
    torch.nn.utils.clip_grad_norm_(parameters, lifter_train.CLIP)
    order = [p for p in parameters if p.dim() > 1] + [p for p in parameters if p.dim() <= 1]
    for number, parameter in enumerate(order):
        moment = 10 * moments[number]["exp_avg"]
        assert torch.allclose(moment, parameter.grad, atol=1e-3 * float(parameter.grad.abs().max()) + 1e-9), number


def test_the_aligned_loss_is_the_measure_of_the_evaluation():
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(5, 24, 3, generator=generator)
    found = (true + 0.1 * torch.randn(5, 24, 3, generator=generator)).requires_grad_()
    loss = lifter_train._aligned(found, true)
    assert torch.allclose(1e3 * loss.mean(1).double(), procrustes_errors(found.detach(), true), rtol=1e-3)
    loss.mean().backward()
    assert float(found.grad.abs().sum()) > 0
    mirrored = lifter_train._aligned(true * torch.tensor([1.0, 1.0, -1.0]), true)
    assert float(mirrored.mean()) > 0.1, "a reflection is no similarity"


def test_blends_lie_between_written_poses_and_the_evaluation_has_none():
    """Without spread, a hip's angle takes few values; blended, it takes many, none beyond the written ones."""
    plain = everyday_poses("training", 300, numbers(), 0.0)
    blended = everyday_poses("training", 300, numbers(), 0.0, blended=1.0)
    knees = [rotation_angle(torch.from_numpy(poses[:, 4])) for poses in (plain, blended)]
    counts = [len(torch.unique(angles.mul(1e4).round())) for angles in knees]
    assert counts[0] <= len(LEGS["training"]) + len(LEGS["practice"]) and counts[1] > 3 * counts[0]
    assert float(knees[1].max()) <= float(knees[0].max()) + 1e-6
    assert torch.allclose(torch.linalg.det(torch.from_numpy(blended)), torch.ones(300, 24, dtype=torch.float64))


def test_upright_people_are_on_their_feet():
    poses = torch.from_numpy(everyday_poses("training", 200, numbers(), 0.0, upright=1.0))
    lean = torch.rad2deg(torch.arccos(poses[:, 0, 1, 1].clamp(-1, 1)))
    assert float(lean.max()) < 75  # degrees; the deepest bow, bending forward besides
    names = {name for group in ("training", "practice") for name in LEGS[group]}
    assert set(UPRIGHT) <= names


def test_people_of_two_detectors_are_put_together():
    body = lifter_train.Source.__new__(lifter_train.Source)
    body.seed, body.body = 0, lifter_train.keypoint_body(lifter_train.load_mannequin())
    local = torch.from_numpy(random_poses(4, numbers())).float()
    some, other = (
        draw_people(local, body.body, noise, torch.Generator().manual_seed(1))
        for noise in (TRAINING_NOISE, USUAL_NOISE)
    )
    both = together([some, other])
    assert len(both) == 8
    assert torch.equal(both.rotations[:4], some.rotations) and torch.equal(both.keypoints[4:], other.keypoints)
