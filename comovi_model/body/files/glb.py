"""Motions as binary glTF (.glb): a skinned, animated body that any viewer plays.

Letters: F frames, J = 24 joints, V vertices, N faces. glTF has y up and metres like SMPL, and quaternions as x, y, z,
w. The shape is baked in; pose-dependent corrections (posedirs) cannot be skinned and are left out. Each body part has
a plain material of its own: a texture would not arrive in web pages that forbid themselves to fetch.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...files import atomic_path
from ..frames import check_same_body, in_frame, on_floor
from ..map_render import vertex_normals
from ..motion import BodyMotion
from ..parts import JOINT_NAMES, NUM_JOINTS, NUM_PARTS, PART_NAMES, part_palette
from ..rotations import continuous_quaternions, matrix_to_quaternion
from ..smpl import BodyModel, rest_joints, shaped_vertices
from ..upright import levelled

# Component types and buffer targets of the glTF 2.0 specification.
UINT8, UINT16, UINT32, FLOAT32 = 5121, 5123, 5125, 5126
ARRAY, ELEMENTS = 34962, 34963
_COMPONENTS = {np.dtype("u1"): UINT8, np.dtype("<u2"): UINT16, np.dtype("<u4"): UINT32, np.dtype("<f4"): FLOAT32}
_SHAPES = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}


def save_glb(
    path: str | Path,
    motion: BodyMotion,
    model: BodyModel,
    floor: bool = True,
    joint_names: Sequence[str] = JOINT_NAMES,
) -> None:
    """Writes the moving body; floor=True puts the lowest point of the clip at height 0 and the start at the origin."""
    content = glb_bytes(motion, model, floor, joint_names)
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(content)


def glb_bytes(
    motion: BodyMotion, model: BodyModel, floor: bool = True, joint_names: Sequence[str] = JOINT_NAMES
) -> bytes:
    model, motion = model.to("cpu"), motion.to("cpu")
    check_same_body(model, motion)
    upright = in_frame(levelled(motion, model), model, "yup")
    upright = on_floor(upright, model) if floor else upright
    joints = rest_joints(model, upright.betas)  # (J, 3)
    buffer = _Buffer()
    quaternions = _quaternions(upright.rotations)  # (F, J, 4) x, y, z, w
    root = (joints[0] + upright.transl).numpy()  # (F, 3)
    document = {
        "asset": {"version": "2.0", "generator": "ComfyUI-CoMoVi"},
        "extras": {
            "body_model": motion.body_model,
            "betas": _floats(motion.betas.numpy()),
            "fps": motion.fps,
            "frames": len(motion),
        },
        "scene": 0,
        "scenes": [{"nodes": [0, NUM_JOINTS]}],
        "nodes": [
            *_joint_nodes(model, joints, quaternions[0], root[0], joint_names),
            {"name": "body", "mesh": 0, "skin": 0},
        ],
        "meshes": [{"name": "body", "primitives": _primitives(buffer, model, upright.betas)}],
        "skins": [_skin(buffer, joints)],
        "animations": [_animation(buffer, quaternions, root, motion.fps)],
        "materials": _materials(),
    }
    return _container({**document, **buffer.document()}, bytes(buffer.content))


def _quaternions(rotations: Tensor) -> np.ndarray:
    quaternions = continuous_quaternions(matrix_to_quaternion(rotations.double()))[..., [1, 2, 3, 0]]
    return quaternions.numpy().astype("<f4")


def _joint_nodes(
    model: BodyModel, joints: Tensor, quaternions: np.ndarray, root: np.ndarray, names: Sequence[str]
) -> list[dict[str, Any]]:
    """One node per joint, posed as in the first frame; the mesh is bound to the T-pose by the skin."""
    nodes: list[dict[str, Any]] = []
    for joint, parent in enumerate(model.parents):
        offset = root if parent < 0 else (joints[joint] - joints[parent]).numpy()
        node = {"name": names[joint], "translation": _floats(offset), "rotation": _floats(quaternions[joint])}
        children = [child for child, its_parent in enumerate(model.parents) if its_parent == joint]
        nodes.append({**node, "children": children} if children else node)
    return nodes


def _skin(buffer: _Buffer, joints: Tensor) -> dict[str, Any]:
    """Inverse bind matrices translate(-joint), column-major."""
    matrices = np.tile(np.eye(4, dtype="<f4"), (NUM_JOINTS, 1, 1))
    matrices[:, 3, :3] = -joints.numpy()
    accessor = buffer.add(matrices)
    return {"name": "skeleton", "joints": list(range(NUM_JOINTS)), "skeleton": 0, "inverseBindMatrices": accessor}


def _primitives(buffer: _Buffer, model: BodyModel, betas: Tensor) -> list[dict[str, Any]]:
    """The same vertices for all, and the faces of one part each; the number of a part is that of its material."""
    vertices = shaped_vertices(model, betas)
    joints, weights = _strongest_four(model.weights)
    attributes = {
        "POSITION": buffer.add(vertices.numpy().astype("<f4"), ARRAY, limits=True),
        "NORMAL": buffer.add(vertex_normals(vertices[None], model.faces)[0].numpy().astype("<f4"), ARRAY),
        "JOINTS_0": buffer.add(joints, ARRAY),
        "WEIGHTS_0": buffer.add(weights, ARRAY),
    }
    part_of_face = model.part_of_vertex[model.faces].median(1).values  # the majority where two corners agree
    size = "<u2" if len(vertices) < 65535 else "<u4"
    return [
        {
            "attributes": attributes,
            "indices": buffer.add(model.faces[part_of_face == part].numpy().reshape(-1).astype(size), ELEMENTS),
            "material": part,
        }
        for part in range(NUM_PARTS)
        if bool((part_of_face == part).any())
    ]


def _strongest_four(weights: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Skinning weights (V, J) -> joints (V, 4) uint8 and weights (V, 4) that sum to 1 within float32."""
    values, joints = weights.double().topk(4, dim=1)
    values = (values / values.sum(1, keepdim=True)).float().double()
    values[:, 0] = 1 - values[:, 1:].sum(1)
    result = values.numpy().astype("<f4")
    return np.where(result > 0, joints.numpy(), 0).astype("u1"), result


