"""read_motion: finds out from the content what a file is, and reads it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..body.files.amass import load_motion
from ..body.motion import load_arrays
from ..body.smpl import BodyModel
from ..files import require_file
from .formats import ImportedMotion


def read_motion(
    path: str | os.PathLike[str],
    *,
    body: BodyModel | None = None,
    format: str | None = None,
    fps: float | None = None,
    **overrides: Any,
) -> ImportedMotion:
    """Reads a motion of any format we know; the format is told from the content, never only from the name."""
    path = require_file(Path(path), "motion file")
    arrays = load_arrays(path)
    motion = load_motion(path, fps)
    ours = "global_orient" in arrays
    note = f"axes {motion.frame!r}, metres, {motion.fps:g} frames per second"
    return ImportedMotion(motion, "comovi" if ours else "amass", (note,))
