"""The verb comovi clean: what it does to files, and the sentences with which it refuses."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
import torch
from comfyui_comovi import cli_clean
from comfyui_comovi.cli import main
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.clean.feet import skate
from comfyui_comovi.comovi_model.clean.known_motion import LEVELS, noisy, synthetic_motion
from comfyui_comovi.comovi_model.clean.measures import jitter, mean_distance_mm
from comfyui_comovi.comovi_model.clean.smoothing import METHODS


@pytest.fixture(scope="module")
def body():
    return load_mannequin_body()


@pytest.fixture
def folder(tmp_path, body):
    """walk.npz: a noisy walk with a gap; wave.npz: a wave at another rate."""
    walk = noisy(synthetic_motion(body, "walk", 0, 30.0), LEVELS["medium"], 1)
    valid = torch.ones(len(walk), dtype=torch.bool)
    valid[20:23] = False
    replace(walk, valid=valid).save(tmp_path / "walk.npz")
    synthetic_motion(body, "wave", 0, 24.0).save(tmp_path / "wave.npz")
    return tmp_path


def test_the_lists_of_the_help_are_those_of_the_core():
    assert cli_clean.SMOOTHING == METHODS


def test_a_noisy_walk_becomes_calm_and_stands(folder, body, capsys):
    steps = ["--outliers", "--fill", "--smooth", "savgol", "--ground", "--foot-lock"]
    assert main(["clean", str(folder / "walk.npz"), str(folder / "calm.npz"), *steps]) == 0
    before, after = BodyMotion.load(folder / "walk.npz"), BodyMotion.load(folder / "calm.npz")
    assert after.valid.all()
    assert jitter(after, body) < 0.3 * jitter(before, body)
    assert skate(after, body).metres_per_second < 0.05
    said = capsys.readouterr().out
    for line in (
        "gaps: 3 of 3 frames without a pose filled",
        "smoothing: savgol",
        "floor at",
        "sliding",
        "79 frames at 30",
    ):
        assert line in said


def test_cutting_mirroring_joining_and_holding_count_their_frames(folder):
    source, out = str(folder / "walk.npz"), str(folder / "out.npz")
    assert main(["clean", source, out, "--trim", "0.5s:1.5s"]) == 0
    assert len(BodyMotion.load(out)) == 30
    assert main(["clean", source, out, "--trim=-10:"]) == 0
    assert len(BodyMotion.load(out)) == 10
    assert main(["clean", source, out, "--trim", "10:20", "--reverse", "--mirror", "--hold", "0.5:1"]) == 0
    assert len(BodyMotion.load(out)) == 10 + 15 + 30
    assert main(["clean", source, out, "--join", str(folder / "wave.npz"), "--blend", "0.5"]) == 0
    assert len(BodyMotion.load(out)) == 79 + 78 - 15  # 63 frames at 24 are 78 at 30
    assert main(["clean", source, out, "--join", str(folder / "wave.npz"), "--blend", "0.5", "--bridge"]) == 0
    assert len(BodyMotion.load(out)) == 79 + 78 + 15


def test_resampling_writes_the_exact_rate(folder, body):
    out = folder / "out.npz"
    assert main(["clean", str(folder / "wave.npz"), str(out), "--resample", "29.97"]) == 0
    assert BodyMotion.load(out).fps == 30000 / 1001
    assert main(["clean", str(folder / "wave.npz"), str(out), "--speed", "2"]) == 0
    fast, slow = BodyMotion.load(out), BodyMotion.load(folder / "wave.npz")
    assert mean_distance_mm(fast.slice(5, 6), slow.slice(10, 11), body) < 1e-3


def test_one_shape_for_two_clips(folder, body, capsys):
    other = replace(synthetic_motion(body, "bow", 3, 30.0), betas=torch.tensor([1.5] + 9 * [0.0]))
    other.save(folder / "tall.npz")
    out = folder / "out.npz"
    assert main(["clean", str(folder / "walk.npz"), str(out), "--lock-shape", str(folder / "tall.npz")]) == 0
    first = BodyMotion.load(folder / "walk.npz").betas[0]
    assert min(float(first), 1.5) <= float(BodyMotion.load(out).betas[0]) <= 1.5
    assert "shape: median of 2 clips" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "nothing to do"),
        (["--strength", "0.3", "--mirror"], "--strength is for --smooth"),
        (["--max-gap", "1", "--mirror"], "--max-gap is for --fill"),
        (["--smooth", "paper", "--strength", "1"], "has one strength"),
        (["--smooth", "kalman"], "invalid choice"),
        (["--strength", "2"], "a number from 0 to 1"),
        (["--resample", "fast"], "frames per second must be a number"),
        (["--resample", "0"], "between 0.01 and 1000"),
        (["--trim", "500:600"], "keeps nothing"),
        (["--trim", "9:3"], "keeps nothing"),
        (["--trim=-0.001s:"], "keeps nothing"),
        (["--mirror", "--interpolate", "slerp"], "--interpolate is for --resample or --speed"),
        (["--trim", "3"], "expected A:B"),
        (["--trim", "a:b"], "frames or seconds"),
        (["--trim", "1e308s:"], "frames or seconds"),
        (["--trim", "1" + 400 * "0" + ":"], "frames or seconds"),
        (["--hold", "1:2:3"], "seconds before and after"),
        (["--hold=-1:2"], "seconds before and after"),
        (["--mirror", "--join", "nowhere.npz"], "does not exist"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(folder, arguments, sentence, capsys):
    assert main(["clean", str(folder / "walk.npz"), str(folder / "out.npz"), *arguments]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said
    assert not (folder / "out.npz").exists()


def test_a_suffix_that_is_no_format_is_refused_before_the_work(folder, capsys):
    assert main(["clean", str(folder / "walk.npz"), str(folder / "out.fbx"), "--mirror"]) == 2
    assert "out.fbx" in capsys.readouterr().err


def test_the_help_needs_no_torch(comovi_process):
    before = "sys.modules['torch'] = None"
    run = subprocess.run(comovi_process("clean", "--help", before=before), capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "--foot-lock" in run.stdout


def test_gaps_that_a_format_cannot_tell_are_named(folder, capsys):
    assert main(["clean", str(folder / "walk.npz"), str(folder / "out.bvh"), "--smooth", "paper"]) == 0
    assert "3 frames have no pose, and bvh files cannot say so" in capsys.readouterr().out
    assert main(["clean", str(folder / "walk.npz"), str(folder / "out.bvh"), "--fill"]) == 0
    assert "cannot say so" not in capsys.readouterr().out
