"""Pictures in and out: uint8 arrays (H, W, 3), red green blue, top row first."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import ComoviError
from .files import atomic_path, require_file

MAX_SIDE, MAX_PIXELS = 16384, 178_000_000  # larger pictures are mistakes or attacks; Pillow opens no larger ones


def read_image(path: str | os.PathLike[str], what: str = "image") -> np.ndarray:
    """Read a picture as (H, W, 3) uint8, turned upright as its EXIF tag says; transparency is laid on white."""
    path = require_file(path, what)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is the check below
            picture: Image.Image = Image.open(path)
            width, height = picture.size
            if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
                raise _too_large(f"{what} {path} is {width}x{height} pixels")
            picture = ImageOps.exif_transpose(picture)
            if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            if picture.mode.startswith("I"):  # 16 bits of grey, which a conversion would clip to white
                picture = Image.fromarray((np.asarray(picture).clip(0, 65535) / 257 + 0.5).astype(np.uint8))
            pixels = np.asarray(picture.convert("RGB"))
    except UnidentifiedImageError as error:
        raise ComoviError(f"{what} {path} is not a picture that can be read; give a PNG or JPEG file.") from error
    except ComoviError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(f"{what} {path} has too many pixels") from error
    except (OSError, ValueError, SyntaxError, Warning) as error:
        raise ComoviError(f"{what} {path} is damaged ({_one_line(error)}); save it again as PNG or JPEG.") from error
    if pixels.size == 0:
        raise ComoviError(f"{what} {path} has no pixels ({pixels.shape[1]}x{pixels.shape[0]}); give another one.")
    return pixels


def write_image(path: str | os.PathLike[str], pixels: np.ndarray) -> Path:
    """Write (H, W, 3) or (H, W, 4) uint8 to a PNG or JPEG file, whole or not at all; in a JPEG what is transparent is
    laid on white."""
    path = Path(path)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or pixels.size == 0:
        raise ComoviError(
            f"a picture must be (H, W, 3) uint8 with pixels; {path} would get {pixels.shape} {pixels.dtype}."
        )
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ComoviError(f"cannot write {path}: a picture's name must end in .png or .jpg.")
    picture = Image.fromarray(pixels)
    if picture.mode == "RGBA" and path.suffix.lower() != ".png":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    with atomic_path(path) as temporary:
        picture.save(temporary)
    return path


def to_uint8(pixels) -> np.ndarray:
    """Turn a float array or tensor in [0, 1] into uint8 by rounding; uint8 passes through."""
    array = pixels.detach().cpu().numpy() if hasattr(pixels, "detach") else np.asarray(pixels)
    if array.dtype == np.uint8:
        return array
    return (np.clip(array, 0, 1) * 255 + 0.5).astype(np.uint8)


def _too_large(says: str) -> ComoviError:
    return ComoviError(
        f"{says}; at most {MAX_SIDE} on a side and {MAX_PIXELS // 10**6} million in all can be used: make it smaller."
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
