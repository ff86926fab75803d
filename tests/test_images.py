"""Pictures are read as they look and refused in a sentence."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.images import read_image, to_uint8, write_image
from PIL import Image


def test_a_png_comes_back_exactly(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert np.array_equal(read_image(write_image(tmp_path / "a.png", pixels)), pixels)


def test_transparency_is_laid_on_white(tmp_path):
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 255).all()


def test_a_rotated_photo_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (8, 4, 3)


def test_floats_are_rounded_not_cut():
    assert to_uint8(np.array([0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 2.0])).tolist() == [0, 0, 1, 255, 255]


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n" + b"\0" * 30])
def test_a_file_that_is_no_picture_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ComoviError, match="a.png"):
        read_image(tmp_path / "a.png")


def test_a_truncated_picture_is_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    with pytest.raises(ComoviError, match=r"b\.png is damaged"):
        read_image(tmp_path / "b.png")


def test_a_picture_of_a_hundred_megapixels_is_read_and_a_larger_one_named(tmp_path, monkeypatch):
    Image.new("L", (12000, 9000)).save(tmp_path / "phone.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "phone.png").shape == (9000, 12000, 3)
    Image.new("1", (16000, 11500)).save(tmp_path / "vast.png")
    for pillows_limit, sentence in ((Image.MAX_IMAGE_PIXELS, "too many pixels"), (None, "16000x11500 pixels")):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_limit)
        with pytest.raises(ComoviError, match=f"{sentence}; at most 16384 on a side and 178 million"):
            read_image(tmp_path / "vast.png")


def test_a_picture_without_pixels_is_not_written(tmp_path):
    with pytest.raises(ComoviError, match="with pixels"):
        write_image(tmp_path / "a.png", np.zeros((0, 4, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_sixteen_bits_of_grey_keep_their_steps(tmp_path):
    Image.fromarray(np.array([[0, 257 * 128, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png")[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]


def test_transparency_is_laid_on_white_in_a_jpeg(tmp_path):
    clear = np.zeros((8, 8, 4), np.uint8)
    write_image(tmp_path / "clear.jpg", clear)
    assert read_image(tmp_path / "clear.jpg").min() >= 250
