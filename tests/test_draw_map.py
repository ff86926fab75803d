"""A motion file becomes a motion-map file with the same pixels that the renderer draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.frames import in_frame
from comfyui_comovi.comovi_model.body.map_render import render_motion_map
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.toy import toy_body
from comfyui_comovi.comovi_model.draw_map import draw_map_file
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.images import read_image, to_uint8
from comfyui_comovi.comovi_model.video import read_video


@pytest.fixture
def body(monkeypatch):
    model = toy_body()
    monkeypatch.setattr("comfyui_comovi.comovi_model.draw_map.load_body_model", lambda path: model)
    return model


def walking(frames: int = 3) -> BodyMotion:
    rotations = torch.eye(3).repeat(frames, 24, 1, 1)
    rotations[:, 0] = torch.diag(torch.tensor([1.0, -1, -1]))  # upright: a camera's y points down
    path = torch.tensor([[0.1 * f, 0.0, 4.0] for f in range(frames)])
    return BodyMotion(rotations, torch.zeros(10), path, camera=Camera.from_focal(80, 32, 64))


def test_a_folder_of_pictures_holds_the_rendered_pixels(tmp_path, body):
    walking().save(tmp_path / "m.npz")
    draw_map_file(tmp_path / "m.npz", tmp_path / "maps", shading="flat")
    expected = to_uint8(render_motion_map(body, walking(), 64, 32, "flat"))
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png"]
    assert np.array_equal(np.stack([read_image(tmp_path / "maps" / name) for name in names]), expected)


def test_a_video_has_the_motion_s_rate_and_the_size_asked_for(tmp_path, body):
    walking().save(tmp_path / "m.npz")
    frames, fps = read_video(draw_map_file(tmp_path / "m.npz", tmp_path / "map.mp4", size=(64, 128)))
    assert (frames.shape, fps) == ((3, 128, 64, 3), 16)
    assert frames.min() < 200  # somebody is in it


def test_a_size_of_another_shape_is_named_and_a_full_folder_needs_a_word(tmp_path, body):
    walking().save(tmp_path / "m.npz")
    said: list[str] = []
    draw_map_file(tmp_path / "m.npz", tmp_path / "maps", size=(64, 64), say=said.append)
    assert len(said) == 1 and "64 x 64" in said[0]
    with pytest.raises(ComoviError, match="pass --overwrite"):
        draw_map_file(tmp_path / "m.npz", tmp_path / "maps")
    draw_map_file(tmp_path / "m.npz", tmp_path / "maps", overwrite=True, say=said.append)
    assert len(said) == 1 and read_image(tmp_path / "maps" / "00002.png").shape == (64, 32, 3)


def test_one_frame_fits_into_one_picture(tmp_path, body):
    walking(1).save(tmp_path / "m.npz")
    assert read_image(draw_map_file(tmp_path / "m.npz", tmp_path / "map.png")).shape == (64, 32, 3)


def test_a_motion_in_other_axes_draws_the_same_map(tmp_path, body):
    walking(1).save(tmp_path / "camera.npz")
    in_frame(walking(1), body, "zup").save(tmp_path / "zup.npz")
    pictures = [draw_map_file(tmp_path / f"{name}.npz", tmp_path / f"{name}.png") for name in ("camera", "zup")]
    first, second = (read_image(path).astype(int) for path in pictures)
    assert np.abs(first - second).max() <= 6  # measured 2; a part's two codes are 5 apart
