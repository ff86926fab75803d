"""The focal length of a photo: from its file, from a field of view, or guessed (estimate/photo_camera.py)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.estimate import photo_camera as pc
from comfyui_comovi.comovi_model.estimate.photo_camera import focal_from_exif, photo_camera, read_exif
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

FULL_FRAME = {  # a 50 mm lens before a sensor of 36 x 24 mm with 6000 x 4000 pixels: 8333.3 pixels
    pc.FOCAL_LENGTH: IFDRational(50), pc.PLANE_X: 6000 / 3.6, pc.PLANE_Y: 4000 / 2.4, pc.PLANE_UNIT: 3,
    pc.PIXELS_X: 6000, pc.PIXELS_Y: 4000, pc.FOCAL_35MM: 50,
}  # fmt: skip
EXACT = 6000 * 50 / 36


def changed(**values):
    """FULL_FRAME with other values by name; None takes a tag out."""
    exif = {**FULL_FRAME, **{getattr(pc, name): value for name, value in values.items()}}
    return {tag: value for tag, value in exif.items() if value is not None}


@pytest.mark.parametrize(
    ("exif", "size", "focal"),
    [
        (FULL_FRAME, (4000, 6000), EXACT),
        (FULL_FRAME, (1000, 1500), EXACT / 4),  # scaled
        (FULL_FRAME, (1500, 1000), EXACT / 4),  # and turned upright
        (FULL_FRAME, (8000, 12000), EXACT * 2),
        (changed(FOCAL_35MM=None), (4000, 6000), EXACT),
        (changed(PLANE_X=None), (4000, 6000), EXACT),  # the other axis says the same
        (changed(PLANE_X=6000 / 3.6 * 2.54, PLANE_UNIT=2), (4000, 6000), EXACT),
        (changed(PLANE_X=6000 / 36, PLANE_UNIT=4), (4000, 6000), EXACT),
        (changed(PLANE_X=None, PLANE_Y=None), (4000, 6000), EXACT),  # 3:2 has the diagonal of film
        (changed(PLANE_X=6000 / 36, PLANE_UNIT=3), (4000, 6000), EXACT),  # a wrong unit: film decides
        (changed(FOCAL_35MM=75), (4000, 6000), EXACT * 1.5),  # both possible, but they differ: film decides
        (changed(DIGITAL_ZOOM=2, FOCAL_35MM=100), (4000, 6000), EXACT * 2),
        (changed(DIGITAL_ZOOM=2, FOCAL_35MM=None), (4000, 6000), EXACT * 2),
        (changed(DIGITAL_ZOOM=0), (4000, 6000), EXACT),
        (FULL_FRAME, (3000, 2000), EXACT / 2),
    ],
)
def test_focal_length_from_exif(exif, size, focal):
    assert focal_from_exif(exif, size)[0] == pytest.approx(focal, rel=1e-6)


def test_a_telephone_has_its_equivalent_along_the_diagonal():
    """26 mm on 4:3: the field along the diagonal is that of 26 mm before 43.27 mm."""
    focal, _ = focal_from_exif({pc.FOCAL_35MM: 26}, (3024, 4032))
    assert 2 * math.atan(math.hypot(3024, 4032) / 2 / focal) == pytest.approx(2 * math.atan(43.2666 / 2 / 26), rel=1e-5)


def test_a_cropped_picture_keeps_the_focal_length_and_says_so():
    for exif in (FULL_FRAME, changed(PLANE_X=None, PLANE_Y=None)):
        focal, how = focal_from_exif(exif, (4000, 2000))
        assert focal == pytest.approx(EXACT, rel=1e-6)
        assert "cropped" in how


@pytest.mark.parametrize(
    "exif",
    [
        {},
        {pc.FOCAL_LENGTH: 4.2},  # without the size of the sensor it says nothing
        {pc.FOCAL_35MM: 0},
        {pc.FOCAL_35MM: IFDRational(0, 0)},
        {pc.FOCAL_35MM: "fifty"},
        {pc.FOCAL_35MM: float("inf")},
        {pc.FOCAL_35MM: 100_000},  # sees 0.02 degrees
        changed(FOCAL_35MM=None, PLANE_X=1e-9, PLANE_Y=1e-9),
        changed(FOCAL_35MM=None, PIXELS_X=0, PIXELS_Y=0),
        changed(FOCAL_35MM=None, PLANE_UNIT=1),
    ],
)
def test_exif_that_tells_nothing_leaves_a_guess(exif):
    assert focal_from_exif(exif, (4000, 6000)) is None
    guess = photo_camera((300, 400), exif=exif)
    assert guess.is_guess and guess.focal_px == pytest.approx(500)


def test_read_from_a_file_that_was_turned(tmp_path):
    """The sensor lies across, the picture stands upright: Exif says so and the focal length does not change."""
    picture = Image.fromarray(np.zeros((40, 60, 3), np.uint8))
    exif = Image.Exif()
    exif[pc.ORIENTATION] = 6
    exif.get_ifd(pc.EXIF_FOLDER).update({pc.FOCAL_LENGTH: IFDRational(50), pc.FOCAL_35MM: 50})
    picture.save(tmp_path / "turned.jpg", exif=exif)
    read = read_exif(tmp_path / "turned.jpg")
    assert read[pc.ORIENTATION] == 6 and read[pc.FOCAL_35MM] == 50
    upright = photo_camera((60, 40), exif=read)
    assert upright.focal_px == pytest.approx(60 * 50 / 36, rel=1e-4)
    assert upright.camera.K[:2, 2].tolist() == [20, 30]
    picture.save(tmp_path / "plain.png")
    assert photo_camera((40, 60), exif=read_exif(tmp_path / "plain.png")).is_guess


def test_a_damaged_block_is_no_error(tmp_path):
    picture = Image.fromarray(np.zeros((40, 60, 3), np.uint8))
    rng = np.random.default_rng(0)
    for number in range(20):
        block = b"Exif\0\0II*\0" + rng.integers(0, 256, 120, np.uint8).tobytes()
        path = tmp_path / f"{number}.jpg"
        picture.save(path, exif=block)
        assert photo_camera((40, 60), exif=read_exif(path)).focal_px > 0


def test_what_is_given_goes_before_the_file():
    size = (400, 300)
    assert photo_camera(size, focal_px=777, exif=FULL_FRAME).focal_px == 777
    assert photo_camera(size, field_of_view=90, exif=FULL_FRAME).focal_px == pytest.approx(200)
    assert photo_camera(size, field_of_view=90, axis="horizontal").focal_px == pytest.approx(150)
    assert photo_camera(size, field_of_view=90, axis="diagonal").focal_px == pytest.approx(250)
    assert photo_camera(size, focal_35mm=43.2666, exif=FULL_FRAME).focal_px == pytest.approx(500, rel=1e-5)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"focal_px": 0}, "positive number of pixels"),
        ({"focal_px": float("nan")}, "positive number of pixels"),
        ({"field_of_view": 180}, "between 0 and 180"),
        ({"field_of_view": 50, "axis": "sideways"}, "choose one of vertical"),
        ({"focal_35mm": -5}, "positive number of mm"),
    ],
)
def test_bad_numbers_are_one_sentence(how, sentence):
    with pytest.raises(ComoviError, match=sentence):
        photo_camera((400, 300), **how)
