"""`comovi info` says what a file is and what it lacks."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model import info
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.comovi.checkpoint import save_checkpoint
from comfyui_comovi.comovi_model.comovi.config import DualBranchConfig
from comfyui_comovi.comovi_model.comovi.dual_branch import DualBranch
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.images import write_image
from comfyui_comovi.comovi_model.info import describe
from comfyui_comovi.comovi_model.wan.weights import write_weights

TINY = DualBranchConfig(dim=128, ffn_dim=32, num_heads=1, num_layers=2, text_dim=8, text_len=4, freq_dim=16)


def said(path) -> str:
    return "\n".join(describe(path))


def standing(frames: int, **more) -> BodyMotion:
    rotations = torch.eye(3).expand(frames, 24, 3, 3)
    return BodyMotion(rotations, torch.zeros(10), torch.zeros(frames, 3), **more)


def test_a_checkpoint_is_described_with_its_mode_and_what_it_lacks(tmp_path):
    save_checkpoint(tmp_path / "tiny.safetensors", DualBranch(TINY))
    text = said(tmp_path / "tiny.safetensors")
    assert "CoMoVi checkpoint" in text
    assert "interaction single_m2v" in text
    assert "missing: pose head" in text


def test_a_folder_with_one_checkpoint_is_that_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "tiny.safetensors", DualBranch(TINY))
    assert "CoMoVi checkpoint" in said(tmp_path)


def test_a_foreign_checkpoint_is_refused_by_name(tmp_path):
    from safetensors.numpy import save_file

    save_file({"lstm.weight": np.zeros((3, 3), np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ComoviError, match=r"neither a CoMoVi nor a Wan2\.2 checkpoint.*lstm\.weight"):
        describe(tmp_path / "other.safetensors")


def test_a_golden_file_says_how_to_run_it(tmp_path):
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "g.safetensors")
    (tmp_path / "g.json").write_text(json.dumps({"kind": "comovi", "cases": []}))
    assert "comovi verify" in said(tmp_path / "g.safetensors")
    assert "comovi verify" in said(tmp_path / "g.json")


def test_a_motion_without_a_camera_lacks_one(tmp_path):
    standing(8, fps=16).save(tmp_path / "m.npz")
    text = said(tmp_path / "m.npz")
    assert "8 frames at 16 per second, 0.50 s" in text
    assert "lacks: a camera" in text


def test_a_motion_with_a_camera_tells_its_size_and_focal_length(tmp_path):
    standing(2, camera=Camera.from_focal(400, 160, 240), provenance={"seed": 3}).save(tmp_path / "m.npz")
    text = said(tmp_path / "m.npz")
    assert "160x240 pixels, focal length 400.0 pixels" in text
    assert "seed: 3" in text
    assert "lacks" not in text


def test_placeholder_frames_are_counted(tmp_path):
    standing(3, valid=torch.tensor([True, False, False])).save(tmp_path / "m.npz")
    assert "2 frames are placeholders" in said(tmp_path / "m.npz")


def test_a_scene_tells_its_joints_and_animations(tmp_path):
    scene = {"meshes": [{}], "skins": [{"joints": list(range(24))}], "animations": [{"name": "motion"}]}
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sIIII", b"glTF", 2, 20 + len(text), len(text), 0x4E4F534A)
    (tmp_path / "a.glb").write_bytes(head + text)
    said_of_it = said(tmp_path / "a.glb")
    assert "skin of 24 joints" in said_of_it
    assert "animations: motion" in said_of_it


@pytest.mark.parametrize("scene", [b'{"meshes": null, "skins": null, "animations": null}', b"[" * 3000 + b"]" * 3000])
def test_an_odd_scene_is_described_or_refused_in_a_sentence(tmp_path, scene):
    scene += b" " * (-len(scene) % 4)
    (tmp_path / "a.glb").write_bytes(
        struct.pack("<4sIIII", b"glTF", 2, 20 + len(scene), len(scene), 0x4E4F534A) + scene
    )
    if scene.startswith(b"{"):
        assert "0 meshes" in said(tmp_path / "a.glb")
    else:
        with pytest.raises(ComoviError, match="JSON part cannot be read"):
            said(tmp_path / "a.glb")


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_somebody_else_s_json_beside_a_model_says_nothing_of_it(tmp_path, content):
    write_weights(tmp_path / "model.safetensors", {"classifier.action.weight": torch.zeros(2, 2)}, {})
    (tmp_path / "model.json").write_text(content)
    assert "judge of the nano evaluation" in said(tmp_path / "model.safetensors")


def test_a_picture_tells_its_size(tmp_path):
    write_image(tmp_path / "a.png", np.zeros((3, 5, 3), np.uint8))
    assert "picture: 5x3 pixels" in said(tmp_path / "a.png")


def test_plain_json_lists_its_keys(tmp_path):
    (tmp_path / "settings.json").write_text('{"prompt": "a person", "seed": 1}')
    assert "prompt, seed" in said(tmp_path / "settings.json")


def test_a_pickled_checkpoint_of_tensors_is_read_without_running_it(tmp_path):
    from comfyui_comovi.comovi_model.comovi.checkpoint import official_state

    torch.save(official_state(DualBranch(TINY)), tmp_path / "tiny.pt")
    assert "CoMoVi checkpoint" in said(tmp_path / "tiny.pt")


def test_the_judges_of_the_evaluation_are_known():
    for name in ("nano_judge_joints", "nano_judge_map"):
        folder = Path(info.__file__).resolve().parents[1] / "training" / "assets"
        assert "judge of the nano evaluation" in said(folder / f"{name}.safetensors")
