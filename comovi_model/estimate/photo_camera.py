"""The focal length of a photo in pixels: as given, from what the camera wrote into the file, or a fair guess.

Exif tells it in two ways. FocalLength in mm times FocalPlaneXResolution is exact but often wrong or absent;
FocalLengthIn35mmFilm is rounded to whole millimetres of a frame with a diagonal of 43.3 mm. Where both are there and
agree, the first is used; where they do not, the second. Pictures that were scaled are followed by their pixel counts,
pictures that were turned by their longer sides. Sizes are (height, width); the principal point is the middle.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..body.cameras import Camera, intrinsics
from ..errors import ComoviError
from ..files import require_file

DIAGONAL_35MM = math.hypot(36, 24)
ORIENTATION, EXIF_FOLDER = 0x0112, 0x8769
FOCAL_LENGTH, FOCAL_35MM, DIGITAL_ZOOM = 0x920A, 0xA405, 0xA404
PLANE_X, PLANE_Y, PLANE_UNIT = 0xA20E, 0xA20F, 0xA210
PIXELS_X, PIXELS_Y = 0xA002, 0xA003
MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # of FocalPlaneResolutionUnit; other numbers say nothing
SENSOR_MM = (2.0, 80.0)  # longer side of any sensor that a photo may come from
AGREE = 1.15  # the two ways agree within this factor
SIZE_AGREES = 0.02  # of the ratio of the sides, below which a picture was scaled and not cropped
FIELD = (3.0, 170.0)  # degrees along the diagonal: what a lens can see
AXES = ("vertical", "horizontal", "diagonal")


@dataclass(frozen=True)
class PhotoCamera:
    """The camera of a photo, and a sentence about where its focal length comes from."""

    camera: Camera
    how: str
    is_guess: bool = False

    @property
    def focal_px(self) -> float:
        return float(self.camera.K[0, 0])


def photo_camera(
    size: tuple[int, int],
    *,
    focal_px: float | None = None,
    field_of_view: float | None = None,
    axis: str = "vertical",
    focal_35mm: float | None = None,
    exif: Mapping[int, Any] | None = None,
) -> PhotoCamera:
    """The camera from the first of these that is given: focal length in pixels, field of view in degrees along an
    axis, focal length in mm of a 35 mm camera, Exif of the file (`read_exif`); else a guess."""
    if focal_px is not None:
        return _camera(focal_px, size, "the focal length is the one that was given")
    if field_of_view is not None:
        focal = focal_from_field(field_of_view, size, axis)
        return _camera(focal, size, f"the focal length follows from the {axis} field of view of {field_of_view:g}°")
    if focal_35mm is not None:
        _positive(focal_35mm, "the focal length of a 35 mm camera", "mm")
        return _camera(focal_35mm * math.hypot(*size) / DIAGONAL_35MM, size, f"the lens is one of {focal_35mm:g} mm")
    found = focal_from_exif(exif, size) if exif else None
    if found is not None:
        return _camera(found[0], size, found[1])
    how = "the focal length is a guess: the diagonal of the picture, a usual lens"
    return _camera(default_focal(size), size, how, is_guess=True)


def default_focal(size: tuple[int, int]) -> float:
    """The diagonal of the picture in pixels: a field of view of 53° along it, as a lens of 43 mm has."""
    return math.hypot(*size)


def focal_from_field(degrees: float, size: tuple[int, int], axis: str = "vertical") -> float:
    """Field of view along an axis of the picture -> focal length in pixels."""
    if axis not in AXES:
        raise ComoviError(f"the field of view is measured along {axis!r}; choose one of {', '.join(AXES)}.")
    if not (math.isfinite(degrees) and 0 < degrees < 180):
        raise ComoviError(f"the field of view must lie between 0 and 180 degrees, got {degrees:g}.")
    height, width = size
    side = {"vertical": height, "horizontal": width, "diagonal": math.hypot(height, width)}[axis]
    return 0.5 * side / math.tan(math.radians(degrees) / 2)


def read_exif(path: str | os.PathLike[str]) -> dict[int, Any]:
    """What the camera wrote into a file, by Exif's numbers; a file without it, or with a damaged one, gives {}."""
    path = require_file(path, "image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                exif = picture.getexif()
                found = {ORIENTATION: exif.get(ORIENTATION, 1), **exif.get_ifd(EXIF_FOLDER)}
                found.setdefault(PIXELS_X, picture.width)
                found.setdefault(PIXELS_Y, picture.height)
                return found
    except Exception:  # Pillow raises whatever a damaged block makes it stumble over; the picture itself may be fine
        return {}


def focal_from_exif(exif: Mapping[int, Any], size: tuple[int, int]) -> tuple[float, str] | None:
    """Focal length in pixels of a picture of `size`, and how it was found; None where Exif does not tell."""
    by_plane, by_film = _from_focal_plane(exif, size), _from_35mm(exif, size)
    zoomed = (_number(exif, DIGITAL_ZOOM) or 1) > 1.01
    agree = by_plane and by_film and max(by_plane / by_film, by_film / by_plane) < AGREE
    note = ", as if the picture had been cropped but not scaled" if _is_cropped(exif, size) else ""
    if by_plane is not None and (by_film is None or (agree and not zoomed)):
        return by_plane, f"the focal length comes from the file (sensor size{note})"
    if by_film is not None:
        return by_film, f"the focal length comes from the file (35 mm equivalent{note})"
    return None


def _from_focal_plane(exif: Mapping[int, Any], size: tuple[int, int]) -> float | None:
    length = _number(exif, FOCAL_LENGTH)
    unit = MM_PER_UNIT.get(int(_number(exif, PLANE_UNIT) or 2))
    across = _number(exif, PLANE_X) or _number(exif, PLANE_Y)
    recorded = _recorded(exif)
    if not (length and across and unit and recorded):
        return None
    per_mm = across / unit
    if not SENSOR_MM[0] <= max(recorded) / per_mm <= SENSOR_MM[1]:
        return None
    zoom = max(_number(exif, DIGITAL_ZOOM) or 1, 1)
    return _sensible(length * per_mm * zoom * _scale(exif, size), size)


def _from_35mm(exif: Mapping[int, Any], size: tuple[int, int]) -> float | None:
    length = _number(exif, FOCAL_35MM)
    if not length:
        return None
    recorded = _recorded(exif)
    if recorded and _is_cropped(exif, size):
        return _sensible(length * math.hypot(*recorded) / DIAGONAL_35MM, size)
    return _sensible(length * math.hypot(*size) / DIAGONAL_35MM, size)


def _recorded(exif: Mapping[int, Any]) -> tuple[float, float] | None:
    """Shorter and longer side in pixels when the camera wrote the file."""
    sides = sorted(_number(exif, tag) or 0 for tag in (PIXELS_X, PIXELS_Y))
    return (sides[0], sides[1]) if sides[0] >= 1 else None


def _is_cropped(exif: Mapping[int, Any], size: tuple[int, int]) -> bool:
    recorded = _recorded(exif)
    return recorded is not None and abs(math.log(max(size) / min(size) * recorded[0] / recorded[1])) > SIZE_AGREES


def _scale(exif: Mapping[int, Any], size: tuple[int, int]) -> float:
    """Pixels of the picture per pixel of the camera."""
    recorded = _recorded(exif)
    return 1.0 if recorded is None or _is_cropped(exif, size) else max(size) / recorded[1]


def _sensible(focal: float, size: tuple[int, int]) -> float | None:
    field = 2 * math.degrees(math.atan(math.hypot(*size) / 2 / focal)) if math.isfinite(focal) and focal > 0 else 0
    return focal if FIELD[0] <= field <= FIELD[1] else None


def _number(exif: Mapping[int, Any], tag: int) -> float | None:
    """A positive finite number, or None: files hold zeros, 0/0, texts and tuples there."""
    value = exif.get(tag)
    if isinstance(value, (tuple, list)) and len(value) == 1:
        value = value[0]
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _positive(value: float, what: str, unit: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ComoviError(f"{what} must be a positive number of {unit}, got {value:g}.")


def _camera(focal: float, size: tuple[int, int], how: str, is_guess: bool = False) -> PhotoCamera:
    _positive(focal, "the focal length", "pixels")
    height, width = size
    return PhotoCamera(Camera(intrinsics(float(focal), width / 2, height / 2), width, height), how, is_guess)
