"""What a motion file is, told from its content: format name, and its bytes, text, zip or tree."""

from __future__ import annotations

import bz2
import io
import json
import lzma
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..body.pickled_arrays import Refused
from ..errors import ComoviError
from ..files import require_file
from .humanml3d import WIDTH
from .limits import LARGEST_FILE, LARGEST_TEXT, LARGEST_UNPACKED, by_number, read_bytes
from .meshes import PC2_MAGIC
from .pickles import read_npy, read_npz, read_pickle, read_torch_zip
from .results import READERS, recognise
from .web_json import FORMAT as JSON_FORMAT

_FOREIGN = (
    (b"Kaydara FBX", "FBX, which is not read; export it as BVH or GLB, for instance with Blender"),
    (b"PXR-USDC", "binary USD, which is not read; convert it to text with usdcat -o motion.usda"),
    (b"Ogawa", "Alembic, which is not read; export it as GLB, BVH or PC2"),
    (b"\x89HDF", "HDF5, which is not read; save its arrays as npz"),
)
_PIECE = 2**20  # bytes unpacked at once


def open_motion(path: Path, format: str | None) -> tuple[str, Any]:
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
    files = sorted(path.glob("[!.]*.npy"), key=lambda file: by_number(file.name))
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
