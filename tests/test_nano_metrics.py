"""The measures of the nano model obey laws: truth scores high, a frozen clip shows no change, shadows are no people."""

from __future__ import annotations

import numpy as np
import pytest
from comfyui_comovi.comovi_model.nano.actions import ACTION_NAMES, ActionRequest
from comfyui_comovi.comovi_model.nano.draw import draw_clip
from comfyui_comovi.comovi_model.nano.people import load_nano_body
from comfyui_comovi.comovi_model.nano.scene import CLOTHES, sample_scene
from comfyui_comovi.training import nano_metrics as metrics
from comfyui_comovi.training.nano_redraw import redraw_motion

BODY = load_nano_body()


@pytest.fixture(scope="module", params=["squat", "step_aside"])
def case(request):
    side = "left" if request.param == "step_aside" else ""
    scene = sample_scene(77, BODY, ActionRequest(ACTION_NAMES.index(request.param), side, ""), shirt="purple")
    return scene, draw_clip(scene, BODY)


def test_video_and_map_of_a_drawn_clip_show_the_same_person(case):
    _, clip = case
    seen, drawn = metrics.video_silhouette(clip.video, clip.plate), metrics.map_silhouette(clip.motion_map)
    assert metrics.frame_overlap(seen, drawn) > 0.93
    assert metrics.overlap(metrics.change(seen), metrics.change(drawn)) > 0.85


def test_the_empty_place_and_a_shadow_on_it_are_nobody(case):
    _, clip = case
    rows = np.linspace(1.0, 0.5, len(clip.plate))[:, None, None]
    darkened = np.uint8(clip.plate * rows)
    assert not metrics.video_silhouette(np.stack([clip.plate, darkened]), clip.plate).any()


def test_a_frozen_clip_overlaps_well_and_changes_nothing(case):
    _, clip = case
    frozen_video, frozen_map = (np.repeat(x[:1], 33, 0) for x in (clip.video, clip.motion_map))
    seen, drawn = metrics.video_silhouette(frozen_video, clip.plate), metrics.map_silhouette(frozen_map)
    assert metrics.frame_overlap(seen, drawn) > 0.9
    assert not metrics.change(seen).any()
    assert metrics.overlap(metrics.change(seen), metrics.change(drawn)) == 0


def test_overlap_is_one_for_equal_and_zero_for_disjoint_or_empty_masks():
    mask = np.zeros((2, 4, 4), bool)
    mask[:, :2] = True
    assert metrics.overlap(mask, mask) == metrics.frame_overlap(mask, mask) == 1
    assert metrics.overlap(mask, ~mask) == metrics.frame_overlap(mask, ~mask) == 0
    assert metrics.overlap(mask & False, mask & False) == 0


def test_psnr_of_a_known_error_is_exact():
    one = np.zeros((2, 4, 4, 3), np.uint8)
    assert metrics.psnr(one, one + np.uint8(10)) == pytest.approx(20 * np.log10(25.5), abs=1e-4)


def test_the_truth_redrawn_lands_on_its_own_map_from_the_first_place_alone(case):
    scene, clip = case
    rotations, transl = scene.camera_motion(BODY)
    target = metrics.map_silhouette(clip.motion_map)
    redraw = redraw_motion(BODY, scene.betas, rotations, transl[0], scene.camera, target)
    assert metrics.frame_overlap(redraw.silhouette, target) > 0.88
    assert np.abs(redraw.transl - transl)[:, :2].max() < 0.02
    assert np.abs(redraw.transl - transl)[:, 2].max() < 0.5  # metres in 9
    assert not (redraw.torso & ~redraw.silhouette).any()


def test_a_wrong_motion_redrawn_lands_worse(case):
    scene, clip = case
    rotations, transl = scene.camera_motion(BODY)
    target = metrics.map_silhouette(clip.motion_map)
    scores = []
    for motion in (rotations, rotations[::-1]):
        redraw = redraw_motion(BODY, scene.betas, motion, transl[0], scene.camera, target)
        scores.append(metrics.frame_overlap(redraw.silhouette, target))
    assert scores[1] < scores[0] - 0.01


def test_empty_silhouettes_leave_the_body_where_it_was(case):
    scene, _ = case
    rotations, transl = scene.camera_motion(BODY)
    redraw = redraw_motion(BODY, scene.betas, rotations[:3], transl[0], scene.camera, np.zeros((3, 192, 128), bool))
    assert np.allclose(redraw.transl, transl[0])


@pytest.mark.parametrize("name", CLOTHES)
def test_the_shirt_is_named_by_its_colour(name):
    scene = sample_scene(5, BODY, shirt=name)
    clip = draw_clip(scene, BODY, slice(0, 33, 16))
    rotations, transl = scene.camera_motion(BODY)
    target = metrics.map_silhouette(clip.motion_map)
    redraw = redraw_motion(BODY, scene.betas, rotations[::16], transl[0], scene.camera, target)
    assert metrics.garment_colour(clip.video, redraw.torso & target) == name


def test_no_torso_pixels_name_no_colour():
    assert metrics.garment_colour(np.zeros((3, 4, 4, 3), np.uint8), np.zeros((3, 4, 4), bool)) is None


def test_joint_error_ignores_where_the_pelvis_is(case):
    joints = np.random.default_rng(0).normal(size=(33, 24, 3))
    assert metrics.joint_error(joints, joints + 1.0) == pytest.approx(0, abs=1e-9)
    moved = joints.copy()
    moved[:, 1:, 0] += 0.024
    assert metrics.joint_error(joints, moved) == pytest.approx(23)
