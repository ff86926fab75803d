"""Broken inputs of demo and generate: one clear sentence, exit status 2, nothing half-written."""

from __future__ import annotations

import os

import numpy as np
import pytest
from bad_files import Cases, assert_refused, put, weights
from comfyui_comovi.comovi_model.nano.start import draw_start
from PIL import Image

case = Cases()
SENTENCE = "a man in a red shirt and blue trousers bows"


def generate(folder, *more, prompt: str = SENTENCE, out: str = "out") -> list:
    return ["generate", "--prompt", prompt, "--out", folder / out, "--steps", 1, *more]


def picture(path, size=(128, 192), mode: str = "RGB"):
    Image.new(mode, size, "white").save(path)
    return path


def pose_file(path, **changes):
    """A sound first pose with some arrays replaced; None leaves one out."""
    arrays = {**draw_start(SENTENCE, 0).pose.to_arrays(), **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


# --- the sentence ---------------------------------------------------------------------------------------------------


@case("the prompt has no words")
def an_empty_sentence(d):
    return generate(d, prompt="")


@case("the prompt has no words")
def a_sentence_of_signs(d):
    return generate(d, prompt="... 123 !")


@case("knows no word of the prompt")
def a_sentence_in_another_language(d):
    return generate(d, prompt="eine Frau winkt")


# --- the first frame ------------------------------------------------------------------------------------------------


@case("first frame")
def a_missing_first_frame(d):
    return generate(d, "--first-frame", d / "nothing.png")


@case("is a folder")
def a_folder_as_first_frame(d):
    return generate(d, "--first-frame", d)


@case("is empty (0 bytes)")
def an_empty_first_frame(d):
    return generate(d, "--first-frame", put(d / "a.png", b""))


@case("is not a picture")
def a_text_as_first_frame(d):
    return generate(d, "--first-frame", put(d / "a.png", "not a picture"))


@case("is damaged")
def a_truncated_first_frame(d):
    path = d / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (192, 128, 3), np.uint8)).save(path)
    return generate(d, "--first-frame", put(path, path.read_bytes()[:3000]))


@case("1x1 pixels")
def a_first_frame_of_one_pixel(d):
    return generate(d, "--first-frame", picture(d / "a.png", (1, 1)))


@case("3000x20 pixels")
def a_first_frame_like_a_ribbon(d):
    return generate(d, "--first-frame", picture(d / "a.png", (3000, 20)))


@case("is not a picture")
def a_first_frame_of_no_pixels(d):
    return generate(d, "--first-frame", put(d / "a.ppm", b"P6\n0 0\n255\n"))


@case("is not a picture")
def a_motion_as_first_frame(d):
    return generate(d, "--first-frame", pose_file(d / "pose.npz"))


# --- the first pose -------------------------------------------------------------------------------------------------


@case("motion file")
def a_missing_first_pose(d):
    return generate(d, "--first-pose", d / "nothing.npz")


@case("damaged or foreign file")
def a_picture_as_first_pose(d):
    return generate(d, "--first-pose", picture(d / "a.png"))


@case("finite numbers")
def a_first_pose_with_nan(d):
    return generate(d, "--first-pose", pose_file(d / "p.npz", transl=np.full((1, 3), np.nan, np.float32)))


@case("rotation matrices")
def a_first_pose_of_zeros(d):
    return generate(d, "--first-pose", pose_file(d / "p.npz", global_orient=np.zeros((1, 3, 3), np.float32)))


@case("body_pose must be (1, 23, 3, 3)")
def a_first_pose_of_21_joints(d):
    return generate(d, "--first-pose", pose_file(d / "p.npz", body_pose=np.tile(np.eye(3), (1, 21, 1, 1))))


@case("transl must have shape (1, 3)")
def a_first_pose_with_82_places(d):
    return generate(d, "--first-pose", pose_file(d / "p.npz", transl=np.zeros((82, 3), np.float32)))


@case("expected a motion with global_orient")
def a_first_pose_without_a_body(d):
    return generate(d, "--first-pose", pose_file(d / "p.npz", body_pose=None, global_orient=None))


@case("frame 0 is marked as not valid")
def a_first_pose_that_is_a_placeholder(d):
    return generate(d, "--first-pose", pose_file(d / "p.npz", valid=np.zeros(1, bool)))


@case("covers 0 pixels")
def a_first_pose_behind_the_camera(d):
    path = pose_file(d / "p.npz", transl=np.array([[0, 0, -9]], np.float32))
    return generate(d, "--first-frame", picture(d / "a.png"), "--first-pose", path)


@case("give the picture that belongs to the pose")
def a_first_pose_of_another_picture(d):
    return generate(d, "--first-frame", picture(d / "a.png", (640, 480)), "--first-pose", pose_file(d / "p.npz"))


# --- the output -----------------------------------------------------------------------------------------------------


@case("is not empty")
def an_output_folder_in_use(d):
    (d / "out").mkdir()
    put(d / "out" / "mine.txt", "keep this")
    return generate(d)


@case("it is a file where a folder is needed")
def an_output_that_is_a_file(d):
    put(d / "out", "a file")
    return generate(d)


@case("a file where a folder is needed")
def an_output_below_a_file(d):
    put(d / "file", "a file")
    return generate(d, out="file/out")


@case("permission is denied")
def an_output_where_nobody_may_write(d):
    (d / "locked").mkdir()
    (d / "locked").chmod(0o500)
    if os.access(d / "locked", os.W_OK):
        pytest.skip("this user may write everywhere")
    return generate(d, out="locked/out")


# --- the model ------------------------------------------------------------------------------------------------------


@case("does not exist")
def a_missing_model(d):
    return generate(d, "--model", d / "nothing.safetensors")


@case("w.safetensors")
def a_model_of_something_else(d):
    return generate(d, "--model", weights(d / "w.safetensors"))


@case("safetensors")
def an_empty_folder_as_model(d):
    (d / "model").mkdir()
    return generate(d, "--model", d / "model")


@pytest.mark.parametrize("name", case)
def test_a_broken_input_is_one_sentence(name, tmp_path, capsys):
    make, words = case[name]
    try:
        assert_refused(capsys, tmp_path, make(tmp_path), words)
    finally:
        if (tmp_path / "locked").exists():
            (tmp_path / "locked").chmod(0o700)
