"""`comovi show`: each kind of result from a file, and a sentence for what does not fit together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_comovi.cli import main
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.files.amass import save_amass
from comfyui_comovi.comovi_model.body.mannequin import load_nano_body
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.images import read_image
from comfyui_comovi.comovi_model.show import command
from comfyui_comovi.comovi_model.video import read_video, write_video


@pytest.fixture(autouse=True)
def small_body(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "load_body_model", lambda path: load_nano_body())
    monkeypatch.chdir(tmp_path)


def motion(frames: int = 5, **changes) -> BodyMotion:
    rotations = torch.eye(3).repeat(frames, 24, 1, 1)
    rotations[:, 0] = torch.diag(torch.tensor([1.0, -1, -1]))
    path = torch.tensor([[0.1 * f, 0.9, 4.0] for f in range(frames)])
    camera = Camera.from_focal(60, 48, 64)
    return replace(BodyMotion(rotations, torch.zeros(10), path, camera=camera, body_model="mannequin-v1"), **changes)


def write_grey(path, frames: int = 5, fps: float = 16):
    return write_video(path, np.full((frames, 64, 48, 3), 128, np.uint8), fps)


def test_every_result_of_a_file(tmp_path, capsys):
    motion().save("walk.npz")
    write_grey("film.mp4")
    moved = motion(transl=motion().transl + torch.tensor([0.05, 0, 0]))
    moved.save("moved.npz")
    for arguments in (
        [],
        ["--video", "film.mp4", "--out", "both.html", "--title", "A walk"],
        ["--video", "film.mp4", "--out", "over.mp4", "--style", "parts", "--opacity", "1"],
        ["--out", "turn.mp4", "--size", "64x80"],
        ["--what", "left-side", "--size", "64x80"],
        ["--out", "sheet.png"],
        ["--out", "path.png", "--what", "path"],
        ["--out", "error.png", "--compare", "moved.npz"],
    ):
        assert main(["show", "walk.npz", *arguments]) == 0, arguments
    made = {path.name for path in tmp_path.iterdir()} - {"walk.npz", "moved.npz", "film.mp4"}
    assert made == {"walk.html", "both.html", "over.mp4", "turn.mp4", "walk_left-side.mp4", "sheet.png", "path.png",
                    "error.png"}  # fmt: skip
    assert "50.0 mm absolute, 0.0 mm" in capsys.readouterr().out
    over, fps = read_video("over.mp4")
    assert (over.shape, fps) == ((5, 64, 48, 3), 16)
    assert np.abs(over.astype(int) - 128).max() > 40 and np.abs(over[:, :8, :8].astype(int) - 128).max() < 6
    assert read_video("turn.mp4")[0].shape == (5, 80, 64, 3)
    assert read_image("sheet.png").shape[1] == 1600
    page = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert "<h1>A walk</h1>" in page and '"type":"video/mp4"' in page


def test_a_motion_of_another_body_is_shown_and_what_was_left_out_is_said(capsys):
    save_amass("cmu.npz", motion(), load_nano_body())
    arrays = dict(np.load("cmu.npz"))
    del arrays["body_model"]
    np.savez("cmu.npz", **{**arrays, "betas": np.full(16, 0.5)})
    assert main(["show", "cmu.npz", "--out", "cmu.png"]) == 0
    assert "mean shape is used" in capsys.readouterr().out


@pytest.mark.parametrize("out", ["over.mp4", "page.html"])
def test_a_video_of_another_shape_is_named(capsys, out):
    motion().save("walk.npz")
    write_grey("film.mp4")
    write_video("wide.mp4", np.full((5, 48, 96, 3), 128, np.uint8), 16)
    for film, named in (("film.mp4", False), ("wide.mp4", True)):
        assert main(["show", "walk.npz", "--video", film, "--out", out, "--overwrite"]) == 0
        assert ("96 x 48 and the camera of the motion is 48 x 64" in capsys.readouterr().out) == named


def test_a_file_is_replaced_only_when_asked(capsys):
    motion().save("walk.npz")
    write = ["show", "walk.npz", "--out", "walk.png"]
    assert main(write) == 0
    assert main(write) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*write, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.npz"], "does not exist"),
        (["walk.npz", "--out", "walk.gif"], ".html, .mp4 or .png"),
        (["walk.npz", "--out", "walk.png", "--what", "front"], "written as .mp4"),
        (["walk.npz", "--out", "o.mp4", "--what", "overlay"], "name it with --video"),
        (["walk.npz", "--out", "o.png", "--video", "film.mp4"], "not with sheet"),
        (["walk.npz", "--what", "compare"], "second motion"),
        (["walk.npz", "--out", "o.mp4", "--compare", "walk.npz"], "second motion"),
        (["walk.npz", "--out", "o.mp4", "--video", "fast.mp4"], "9 frames and the motion 5"),
        (["walk.npz", "--out", "o.html", "--size", "64x64"], "player has a size of its own"),
        (["walk.npz", "--out", "o.html", "--video", "walk.npz"], "cannot be read"),
        (["walk.npz", "--out", "film.mp4/place.png"], "cannot write"),
        (["walk.npz", "--opacity", "2"], "0 to 1"),
        (["walk.npz", "--out", "o.mp4", "--size", "33x64"], "even"),
        (["blind.npz", "--out", "o.mp4", "--video", "film.mp4"], "no camera"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, capsys, arguments, message):
    motion().save("walk.npz")
    motion(camera=None).save("blind.npz")
    write_grey("film.mp4")
    write_grey("fast.mp4", 9, 25)
    before = sorted(tmp_path.iterdir())
    assert main(["show", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
