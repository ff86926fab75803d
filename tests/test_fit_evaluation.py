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
from comfyui_comovi.training import fit_clips, fit_evaluation, fit_variants
from comfyui_comovi.training.fit_ledger import Measured

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
    turned = fit_variants.perturbed(first, 1)
    angle = rotation_angle(first.rotations.mT @ turned.rotations)
    assert torch.allclose(angle, torch.full_like(angle, math.radians(20)), atol=1e-3)
    shaped = fit_variants.wrong_betas(BODY, first, 1)
    assert fit_evaluation.joint_errors(BODY, shaped, first)[1].item() < 0.1  # the pelvis stays
    focal = fit_variants.wrong_focal(first)
    assert float(focal.camera.K[0, 0] / first.camera.K[0, 0]) == pytest.approx(1.1)


def test_a_mirrored_start_swaps_the_sides_and_faces_away(clip):
    first = clip.motion.slice(0, 1)
    swapped = fit_variants.mirrored(first)
    assert torch.allclose(fit_variants.mirrored(swapped).rotations, first.rotations, atol=1e-5)
    joints = [fit_clips.pose_body(BODY, m.rotations, m.betas, m.transl).joints[0] for m in (first, swapped)]
    ours, theirs = (j - j[:1] for j in joints)
    # Seen along the body's own forward axis both stand alike, with the other wrist on each side.
    forward = first.rotations[0, 0, :, 2]
    flat = [j - (j @ forward)[:, None] * forward for j in (ours, theirs)]
    assert (flat[0][20] - flat[1][21]).norm() < 0.12 < (flat[0][20] - flat[1][20]).norm()


def test_what_is_measured_is_kept_and_not_measured_again(tmp_path, monkeypatch):
    path = tmp_path / "fit.json"
    made = []

    def measure(seed, index, variants):
        made.append((index, variants))
        for variant in variants:
            yield "walk", variant, measured(10.0 + index)

    monkeypatch.setattr(fit_evaluation, "measure_fits", measure)
    fit_evaluation.run(4, 3, path, variants=("", "_blind"), share=(2, 2))
    assert [index for index, _ in made] == [1, 3]
    with open(tmp_path / "fit.clips.jsonl", "a") as file:
        file.write('{"program": ')  # a run that was killed while writing
    figures = fit_evaluation.run(4, 3, path, variants=("", "_blind", "_mild"))
    assert made[2:] == [(0, ("", "_blind", "_mild")), (1, ("_mild",)), (2, ("", "_blind", "_mild")), (3, ("_mild",))]
    assert figures["count"] == 4 and figures["mpjpe_mm_blind"] == 11.5
    fit_evaluation.run(1, 4, path, variants=("",))  # another seed shares nothing
    assert made[-1] == (0, ("",))


def test_variants_are_named_or_come_in_groups():
    assert fit_variants.parse_variants("true,blind") == ("", "_blind")
    assert fit_variants.parse_variants("ladder,true") == ("", "_light", "_mild", "_medium", "_heavy")
    with pytest.raises(ComoviError, match="unknown variant 'blurry'"):
        fit_variants.parse_variants("blurry")


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
