"""The training of the keypoint lifter: whom it sees, what it minimises, how it is resumed and shared out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.mannequin import load_mannequin
from comfyui_comovi.comovi_model.body.rotations import rotation_angle
from comfyui_comovi.comovi_model.body.smpl import pose_body, rest_joints
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.estimate.lifter import read_lifter
from comfyui_comovi.comovi_model.estimate.lifter_body import keypoint_body
from comfyui_comovi.comovi_model.nano.actions import ACTION_NAMES
from comfyui_comovi.training import lifter_balance, lifter_train
from comfyui_comovi.training.keypoint_evaluation import procrustes_errors
from comfyui_comovi.training.lifter_balance import balanced_poses
from comfyui_comovi.training.lifter_drills import DRILLS
from comfyui_comovi.training.lifter_everyday import ARMS, LEGS, TRUNKS
from comfyui_comovi.training.lifter_moments import free_moments
from comfyui_comovi.training.lifter_people import TRAINING_NOISE, USUAL_NOISE, draw_people, together
from comfyui_comovi.training.lifter_poses import (
    TEST_ACTIONS,
    TRAINING_ACTIONS,
    UPRIGHT,
    action_poses,
    everyday_poses,
    random_poses,
)
from comfyui_comovi.training.processes import environment, free_port

POOLS = {"ACTION_POOL": 12, "BALANCED_POOL": 12}


@pytest.fixture
def small(monkeypatch):
    for name, value in {"BATCH": 6, **POOLS, "SAVE_EVERY": 1, "LOG_EVERY": 2, "WARM_UP": 1}.items():
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


def test_further_looks_begin_with_a_first_one(small, tmp_path):
    lifter_train.train(tmp_path / "alone", steps=1, seed=3, looks=0)
    first = tmp_path / "first.safetensors"
    lifter_train.export(tmp_path / "alone", first)
    told = read_lifter(first).state_dict()
    assert not any(name.startswith("again.") for name in told)
    lifter_train.train(tmp_path / "on", steps=2, seed=3, looks=1, begin=first, rate=1e-5)
    state = torch.load(tmp_path / "on" / "state.pt", weights_only=True)["lifter"]
    assert all(0 < float((state[name] - told[name]).abs().max()) < 1e-3 for name in ("place", "blocks.0.qkv.weight"))
    assert float(state["again.0.out.tell.1.weight"].abs().sum()) > 0
    log = [json.loads(line) for line in (tmp_path / "on" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["aligned_0"] > 0 and "aligned_1" not in log[-1]
    lifter_train.export(tmp_path / "on", tmp_path / "both.safetensors")
    assert read_lifter(tmp_path / "both.safetensors").config.looks == 1
    with pytest.raises(ComoviError, match="the run has 1 further looks, got 2"):
        lifter_train.train(tmp_path / "on", steps=3, seed=3, looks=2)
    first.unlink()  # a run that goes on needs it no more, and still knows that it began with another
    lifter_train.train(tmp_path / "on", steps=3, seed=3, looks=1)
    assert torch.load(tmp_path / "on" / "state.pt", weights_only=True)["begun"]
    with pytest.raises(ComoviError, match="has more looks"):
        lifter_train.train(tmp_path / "fewer", steps=1, seed=3, looks=0, begin=tmp_path / "both.safetensors")


def test_two_processes_take_the_mean_of_their_gradients(small, tmp_path):
    """After one step Adam's first moment is a tenth of the gradient."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "import conftest  # makes the checkout importable under its name\n"
        "from pathlib import Path\n"
        "from comfyui_comovi.training import lifter_train as t\n"
        f"t.BATCH, t.ACTION_POOL, t.BALANCED_POOL = 6, {POOLS['ACTION_POOL']}, {POOLS['BALANCED_POOL']}\n"
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


def test_legs_of_two_poses_make_pairs_that_nobody_wrote():
    def pairs(**kwargs) -> set:
        poses = torch.from_numpy(everyday_poses("training", 400, numbers(), 0.0, **kwargs))
        bends = torch.stack([rotation_angle(poses[:, knee]) for knee in (4, 5)], 1)
        return {tuple(row) for row in bends.mul(1e3).round().tolist()}

    written = pairs()
    apart = pairs(apart=1.0)
    assert len(written) <= len(LEGS["training"]) + len(LEGS["practice"]) < len(apart) / 2
    assert {left for left, _ in apart} <= {left for left, _ in written}


