"""The place of a body is found from its motion map, and limbs that the map shows elsewhere do not move it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.smpl import pose_body
from comfyui_comovi.comovi_model.nano import place, start
from comfyui_comovi.comovi_model.nano.actions import ACTION_NAMES, ActionRequest
from comfyui_comovi.comovi_model.nano.people import load_nano_body
from comfyui_comovi.comovi_model.nano.scene import HEIGHT, WIDTH, sample_scene


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def performance(action: str, side: str = "", seed: int = 11) -> BodyMotion:
    """A drawn person's motion, 33 frames in the camera frame."""
    body = load_nano_body()
    scene = sample_scene(seed, body, ActionRequest(ACTION_NAMES.index(action), side, ""))
    rotations, transl = (torch.from_numpy(array).float() for array in scene.camera_motion(body))
    camera = Camera(torch.from_numpy(scene.camera.K).float(), WIDTH, HEIGHT)
    return BodyMotion(rotations, torch.from_numpy(scene.betas).float(), transl, "camera", camera, 16.0, start.BODY_NAME)


def placed(motion: BodyMotion, motion_map: torch.Tensor) -> BodyMotion:
    still = replace(motion, transl=motion.transl[:1].expand(len(motion), -1))
    return place.place_motion(start._body_model(), still, motion_map)


def map_of(motion: BodyMotion) -> torch.Tensor:
    return torch.from_numpy(start.draw_nano_map(motion))


@pytest.mark.parametrize(("action", "side"), [("walk", ""), ("jump", ""), ("step_aside", "left")])
def test_the_path_of_a_drawn_person_is_found(action, side):
    truth = performance(action, side)
    found = placed(truth, map_of(truth))
    error = (found.transl - truth.transl).abs()
    assert float(error[:, :2].mean()) < 0.02
    assert float(error[:, 2].mean()) < 0.12
    assert torch.equal(found.transl[0], truth.transl[0])
    travelled = (truth.transl - truth.transl[:1]).abs().amax(0)
    assert float(travelled.max()) > 0.2  # there was something to find


def test_an_arm_that_the_map_shows_elsewhere_does_not_move_the_body():
    """The pose head waves with the right arm, the map with the left and smears it."""
    truth = performance("wave", "right")
    other = replace(truth, rotations=performance("wave", "left").rotations)
    frames = map_of(other).float()
    smeared = torch.stack([frames[max(0, i - 3) : i + 4].mean(0) for i in range(len(frames))]).to(torch.uint8)
    moved = placed(truth, smeared).transl - truth.transl
    assert float(moved[:, :2].abs().max()) < 0.03
    assert float(moved[:, 2].abs().max()) < 0.15


def test_a_map_without_a_body_leaves_it_where_it_was():
    truth = performance("clap")
    white = torch.full((len(truth), HEIGHT, WIDTH, 3), 255, dtype=torch.uint8)
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, white.shape, np.uint8))
    assert torch.allclose(placed(truth, white).transl, truth.transl[:1].expand(len(truth), -1), atol=1e-4)
    assert torch.isfinite(placed(truth, noise).transl).all()


def heights(motion: BodyMotion, up: torch.Tensor) -> torch.Tensor:
    """Of the lowest point over that of frame 0, metres."""
    lowest = (pose_body(start._body_model(), motion.rotations, motion.betas, motion.transl).vertices @ up).amin(1)
    return lowest - lowest[0]


def test_a_body_that_floats_or_sinks_a_little_is_put_on_the_floor_and_a_jump_is_not():
    up = torch.tensor([0.0, -1.0, 0.0])
    bow = performance("bow")
    wrong = 0.05 * torch.sin(torch.arange(33) * 0.3)[:, None] * up
    shaken = replace(bow, transl=bow.transl + wrong)
    assert float(heights(shaken, up).abs().max()) > 0.03
    assert float(heights(place.keep_on_floor(start._body_model(), shaken, up), up).abs().max()) < 0.015
    jump = performance("jump")
    assert torch.allclose(
        heights(place.keep_on_floor(start._body_model(), jump, up), up).max(), heights(jump, up).max(), atol=0.02
    )


def test_averages_over_time_keep_a_straight_track_and_its_ends():
    track = torch.linspace(0, 3, 20)[:, None] * torch.tensor([[1.0, -2.0]])
    assert torch.allclose(place.averaged(track, 3.0), track, atol=1e-5)
    ragged = track + torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(place.averaged(ragged, 3.0)[[0, -1]], ragged[[0, -1]], atol=1e-5)


def test_a_shifted_mask_is_slid_back():
    mask = torch.zeros(1, 60, 40, dtype=torch.bool)
    mask[0, 10:40, 12:25] = True
    overlap, slide = place.best_slide(mask, mask.roll((7, -5), (1, 2)))
    assert torch.allclose(slide, torch.tensor([[-5.0, 7.0]]), atol=0.1)
    assert float(overlap) > 0.7  # 1.0 but for the blur
