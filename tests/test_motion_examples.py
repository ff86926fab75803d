"""The motions that come with the program stand on the floor, move, and begin where everybody begins."""

from __future__ import annotations

import pytest
import torch
from comfyui_comovi.comovi_model.body.body_files import load_nano_body
from comfyui_comovi.comovi_model.body.smpl import pose_body
from comfyui_comovi.comovi_model.nano.examples import EXAMPLES, FRAMES, example_motion


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_a_motion_on_the_floor(name):
    motion = example_motion(name)
    assert (len(motion), motion.fps, motion.frame) == (FRAMES, 16, "yup")
    body = pose_body(load_nano_body(), motion.rotations, motion.betas, motion.transl)
    lowest = body.vertices[..., 1].amin(1)
    assert float(lowest.abs().max()) < 0.02
    assert float((motion.rotations[:, 1:] - motion.rotations[:1, 1:]).abs().max()) > 0.3


def test_an_example_is_the_same_every_time():
    first, second = (example_motion(EXAMPLES[0]) for _ in range(2))
    assert torch.equal(first.rotations, second.rotations)


def test_the_walk_goes_forward():
    walk = example_motion("walk")
    assert float(walk.transl[-1, 2] - walk.transl[0, 2]) > 0.5
