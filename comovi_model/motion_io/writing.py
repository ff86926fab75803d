"""write_motion: one motion to one file of any format we write."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..body.files.amass import save_amass, save_motion, save_smplx
from ..body.files.glb import save_glb
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel, pose_joints
from ..errors import ComoviError
from ..files import atomic_path
from .bvh import save_bvh
from .formats import FORMATS
from .humanml3d import save_humanml3d
from .meshes import save_obj_zip, save_pc2
from .names import preset_names
from .place import placed
from .usda import save_usda
from .web_json import save_json


def _save_comovi(path: Path, motion: BodyMotion, body: BodyModel) -> None:
    save_motion(path, motion, body)


def _save_amass(path: Path, motion: BodyMotion, body: BodyModel, *, root: str = "centred") -> None:
    save_amass(path, placed(motion, body, "zup", root), body, floor=False)


def _save_smplx(path: Path, motion: BodyMotion, body: BodyModel, *, root: str = "centred") -> None:
    save_smplx(path, placed(motion, body, "zup", root), body, floor=False)


def _save_glb(path: Path, motion: BodyMotion, body: BodyModel, *, names: str = "smpl", root: str = "centred") -> None:
    save_glb(path, placed(motion, body, "yup", root), body, floor=False, joint_names=preset_names(names))


def _save_joints(path: Path, motion: BodyMotion, body: BodyModel, *, root: str = "centred") -> None:
    motion = placed(motion.to("cpu"), body.to("cpu"), "yup", root)
    joints = pose_joints(body.to("cpu"), motion.rotations, motion.betas, motion.transl).numpy()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, joints.astype(np.float32))


WRITERS: dict[str, Callable[..., None]] = {
    "comovi": _save_comovi, "amass": _save_amass, "smplx": _save_smplx, "bvh": save_bvh, "glb": _save_glb,
    "usda": save_usda, "obj": save_obj_zip, "pc2": save_pc2, "json": save_json, "humanml3d": save_humanml3d,
    "joints": _save_joints,
}  # fmt: skip


def write_motion(
    path: str | os.PathLike[str], motion: BodyMotion, body: BodyModel, format: str | None = None, **options: Any
) -> Path:
    """Writes the file whole or not at all and returns its path; a path without a suffix gets the format's.

    format None is chosen by the suffix. Options (see `options_of`) that a format does not have are refused.
    """
    path = Path(path)
    name = format or format_of_suffix(path)
    if name not in WRITERS:
        raise ComoviError(f"cannot write a motion as {name!r}; the formats are {', '.join(WRITERS)}.")
    check_options(name, options)
    if not path.suffix:
        path = path.with_name(path.name + FORMATS[name].suffix)
    WRITERS[name](path, motion.to("cpu"), body.to("cpu"), **options)
    return path


def options_of(format: str) -> dict[str, Any]:
    """Options of a format with their defaults: root, names, units, order, target."""
    parameters = inspect.signature(WRITERS[format]).parameters.values()
    return {item.name: item.default for item in parameters if item.kind is item.KEYWORD_ONLY}


def check_options(format: str, options: Mapping[str, Any]) -> None:
    """A sentence for options that the format does not have."""
    wrong = options.keys() - options_of(format).keys()
    if wrong:
        has = ", ".join(options_of(format)) or "none"
        raise ComoviError(f"format {format} has no option {', '.join(sorted(wrong))}; its options are {has}.")


def format_of_suffix(path: Path) -> str:
    """ "walk.bvh" -> "bvh"; where several formats share a suffix, the first of the table."""
    for row in FORMATS.values():
        if row.writes and row.suffix == path.suffix.lower():
            return row.name
    suffixes = ", ".join(sorted({row.suffix for row in FORMATS.values() if row.writes}))
    raise ComoviError(f"{path}: the suffix says no motion format; use one of {suffixes}, or name the format.")
