"""The fit of a body to keypoints: its mathematics, what it finds, what it leaves aside and what it refuses."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import estimate_parts as parts
import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.cameras import project
from comfyui_comovi.comovi_model.body.mannequin import load_mannequin
from comfyui_comovi.comovi_model.body.rotations import rotation_angle
from comfyui_comovi.comovi_model.body.smpl import pose_joints
from comfyui_comovi.comovi_model.body.toy import toy_body
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.estimate.keypoint_fit import Answer, Problem, fit_keypoints
from comfyui_comovi.comovi_model.estimate.keypoint_lens import camera_from_keypoints
from comfyui_comovi.comovi_model.estimate.lifter_body import global_turns, keypoint_body
from comfyui_comovi.comovi_model.estimate.people import Person
from comfyui_comovi.comovi_model.estimate.pose_prior import load_prior
from comfyui_comovi.comovi_model.estimate.refine import UNKNOWNS, Bodies, Target
from comfyui_comovi.comovi_model.estimate.refine_starts import LIMBS, alternatives, flipped, local_turns
from comfyui_comovi.training.keypoint_evaluation import (
    make_person,
    measure,
    mirrored_in_depth,
    procrustes_errors,
    run,
)
from comfyui_comovi.training.lifter_everyday import ARMS, LEGS
from comfyui_comovi.training.lifter_people import Noise
from comfyui_comovi.training.lifter_poses import TEST_ACTIONS, TRAINING_ACTIONS

BODY = load_mannequin()
CLEAN = Noise((0, 0), (0, 0), (0, 0))
SEED = 4


def a_problem() -> tuple[Problem, Bodies]:
    people = make_person(SEED, 0, CLEAN).people
    body = keypoint_body(BODY).to(torch.float64)
    generator = torch.Generator().manual_seed(0)
    points = people.clean[0].double() - people.size[0].flip(-1) / 2
    target = Target(points, torch.ones(18, dtype=torch.float64), float(people.focal[0]), 300.0)
    answer = Answer(
        people.rotations[0].double(), 0.1 + torch.rand(24, generator=generator).double(), people.betas[0].double(),
        body.posed(people.rotations.double()).joints_at(people.betas.double())[0],
    )  # fmt: skip
    true = Bodies(people.rotations.double(), people.pelvis.double(), people.betas.double())
    return Problem(body, target, load_prior(), answer), true


def test_the_normal_equations_hold_the_gradient_of_the_energy():
    problem, true = a_problem()
    problem = replace(problem, weights=replace(problem.weights, place=(0.1, 0.2, 0.3), prior=0.7))
    start = true.moved(0.05 * torch.randn(1, UNKNOWNS, generator=torch.Generator().manual_seed(1)).double())
    _, _, slope = problem._system(start, 3.0)
    steps = 1e-6 * torch.eye(UNKNOWNS, dtype=torch.float64)[::4]
    ahead = torch.cat([problem.energy(start.moved(step[None]), 3.0) for step in steps])
    behind = torch.cat([problem.energy(start.moved(-step[None]), 3.0) for step in steps])
    assert torch.allclose((ahead - behind) / 2e-6, slope[0, ::4], atol=1e-3 * float(slope.abs().max()))


def test_refinement_never_makes_the_energy_larger():
    problem, true = a_problem()
    start = true.moved(0.2 * torch.randn(1, UNKNOWNS, generator=torch.Generator().manual_seed(2)).double())
    refined = problem.refined(start, 6, (3.0, 3.0))
    assert float(problem.energy(refined)) < 0.5 * float(problem.energy(start))


def test_mirroring_a_limb_in_depth_keeps_its_picture_from_afar():
    local = make_person(SEED, 1).people.rotations[0].double()
    other = flipped(local, ("left arm",))
    body = keypoint_body(BODY).to(torch.float64)
    there, mirrored = (body.posed(pose[None]).joints[0, ..., 0] for pose in (local, other))
    arm = list(LIMBS["left arm"][1:])
    offset, turned = there[arm] - there[16], mirrored[arm] - mirrored[16]
    # To 2 cm, because the arm of the mannequin is not quite straight at rest.
    assert torch.allclose(offset[:, :2], turned[:, :2], atol=0.02)
    assert torch.allclose(offset[:, 2], -turned[:, 2], atol=0.02)
    assert torch.allclose(there[[4, 5, 7]], mirrored[[4, 5, 7]])
    assert torch.allclose(local_turns(global_turns(local[None])[0]), local, atol=1e-3)
    assert torch.allclose(torch.linalg.det(alternatives(local)), torch.ones(1, dtype=torch.float64), atol=1e-6)


def test_clean_keypoints_are_met_and_the_camera_is_the_pictures():
    person = make_person(SEED, 2, CLEAN).people
    size = (int(person.size[0, 0]), int(person.size[0, 1]))
    fit = fit_keypoints(person.keypoints[0].numpy(), size, BODY, focal_px=float(person.focal[0]))
    assert fit.motion.frame == "camera"
    assert fit.motion.camera is not None
    assert (fit.motion.camera.height, fit.motion.camera.width) == size
    seen = project(pose_joints(BODY, fit.motion.rotations, fit.motion.betas, fit.motion.transl), fit.motion.camera.K)[0]
    there = person.clean[0, [9, 10, 12, 13]]
    assert float((seen[[5, 8, 4, 7]] - there).norm(dim=-1).median()) < 6  # pixels of 512
    assert fit.residual_px < 6
    assert "Approximate" in fit.notes[0]


def test_a_wild_keypoint_is_left_aside_and_named():
    person = make_person(SEED, 3, CLEAN).people
    size = (int(person.size[0, 0]), int(person.size[0, 1]))
    points = person.keypoints[0].double().numpy()
    points[:, 2] = np.where(points[:, 2] > 0, 1.0, 0)
    focal = float(person.focal[0])
    plain = fit_keypoints(points, size, BODY, focal_px=focal)
    points[10, :2] = (3.0, 3.0) if points[10, 0] > size[1] / 2 else (size[1] - 3.0, 3.0)  # the right ankle
    wild = fit_keypoints(points, size, BODY, focal_px=focal)
    assert any("right ankle" in note for note in wild.notes)
    apart = torch.rad2deg(rotation_angle(plain.motion.rotations.mT @ wild.motion.rotations))[0]
    assert float(apart[[16, 17, 18, 19]].max()) < 30  # the arms stay where they were


def test_bodies_without_a_face_and_without_our_betas_are_fitted_too():
    person = make_person(SEED, 2, CLEAN).people
    size = (int(person.size[0, 0]), int(person.size[0, 1]))
    body = toy_body()
    fit = fit_keypoints(person.keypoints[0].numpy(), size, body)
    assert fit.motion.body_model == body.name
    assert torch.isfinite(fit.motion.transl).all()
    assert any("focal length is not known" in note for note in fit.notes)


@pytest.mark.parametrize("mode", ["lifter", "refinement"])
def test_each_stage_works_alone(mode):
    measured = measure(make_person(SEED, 2), mode)
    assert measured.pa < 200
    assert measured.seconds > 0


def test_what_cannot_be_fitted_is_refused():
    points = np.zeros((18, 3))
    with pytest.raises(ComoviError, match="only 0 keypoints"):
        fit_keypoints(points, (100, 100), BODY)
    points[2:8] = (50.0, 50.0, 1.0)
    with pytest.raises(ComoviError, match="that small"):
        fit_keypoints(points, (100, 100), BODY)
    points[2:8, 0] = np.linspace(10, 90, 6)
    with pytest.raises(ComoviError, match="focal length"):
        fit_keypoints(points, (100, 100), BODY, focal_px=float("nan"))
    with pytest.raises(ComoviError, match="mode"):
        fit_keypoints(points, (100, 100), BODY, mode="magic")
    with pytest.raises(ComoviError, match="another picture"):
        fit_keypoints(points * [1000, 1, 1], (100, 100), BODY)


def test_training_and_evaluation_share_no_action_and_no_everyday_pose():
    assert not set(TEST_ACTIONS) & set(TRAINING_ACTIONS)
    for table in (LEGS, ARMS):
        assert not set(table["training"]) & set(table["evaluation"])
        assert not any(pose in table["training"].values() for pose in table["evaluation"].values())


def test_a_test_person_is_the_same_under_any_noise_and_differs_from_the_next():
    one, again, clean = make_person(7, 5), make_person(7, 5), make_person(7, 5, CLEAN)
    assert torch.equal(one.people.keypoints, again.people.keypoints)
    assert torch.equal(one.people.rotations, clean.people.rotations)
    assert torch.equal(one.people.clean, clean.people.clean)
    assert not torch.allclose(one.people.rotations, make_person(7, 6).people.rotations)
    assert not torch.allclose(one.people.rotations, make_person(8, 5).people.rotations)


def test_the_people_of_the_evaluation_stay_who_they_are():
    """Whatever changes in training, the figures of different versions are about the same people."""
    shoulders = torch.stack([make_person(1, number).people.clean[0, 2] for number in range(3)])
    expected = torch.tensor([[57.6475, 102.1655], [89.8359, 75.6550], [206.9465, 155.9627]])
    assert torch.allclose(shoulders, expected, atol=0.02)


def test_procrustes_forgives_similarity_but_not_reflection():
    points = torch.randn(2, 24, 3, generator=torch.Generator().manual_seed(0)).double()
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double())[0]
    turn = turn * torch.linalg.det(turn).sign()
    moved = 1.7 * points @ turn + torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert float(procrustes_errors(moved, points).max()) < 1e-6
    assert float(procrustes_errors(moved @ torch.diag(torch.tensor([1.0, 1.0, -1.0])).double(), points).min()) > 100
    assert torch.equal(mirrored_in_depth(mirrored_in_depth(points.float())), points.float())


def test_the_evaluation_writes_its_three_keys(tmp_path):
    figures = run(2, 1, tmp_path / "out.json", quiet=True)
    import json

    written = json.loads((tmp_path / "out.json").read_text())
    assert {"pa_mpjpe_mm", "seconds_each", "unmirrored"} <= set(written)
    assert written["count"] == figures["count"] == 2


def test_a_poor_view_does_not_end_the_reading_of_the_lens():
    """Two of three frames of a clip show too little of the person for a body."""
    (person,) = parts.true_people(parts.example("standing")[1])
    points = person.keypoints.copy()
    points[[3, 4, 6, 7, *range(8, 14)]] = 0
    poor = Person(person.box, keypoints=points)
    alone = camera_from_keypoints([person], (768, 512), parts.body())
    found = camera_from_keypoints([poor, person, poor], (768, 512), parts.body())
    assert found.focal_px == pytest.approx(alone.focal_px)
    with pytest.raises(ComoviError, match="needs keypoints"):
        camera_from_keypoints([poor], (768, 512), parts.body())


@pytest.mark.parametrize("seed", [9, 0])
def test_an_answer_is_finite_or_refused(seed):
    """Points far outside, through a lens of 1 pixel: seed 9 gave a body with an infinite error."""
    points = np.ones((18, 3))
    points[:, :2] = np.random.default_rng(seed).uniform(-10000, 10000, (18, 2))
    refused = pytest.raises(ComoviError, match="no body was found that looks like these keypoints")
    with refused if seed == 9 else nullcontext():
        found = fit_keypoints(points, (768, 512), parts.body(), focal_px=1.0)
        assert np.isfinite(found.energy) and bool(found.motion.transl.isfinite().all())
