"""AMASS files: what other tools read, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.files.amass import (
    RATE_KEYS,
    load_motion,
    motion_from_amass,
    save_amass,
    save_motion,
)
from comfyui_comovi.comovi_model.body.frames import in_frame
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.rotations import axis_angle_to_matrix
from comfyui_comovi.comovi_model.body.smpl import pose_body
from comfyui_comovi.comovi_model.body.toy import random_rotations, toy_body
from comfyui_comovi.comovi_model.errors import ComoviError


def a_motion(frames: int = 5) -> BodyMotion:
    rotations = random_rotations(frames, 24)
    upright = axis_angle_to_matrix(torch.tensor([torch.pi, 0.0, 0.0]))
    rotations[:, 0] = upright @ random_rotations(frames, seed=1, angle=0.2)
    rotations[:, 22:] = torch.eye(3)  # AMASS has no hand joints
    generator = torch.Generator().manual_seed(0)
    transl = torch.tensor([0.1, -0.2, 6.0]) + 0.1 * torch.randn(frames, 3, generator=generator)
    betas = torch.randn(10, generator=generator)
    return BodyMotion(rotations, betas, transl, camera=Camera.from_focal(500.0, 64, 96), body_model="toy", fps=16.0)


def test_an_amass_file_has_the_shapes_that_tools_expect(tmp_path):
    save_amass(tmp_path / "a.npz", a_motion(), toy_body())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert file["poses"].shape == (5, 156) and file["trans"].shape == (5, 3)
        assert file["betas"].shape == (16,) and file["dmpls"].shape == (5, 8)
        assert str(file["gender"]) == "neutral" and str(file["surface_model_type"]) == "smplh"
        assert [float(file[key]) for key in RATE_KEYS] == [16.0] * 3
        assert not file["poses"][:, 66:].any()


def test_a_motion_comes_back_from_amass_as_the_same_body():
    """Shape, joints and vertices agree; only the place on the floor is new."""
    model, motion = toy_body(), a_motion()
    from comfyui_comovi.comovi_model.body.files.amass import amass_arrays

    for floor in (False, True):
        back = motion_from_amass(amass_arrays(motion, model, floor), "test")
        expected = in_frame(motion, model, "zup")
        there = pose_body(model, expected.rotations, expected.betas, expected.transl).vertices
        here = pose_body(model, back.rotations, back.betas, back.transl).vertices
        shift = (here - there)[0, 0]
        assert torch.allclose(here, there + shift, atol=1e-5)
        assert back.fps == 16 and torch.allclose(back.betas, motion.betas)
        assert (shift.abs().max() < 1e-5) != floor
        if floor:
            assert here[..., 2].min().abs() < 1e-5


@pytest.mark.parametrize("key", RATE_KEYS)
def test_every_spelling_of_the_frame_rate_is_read(key):
    arrays = {"poses": np.zeros((2, 165)), "trans": np.zeros((2, 3)), key: np.array(120.0)}
    motion = motion_from_amass(arrays, "clip.npz")
    assert motion.fps == 120 and motion.frame == "zup" and motion.body_model == "SMPL-X neutral"
    with pytest.raises(ComoviError, match="give fps"):
        motion_from_amass({name: arrays[name] for name in ("poses", "trans")}, "clip.npz")


@pytest.mark.parametrize("gender", [np.array("female"), np.array(b"female"), np.array(["female"])])
def test_every_form_of_gender_is_read(gender):
    arrays = {"poses": np.zeros((2, 156)), "trans": np.zeros((2, 3)), "fps": np.array(30), "gender": gender}
    assert motion_from_amass(arrays, "clip.npz").body_model == "SMPL+H female"


def test_one_file_serves_both_readers(tmp_path):
    motion, path = a_motion(), tmp_path / "motion.npz"
    save_motion(path, motion, toy_body())
    ours = BodyMotion.load(path)
    for name in ("rotations", "betas", "transl"):
        assert torch.equal(getattr(ours, name), getattr(motion, name))
    assert torch.equal(load_motion(path).rotations, motion.rotations)
    with np.load(path) as file:
        theirs = {name: file[name] for name in ("poses", "trans", "betas", "mocap_framerate", "gender")}
    assert motion_from_amass(theirs, "motion.npz").frame == "zup"


def test_an_amass_file_is_recognised(tmp_path):
    save_amass(tmp_path / "a.npz", a_motion(), toy_body())
    motion = load_motion(tmp_path / "a.npz")
    assert motion.frame == "zup" and motion.body_model == "toy"


def test_other_files_are_refused_in_words(tmp_path):
    cases = {
        "pictures": {"pictures": np.zeros(3)},
        "n one of 66": {"poses": np.zeros((4, 67)), "trans": np.zeros((4, 3)), "fps": np.array(30)},
        "trans": {"poses": np.zeros((4, 72)), "fps": np.array(30)},
        "NaN": {"poses": np.full((4, 72), np.nan), "trans": np.zeros((4, 3)), "fps": np.array(30)},
        "must be numbers": {"poses": np.array(["a"]), "trans": np.zeros((4, 3)), "fps": np.array(30)},
    }
    for message, arrays in cases.items():
        np.savez(tmp_path / "clip.npz", **arrays)
        with pytest.raises(ComoviError, match=f"clip.npz: .*{message}"):
            load_motion(tmp_path / "clip.npz")