def test_no_written_pose_of_the_evaluation_is_learned_from():
    for table in (ARMS, LEGS, TRUNKS):
        learned = {**table["training"], **table["practice"]}
        held_out = {name: pose for name, pose in table["evaluation"].items() if pose}
        assert not set(learned) & set(held_out)
        assert not [name for name, pose in held_out.items() if pose in learned.values()]


def test_free_moments_are_bodies_as_the_actions_have_them():
    mannequin = load_mannequin()
    joints, ground = rest_joints(mannequin).double().numpy(), float(mannequin.v_template[:, 1].min())
    poses = free_moments(300, numbers(), joints, ground)
    assert np.allclose(poses @ poses.swapaxes(-1, -2), np.eye(3), atol=1e-9)
    assert np.allclose(poses[:, [20, 21, 22, 23]], np.eye(3))  # wrists and hands are straight
    assert np.array_equal(poses[:, 3], poses[:, 6]) and np.array_equal(poses[:, 3], poses[:, 9])
    assert np.array_equal(poses, free_moments(300, numbers(), joints, ground))
    actions = action_poses(("kick", "throw", "stretch", "bow"), 60, numbers(), joints, ground)  # no training draws them
    skeleton = keypoint_body(mannequin)

    def places(local: np.ndarray) -> torch.Tensor:
        return skeleton.posed(torch.from_numpy(local).float()).joints_at(torch.zeros(len(local), 10)).flatten(1)

    free = torch.cdist(places(actions), places(poses)).min(1).values.median()
    anything = torch.cdist(places(actions), places(random_poses(300, numbers()))).min(1).values.median()
    assert free < 0.7 * anything


def test_balanced_bodies_would_not_fall_over(monkeypatch):
    """By the volume of their mesh above the lowest of its vertices, which is not how they were chosen."""
    mannequin = load_mannequin()
    monkeypatch.setattr(lifter_balance, "SEATED", 0.0)

    def steady(local: np.ndarray) -> float:
        vertices = pose_body(mannequin, torch.from_numpy(local).float()).vertices
        corners = vertices[:, mannequin.faces.long()]  # (N, F, 3, 3)
        volume = (corners[:, :, 0] * torch.linalg.cross(corners[:, :, 1], corners[:, :, 2])).sum(-1)
        centre = (volume[..., None] * corners.sum(2) / 4).sum(1) / volume.sum(1, keepdim=True)
        angle = torch.arange(36) * 2 * torch.pi / 36
        ways = torch.stack([angle.cos(), angle.sin()])
        found = []
        for points, middle in zip(vertices, centre, strict=True):
            low = points[points[:, 1] < points[:, 1].min() + 0.06][:, [0, 2]]
            found.append(bool((middle[[0, 2]] @ ways <= (low @ ways).amax(0) + 0.06).all()))
        return float(np.mean(found))

    body = keypoint_body(mannequin)
    poses = balanced_poses(60, numbers(), body)
    assert np.array_equal(poses, balanced_poses(60, numbers(), body))
    assert np.allclose(poses @ poses.swapaxes(-1, -2), np.eye(3), atol=1e-6)
    assert steady(poses) > 0.75 > 0.35 > steady(random_poses(60, numbers()))


def test_hands_of_balanced_bodies_touch_them(monkeypatch):
    body = keypoint_body(load_mannequin())

    def nearest(share: float) -> float:
        monkeypatch.setattr(lifter_balance, "TOUCHING", share)
        posed = body.posed(torch.from_numpy(balanced_poses(150, numbers(), body)).float())
        places = range(len(lifter_balance.TOUCHED))
        away = [lifter_balance._missed(posed, np.full(150, place), side=0) for place in places]
        return float(np.median(np.min(away, 0)))

    assert nearest(1.0) < 0.6 * nearest(0.0)


def test_nothing_is_measured_on_the_drills_and_all_move():
    mannequin = load_mannequin()
    joints, ground = rest_joints(mannequin).double().numpy(), float(mannequin.v_template[:, 1].min())
    assert not set(DRILLS) & {*TEST_ACTIONS, *ACTION_NAMES} and set(DRILLS) < set(TRAINING_ACTIONS)
    for name in DRILLS:
        poses = action_poses((name,), 12, numbers(), joints, ground)
        assert np.allclose(poses @ poses.swapaxes(-1, -2), np.eye(3), atol=1e-6), name
        assert np.abs(poses - poses[0]).max() > 0.3, name


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
