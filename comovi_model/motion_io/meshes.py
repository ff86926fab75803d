"""Motions as meshes, one per frame: a zip of OBJ files, or a PC2 point cache beside one OBJ.

Letters: F frames, V vertices, N faces. Metres, y up, as glTF has it. Both are read back with the body that they were
made from: its pose and shape are found from the vertices (vertex_fit.py).
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..body.motion import BodyMotion
from ..body.smpl import BodyModel, pose_body, shaped_vertices
from ..errors import ComoviError
from ..files import atomic_path
from .limits import MOST_FRAMES, Budget, by_number
from .place import placed
from .vertex_fit import motion_from_vertices

PC2_MAGIC = b"POINTCACHE2\0"
PC2_HEADER = struct.Struct("<12siiffi")  # magic, version, points, start frame, frames per sample, samples
INFO = "motion.json"
REST_MESH = "# rest mesh of"  # how the .obj beside a point cache begins
DEFAULT_RATE = 16.0
_CHUNK = 16  # frames posed at once


def save_obj_zip(path: str | Path, motion: BodyMotion, model: BodyModel, *, root: str = "centred") -> None:
    """Writes frame_000000.obj, ... and motion.json (fps, body, shape) in one zip."""
    model = model.to("cpu")
    motion = placed(motion.to("cpu"), model, "yup", root)
    faces = _faces_text(model)
    with (
        atomic_path(Path(path)) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as z,
    ):
        for frame, vertices in enumerate(_posed(motion, model)):
            z.writestr(f"frame_{frame:06d}.obj", _vertices_text(vertices) + faces)
        z.writestr(INFO, json.dumps(_info(motion)))


def save_pc2(path: str | Path, motion: BodyMotion, model: BodyModel, *, root: str = "centred") -> None:
    """Writes the point cache, and the rest mesh as .obj of the same name beside it."""
    path, model = Path(path), model.to("cpu")
    beside = path.with_suffix(".obj")
    if beside.exists() and not _is_rest_mesh(beside):
        raise ComoviError(
            f"cannot write {path}: {beside.name} beside it would become its rest mesh, and is another file; choose "
            "another name."
        )
    motion = placed(motion.to("cpu"), model, "yup", root)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(PC2_HEADER.pack(PC2_MAGIC, 1, len(model.v_template), 0.0, 1.0, len(motion)))
        for vertices in _posed(motion, model):
            file.write(vertices.astype("<f4").tobytes())
    rest = shaped_vertices(model, motion.betas).numpy()
    with atomic_path(beside) as temporary:
        head = f"{REST_MESH} {path.name}\n# {json.dumps(_info(motion))}\n"
        temporary.write_text(head + _vertices_text(rest) + _faces_text(model), encoding="utf-8")


def _is_rest_mesh(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(REST_MESH)) == REST_MESH.encode()


def _info(motion: BodyMotion) -> dict[str, Any]:
    return {"fps": motion.fps, "frames": len(motion), "body_model": motion.body_model, "betas": motion.betas.tolist()}


def _posed(motion: BodyMotion, model: BodyModel) -> Iterator[np.ndarray]:
    for start in range(0, len(motion), _CHUNK):
        part = motion.slice(start, start + _CHUNK)
        yield from pose_body(model, part.rotations, part.betas, part.transl).vertices.numpy()


def _vertices_text(vertices: np.ndarray) -> str:
    return ("v %.6f %.6f %.6f\n" * len(vertices)) % tuple(vertices.ravel().tolist())


def _faces_text(model: BodyModel) -> str:
    return ("f %d %d %d\n" * len(model.faces)) % tuple((model.faces + 1).ravel().tolist())


def read_obj_zip(
    archive: zipfile.ZipFile, body: BodyModel, *, fps: float | None = None, betas: torch.Tensor | None = None
) -> tuple[BodyMotion, list[str]]:
    """Every .obj of the zip is a frame, in the order of the numbers in their names."""
    found = (name for name in archive.namelist() if name.lower().endswith(".obj"))
    names = sorted((name for name in found if not name.startswith("__MACOSX/")), key=by_number)
    if not names or len(names) > MOST_FRAMES:
        raise ComoviError(f"expected a zip with 1 to {MOST_FRAMES} OBJ files, got {len(names)}.")
    budget, frames = Budget(), []
    for name in names:
        budget.take(archive.getinfo(name).file_size)
        content = archive.read(name)
        count = content.count(b"\nv ") + content.startswith(b"v ")
        if count != len(body.v_template):
            raise ComoviError(
                f"{name} has {count} vertices, body {body.name} has {len(body.v_template)}; give the body that the "
                "meshes were made from."
            )
        frames.append(_obj_vertices(content))
    info = _read_info(archive.read(INFO)) if INFO in archive.namelist() else {}
    return _from_meshes(np.stack(frames), body, info, fps, betas)


def _obj_vertices(content: bytes) -> np.ndarray:
    lines = [line.split()[1:4] for line in content.splitlines() if line.startswith(b"v ")]
    try:
        vertices = np.array(lines, dtype=np.float64)
    except ValueError:
        vertices = np.zeros(0)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
        raise ComoviError("an OBJ file needs lines `v x y z` with finite numbers.")
    return vertices.astype(np.float32)


def read_pc2(
    content: bytes, body: BodyModel, *, beside: str = "", fps: float | None = None, betas: torch.Tensor | None = None
) -> tuple[BodyMotion, list[str]]:
    """beside: the text of the OBJ file next to it, whose comment states the frame rate; may be empty."""
    if len(content) < PC2_HEADER.size:
        raise ComoviError("the PC2 file is cut off.")
    _, version, points, _, _, samples = PC2_HEADER.unpack_from(content)
    if version != 1 or points < 1 or samples < 1 or points * samples * 12 > len(content) - PC2_HEADER.size:
        raise ComoviError(f"the PC2 header promises {samples} frames of {points} points, which the file does not hold.")
    values = np.frombuffer(content, "<f4", 3 * points * samples, PC2_HEADER.size).reshape(samples, points, 3)
    if not np.isfinite(values).all():
        raise ComoviError("the PC2 file holds NaN or infinite numbers.")
    stated = re.search(r"^# (\{.*\})$", beside[:10_000], re.MULTILINE)
    return _from_meshes(values, body, _read_info(stated.group(1).encode()) if stated else {}, fps, betas)


def _read_info(content: bytes) -> dict[str, Any]:
    try:
        info = json.loads(content[:100_000])
    except (ValueError, RecursionError):
        return {}
    return info if isinstance(info, dict) else {}


def _from_meshes(
    vertices: np.ndarray, body: BodyModel, info: dict[str, Any], fps: float | None, betas: torch.Tensor | None
) -> tuple[BodyMotion, list[str]]:
    stated = info.get("fps")
    if fps is not None:
        rate, says = fps, "given"
    elif isinstance(stated, (int, float)) and 0 < stated <= 1000:
        rate, says = float(stated), "stated beside the meshes"
    else:
        rate, says = DEFAULT_RATE, "assumed: meshes do not say; give fps"
    motion, notes = motion_from_vertices(vertices, body, fps=rate, betas=betas)
    return motion, [f"{len(vertices)} meshes, {rate:.6g} frames per second ({says})", "metres, axes 'yup'", *notes]
