"""The path of a body from its poses and silhouettes."""

from __future__ import annotations

import pytest
import torch
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.map_render import visible_body
from comfyui_comovi.comovi_model.body.root import recover_root
from comfyui_comovi.comovi_model.body.rotations import axis_angle_to_matrix, slerp
from comfyui_comovi.comovi_model.body.smpl import pose_body
from comfyui_comovi.comovi_model.body.toy import random_rotations, toy_body
from comfyui_comovi.comovi_model.errors import ComoviError

FRAMES, HEIGHT, WIDTH = 16, 192, 128
MODEL = toy_body(segments=6)


def a_walk():
    """Poses that swing, a path of 0.5 m to the side, 0.2 m down and 1 m away from the camera, and its silhouettes."""
    time = torch.linspace(0, 1, FRAMES)[:, None]
    swing = (0.5 + 0.5 * (6 * time).sin()).expand(FRAMES, 24)
    one, other = random_rotations(2, 24, angle=0.25)
    rotations = slerp(one.expand(FRAMES, -1, -1, -1), other.expand(FRAMES, -1, -1, -1), swing)
    rotations[:, 0] = axis_angle_to_matrix(torch.tensor([torch.pi, 0.0, 0.0]))
    transl = torch.tensor([-0.25, 0.1, 8.0]) + time * torch.tensor([0.5, 0.2, 1.0])
    camera = Camera.from_focal(60.0 * 8.5, WIDTH, HEIGHT)
    body = pose_body(MODEL, rotations, None, transl)
    return rotations, transl, camera, visible_body(MODEL, body.vertices, camera.K, HEIGHT, WIDTH).mask()


def test_the_path_is_found_from_perfect_silhouettes():
    rotations, transl, camera, silhouettes = a_walk()
    found = recover_root(MODEL, rotations, None, camera, transl[0], silhouettes, smooth=False)
    error = (found - transl).abs()
    assert error[:, :2].max() < 0.01 and error[:, 2].max() < 0.15  # measured 3 mm and 60 mm of 8-9 m
    assert torch.equal(found[0], transl[0])


def test_smoothing_removes_jitter_and_keeps_the_path():
    rotations, transl, camera, silhouettes = a_walk()
    rough = recover_root(MODEL, rotations, None, camera, transl[0], silhouettes, smooth=False)
    smooth = recover_root(MODEL, rotations, None, camera, transl[0], silhouettes)
    assert (smooth - transl)[:, :2].abs().max() < 0.03 and (smooth - transl)[:, 2].abs().max() < 0.2

    def jitter(path):
        return path.diff(n=2, dim=0)[:, 2].norm()

    assert jitter(smooth) < jitter(rough)


def test_a_constant_change_of_outline_does_not_change_the_depth():
    """Blurred maps show every silhouette fatter; frame 0, whose place is known, tells by how much."""
    rotations, transl, camera, silhouettes = a_walk()
    fat = torch.nn.functional.max_pool2d(silhouettes.float()[:, None], 3, 1, 1)[:, 0] > 0
    found = recover_root(MODEL, rotations, None, camera, transl[0], fat, smooth=False)
    assert (found - transl).abs()[:, 2].max() < 0.25


def test_frames_without_a_silhouette_are_filled_in():
    rotations, transl, camera, silhouettes = a_walk()
    silhouettes[5:8] = False
    silhouettes[-1] = False
    found = recover_root(MODEL, rotations, None, camera, transl[0], silhouettes, smooth=False)
    assert (found[5:8] - transl[5:8]).abs()[:, :2].max() < 0.03
    assert torch.equal(found[-1], found[-2])


def test_empty_silhouettes_leave_the_body_where_it_began():
    rotations, transl, camera, silhouettes = a_walk()
    found = recover_root(MODEL, rotations, None, camera, transl[0], torch.zeros_like(silhouettes))
    assert torch.allclose(found, transl[:1].expand(FRAMES, 3))


def test_silhouettes_of_another_size_use_the_scaled_camera():
    rotations, transl, camera, _ = a_walk()
    body = pose_body(MODEL, rotations, None, transl)
    large = visible_body(MODEL, body.vertices, camera.resized(256, 384).K, 384, 256).mask()
    found = recover_root(MODEL, rotations, None, camera, transl[0], large, smooth=False)
    assert (found - transl).abs()[:, :2].max() < 0.01


def test_wrong_counts_and_bodies_outside_the_picture_are_refused():
    rotations, transl, camera, silhouettes = a_walk()
    with pytest.raises(ComoviError, match="one silhouette per pose"):
        recover_root(MODEL, rotations, None, camera, transl[0], silhouettes[1:])
    with pytest.raises(ComoviError, match="outside the picture"):
        recover_root(MODEL, rotations, None, camera, torch.tensor([9.0, 0.0, 8.0]), silhouettes)
