"""read_motion: finds out from the content what a file is, and reads it."""

from __future__ import annotations

import bz2
import io
import json
import lzma
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
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
from ..files import file_error, require_file
from .bvh import read_bvh
from .formats import FORMATS, ImportedMotion
from .gltf import read_gltf
from .humanml3d import WIDTH, motion_from_features
from .joint_fit import motion_from_joints
from .limits import LARGEST_FILE, LARGEST_TEXT, LARGEST_UNPACKED, check_frames, read_bytes
from .meshes import PC2_MAGIC, read_obj_zip, read_pc2
from .mhr import motion_from_mhr
from .pickles import read_npy, read_npz, read_pickle, read_torch_zip
from .results import READERS, Wish, recognise
from .skeleton import UPS
from .smpl_fields import numbers
from .usda import read_usda
from .web_json import FORMAT as JSON_FORMAT
from .web_json import motion_from_json

_FOREIGN = (
    (b"Kaydara FBX", "FBX, which is not read; export it as BVH or GLB, for instance with Blender"),
    (b"PXR-USDC", "binary USD, which is not read; convert it to text with usdcat -o motion.usda"),
    (b"Ogawa", "Alembic, which is not read; export it as GLB, BVH or PC2"),
    (b"\x89HDF", "HDF5, which is not read; save its arrays as npz"),
)
_PIECE = 2**20  # bytes unpacked at once
_TEXT_SKELETONS = ("bvh", "usda")
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
            name, content = _opened(path, format)
            if format not in (None, name):
                raise ComoviError(f"its content is {name}, not {format}; leave the format out, or give another file.")
            motion, notes = _read(name, content, path, body, wish, how)
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


def _opened(path: Path, format: str | None) -> tuple[str, Any]:
    """The format's name, and its bytes, text, zip or tree."""
    if path.is_dir():
        return "camerahmr", _folder(path)
    require_file(path, "motion file")
    content = read_bytes(path, LARGEST_FILE)
    for magic, says in _FOREIGN:
        if magic in content[:32]:
            raise ComoviError(f"this is {says}.")
    if content[:4] == b"glTF":
        return "glb", content
    if content.startswith(PC2_MAGIC):
        return "pc2", content
    if content[:4] == b"PK\x03\x04":
        archive = zipfile.ZipFile(io.BytesIO(content))
        if any(name.lower().endswith(".obj") for name in archive.namelist()):
            return "obj", archive
        torch_file = any(name.endswith("data.pkl") for name in archive.namelist())
        return _of_tree(read_torch_zip(archive) if torch_file else read_npz(archive), format)
    if content[:6] == b"\x93NUMPY":
        return _of_tree(read_npy(content), format)
    text = content[:400].lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:9].upper() == b"HIERARCHY":
        return "bvh", _text(content)
    if text[:5] == b"#usda":
        return "usda", _text(content)
    if text[:1] in (b"{", b"["):
        return _json(content, format)
    content = _decompressed(content)
    try:
        tree = read_pickle(content)
    except Refused:
        raise
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        struct.error,
    ):
        if content[:1] == b"\x80":
            raise
        known = "npz, npy, pkl, pt, bvh, glb, usda, pc2, json and a zip of obj"
        raise ComoviError(
            f"expected a motion ({known}), got something else; its first bytes are {content[:8]!r}."
        ) from None
    return _of_tree(tree, format)


def _text(content: bytes) -> str:
    if len(content) > LARGEST_TEXT:
        raise ComoviError(
            f"a text of {len(content) / 2**20:.0f} MB is too long for a motion; cut it into shorter ones."
        )
    return content.decode("utf-8-sig", errors="replace")


def _json(content: bytes, format: str | None) -> tuple[str, Any]:
    try:
        tree = json.loads(_text(content))
    except (ValueError, RecursionError) as error:
        raise ComoviError(f"this looks like JSON, but it is not valid ({str(error)[:80]}).") from None
    if isinstance(tree, dict) and "asset" in tree and "nodes" in tree:
        return "glb", content
    if isinstance(tree, dict) and str(tree.get("format", "")).startswith(JSON_FORMAT.rpartition("-")[0]):
        return "json", tree
    return _of_tree(tree, format)


def _decompressed(content: bytes) -> bytes:
    """What joblib compressed, up to the limit; what shrank to less than a hundredth is no motion but a bomb."""
    if content[:3] == b"BZh":
        unpacker: Any = bz2.BZ2Decompressor()
    elif content.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
        unpacker = lzma.LZMADecompressor(memlimit=256 * 2**20)
    elif content[:1] == b"\x78" or content[:2] == b"\x1f\x8b":
        unpacker = zlib.decompressobj(wbits=47)
    else:
        return content
    pieces, size, waiting = [], 0, content
    while not unpacker.eof:
        piece = unpacker.decompress(waiting, _PIECE)
        waiting = getattr(unpacker, "unconsumed_tail", b"")
        if not piece and not waiting:
            break  # the file is cut off; its reader will say so
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST_UNPACKED or size > 100 * max(len(content), _PIECE):
            raise ComoviError(f"{len(content)} bytes unpack to more than {size >> 20} MB; this is damaged or hostile.")
    return b"".join(pieces)


def _folder(path: Path) -> list[Any]:
    """CameraHMR writes one .npy per frame."""
    files = sorted(path.glob("*.npy"))
    if not files:
        raise ComoviError(f"folder {path} holds no .npy files, as CameraHMR writes them; give the path of a file.")
    left = LARGEST_FILE
    trees = []
    for file in files:
        content = read_bytes(file)
        left -= len(content)
        if left < 0:
            raise ComoviError("the files of the folder have more than 2 GiB together; give a shorter clip.")
        tree = read_npy(content)
        if not isinstance(tree, dict) or "smpls" not in tree:
            raise ComoviError(f"{file.name} is no record of CameraHMR (a dictionary with smpls).")
        trees.append({key: value for key, value in tree.items() if key not in ("verts", "vertices")})
    return trees


def _of_tree(tree: Any, format: str | None) -> tuple[str, Any]:
    if isinstance(tree, np.ndarray):
        if tree.ndim == 2 and tree.shape[1] == WIDTH:
            return "humanml3d", tree
        if tree.ndim == 3 and tree.shape[1] in (22, 24) and tree.shape[2] == 3:
            return "joints", tree
        raise ComoviError(
            f"an array {tree.shape} is no motion; expected (frames, 263), (frames, 22, 3) or (.., 24, 3)."
        )
    if isinstance(tree, dict) and "global_orient" in tree and str(tree.get("format", "")).startswith("comovi-motion"):
        return "comovi", tree
    found = recognise(tree)
    if format is not None and format in READERS and (found is None or found in READERS):
        return format, tree
    if found is None:
        keys = ", ".join(map(str, list(tree)[:12])) if isinstance(tree, dict) else type(tree).__name__
        raise ComoviError(f"its content is no motion that we know; found {keys[:200]}.")
    return found, tree


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
    from dataclasses import replace

    changes: dict[str, Any] = {}
    if wish.fps is not None:
        changes["fps"] = wish.fps
    if wish.up is not None:
        changes["frame"] = {"y": "yup", "z": "zup"}.get(wish.up, wish.up)
    if betas is not None:
        changes["betas"] = betas
    return (replace(motion, **changes) if changes else motion), notes
