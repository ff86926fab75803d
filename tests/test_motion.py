"""BodyMotion: what it refuses, its npz form, and that moving the record moves the body."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body import motion
from comfyui_comovi.comovi_model.body.body_files import read_body_model
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.frames import pelvis_at_rest
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.rotations import matrix_from_6d_rows
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


def equal(a: BodyMotion, b: BodyMotion) -> bool:
    tensors = ("rotations", "betas", "transl", "valid", "source_index")
    plain = ("frame", "fps", "body_model", "provenance")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in tensors) and all(
        getattr(a, name) == getattr(b, name) for name in plain
    )


def test_a_motion_survives_its_file(tmp_path):
    motion = a_motion(valid=torch.tensor([1, 1, 0, 1, 1, 1]), source_index=torch.arange(6) * 2)
    motion.save(tmp_path / "motion.npz")
    back = BodyMotion.load(tmp_path / "motion.npz")
    assert equal(motion, back)
    assert torch.equal(back.camera.K, motion.camera.K) and (back.camera.width, back.camera.height) == (640, 352)


def test_a_motion_with_a_camera_per_frame_or_none_survives_its_file(tmp_path):
    K = torch.stack([Camera.from_focal(700.0 + i, 640, 352).K for i in range(6)])
    for camera in (Camera(K, 640, 352), None):
        a_motion(camera=camera).save(tmp_path / "motion.npz")
        back = BodyMotion.load(tmp_path / "motion.npz").camera
        assert back is camera is None or torch.equal(back.K, K)


def test_the_file_has_the_documented_keys_and_no_pickle(tmp_path):
    a_motion().save(tmp_path / "motion.npz")
    with np.load(tmp_path / "motion.npz", allow_pickle=False) as file:
        shapes = {name: file[name].shape for name in file.files}
    assert shapes["global_orient"] == (6, 3, 3) and shapes["body_pose"] == (6, 23, 3, 3)
    assert shapes["betas"] == (10,) and shapes["transl"] == (6, 3) and shapes["fps"] == ()
    assert shapes["focal"] == shapes["valid"] == shapes["source_index"] == (6,)


def test_a_plain_file_without_our_additions_loads():
    arrays = a_motion().to_arrays()
    for name in ("format", "frame", "body_model", "provenance", "camera_K", "image_size", "valid"):
        del arrays[name]
    arrays["global_orient"] = arrays["global_orient"][:, None]  # as the released code writes it
    motion = BodyMotion.from_arrays(arrays)
    assert motion.frame == "camera" and motion.camera is None and motion.body_model == "unknown"
    assert torch.equal(motion.rotations, a_motion().rotations)


def test_6d_numbers_are_rows():
    motion = a_motion()
    assert motion.rotations_6d().shape == (6, 24, 6)
    assert torch.allclose(matrix_from_6d_rows(motion.rotations_6d()), motion.rotations, atol=1e-6)


def test_slices_keep_everything_in_step():
    K = torch.stack([Camera.from_focal(700.0 + i, 640, 352).K for i in range(6)])
    piece = a_motion(camera=Camera(K, 640, 352)).slice(2, 5)
    assert len(piece) == 3 and piece.source_index.tolist() == [2, 3, 4]
    assert piece.camera.K[0, 0, 0] == 702
    with pytest.raises(ComoviError, match="hold nothing"):
        a_motion().slice(6, 9)


@pytest.mark.parametrize("seed", range(3))
def test_moving_the_record_moves_every_vertex(seed):
    """transl' = A (J0 + transl) + b - J0: forgetting J0, the rest position of the pelvis, makes bodies drift."""
    model = toy_body(seed)
    motion = a_motion()
    turn = random_rotations(1, seed=seed, angle=2.0)[0]
    shift = torch.randn(3, generator=torch.Generator().manual_seed(seed))
    moved = motion.moved(turn, shift, pelvis_at_rest(model, motion))

    def vertices(motion):
        return pose_body(model, motion.rotations, motion.betas, motion.transl).vertices

    assert torch.allclose(vertices(moved), vertices(motion) @ turn.T + shift, atol=1e-5)


def with_nan(tensor):
    tensor = tensor.clone()
    tensor.view(-1)[7] = torch.nan
    return tensor


BROKEN = {
    "NaN": {"rotations": with_nan(random_rotations(6, 24))},
    "NaN or infinite": {"transl": torch.full((6, 3), torch.inf)},
    "rotation matrices; frame 0": {"rotations": 2 * random_rotations(6, 24)},
    "frames, 24, 3, 3": {"rotations": random_rotations(6, 22)},
    r"got \(0, 24": {"rotations": torch.zeros(0, 24, 3, 3), "transl": torch.zeros(0, 3)},
    "transl must have shape": {"transl": torch.zeros(5, 3)},
    "betas must have shape": {"betas": torch.zeros(11)},
    "frame must be one of": {"frame": "world"},
    "fps must be": {"fps": 0.0},
    "fps": {"fps": float("nan")},
    "valid must have shape": {"valid": torch.ones(5)},
    "source_index must have shape": {"source_index": torch.zeros(7)},
    "camera K must have shape": {"camera": Camera(torch.eye(3).expand(5, 3, 3), 64, 64)},
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_motions_are_refused_in_words(message):
    with pytest.raises(ComoviError, match=message):
        a_motion(**BROKEN[message])


class Bomb:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_files_that_are_no_motion_give_one_sentence(tmp_path, capsys):
    whole = tmp_path / "whole.npz"
    a_motion().save(whole)
    cases = {"empty": b"", "text": b"hello", "pickle": pickle.dumps(Bomb()), "cut": whole.read_bytes()[:-200]}
    middle = bytearray(whole.read_bytes())
    middle[300:340] = bytes(40)
    cases["damaged"] = bytes(middle)
    for name, content in cases.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(ComoviError, match=name):
            BodyMotion.load(path)
    np.savez(tmp_path / "hostile.npz", global_orient=np.array([Bomb()], dtype=object))
    np.save(tmp_path / "single.npy", np.zeros(3))
    np.savez(tmp_path / "other.npz", pictures=np.zeros((2, 3)))
    for name in ("hostile.npz", "single.npy", "other.npz", "missing.npz"):
        with pytest.raises(ComoviError, match=name):
            BodyMotion.load(tmp_path / name)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"body_pose": np.zeros((5, 23, 3, 3))}, {"global_orient": np.zeros((6, 4))}, {"image_size": np.zeros(3)},
        {"camera_K": np.zeros((2, 2))}, {"provenance": np.array("{")}, {"fps": np.array("fast")},
        {"transl": np.array(["a"])}, {"betas": np.zeros((2, 10))}, {"betas": np.ones(16)}, {"frame": np.array("up")},
        {"source_index": np.array(["x"] * 6)},
    ],
)  # fmt: skip
def test_damaged_fields_are_named_with_their_file(changes):
    with pytest.raises(ComoviError, match="some.npz: "):
        BodyMotion.from_arrays({**a_motion().to_arrays(), **changes}, "some.npz")


def test_records_are_frozen_and_replaceable():
    motion = a_motion()
    with pytest.raises(AttributeError):
        motion.fps = 30.0
    assert replace(motion, fps=30.0).fps == 30.0


@pytest.mark.parametrize("read", [BodyMotion.load, read_body_model])
def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, read):
    monkeypatch.setattr(motion, "LARGEST_ARCHIVE", 1000)
    np.savez_compressed(tmp_path / "bomb.npz", weights=np.zeros(10**6))
    with pytest.raises(ComoviError, match="unpacked"):
        read(tmp_path / "bomb.npz")
