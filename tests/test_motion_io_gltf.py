"""Animated glTF of other programs: scaled and turned armatures, joints with rest rotations, every interpolation."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import motion_files
import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body
from comfyui_comovi.comovi_model.body.parts import PARENTS
from comfyui_comovi.comovi_model.body.rotations import matrix_to_quaternion
from comfyui_comovi.comovi_model.body.smpl import pose_body, pose_joints, rest_joints
from comfyui_comovi.comovi_model.body.toy import random_rotations
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.motion_io import read_motion, write_motion
from comfyui_comovi.comovi_model.motion_io.gltf_text import sample
from comfyui_comovi.comovi_model.motion_io.names import preset_names
from comfyui_comovi.comovi_model.motion_io.place import placed

BODY = load_mannequin_body()
MOTION = motion_files.smooth_motion(BODY, 10, fps=30.0)
TURN = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # the armature lies: its z is the world's y
SIZE = 0.01  # and is in centimetres


def xyzw(rotations: np.ndarray) -> np.ndarray:
    return matrix_to_quaternion(torch.from_numpy(np.ascontiguousarray(rotations))).numpy()[..., [1, 2, 3, 0]]


def as_blender_writes(skinned: bool, interpolation: str = "LINEAR", change=None) -> bytes:
    """Mixamo names under an armature node; every joint has axes of its own at rest."""
    own = random_rotations(24, seed=3, angle=1.0).double().numpy()  # axes of the joints, in the armature
    joints = rest_joints(BODY, MOTION.betas).double().numpy() @ TURN / SIZE  # TURN^-1 = TURN^T; rows: x @ TURN
    posed = pose_body(BODY, MOTION.rotations, MOTION.betas, MOTION.transl)
    world = posed.joint_transforms.double().numpy()
    turned = TURN.T @ world[..., :3, :3] @ TURN  # the same in the armature
    places = world[..., :3, 3] @ TURN / SIZE
    axes = turned @ own
    content = bytearray()
    views, accessors = [], []

    def add(array: np.ndarray) -> int:
        data = array.astype("<f4").tobytes()
        views.append({"buffer": 0, "byteOffset": len(content), "byteLength": len(data)})
        content.extend(data)
        kind = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}[array.shape[1]]
        accessors.append({"bufferView": len(views) - 1, "componentType": 5126, "count": len(array), "type": kind})
        return len(accessors) - 1

    nodes = [{"name": "Armature", "rotation": xyzw(TURN).tolist(), "scale": [SIZE] * 3, "children": [1]}]
    times = add(np.arange(10)[:, None] / 30)
    channels, samplers = [], []

    def track(node: int, path: str, values: np.ndarray) -> None:
        if interpolation == "CUBICSPLINE":
            values = np.stack([0 * values, values, 0 * values], 1).reshape(-1, values.shape[1])
        samplers.append({"input": times, "output": add(values), "interpolation": interpolation})
        channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": path}})

    for joint, parent in enumerate(PARENTS):
        if parent < 0:
            rest, turn, move = joints[joint], own[joint], places[:, joint]
            local = axes[:, joint]
        else:
            rest = own[parent].T @ (joints[joint] - joints[parent])
            turn, local = own[parent].T @ own[joint], axes[:, parent].transpose(0, 2, 1) @ axes[:, joint]
            move = None
        children = [child + 1 for child, above in enumerate(PARENTS) if above == joint]
        node = {"name": preset_names("mixamo")[joint], "translation": rest.tolist(), "rotation": xyzw(turn).tolist()}
        nodes.append({**node, "children": children} if children else node)
        track(joint + 1, "rotation", xyzw(local))
        if move is not None:
            track(joint + 1, "translation", move)
    document = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": nodes,
        "animations": [{"name": "mixamo.com", "channels": channels, "samplers": samplers}],
    }  # fmt: skip
    if skinned:
        inverse = np.tile(np.eye(4), (24, 1, 1))
        inverse[:, :3, :3] = own.transpose(0, 2, 1)
        inverse[:, :3, 3] = -(own.transpose(0, 2, 1) @ joints[..., None])[..., 0]
        matrices = add(inverse.transpose(0, 2, 1).reshape(24, 16))
        document["skins"] = [{"joints": list(range(1, 25)), "inverseBindMatrices": matrices}]
    uri = "data:application/octet-stream;base64," + base64.b64encode(bytes(content)).decode()
    buffers = [{"byteLength": len(content), "uri": uri}]
    document |= {"accessors": accessors, "bufferViews": views, "buffers": buffers}
    if change is not None:
        change(document)
    return json.dumps(document).encode()


def as_pixar_writes(path, up: str = "Y") -> None:
    """A UsdSkel stage in centimetres with joint axes of its own, written by Pixar's library."""
    from pxr import Gf, Usd, UsdGeom, UsdSkel, Vt

    own = random_rotations(24, seed=5, angle=1.0).double().numpy()
    world = pose_body(BODY, MOTION.rotations, MOTION.betas, MOTION.transl).joint_transforms.double().numpy()
    axes = np.eye(3) if up == "Y" else TURN.T  # y up to z up
    joints = rest_joints(BODY, MOTION.betas).double().numpy() @ axes.T / SIZE
    bind = np.tile(np.eye(4), (24, 1, 1))
    bind[:, :3, :3], bind[:, :3, 3] = own, joints
    moved = np.tile(np.eye(4), (10, 24, 1, 1))
    moved[..., :3, :3] = axes @ world[..., :3, :3] @ axes.T @ own
    moved[..., :3, 3] = world[..., :3, 3] @ axes.T / SIZE
    local, rest = moved.copy(), bind.copy()
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            local[:, joint] = np.linalg.inv(moved[:, parent]) @ moved[:, joint]
            rest[joint] = np.linalg.inv(bind[parent]) @ bind[joint]
    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageMetersPerUnit(stage, SIZE)
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y if up == "Y" else UsdGeom.Tokens.z)
    stage.SetTimeCodesPerSecond(30)
    UsdSkel.Root.Define(stage, "/Root")
    skeleton = UsdSkel.Skeleton.Define(stage, "/Root/Rig")
    names = [name.replace(":", "_") for name in preset_names("mixamo")]
    paths = [""] * 24
    for joint, parent in enumerate(PARENTS):
        paths[joint] = names[joint] if parent < 0 else f"{paths[parent]}/{names[joint]}"
    skeleton.CreateJointsAttr(paths)
    skeleton.CreateBindTransformsAttr(Vt.Matrix4dArray([Gf.Matrix4d(m.T.tolist()) for m in bind]))
    skeleton.CreateRestTransformsAttr(Vt.Matrix4dArray([Gf.Matrix4d(m.T.tolist()) for m in rest]))
    animation = UsdSkel.Animation.Define(stage, "/Root/Rig/Anim")
    animation.CreateJointsAttr(paths)
    rotations, translations = animation.CreateRotationsAttr(), animation.CreateTranslationsAttr()
    for frame in range(10):
        quaternions = xyzw(local[frame, :, :3, :3])
        rotations.Set(
            Vt.QuatfArray([Gf.Quatf(float(w), float(x), float(y), float(z)) for x, y, z, w in quaternions]), 1 + frame
        )
        translations.Set(Vt.Vec3fArray([Gf.Vec3f(*place) for place in local[frame, :, :3, 3].tolist()]), 1 + frame)
    UsdSkel.BindingAPI.Apply(skeleton.GetPrim()).CreateAnimationSourceRel().SetTargets(["/Root/Rig/Anim"])
    stage.GetRootLayer().Save()


