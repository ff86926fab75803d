"""Bad input of `comovi estimate`: one sentence each, exit status 2, nothing written, nothing executed."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import estimate_parts as parts
import numpy as np
import pytest
import torch
from comfyui_comovi.cli import main
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.estimate.people import Person
from comfyui_comovi.comovi_model.images import write_image
from PIL import Image

TRACE = "should_not_exist"


class Attack:
    def __reduce__(self):
        return os.system, (f"touch {TRACE}",)


def moved(person: Person, x: float, share: float = 1.0) -> Person:
    """The same person elsewhere; share < 1 loses the lower part."""
    points = person.keypoints.copy()
    points[:, 0] += x
    low, high = points[:, 1].min(), points[:, 1].max()
    points[points[:, 1] > low + share * (high - low), 2] = 0
    return Person(person.box + [x, 0, x, 0], keypoints=points)


@pytest.fixture
def scene(tmp_path, monkeypatch) -> Path:
    """A folder with the pictures, keypoints and checkpoints of the cases."""
    monkeypatch.chdir(tmp_path)
    picture, truth = parts.example("standing")
    write_image("photo.png", picture)
    write_image("transparent.png", np.concatenate([picture, np.full_like(picture[..., :1], 255)], -1))
    Image.fromarray(np.full((1, 1, 3), 99, np.uint8)).save("dot.png")
    write_image("empty.png", np.full((256, 200, 3), 200, np.uint8))
    (person,) = parts.true_people(truth)
    crowd = [moved(person, 20.0 * number - 110) for number in range(12)]
    for name, people in {"one": [person], "twelve": crowd, "half": [moved(person, 0, 0.45)], "none": []}.items():
        Path(f"{name}.json").write_text(json.dumps(parts.pose_keypoint([people], picture.shape[:2])))
    Path("text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": {"smplx_head.decpose.weight": torch.zeros(1)}}, "smplx.ckpt")
    torch.save({"state_dict": {"head.dec_kp.weight": torch.zeros(1)}}, "densekp.ckpt")
    torch.save({"state_dict": {"smpl_head.decpose.weight": torch.zeros(1)}, "hook": Attack()}, "hostile.ckpt")
    Path("raw.ckpt").write_bytes(pickle.dumps(Attack()))
    Path("raw.npz").write_bytes(pickle.dumps(Attack()))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["photo.png", "--keypoints", "none.json"], "name nobody in this picture"),
        (["photo.png", "--keypoints", "twelve.json", "--person", "12"], "12 people were found; count from 0 to 11"),
        (["empty.png"], "no person was found in the picture"),
        (["dot.png"], "1x1 pixels, too small"),
        (["photo.png", "--box", "nan,0,50,50"], "not finite"),
        (["photo.png", "--box", "9,9,9,50"], "is empty"),
        (["photo.png", "--box", "600,10,700,200"], "outside the picture of 512x768"),
        (["photo.png", "--box", "1,2,3"], "expected left,top,right,bottom"),
        (["photo.png", "--focal", "0"], "expected a positive number"),
        (["missing.png"], "does not exist"),
        (["text.ckpt"], "not a picture that can be read"),
        (["photo.png", "--camerahmr", "text.ckpt"], "checkpoint"),
        (["photo.png", "--camerahmr", "smplx.ckpt"], "SMPL-X variant"),
        (["photo.png", "--camerahmr", "densekp.ckpt"], "dense-keypoint network"),
        (["photo.png", "--camerahmr", "hostile.ckpt"], "does not fit the network"),
        (["photo.png", "--camerahmr", "raw.ckpt"], "not a PyTorch checkpoint"),
        (["photo.png", "--fov-network", "text.ckpt"], "belongs to --camerahmr"),
        (["photo.png", "--motion", "raw.npz"], "raw.npz"),
        (["photo.png", "--body", "raw.npz"], "raw.npz"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_runs(scene, capsys, arguments, sentence):
    before = set(scene.iterdir())
    assert main(["estimate", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert sentence in said and "\n" not in said, said
    assert said.startswith("comovi: ") and len(said) < 600
    assert set(scene.iterdir()) == before, "a file was left behind, or something in a file was run"


def test_half_a_person_and_a_transparent_picture_are_taken_with_a_note(scene, capsys):
    assert main(["estimate", "transparent.png", "--keypoints", "half.json", "--out", "half.npz"]) == 0
    assert "approximate" in capsys.readouterr().out
    assert len(BodyMotion.load("half.npz")) == 1


def test_one_of_twelve_people_is_taken_by_place(scene, capsys):
    """They stand 20 pixels apart; the fourth from the left is 60 pixels right of the first."""
    for number in (0, 3):
        assert main(["estimate", "photo.png", "--keypoints", "twelve.json", "--person", f"left:{number}",
                     "--out", f"{number}.npz"]) == 0  # fmt: skip
    first, fourth = (BodyMotion.load(f"{number}.npz") for number in (0, 3))
    pixels = [float(one.camera.K[0, 0] * one.transl[0, 0] / one.transl[0, 2]) for one in (first, fourth)]
    assert pixels[1] - pixels[0] == pytest.approx(60, abs=12)
    assert "12 people were found and 1 taken" in capsys.readouterr().out
