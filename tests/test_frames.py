"""Motions in other frames and on the floor."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_comovi.comovi_model.body.cameras import Camera, frame_rotation
from comfyui_comovi.comovi_model.body.frames import in_frame, on_floor, pelvis_at_rest
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.smpl import pose_body
from comfyui_comovi.comovi_model.body.toy import random_rotations, toy_body
from comfyui_comovi.comovi_model.errors import ComoviError


def a_motion(frames: int = 6, **changes) -> BodyMotion:
    generator = torch.Generator().manual_seed(0)
    fields = {
        "rotations": random_rotations(frames, 24),
        "betas": torch.randn(10, generator=generator),
        "transl": torch.randn(frames, 3, generator=generator),
        "camera": Camera.from_focal(700.0, 640, 352),
        "fps": 16.0,
        "body_model": "toy",
        "provenance": {"prompt": "a person waves", "seed": 3},
    }
    return BodyMotion(**{**fields, **changes})


def test_frames_are_rotations_of_each_other_and_lead_back():
    model = toy_body()
    motion = a_motion()
    for frame in ("yup", "zup"):
        there = in_frame(motion, model, frame)
        assert there.frame == frame
        back = in_frame(there, model, "camera")
        assert torch.allclose(back.transl, motion.transl, atol=1e-5)
        assert torch.allclose(back.rotations, motion.rotations, atol=1e-5)
        assert torch.linalg.det(frame_rotation("camera", frame)) == pytest.approx(1)


def test_on_the_floor_the_lowest_point_is_at_zero():
    model = toy_body()
    for frame, up in (("yup", 1), ("zup", 2)):
        motion = on_floor(in_frame(a_motion(), model, frame), model)
        body = pose_body(model, motion.rotations, motion.betas, motion.transl)
        assert abs(float(body.vertices[..., up].min())) < 1e-5
        across = [axis for axis in range(3) if axis != up]
        assert body.joints[0, 0, across].abs().max() < 1e-5
    with pytest.raises(ComoviError, match="no floor"):
        on_floor(a_motion(), model)


def test_betas_of_one_body_are_not_given_to_another():
    with pytest.raises(ComoviError, match="load that body"):
        pelvis_at_rest(toy_body(), a_motion(body_model="smpl"))
    pelvis_at_rest(toy_body(), a_motion(body_model="smpl", betas=torch.zeros(10)))
    pelvis_at_rest(replace(toy_body(), name="toy-nano"), a_motion())  # a smaller version of the same body