def _animation(buffer: _Buffer, quaternions: np.ndarray, root: np.ndarray, fps: float) -> dict[str, Any]:
    times = buffer.add((np.arange(len(root)) / fps).astype("<f4"), limits=True)
    outputs = [(0, "translation", buffer.add(root.astype("<f4")))]
    outputs += [(joint, "rotation", buffer.add(quaternions[:, joint].copy())) for joint in range(NUM_JOINTS)]
    return {
        "name": "motion",
        "samplers": [{"input": times, "output": output, "interpolation": "LINEAR"} for _, _, output in outputs],
        "channels": [
            {"sampler": number, "target": {"node": node, "path": path}}
            for number, (node, path, _) in enumerate(outputs)
        ],
    }


def _materials() -> list[dict[str, Any]]:
    """One per part, in the colours of part_palette, which glTF wants as linear light."""
    colours = np.array(part_palette()) / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    return [
        {
            "name": name,
            "pbrMetallicRoughness": {
                "baseColorFactor": [*_floats(colour.round(6)), 1.0],
                "metallicFactor": 0.0,
                "roughnessFactor": 0.8,
            },
        }
        for name, colour in zip(PART_NAMES, linear, strict=True)
    ]


class _Buffer:
    """Collects arrays in one binary chunk."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, Any]] = []

    def add_bytes(self, content: bytes, target: int | None = None) -> int:
        """-> index of the buffer view; every view starts at a multiple of four."""
        self.content += bytes(-len(self.content) % 4)
        view = {"buffer": 0, "byteOffset": len(self.content), "byteLength": len(content)}
        self.views.append(view if target is None else {**view, "target": target})
        self.content += content
        return len(self.views) - 1

    def add(self, array: np.ndarray, target: int | None = None, limits: bool = False) -> int:
        """-> index of the accessor."""
        accessor: dict[str, Any] = {
            "bufferView": self.add_bytes(array.tobytes(), target),
            "componentType": _COMPONENTS[array.dtype],
            "count": len(array),
            "type": _SHAPES[array.shape[1:]],
        }
        if limits:
            accessor |= {"min": _floats(array.min(0)), "max": _floats(array.max(0))}
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def document(self) -> dict[str, Any]:
        length = len(self.content)
        return {"accessors": self.accessors, "bufferViews": self.views, "buffers": [{"byteLength": length}]}


def _floats(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.atleast_1d(values)]


def _container(document: dict[str, Any], content: bytes) -> bytes:
    """Header, JSON chunk padded with spaces, BIN chunk padded with zeros."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    content += bytes(-len(content) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(content), b"BIN\0") + content
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
