"""Motion in and out: read_motion finds out what a file is, write_motion writes any format of FORMATS."""

from .adapt import for_body
from .formats import FORMATS, NAMINGS, ROOTS, ImportedMotion, MotionFormat
from .reading import read_motion
from .writing import options_of, write_motion

__all__ = [
    "FORMATS",
    "NAMINGS",
    "ROOTS",
    "ImportedMotion",
    "MotionFormat",
    "for_body",
    "options_of",
    "read_motion",
    "write_motion",
]
