"""write_motion: one motion to one file of any format we write."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..body.files.amass import save_amass, save_motion
from ..body.files.glb import save_glb
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel
from ..errors import ComoviError
from .formats import FORMATS

Writer = Callable[..., Any]  # (path, motion, body, **options)


def _writers() -> dict[str, Writer]:
    return {"comovi": save_motion, "amass": save_amass, "glb": save_glb}


def write_motion(
    path: str | os.PathLike[str], motion: BodyMotion, body: BodyModel, format: str | None = None, **options: Any
) -> Path:
    """Writes the file whole or not at all and returns its path; a path without a suffix gets the format's.

    format None is chosen by the suffix. Options that a format does not have are refused in a sentence.
    """
    path = Path(path)
    name = format or format_of_suffix(path)
    writer = _writers().get(name)
    if writer is None:
        known = ", ".join(row.name for row in FORMATS.values() if row.writes)
        raise ComoviError(f"cannot write a motion as {name!r}; the formats are {known}.")
    if not path.suffix:
        path = path.with_name(path.name + FORMATS[name].suffix)
    writer(path, motion, body, **options)
    return path


def format_of_suffix(path: Path) -> str:
    """ "walk.bvh" -> "bvh"; where several formats share a suffix, the first of the table."""
    for row in FORMATS.values():
        if row.writes and row.suffix == path.suffix.lower():
            return row.name
    suffixes = ", ".join(sorted({row.suffix for row in FORMATS.values() if row.writes}))
    raise ComoviError(f"{path}: the suffix says no motion format; use one of {suffixes}, or name the format.")
