"""The synthetic clips look the same with and without numba."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from comfyui_comovi.comovi_model.nano.draw import draw_clip
from comfyui_comovi.comovi_model.nano.people import load_nano_body
from comfyui_comovi.comovi_model.nano.scene import HEIGHT, WIDTH, sample_scene


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")
@pytest.mark.parametrize("seed", [3, 11])
def test_plain_and_compiled_drawing_agree(seed):
    body = load_nano_body()
    scene = sample_scene(seed, body)
    compiled, plain = (draw_clip(scene, body, slice(0, 33, 4), fast=fast) for fast in (True, False))
    for one, other in ((compiled.video, plain.video), (compiled.motion_map, plain.motion_map)):
        assert (np.abs(one.astype(int) - other) <= 1).mean() >= 0.998
    assert np.array_equal(compiled.plate, plain.plate)


def test_plain_drawing_shows_a_person_on_white_and_a_shadow_on_the_floor():
    body = load_nano_body()
    clip = draw_clip(sample_scene(5, body), body, slice(0, 1), fast=False)
    person = clip.motion_map[0].min(-1) < 230
    assert clip.video.shape == clip.motion_map.shape == (1, HEIGHT, WIDTH, 3)
    assert 0.05 < person.mean() < 0.25
    assert (clip.motion_map[0][~person] >= 230).all()
    darker = clip.plate.astype(int).sum(-1) - clip.video[0].astype(int).sum(-1) > 60
    assert (darker & ~person).sum() > 30
