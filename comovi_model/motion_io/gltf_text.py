"""glTF 2.0 as data: the JSON, its accessors as arrays, and animation channels sampled at given times."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from typing import Any

import numpy as np

from ..body.rotations import quaternion_slerp
from ..errors import ComoviError

_TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
MOST_ITEMS = 100_000  # nodes, accessors, channels


class Gltf:
    """One document and its buffers. Every index is checked, because files are not to be trusted."""

    def __init__(self, document: dict[str, Any], binary: bytes) -> None:
        self.document = document
        self.binary = binary
        self._buffers: dict[int, bytes] = {}

    def items(self, name: str) -> list[dict[str, Any]]:
        """document[name], a list of objects."""
        found = self.document.get(name, [])
        if not isinstance(found, list) or len(found) > MOST_ITEMS or not all(isinstance(item, dict) for item in found):
            raise ComoviError(f"{name} of the glTF file must be a list of objects; the file is damaged.")
        return found

    def item(self, name: str, number: Any) -> dict[str, Any]:
        found = self.items(name)
        if type(number) is not int or not 0 <= number < len(found):
            raise ComoviError(f"the glTF file refers to {name} {str(number)[:20]}, which is not there.")
        return found[number]

    def buffer(self, number: Any) -> bytes:
        uri = self.item("buffers", number).get("uri")
        if uri is None:
            return self.binary
        if number not in self._buffers:
            if not isinstance(uri, str) or not uri.startswith("data:") or "," not in uri:
                raise ComoviError("the glTF file keeps its data in another file; save it as one .glb instead.")
            try:
                self._buffers[number] = base64.b64decode(uri.split(",", 1)[1], validate=True)
            except (binascii.Error, ValueError):
                raise ComoviError("the data inside the glTF file is damaged (no base64).") from None
        return self._buffers[number]

    def array(self, number: Any) -> np.ndarray:
        """Accessor -> (count, width) float64; normalised integers as fractions."""
        accessor = self.item("accessors", number)
        if "sparse" in accessor or "bufferView" not in accessor:
            raise ComoviError("sparse accessors of glTF are not read; save the file without them.")
        view = self.item("bufferViews", accessor["bufferView"])
        dtype, width = _TYPES.get(accessor.get("componentType", 0)), _WIDTHS.get(str(accessor.get("type")))
        if dtype is None or width is None:
            raise ComoviError("an accessor of the glTF file is of no known type.")
        count, start = _whole(accessor, "count"), _whole(view, "byteOffset") + _whole(accessor, "byteOffset")
        size = np.dtype(dtype).itemsize
        stride = _whole(view, "byteStride") or width * size
        content = self.buffer(view.get("buffer"))
        if count and (stride < width * size or start + (count - 1) * stride + width * size > len(content)):
            raise ComoviError("an accessor of the glTF file reaches beyond its data; the file is damaged.")
        raw = np.ndarray((count, width), dtype, content, start, (stride, size)) if count else np.zeros((0, width))
        values = raw.astype(np.float64)
        if accessor.get("normalized") and raw.dtype.kind in "iu":
            values = np.maximum(values / np.iinfo(raw.dtype).max, -1.0)
        if not np.isfinite(values).all():
            raise ComoviError("the glTF file holds NaN or infinite numbers.")
        return values


def _whole(item: dict[str, Any], name: str) -> int:
    value = item.get(name, 0)
    if type(value) is not int or not 0 <= value < 2**40:
        raise ComoviError(f"{name} {str(value)[:20]} in the glTF file is no usable number.")
    return value


def parse_gltf(content: bytes) -> Gltf:
    """GLB or glTF JSON."""
    binary = b""
    if content[:4] == b"glTF":
        if len(content) < 20:
            raise ComoviError("the GLB file is cut off.")
        _, version, _, length, kind = struct.unpack("<4sIIII", content[:20])
        if version != 2 or kind != 0x4E4F534A or 20 + length > len(content):
            raise ComoviError("expected GLB of version 2 with a JSON part; the file is damaged or of an old version.")
        text = content[20 : 20 + length]
        rest = content[20 + length :]
        if len(rest) >= 8:
            (size,) = struct.unpack("<I", rest[:4])
            binary = rest[8 : 8 + size]
    else:
        text = content
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ComoviError(f"the JSON part of the glTF file cannot be read ({error}).") from None
    if not isinstance(document, dict):
        raise ComoviError("the JSON part of the glTF file is no object.")
    return Gltf(document, binary)


def sample(times: np.ndarray, values: np.ndarray, kind: str, is_rotation: bool, at: np.ndarray) -> np.ndarray:
    """Key times (n,), values (n or 3 n, width) -> values at `at` (F,): STEP, LINEAR (slerp) or CUBICSPLINE."""
    import torch

    if kind == "CUBICSPLINE":
        if len(values) != 3 * len(times):
            raise ComoviError("a CUBICSPLINE of the glTF file has the wrong number of values.")
        before, values, after = values[0::3], values[1::3], values[2::3]
    elif len(values) != len(times):
        raise ComoviError("an animation of the glTF file has more times than values, or fewer.")
    right = np.clip(np.searchsorted(times, at, side="right"), 1, max(len(times) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(times) - 1)
    span = np.maximum(times[right] - times[left], 1e-12)
    fraction = np.clip((at - times[left]) / span, 0, 1)
    seconds = fraction * span
    fraction = np.where(seconds < 1e-5, 0.0, np.where(span - seconds < 1e-5, 1.0, fraction))
    fraction = np.where(right == left, 0.0, fraction)
    if kind == "STEP":
        return values[np.where(fraction == 1, right, left)]
    if kind == "CUBICSPLINE":
        s = fraction[:, None]
        d = span[:, None]
        result = (2 * s**3 - 3 * s**2 + 1) * values[left] + (s**3 - 2 * s**2 + s) * d * after[left]
        return result + (3 * s**2 - 2 * s**3) * values[right] + (s**3 - s**2) * d * before[right]
    if is_rotation:
        unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
        start, end = torch.from_numpy(unit[left]), torch.from_numpy(unit[right])
        return quaternion_slerp(start, end, torch.from_numpy(fraction)).numpy()
    return values[left] + fraction[:, None] * (values[right] - values[left])
