"""Animated GLB files: read back, their skeleton and skin move like the body; the Khronos validator has no complaint."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.files.glb import glb_bytes, save_glb
from comfyui_comovi.comovi_model.body.frames import in_frame, on_floor
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.parts import JOINT_NAMES, NUM_PARTS, PART_NAMES, part_palette
from comfyui_comovi.comovi_model.body.rotations import quaternion_to_matrix
from comfyui_comovi.comovi_model.body.smpl import pose_body
from comfyui_comovi.comovi_model.body.toy import random_rotations, toy_body
from comfyui_comovi.comovi_model.errors import ComoviError

DTYPES = {5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


def sparse_toy():
    """The toy body with at most four joints per vertex, as glTF has it."""
    model = toy_body()
    values, joints = model.weights.topk(4, dim=1)
    weights = torch.zeros_like(model.weights).scatter(1, joints, values / values.sum(1, keepdim=True))
    return replace(model, weights=weights)


def a_motion(frames: int = 7, **changes) -> BodyMotion:
    generator = torch.Generator().manual_seed(0)
    rotations = random_rotations(frames, 24)
    fields = {"betas": torch.randn(10, generator=generator), "transl": torch.randn(frames, 3, generator=generator)}
    return BodyMotion(**{"rotations": rotations, "body_model": "toy", "fps": 16.0, **fields, **changes})


class Reader:
    """A GLB file as a viewer sees it."""

    def __init__(self, content: bytes):
        magic, version, length = struct.unpack_from("<4sII", content)
        assert (magic, version, length) == (b"glTF", 2, len(content))
        size, kind = struct.unpack_from("<I4s", content, 12)
        assert kind == b"JSON" and size % 4 == 0
        self.document = json.loads(content[20 : 20 + size])
        binary_size, kind = struct.unpack_from("<I4s", content, 20 + size)
        assert kind == b"BIN\0" and binary_size % 4 == 0
        self.binary = content[28 + size : 28 + size + binary_size]

    def array(self, number: int) -> np.ndarray:
        accessor = self.document["accessors"][number]
        view = self.document["bufferViews"][accessor["bufferView"]]
        width, dtype = WIDTHS[accessor["type"]], np.dtype(DTYPES[accessor["componentType"]])
        assert view["byteOffset"] % 4 == 0 and view["byteLength"] == accessor["count"] * width * dtype.itemsize
        values = np.frombuffer(self.binary, dtype, accessor["count"] * width, view["byteOffset"])
        return values.reshape(-1, width)

    def joint_transforms(self) -> torch.Tensor:
        """(F, 24, 4, 4) of the animation, by walking the node tree."""
        animation, nodes = self.document["animations"][0], self.document["nodes"]
        local = {}
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            assert sampler["interpolation"] == "LINEAR"
            local[channel["target"]["node"], channel["target"]["path"]] = self.array(sampler["output"])
        frames = len(self.array(animation["samplers"][0]["input"]))
        world = torch.zeros(frames, 24, 4, 4, dtype=torch.float64)

        def walk(node: int, parent: torch.Tensor):
            matrix = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
            quaternion = torch.from_numpy(local[node, "rotation"].astype(np.float64))[:, [3, 0, 1, 2]]
            matrix[:, :3, :3] = quaternion_to_matrix(quaternion)
            place = local.get((node, "translation"), np.array([nodes[node]["translation"]]))
            matrix[:, :3, 3] = torch.from_numpy(place.astype(np.float64))
            world[:, node] = parent @ matrix
            for child in nodes[node].get("children", []):
                walk(child, world[:, node])

        walk(0, torch.eye(4, dtype=torch.float64))
        return world

    def skinned_vertices(self) -> torch.Tensor:
        """(F, V, 3)"""
        attributes = self.document["meshes"][0]["primitives"][0]["attributes"]
        bind = self.array(self.document["skins"][0]["inverseBindMatrices"]).reshape(24, 4, 4).transpose(0, 2, 1)
        matrices = self.joint_transforms() @ torch.from_numpy(bind.astype(np.float64))  # (F, 24, 4, 4)
        joints = torch.from_numpy(self.array(attributes["JOINTS_0"]).astype(np.int64))
        weights = torch.from_numpy(self.array(attributes["WEIGHTS_0"]).astype(np.float64))
        rest = torch.from_numpy(self.array(attributes["POSITION"]).astype(np.float64))
        blended = (matrices[:, joints] * weights[..., None, None]).sum(2)  # (F, V, 4, 4)
        return (blended[..., :3, :3] @ rest[..., None]).squeeze(-1) + blended[..., :3, 3]


@pytest.mark.parametrize("frame", ["yup", "zup", "camera"])
def test_the_skeleton_and_the_skin_move_like_the_body(frame):
    model, motion = sparse_toy(), a_motion(frame=frame)
    reader = Reader(glb_bytes(motion, model, floor=False))
    upright = in_frame(motion, model, "yup")
    body = pose_body(model, upright.rotations, upright.betas, upright.transl)
    assert (reader.joint_transforms()[..., :3, 3] - body.joints).abs().max() < 1e-4  # worst 1e-6 m
    distance = torch.cdist(reader.skinned_vertices()[3], body.vertices[3].double()).min(1).values
    assert distance.max() < 1e-4  # every vertex of the file lies on one of the body


def test_root_motion_is_kept_and_stands_on_the_floor():
    model, motion = sparse_toy(), a_motion(frame="yup")
    reader = Reader(glb_bytes(motion, model))
    placed = on_floor(motion, model)
    root = reader.joint_transforms()[:, 0, :3, 3]
    assert (root - pose_body(model, placed.rotations, placed.betas, placed.transl).joints[:, 0]).abs().max() < 1e-5
    assert reader.skinned_vertices()[..., 1].min().abs() < 1e-5
    assert torch.allclose(root[0, [0, 2]], torch.zeros(2, dtype=torch.float64), atol=1e-6)


def test_the_first_pose_is_shown_before_playing():
    reader = Reader(glb_bytes(a_motion(), sparse_toy()))
    nodes, animation = reader.document["nodes"], reader.document["animations"][0]
    for channel in animation["channels"]:
        output = reader.array(animation["samplers"][channel["sampler"]]["output"])
        assert np.allclose(nodes[channel["target"]["node"]][channel["target"]["path"]], output[0])


def test_the_numbers_obey_the_rules_of_gltf():
    model = sparse_toy()
    motion = a_motion(frames=40, rotations=random_rotations(1, 24).repeat(40, 1, 1, 1))
    spin = torch.linspace(0, 12, 40)
    turning = motion.rotations.clone()
    turning[:, 0] = quaternion_to_matrix(torch.stack([(spin / 2).cos(), spin * 0, (spin / 2).sin(), spin * 0], 1))
    reader = Reader(glb_bytes(replace(motion, rotations=turning), model))
    document = reader.document
    primitive = document["meshes"][0]["primitives"][0]
    weights = reader.array(primitive["attributes"]["WEIGHTS_0"])
    joints = reader.array(primitive["attributes"]["JOINTS_0"])
    assert np.abs(weights.sum(1) - 1).max() < 2e-7 and (weights >= 0).all() and (joints[weights == 0] == 0).all()
    for number, accessor in enumerate(document["accessors"]):
        if "min" in accessor:
            assert reader.array(number).min(0).tolist() == accessor["min"]
            assert reader.array(number).max(0).tolist() == accessor["max"]
    animation = document["animations"][0]
    times = reader.array(animation["samplers"][0]["input"])[:, 0]
    assert times[0] == 0 and (np.diff(times) > 0).all() and times[1] == pytest.approx(1 / 16)
    for sampler, channel in zip(animation["samplers"], animation["channels"], strict=True):
        if channel["target"]["path"] == "rotation":
            quaternions = reader.array(sampler["output"])
            assert np.abs(np.linalg.norm(quaternions, axis=1) - 1).max() < 1e-6
            assert ((quaternions[1:] * quaternions[:-1]).sum(1) > 0).all()  # no way round the long side
    assert [node["name"] for node in document["nodes"][:24]] == list(JOINT_NAMES)


def test_every_face_has_one_part_colour_and_nothing_is_lost():
    """No texture: web pages that forbid themselves to fetch could not show it."""
    model = sparse_toy()
    reader = Reader(glb_bytes(a_motion(), model))
    primitives, materials = reader.document["meshes"][0]["primitives"], reader.document["materials"]
    assert not {"images", "textures", "samplers"} & reader.document.keys()
    assert [material["name"] for material in materials] == list(PART_NAMES)
    drawn = {primitive["material"]: reader.array(primitive["indices"]).reshape(-1, 3) for primitive in primitives}
    assert set(drawn) == set(range(NUM_PARTS))
    for part, faces in drawn.items():
        assert ((model.part_of_vertex.numpy()[faces] == part).sum(1) >= 2).all()
        *linear, opaque = materials[part]["pbrMetallicRoughness"]["baseColorFactor"]
        light = np.array(linear)
        shown = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        assert tuple(np.round(255 * shown)) == part_palette()[part] and opaque == 1
    every = np.concatenate(list(drawn.values()))
    assert sorted(map(tuple, every.tolist())) == sorted(map(tuple, model.faces.tolist()))


def test_betas_of_another_body_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ComoviError, match="load that body"):
        save_glb(tmp_path / "a.glb", a_motion(body_model="smpl"), sparse_toy())
    assert not list(tmp_path.iterdir())


def validator_module() -> str | None:
    """Folder of the npm package gltf-validator: $GLTF_VALIDATOR, or in $NODE_PATH or a node_modules folder."""
    folders = [
        *os.environ.get("NODE_PATH", "").split(os.pathsep),
        "node_modules",
        str(Path.home() / "node_modules"),
    ]
    named = [os.environ.get("GLTF_VALIDATOR", ""), *(f"{folder}/gltf-validator" for folder in folders if folder)]
    return next((str(Path(path).resolve()) for path in named if path and (Path(path) / "package.json").exists()), None)


SCRIPT = """
const validator = require(process.argv[1]);
const bytes = new Uint8Array(require('fs').readFileSync(process.argv[2]));
validator.validateBytes(bytes).then(report => console.log(JSON.stringify(report.issues)));
"""


@pytest.mark.parametrize("frames", [1, 33])
def test_the_khronos_validator_has_no_complaint(tmp_path, frames):
    module = validator_module()
    if module is None or shutil.which("node") is None:
        pytest.skip("needs node and `npm i gltf-validator` (set GLTF_VALIDATOR to its folder)")
    save_glb(tmp_path / "motion.glb", a_motion(frames), toy_body())
    command = ["node", "-e", SCRIPT, module, str(tmp_path / "motion.glb")]
    issues = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (issues["numErrors"], issues["numWarnings"], issues["messages"]) == (0, 0, [])
