"""What the fit is measured on, and how the figures are made."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from comfyui_comovi.cli import main
from comfyui_comovi.comovi_model.body.mannequin import load_mannequin
from comfyui_comovi.comovi_model.body.rotations import rotation_angle
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.training import fit_clips, fit_evaluation
from comfyui_comovi.training.fit_evaluation import Measured

BODY = load_mannequin()


@pytest.fixture(scope="module")
def clip():
    return fit_clips.make_clip("evaluation", 4, 2, BODY)


def measured(error: float, flagged: bool = False) -> Measured:
    return Measured([error] * 4, [error / 2] * 4, 3.0, [flagged] * 4, 1.0, 0.5)


def test_tuning_and_evaluation_share_no_action_and_no_stream():
    assert not set(fit_clips.TUNING_ACTIONS) & set(fit_clips.HELD_OUT_ACTIONS)
    one, other = (fit_clips.clip_rng(purpose, 7, 3).random(4) for purpose in ("tuning", "evaluation"))
    assert not np.intersect1d(one, other).size


def test_a_clip_is_a_function_of_its_numbers(clip):
    again = fit_clips.make_clip("evaluation", 4, 2, BODY)
    assert again.name == clip.name and torch.equal(again.motion.rotations, clip.motion.rotations)
    assert not torch.equal(fit_clips.make_clip("evaluation", 5, 2, BODY).motion.betas, clip.motion.betas)
    assert len({fit_clips.make_clip("evaluation", 4, index, BODY).name for index in range(15)}) == 15


def test_the_whole_motion_is_in_the_picture(clip):
    motion = clip.motion
    vertices = fit_clips.pose_body(BODY, motion.rotations, motion.betas, motion.transl).vertices
    pixels = vertices @ motion.camera.K.T
    pixels = pixels[..., :2] / pixels[..., 2:]
    assert pixels.min() > 0 and bool((pixels.amax((0, 1)) < torch.tensor([fit_clips.WIDTH, fit_clips.HEIGHT])).all())


def test_disturbances_are_as_large_as_they_say():
    frames = np.full((5, fit_clips.HEIGHT, fit_clips.WIDTH, 3), 128, np.uint8)
    noise = fit_clips.Disturbance(blur=0.5, drift=0.0, local=0.0, noise=5.0, warp=0.0)
    changed = fit_clips.disturb(frames, noise, seed=1)
    assert np.array_equal(changed, fit_clips.disturb(frames, noise, seed=1))
    assert (changed.astype(float) - 128).std() == pytest.approx(5, rel=0.1)
    warps = fit_clips._warps(9, 3.0, torch.Generator().manual_seed(0))
    assert float(warps.square().sum(1).mean().sqrt()) == pytest.approx(3.0, rel=0.15)


def test_perturbed_and_wrong_starts_are_off_by_what_they_say(clip):
    first = clip.motion.slice(0, 1)
    turned = fit_evaluation.perturbed(first, 1)
    angle = rotation_angle(first.rotations.mT @ turned.rotations)
    assert torch.allclose(angle, torch.full_like(angle, math.radians(20)), atol=1e-3)
    shaped = fit_evaluation.wrong_betas(BODY, first, 1)
    assert fit_evaluation.joint_errors(BODY, shaped, first)[1].item() < 0.1  # the pelvis stays
    focal = fit_evaluation.wrong_focal(first)
    assert float(focal.camera.K[0, 0] / first.camera.K[0, 0]) == pytest.approx(1.1)


def test_the_truth_has_no_error(clip):
    few = clip.motion.slice(0, 5)
    joints, root = fit_evaluation.joint_errors(BODY, few, few)
    assert joints.max() == 0 and root.max() == 0
    assert fit_evaluation.normal_error(BODY, few, few) < 0.1


def test_figures_are_means_over_clips_and_name_the_worst():
    clips = {
        "0 walk": {"": measured(10), "_blind": measured(90)},
        "1 jump": {"": measured(30), "_blind": measured(100, flagged=True)},
    }
    figures = fit_evaluation.figures_of(clips)
    assert figures["mpjpe_mm"] == 20 and figures["root_mm_blind"] == pytest.approx(47.5)
    assert figures["worst_mpjpe_mm"] == 100 and figures["worst_clip"] == "1 jump_blind"
    assert figures["failed"] == 2 and figures["unflagged_failures"] == 1
    assert figures["bars_met"]["mpjpe_mm"] and not figures["bars_met"]["mpjpe_mm_blind"]


def test_bad_requests_are_refused_in_a_sentence(capsys):
    with pytest.raises(ComoviError, match="at least 1"):
        fit_evaluation.run(0, 1, None)
    assert main(["evaluate", "fit", "--no-exchange"]) == 2
    assert "is for the nano model" in capsys.readouterr().err
