"""Cameras: where points appear, how resizing and cropping move them, and the axes of the frames."""

from __future__ import annotations

import pytest
import torch
from comfyui_comovi.comovi_model.body.cameras import Camera, frame_rotation, intrinsics, pixel_rays, project
from comfyui_comovi.comovi_model.errors import ComoviError


def points(count: int = 20):
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 0.0, 6.0])


def test_a_point_on_the_axis_appears_at_the_principal_point():
    camera = Camera.from_focal(500.0, 641, 353)
    assert project(torch.tensor([[0.0, 0.0, 7.0]]), camera.K).tolist() == [[320.0, 176.0]]  # integers, W // 2, H // 2


def test_right_is_right_and_down_is_down():
    pixels = project(torch.tensor([[1.0, 0.0, 5.0], [0.0, 1.0, 5.0]]), intrinsics(100.0, 32, 24))
    assert pixels.tolist() == [[52.0, 24.0], [32.0, 44.0]]


def test_rays_go_through_pixel_centres():
    K = torch.stack([intrinsics(50.0, 8, 6), intrinsics(70.0, 7.5, 6.5)])
    rays = pixel_rays(K, 12, 16)  # (2, 12, 16, 3)
    pixels = project(rays.flatten(1, 2), K).unflatten(1, (12, 16))
    assert torch.allclose(pixels[:, 3, 5], torch.tensor([5.5, 3.5]), atol=1e-5)
    assert torch.allclose(pixels[:, 0, 0], torch.tensor([0.5, 0.5]), atol=1e-5)


def test_resizing_and_cropping_move_pixels_with_the_picture():
    camera = Camera.from_focal(500.0, 640, 352)
    before = project(points(), camera.K)
    assert torch.allclose(project(points(), camera.resized(320, 704).K), before * torch.tensor([0.5, 2.0]), atol=1e-3)
    assert torch.allclose(
        project(points(), camera.cropped(30, 12, 64, 64).K), before - torch.tensor([30.0, 12.0]), atol=1e-3
    )
    assert camera.resized(320, 176).resized(640, 352).K.tolist() == camera.K.tolist()


def test_pictures_of_another_shape_are_named():
    camera = Camera.from_focal(500.0, 704, 1280)
    assert camera.stretched_by(704, 1280) == camera.stretched_by(352, 640) == camera.stretched_by(352, 632) == ""
    assert "1280 x 704 and the camera of the motion is 704 x 1280" in camera.stretched_by(1280, 704)


def test_the_field_of_view_spans_the_height():
    camera = Camera.from_fov(60.0, 100, 200)
    edge = torch.tensor([[0.0, 5 * torch.pi / 6, 5.0]])
    edge[0, 1] = 5 * torch.tensor(torch.pi / 6).tan()
    assert project(edge, camera.K)[0, 1].item() == pytest.approx(200, abs=1e-3)


def test_up_is_up_in_every_frame():
    up = {"camera": [0.0, -1, 0], "yup": [0.0, 1, 0], "zup": [0.0, 0, 1]}
    for source, vector in up.items():
        for target, expected in up.items():
            assert (frame_rotation(source, target) @ torch.tensor(vector)).tolist() == expected
    toward_camera = {"camera": [0.0, 0, -1], "yup": [0.0, 0, 1], "zup": [0.0, -1, 0]}
    for target, expected in toward_camera.items():
        assert (frame_rotation("camera", target) @ torch.tensor(toward_camera["camera"])).tolist() == expected
    with pytest.raises(ComoviError, match="unknown frame"):
        frame_rotation("camera", "left")


@pytest.mark.parametrize("K", [torch.eye(2), torch.zeros(3, 3), torch.full((3, 3), torch.nan)])
def test_broken_cameras_are_refused(K):
    with pytest.raises(ComoviError, match="camera K"):
        Camera(K, 64, 64)


def test_a_camera_needs_pixels_and_a_possible_field_of_view():
    with pytest.raises(ComoviError, match="at least 1x1"):
        Camera(torch.eye(3), 0, 64)
    with pytest.raises(ComoviError, match="field of view"):
        Camera.from_fov(180.0, 64, 64)
    assert Camera.from_fov(90.0, 64, 48).K[0, 0] == pytest.approx(24)
