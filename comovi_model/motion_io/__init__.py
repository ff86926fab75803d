"""Motion in and out: read_motion finds out what a file is, write_motion writes any format of FORMATS."""

from .formats import FORMATS, NAMINGS, ROOTS, ImportedMotion, MotionFormat
from .reading import read_motion
from .writing import write_motion

__all__ = ["FORMATS", "NAMINGS", "ROOTS", "ImportedMotion", "MotionFormat", "read_motion", "write_motion"]
