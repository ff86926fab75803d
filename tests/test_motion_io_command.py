"""comovi convert: says what it found and what it assumed, writes whole files or none."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import motion_files
import numpy as np
import pytest
import torch
from bad_files import assert_refused
from comfyui_comovi import cli
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body
from comfyui_comovi.comovi_model.motion_io import read_motion, write_motion

BODY = load_mannequin_body()
MOTION = motion_files.smooth_motion(BODY, 6)


@pytest.fixture
def bvh(tmp_path):
    return write_motion(tmp_path / "walk.bvh", MOTION, BODY)


@pytest.mark.parametrize("name", ["a.npz", "a.glb", "a.usda", "a.json", "a.npy", "a.bvh", "a.zip", "a.pc2"])
def test_a_bvh_becomes_anything(tmp_path, capsys, bvh, name):
    assert cli.main(["convert", str(bvh), str(tmp_path / name)]) == 0
    said = capsys.readouterr().out
    assert (
        "bvh (skeleton and angles" in said
        and "units cm (told from the size" in said
        and f"wrote {tmp_path / name}" in said
    )
    assert len(read_motion(tmp_path / name, body=BODY).motion) in (6, 7)


def test_options_reach_the_reader_and_the_writer(tmp_path, capsys, bvh):
    argv = ["convert", bvh, tmp_path / "b.bvh", "--fps", "25", "--names", "mixamo", "--order", "XYZ",
            "--out-units", "m", "--root", "off", "--units", "0.02"]  # fmt: skip
    assert cli.main([str(item) for item in argv]) == 0
    text = (tmp_path / "b.bvh").read_text()
    assert "ROOT mixamorig:Hips" in text and "Xrotation Yrotation Zrotation" in text and "Frame Time: 0.04\n" in text
    assert "25 frames per second" in capsys.readouterr().out


def test_unusual_names_can_be_mapped(tmp_path, capsys, bvh):
    from comfyui_comovi.comovi_model.body.parts import JOINT_NAMES

    text = bvh.read_text()
    odd = {name: f"b{number:02d}_x" for number, name in enumerate(JOINT_NAMES)}
    for name, other in odd.items():
        text = text.replace(f" {name}\n", f" {other}\n")
    (tmp_path / "odd.bvh").write_text(
        text.replace("JOINT b10_x", "JOINT more\n{\nOFFSET 0 0 0\nCHANNELS 0\n}\nJOINT b10_x")
    )
    argv = ["convert", str(tmp_path / "odd.bvh"), str(tmp_path / "a.glb")]
    assert cli.main(argv) == 2
    assert "give a mapping" in capsys.readouterr().err
    (tmp_path / "names.json").write_text(json.dumps(odd))
    assert cli.main([*argv, "--mapping", str(tmp_path / "names.json")]) == 0
    assert len(read_motion(tmp_path / "a.glb", body=BODY).motion) == 6
    (tmp_path / "names.json").write_text("[1]")
    assert cli.main([*argv, "--mapping", str(tmp_path / "names.json")]) == 2
    assert "expected JSON of joint names" in capsys.readouterr().err


def test_results_of_estimators_lose_the_shape_that_is_not_ours_and_it_is_said(tmp_path, capsys):
    (tmp_path / "wham_output.pkl").write_bytes(motion_files.saved_joblib(motion_files.wham(MOTION)))
    assert cli.main(["convert", str(tmp_path / "wham_output.pkl"), str(tmp_path / "a.glb"), "--person", "3"]) == 0
    assert "betas of body 'SMPL neutral' mean nothing to 'mannequin-v1'" in capsys.readouterr().out
    assert len(read_motion(tmp_path / "a.glb", body=BODY).motion) == 2


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["none.bvh", "a.glb"], "motion file none.bvh does not exist"),
        (["walk.bvh", "a.fbx"], "the suffix says no motion format"),
        (["walk.bvh", "a.npz", "--names", "vrm"], "format comovi has no option names"),
        (["walk.bvh", "a.glb", "--fps", "0"], "expected a number above 0"),
        (["walk.bvh", "a.glb", "--units", "ell"], "units must be one of m, cm"),
        (["walk.bvh", "a.bvh", "--order", "XYX"], "the order of rotations must be one of"),
        (["walk.bvh", "a.glb", "--format", "gvhmr"], "invalid choice: 'gvhmr'"),
        (["walk.bvh", "a.bvh", "--format", "glb"], "a.bvh ends in .bvh, and glb files end in .glb"),
        (["noise", "a.glb"], "expected a motion"),
        (["walk.bvh", "walk.bvh/a.glb"], "cannot write"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(tmp_path, monkeypatch, capsys, bvh, argv, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(100))
    assert_refused(capsys, tmp_path, ["convert", *argv], words)


def test_info_says_what_any_motion_file_is(tmp_path):
    from comfyui_comovi.comovi_model.info import describe

    suffixes = {"bvh": "bvh", "usda": "usda", "pc2": "pc2", "obj": "zip", "joints": "npy", "humanml3d": "npy",
                "json": "json", "gvhmr_pt": "pt", "wham_joblib": "pkl", "tram": "npy", "comovi_smpl_npz": "npz",
                "comovi_smpl_json": "json", "smpl_npz": "npz", "amass": "npz", "smplx": "npz",
                "gltf": "gltf"}  # fmt: skip
    corpus = motion_files.corpus(BODY, tmp_path)
    for name, suffix in suffixes.items():
        kind, content = corpus[name]
        path = tmp_path / f"file.{suffix}"
        path.write_bytes(content)
        lines = describe(path)
        assert f"motion file of kind {kind}" in lines[1], name
        assert any("per second" in line for line in lines), name


def test_frames_without_a_pose_are_not_passed_on_in_silence(tmp_path, capsys):
    gappy = replace(MOTION, valid=torch.tensor([True, False, True, True, False, True]))
    path = write_motion(tmp_path / "gappy.npz", gappy, BODY)
    for name, said in (("a.bvh", True), ("a.json", False)):
        assert cli.main(["convert", str(path), str(tmp_path / name)]) == 0
        assert ("2 frames have no pose, and bvh files cannot say so" in capsys.readouterr().out) is said


def test_what_a_mac_puts_into_a_zip_is_no_frame(tmp_path):
    path = write_motion(tmp_path / "walk.zip", MOTION, BODY)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/._frame_000000.obj", b"resource fork")
    assert len(read_motion(path, body=BODY).motion) == len(MOTION)


def test_the_mesh_beside_a_point_cache_replaces_no_other_file(tmp_path, capsys, bvh):
    mine = tmp_path / "a.obj"
    mine.write_text("v 1 2 3\n")
    assert_refused(capsys, tmp_path, ["convert", bvh, tmp_path / "a.pc2"], "a.obj beside it")
    mine.unlink()
    for _ in range(2):  # our own it may
        assert cli.main(["convert", str(bvh), str(tmp_path / "a.pc2")]) == 0
