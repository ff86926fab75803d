"""Options of `comovi estimate`: what belongs together, which devices there are, and what is not read in vain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import estimate_parts as parts
import pytest
import torch
from comfyui_comovi.cli import main
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.estimate.command import Wishes, estimate_file
from comfyui_comovi.comovi_model.images import write_image


@pytest.fixture
def photo(tmp_path, monkeypatch) -> Path:
    """A picture, a pose of it without a camera, and a checkpoint that cannot be read."""
    monkeypatch.chdir(tmp_path)
    picture, truth = parts.example("standing")
    replace(truth, camera=None).save("pose.npz")
    Path("broken.ckpt").write_text("no checkpoint")
    return write_image("photo.png", picture)


@pytest.mark.parametrize("device", ["gpu", "mps", "meta", "cuda:99", "", "cuda:x"])
def test_a_device_that_is_not_there_is_refused_before_files_are_read(photo, capsys, device):
    """The checkpoint would be refused as well, had it been opened."""
    assert main(["estimate", "photo.png", "--camerahmr", "broken.ckpt", "--device", device]) == 2
    said = capsys.readouterr().err.strip()
    wanted = "CUDA device" if device == "cuda:99" else "CameraHMR runs on cpu, cuda"
    assert wanted in said and "\n" not in said, said


def test_the_cpu_may_have_a_number(photo):
    with pytest.raises(ComoviError, match=r"broken\.ckpt"):
        estimate_file(photo, Wishes(camerahmr=Path("broken.ckpt"), device="cpu:0"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_cuda_the_sentence_says_so(photo):
    with pytest.raises(ComoviError, match="sees no CUDA device"):
        estimate_file(photo, Wishes(camerahmr=Path("broken.ckpt"), device="cuda"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--device", "cuda"], "--device belongs to --camerahmr"),
        (["--motion", "pose.npz", "--camerahmr", "broken.ckpt"], "--motion and --camerahmr both give the pose"),
    ],
)
def test_options_without_a_meaning_are_refused(photo, capsys, options, sentence):
    assert main(["estimate", "photo.png", *options]) == 2
    assert sentence in capsys.readouterr().err


def test_a_motion_without_a_camera_takes_the_given_lens_and_no_network_is_read(photo):
    said: list[str] = []
    wishes = Wishes(out=Path("out.npz"), motion=Path("pose.npz"), focal=3000.0, camerahmr=Path("broken.ckpt"))
    estimate_file(photo, wishes, said.append)
    assert float(BodyMotion.load("out.npz").camera.K[0, 0]) == 3000
    assert "the focal length is the one that was given" in said[0]