@pytest.mark.parametrize("up", ["Y", "Z"])
def test_usd_text_that_pixar_s_library_wrote_is_followed(tmp_path, up):
    pytest.importorskip("pxr", reason="needs pip install usd-core, Pixar's own writer of USD")
    as_pixar_writes(tmp_path / "a.usda", up)
    imported = read_motion(tmp_path / "a.usda", body=BODY)
    assert imported.format == "usda" and imported.motion.fps == 30 and len(imported.motion) == 10
    assert "0.01 m per unit (stated by the file)" in " ".join(imported.notes)
    assert (joints_of(imported.motion) - joints_of(MOTION)).abs().max() < 1e-4


def joints_of(motion) -> torch.Tensor:
    return pose_joints(BODY, motion.rotations, motion.betas, motion.transl)


@pytest.mark.parametrize("skinned", [True, False])
@pytest.mark.parametrize("interpolation", ["LINEAR", "STEP", "CUBICSPLINE"])
def test_an_armature_of_other_axes_units_and_rest_rotations_is_followed(tmp_path, skinned, interpolation):
    (tmp_path / "a").write_bytes(as_blender_writes(skinned, interpolation))
    imported = read_motion(tmp_path / "a", body=BODY)
    assert imported.format == "glb" and imported.motion.fps == 30 and len(imported.motion) == 10
    assert (joints_of(imported.motion) - joints_of(MOTION)).abs().max() < 1e-4
    assert torch.allclose(imported.motion.rotations, MOTION.rotations, atol=1e-3)


@pytest.mark.parametrize("rate", [24, 30 / 1.001, 12.5, 17.3, 120])
def test_the_rate_is_told_from_the_keys(tmp_path, rate):
    motion = replace(motion_files.smooth_motion(BODY, 40), fps=rate)
    content = bytearray(write_motion(tmp_path / "a.glb", motion, BODY).read_bytes())
    place = content.index(b'"fps"')
    content[place : place + 5] = b'"xps"'
    (tmp_path / "a.glb").write_bytes(bytes(content))
    found = read_motion(tmp_path / "a.glb", body=BODY)
    assert found.motion.fps == pytest.approx(rate, rel=1e-5) and len(found.motion) == 40
    assert "told from the times of the keys" in found.notes[0]


