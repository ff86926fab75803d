"""What the tests of the motion nodes share: short ways to build their graphs and to read what comes out."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
from comfyui_comovi.comovi_model.body.motion import BodyMotion

PROMPT = "a man in a yellow shirt and black trousers bows"
NANO, MANNEQUIN = "nano (embedded)", "mannequin (embedded)"
VIEW: dict[str, Any] = {
    "width": 128, "height": 192, "field_of_view": 40.0, "distance": 0.0, "turn": 0.0, "across": 0.5, "down": 0.5,
}  # fmt: skip
SAVING = {"root": "centred", "joint_names": "smpl"}


def upload(server, motion: BodyMotion, name: str) -> str:
    path = server.base / "to_upload" / name
    path.parent.mkdir(exist_ok=True)
    motion.save(path)
    return server.upload(path)


def load(g, file: str, **inputs):
    return g.add("CoMoVi_LoadMotion", **{"file": file, "fps": 0.0, "up_axis": "as in the file", **inputs})


def body(g, name: str = NANO):
    return g.add("CoMoVi_LoadBody", body=name)


def draw(g, motion, who, **inputs):
    usual = {"width": 0, "height": 0, "shading": "phong_reference", "smoothing": 1}
    return g.add("CoMoVi_DrawMotionMap", motion=motion, body=who, **{**usual, **inputs})


def save(g, motion, who, format: str = "comovi", prefix: str = "motion/test"):
    return g.add("CoMoVi_SaveMotion", motion=motion, body=who, filename_prefix=prefix, format=format, **SAVING)


def motion_in(result, node) -> BodyMotion:
    arrays = np.load(io.BytesIO(result.content(node)), allow_pickle=False)
    return BodyMotion.from_arrays({name: arrays[name] for name in arrays.files})


def pictures(result, node) -> np.ndarray:
    """(F, H, W, 3) uint8"""
    return np.round(result.images(node) * 255).astype(np.uint8)


def refusal(result, name: str) -> str:
    """What validation said about one input."""
    errors = [e for node in result.node_errors.values() for e in node["errors"]]
    about = [e for e in errors if e["extra_info"].get("input_name") == name]
    assert about, f"no error names {name}: {result.node_errors} {result.error}"
    return f"{about[0]['message']} {about[0]['details']}"


def root_path(glb: bytes) -> np.ndarray:
    """The animated translation (F, 3) of the root joint in a GLB file."""
    length = struct.unpack_from("<I", glb, 12)[0]
    document, binary = json.loads(glb[20 : 20 + length]), glb[28 + length :]
    animation = document["animations"][0]
    (channel,) = [c for c in animation["channels"] if c["target"]["path"] == "translation"]
    accessor = document["accessors"][animation["samplers"][channel["sampler"]]["output"]]
    view = document["bufferViews"][accessor["bufferView"]]
    return np.frombuffer(binary, "<f4", 3 * accessor["count"], view["byteOffset"]).reshape(-1, 3)
