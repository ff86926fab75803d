"""What a file is, what it holds and what it lacks, in a few lines."""

from __future__ import annotations

import json
import math
import os
import struct
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ComoviError
from .files import file_error, require_file

if TYPE_CHECKING:
    from .wan.weights import TensorFiles

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi")
NANO_PARTS = {"vocabulary": "text encoder of the nano model", "sizes": "video autoencoder of the nano model"}
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
PICKLED = (".pt", ".pth", ".bin", ".ckpt")  # read as tensors only; anything else in them is refused
MOTIONS = (".bvh", ".usda", ".pc2", ".zip", ".npy", ".gltf")


def describe(path: str | os.PathLike[str]) -> list[str]:
    """Return lines that say what `path` is; a `ComoviError` when it cannot be read or is of no known kind."""
    path = Path(path)
    if os.path.isdir(path):
        return [f"{path} (folder)", *(f"  {line}" for line in _tensors(path))]
    require_file(path, "file")
    suffix = path.suffix.lower()
    readers = {".safetensors": _tensors, ".npz": _arrays, ".pkl": _body, ".glb": _glb, ".json": _json}
    readers |= dict.fromkeys(PICKLED, _pickled) | dict.fromkeys(VIDEOS, _video) | dict.fromkeys(PICTURES, _picture)
    readers |= {".pkl": _pickled_body} | dict.fromkeys(MOTIONS, _motion)
    if suffix not in readers:
        raise ComoviError(f"{path} is of a kind that comovi does not know; it knows {', '.join(sorted(readers))}.")
    try:
        return [f"{path} ({path.stat().st_size:,} bytes)", *(f"  {line}" for line in readers[suffix](path))]
    except OSError as error:
        raise file_error(error, path, "read") from error


def _tensors(path: Path) -> list[str]:
    from .wan.weights import open_weights

    files = open_weights(path)
    beside = path.with_suffix(".json")
    golden = _beside(beside) if path.is_file() and beside.exists() else {}
    if "kind" in golden:
        return [f"golden file of kind {golden['kind']}; run: comovi verify {path}", *_contents(files)]
    if {"v_template", "weights"} <= files.entries.keys():
        return _body(path)
    kind = next((says for key, says in NANO_PARTS.items() if key in files.metadata), None)
    if "classifier.action.weight" in files.entries:
        kind = "judge of the nano evaluation: says which action a clip shows"
    return [*(_checkpoint(path) if kind is None else [kind]), *_contents(files)]


def _contents(files: TensorFiles) -> list[str]:
    kinds = Counter(str(entry.dtype).removeprefix("torch.") for entry in files.entries.values())
    count = sum(math.prod(entry.shape) for entry in files.entries.values())
    lines = [f"{len(files)} tensors ({', '.join(f'{n} {kind}' for kind, n in kinds.most_common())}), {count:,} numbers"]
    return [*lines, *(f"{key}: {value[:100]}" for key, value in sorted(files.metadata.items())[:12])]


def _checkpoint(path: Path) -> list[str]:
    from .comovi.checkpoint import inspect_checkpoint

    return inspect_checkpoint(path).lines()


def _pickled(path: Path) -> list[str]:
    return _motion_or(_checkpoint, path)


def _pickled_body(path: Path) -> list[str]:
    return _motion_or(_body, path)


def _motion_or(other: Callable[[Path], list[str]], path: Path) -> list[str]:
    """What `other` says; where it refuses the file, the results of an estimator in it, if there are any."""
    try:
        return other(path)
    except ComoviError as refusal:
        try:
            return _motion(path)
        except ComoviError:
            raise refusal from None


def _motion(path: Path) -> list[str]:
    from .motion_io import FORMATS, read_motion

    found = read_motion(path)
    motion = found.motion
    first = f"motion file of kind {found.format}: {FORMATS[found.format].description}"
    seconds = len(motion) / motion.fps
    return [first, f"{len(motion)} frames, {seconds:.2f} s, body {motion.body_model!r}", *found.notes]