def test_another_rate_is_sampled_between_the_keys(tmp_path):
    (tmp_path / "a.glb").write_bytes(as_blender_writes(True))
    twice = read_motion(tmp_path / "a.glb", body=BODY, fps=60).motion
    assert len(twice) == 19
    assert (joints_of(twice)[::2] - joints_of(MOTION)).abs().max() < 1e-4
    middle = (joints_of(MOTION)[1:] + joints_of(MOTION)[:-1]) / 2
    assert (joints_of(twice)[1::2] - middle).abs().max() < 0.05  # slerp, so not quite on the straight line


def test_keys_are_interpolated_as_gltf_says():
    times, at = np.array([0.0, 1.0, 3.0]), np.array([-1.0, 0, 0.25, 1.0, 2.0, 3.0, 9.0])
    values = np.array([[0.0], [4.0], [8.0]])
    assert sample(times, values, "LINEAR", False, at)[:, 0].tolist() == [0, 0, 1, 4, 6, 8, 8]
    assert sample(times, values, "STEP", False, at)[:, 0].tolist() == [0, 0, 0, 4, 4, 8, 8]
    flat = np.stack([0 * values, values, 0 * values], 1).reshape(-1, 1)
    assert sample(times, flat, "CUBICSPLINE", False, at)[:, 0].tolist() == [0, 0, 0.625, 4, 6, 8, 8]
    sloped = flat.copy()
    sloped[2], sloped[3] = 4.0, 4.0  # leaving 0 and reaching 1 at speed 4: a straight line
    assert sample(times, sloped, "CUBICSPLINE", False, np.array([0.25]))[0, 0] == pytest.approx(1)
    with pytest.raises(ComoviError, match="wrong number of values"):
        sample(times, values, "CUBICSPLINE", False, at)


def test_shape_stated_by_our_files_is_for_our_bodies_only(tmp_path):
    path = write_motion(tmp_path / "a.glb", MOTION, BODY)
    assert torch.allclose(read_motion(path, body=BODY).motion.betas, MOTION.betas)
    other = replace(BODY, name="somebody")
    imported = read_motion(path, body=other)
    assert "body shape as stated by the file" not in imported.notes and imported.motion.body_model == "somebody"
    wanted = placed(MOTION, BODY, "yup")
    assert (joints_of(imported.motion) - joints_of(wanted)).abs().max() < 1e-4  # the bones tell the shape too


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("animations"), "holds no animation"),
        (lambda d: d["nodes"][5].update(children=[1]), "no tree"),
        (lambda d: d["nodes"][0].update(children=[99]), "no tree"),
        (lambda d: d["accessors"][0].update(count=10**9), "reaches beyond its data"),
        (lambda d: d["accessors"][0].update(sparse={}), "sparse accessors"),
        (lambda d: d["buffers"][0].update(uri="motion.bin"), "keeps its data in another file"),
        (lambda d: d["buffers"][0].update(uri="data:,!!!"), "no base64"),
        (lambda d: d["nodes"][0].update(rotation=[0, 0]), "needs 4 numbers"),
        (lambda d: d["nodes"][0].update(scale=[0, 0, 0]), "scaled to nothing"),
        (lambda d: d["skins"][0].update(joints=[1, 2, 77]), "no usable skeleton"),
        (lambda d: d["animations"][0].update(channels=[]), "moves no node"),
        (
            lambda d: [n.update(name=f"bone{i}") for i, n in enumerate(d["nodes"])][:0] or d["nodes"].pop(),
            "glTF|matched",
        ),
    ],
)
def test_damaged_files_get_a_sentence(tmp_path, change, words):
    (tmp_path / "a.gltf").write_bytes(as_blender_writes(True, change=change))
    with pytest.raises(ComoviError, match=words):
        read_motion(tmp_path / "a.gltf", body=BODY)


def test_a_small_file_cannot_ask_for_a_huge_table(tmp_path):
    """Two keys an hour apart over a thousand nodes."""
    data = np.array([0, 3600, 0, 0, 0, 1, 1, 1], "<f4").tobytes()
    document = {
        "asset": {"version": "2.0"},
        "nodes": [{"name": "root", "children": [*range(1, 1000)]}, *({"name": f"j{n}"} for n in range(1, 1000))],
        "buffers": [{"byteLength": 32, "uri": "data:;base64," + base64.b64encode(data).decode()}],
        "bufferViews": [{"buffer": 0, "byteLength": 8}, {"buffer": 0, "byteOffset": 8, "byteLength": 24}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 2, "type": "SCALAR"},
            {"bufferView": 1, "componentType": 5126, "count": 2, "type": "VEC3"},
        ],
        "animations": [{
            "samplers": [{"input": 0, "output": 1}],
            "channels": [{"sampler": 0, "target": {"node": 0, "path": "translation"}}],
        }],
    }  # fmt: skip
    (tmp_path / "bomb.gltf").write_text(json.dumps(document))
    with pytest.raises(ComoviError, match="108001 frames of 1000 joints"):
        read_motion(tmp_path / "bomb.gltf", body=BODY, fps=30)
