"""read_motion: any motion file, with what the user says about it, as one motion."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..body.body_files import load_mannequin_body
from ..body.files.amass import motion_from_amass
from ..body.motion import NUM_BETAS, BodyMotion
from ..body.pickled_arrays import Refused
from ..body.smpl import BodyModel
from ..errors import ComoviError
from ..files import file_error
from .bvh import read_bvh
from .detect import open_motion
from .formats import FORMATS, ImportedMotion
from .gltf import read_gltf
from .humanml3d import motion_from_features
from .joint_fit import motion_from_joints
from .limits import check_frames
from .meshes import read_obj_zip, read_pc2
from .mhr import motion_from_mhr
from .results import READERS, Wish
from .skeleton import UPS
from .smpl_fields import numbers
from .usda import read_usda
from .web_json import motion_from_json

_TEXT_SKELETONS = ("bvh", "usda")
# What a reader heeds of what the user says about axes, units and people; those not named here heed "up".
_HEEDED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*_TEXT_SKELETONS, "glb"), ("units", "up", "handedness", "mapping")),
    **dict.fromkeys(("obj", "pc2", "humanml3d"), ()),
    "mhr": ("person",),
    "gvhmr": ("up", "space"),
    "wham": ("up", "space", "person"),
    "4dhumans": ("up", "person"),
}
_NEEDS_BODY = frozenset({"bvh", "glb", "usda", "obj", "pc2", "humanml3d", "joints", "mhr"})


def read_motion(
    path: str | os.PathLike[str],
    *,
    body: BodyModel | None = None,
    format: str | None = None,
    fps: float | None = None,
    units: str | float | None = None,
    up: str | None = None,
    handedness: str | None = None,
    person: str | int | None = None,
    space: str | None = None,
    mapping: Mapping[str, str] | None = None,
    betas: torch.Tensor | None = None,
    shape: str = "fit",
) -> ImportedMotion:
    """Reads a motion of any format we know; the format is told from the content, never only from the name.

    body: for formats that hold a skeleton or a mesh, the body that shall move so (None: the mannequin).
    Overrides of what the file says or we would guess: fps; units ("cm" or metres per unit), up ("y", "z", "camera"),
    handedness ("right", "left"), mapping {SMPL joint: its name} and shape ("fit", "mean") of skeletons; person and
    space ("world", "camera") of estimators' results; betas (10). A folder is read as CameraHMR's files of a clip.
    """
    path = Path(path)
    if format is not None and not (format in FORMATS and FORMATS[format].reads):
        raise ComoviError(f"format must be one of {', '.join(FORMATS)}, got {format!r}.")
    if fps is not None and not 0 < fps <= 1000:
        raise ComoviError(f"fps must be a number of frames per second from above 0 to 1000, got {fps}.")
    if shape not in ("fit", "mean"):
        raise ComoviError(f"shape must be fit or mean, got {shape!r}.")
    if up is not None and up not in UPS:
        raise ComoviError(f"up must be one of {', '.join(UPS)}, got {up!r}.")
    wish = Wish(fps, person, space, up)
    how = {"units": units, "up": up, "handedness": handedness, "mapping": mapping, "shape": shape, "betas": betas}
    try:
        with np.errstate(all="ignore"):  # numbers out of range become infinite, and those are refused
            name, content = open_motion(path, format)
            if format not in (None, name):
                raise ComoviError(f"its content is {name}, not {format}; leave the format out, or give another file.")
            motion, notes = _read(name, content, path, body, wish, how)
            wishes = {"units": units, "up": up, "handedness": handedness, "mapping": mapping, "person": person,
                    "space": space}  # fmt: skip
            idle = [key for key, value in wishes.items() if value is not None and key not in _HEEDED.get(name, ("up",))]
            notes += [f"{', '.join(idle)}: not heeded, as {name} files leave no choice there"] if idle else []
    except ComoviError as error:
        text = " ".join(str(error).split())  # numbers of a file may be printed over several lines
        raise ComoviError(text if str(path) in text else f"{path}: {text}") from None
    except Refused as error:
        raise ComoviError(f"{path}: {error}, which no motion needs; do not trust this file.") from None
    except OSError as error:
        raise file_error(error, path, "read") from None
    except (MemoryError, RecursionError) as error:
        raise ComoviError(f"{path}: the file is too large or too deep to be read ({type(error).__name__}).") from None
    except Exception as error:  # damaged zips, pickles and headers raise anything, and all of it means one thing
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ComoviError(f"{path}: expected a motion file, got a damaged or foreign one ({said}).") from None
    return ImportedMotion(motion, name, tuple(notes))


def _read(
    name: str, content: Any, path: Path, body: BodyModel | None, wish: Wish, how: dict[str, Any]
) -> tuple[BodyMotion, list[str]]:
    betas = how["betas"]
    if betas is not None:
        betas = how["betas"] = torch.as_tensor(betas).float().reshape(-1)
        if len(betas) != NUM_BETAS:
            raise ComoviError(f"betas must be {NUM_BETAS} numbers, got {len(betas)}.")
    if name in _NEEDS_BODY and body is None:
        body = load_mannequin_body()
    if body is not None and name in _NEEDS_BODY:
        return _onto_body(name, content, path, body.to("cpu"), wish, how)
    if name == "comovi":
        motion, notes = BodyMotion.from_arrays(_arrays(content)), ["our own file: nothing is assumed"]
    elif name == "json":
        motion, notes = motion_from_json(content)
    elif name in ("amass", "smplx"):
        motion, notes = _amass(content, wish)
    else:
        motion, notes = READERS[name](content, wish)
    return _overridden(motion, notes, wish if name in ("comovi", "json") else Wish(), betas)


def _onto_body(
    name: str, content: Any, path: Path, body: BodyModel, wish: Wish, how: dict[str, Any]
) -> tuple[BodyMotion, list[str]]:
    if name in _TEXT_SKELETONS or name == "glb":
        reader = {"bvh": read_bvh, "usda": read_usda, "glb": read_gltf}[name]
        return reader(content, body, fps=wish.fps, **how)  # type: ignore[operator]
    if name == "obj":
        return read_obj_zip(content, body, fps=wish.fps, betas=how["betas"])
    if name == "pc2":
        beside = path.with_suffix(".obj")
        text = ""
        if beside.is_file():
            with beside.open(encoding="utf-8", errors="replace") as file:
                text = file.read(10_000)
        return read_pc2(content, body, beside=text, fps=wish.fps, betas=how["betas"])
    if name == "mhr":
        return motion_from_mhr(content, body, fps=wish.fps, person=wish.person, betas=how["betas"])
    check_frames(len(content))  # before it grows: a small file may state a large array
    if name == "humanml3d":
        return motion_from_features(np.asarray(content, np.float64), body, fps=wish.fps, betas=how["betas"])
    return _joints(np.asarray(content, np.float64), body, wish, how)


def _joints(content: np.ndarray, body: BodyModel, wish: Wish, how: dict[str, Any]) -> tuple[BodyMotion, list[str]]:
    positions = np.zeros((len(content), 24, 3))
    positions[:, : content.shape[1]] = content
    frame = {"y": "yup", "z": "zup"}.get(wish.up or "yup", wish.up or "yup")
    rate = wish.fps or 20.0
    motion, notes = motion_from_joints(
        positions, body, frame=frame, fps=rate, present=range(content.shape[1]), betas=how["betas"]
    )
    says = "given" if wish.fps else "assumed; give fps"
    axes = f"metres, axes {frame!r} ({'given' if wish.up else 'assumed; give up'})"
    return motion, [f"{len(content)} frames at {rate:g} per second ({says})", axes, *notes]


def _arrays(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {key: value if isinstance(value, np.ndarray) else np.array(value) for key, value in tree.items()}


def _amass(tree: Mapping[str, Any], wish: Wish) -> tuple[BodyMotion, list[str]]:
    arrays = _arrays({key: value for key, value in tree.items() if value is not None})
    check_frames(len(numbers(arrays["poses"], "poses")))
    motion = motion_from_amass(arrays, "the file", wish.fps)
    left_out = motion.provenance.get("betas_left_out", [])
    notes = [
        f"{motion.fps:.6g} frames per second ({'given' if wish.fps else 'stated by the file'})",
        f"metres, axes 'zup' ({'given' if wish.up else 'as AMASS has them'})",
        f"body {motion.body_model!r}; fingers, jaw, eyes and soft tissue are left out",
    ]
    if any(abs(value) > 1e-6 for value in left_out):
        notes.append(f"shape parameters beyond the first {NUM_BETAS} are left out")
    return _overridden(motion, notes, Wish(up=wish.up), None)


def _overridden(
    motion: BodyMotion, notes: list[str], wish: Wish, betas: torch.Tensor | None
) -> tuple[BodyMotion, list[str]]:
    changes: dict[str, Any] = {}
    if wish.fps is not None:
        changes["fps"] = wish.fps
    if wish.up is not None:
        changes["frame"] = {"y": "yup", "z": "zup"}.get(wish.up, wish.up)
    if betas is not None:
        changes["betas"] = betas
    return (replace(motion, **changes) if changes else motion), notes