def _arrays(path: Path) -> list[str]:
    from .body.motion import BodyMotion, load_arrays

    try:
        arrays = load_arrays(path)
    except ComoviError as refusal:  # pickled lists, as CoMoVi's training data have them
        return _motion_or(partial(_refuse, refusal), path)
    if "v_template" in arrays:
        return _body(path)
    if "global_orient" not in arrays:
        found = ", ".join(sorted(arrays)[:8])
        neither = ComoviError(f"{path} holds neither a motion nor a body; its arrays are {found}.")
        return _motion_or(partial(_refuse, neither), path)
    if "body_pose" in arrays and arrays["body_pose"].ndim != 4:
        return _motion(path)  # axis-angle: another program's
    motion = BodyMotion.from_arrays(arrays, str(path))
    seconds = len(motion) / motion.fps
    figure = "set" if motion.betas.any() else "zero"
    lines = [
        f"body motion: {len(motion)} frames at {motion.fps:g} per second, {seconds:.2f} s",
        f"body {motion.body_model!r}, axes {motion.frame!r}, shape parameters {figure}",
    ]
    if motion.camera is None:
        lines.append("lacks: a camera, so comovi map cannot draw it")
    else:
        focal = float(motion.camera.K[..., 0, 0].mean())
        lines.append(f"camera: {motion.camera.width}x{motion.camera.height} pixels, focal length {focal:.1f} pixels")
    if motion.valid is not None and not motion.valid.all():
        lines.append(f"lacks: {int((~motion.valid).sum())} frames are placeholders (valid is False)")
    if "poses" in arrays:
        lines.append("also in AMASS keys, for other tools")
    return [*lines, *(f"{key}: {str(value)[:100]}" for key, value in list(motion.provenance.items())[:12])]


def _refuse(error: ComoviError, path: Path) -> list[str]:
    raise error


def _body(path: Path) -> list[str]:
    from .body.body_files import read_body_model

    body = read_body_model(path)
    lacks = [] if body.posedirs is not None else ["lacks: pose correctives (posedirs), so joints bend without them"]
    lacks += [] if body.num_betas else ["lacks: shape directions (betas), so everybody has the same figure"]
    surface = "closed" if body.closed else "with openings"
    return [
        f"body model {body.name!r}: {len(body.v_template)} vertices, {len(body.faces)} faces, {surface}",
        f"24 joints, {body.num_betas} shape directions",
        *lacks,
    ]


def _glb(path: Path) -> list[str]:
    data = path.read_bytes()
    if len(data) < 20 or data[:4] != b"glTF":
        raise ComoviError(f"{path} is not a GLB file; its first bytes are not 'glTF'.")
    version, total, length, kind = struct.unpack("<IIII", data[4:20])
    if total != len(data) or kind != 0x4E4F534A or 20 + length > len(data):
        raise ComoviError(f"{path} is a damaged GLB file: its header promises {total} bytes, {len(data)} are there.")
    try:
        scene = json.loads(data[20 : 20 + length])
        joints = max((len(skin["joints"]) for skin in scene.get("skins") or []), default=0)
        names = [str(item.get("name", "unnamed")) for item in scene.get("animations") or []]
        meshes = len(scene.get("meshes") or [])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ComoviError(f"{path} is a GLB file whose JSON part cannot be read; the file is damaged.") from error
    lines = [f"GLB scene (glTF {version}): {meshes} meshes, skin of {joints} joints"]
    return [*lines, f"animations: {', '.join(names)}" if names else "lacks: an animation, so it stands still"]


def _video(path: Path) -> list[str]:
    from .video import video_facts

    count, width, height, fps = video_facts(path)
    return [f"video: {count} frames of {width}x{height} at {fps:g} per second, {count / fps:.2f} s"]


def _picture(path: Path) -> list[str]:
    from .images import read_image

    height, width, _ = read_image(path).shape
    return [f"picture: {width}x{height} pixels"]


def _load_json(path: Path) -> dict:
    try:
        content = json.loads(require_file(path, "file").read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ComoviError):
            raise
        raise ComoviError(f"{path} is not valid JSON ({error}).") from error
    return content if isinstance(content, dict) else {}


def _beside(path: Path) -> dict:
    """The JSON beside a file of tensors; it may be anybody's, so one that cannot be read says nothing of them."""
    try:
        return _load_json(path)
    except (ComoviError, OSError):
        return {}


def _json(path: Path) -> list[str]:
    content = _load_json(path)
    if "kind" in content and path.with_suffix(".safetensors").exists():
        return [f"the description of a golden file; run: comovi verify {path.with_suffix('.safetensors')}"]
    if "weight_map" in content:
        return _tensors(path)
    try:
        return _motion(path)
    except ComoviError:
        return [f"JSON with the keys {', '.join(list(content)[:12]) or '(none)'}"]
