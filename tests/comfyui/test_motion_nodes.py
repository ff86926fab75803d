"""The motion nodes on real servers: what they draw, load, place and write is what our own core makes."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comfy_server import PACKAGE
from comfyui_comovi.comovi_model.body.body_files import load_nano_body
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.files.amass import save_amass
from comfyui_comovi.comovi_model.body.map_colours import silhouette, to_uint8
from comfyui_comovi.comovi_model.body.map_render import render_motion_map
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.named_poses import pose_names
from comfyui_comovi.comovi_model.body.smpl import pose_joints
from comfyui_comovi.comovi_model.motion_io import FORMATS
from comfyui_comovi.comovi_model.nano.actions import ACTION_NAMES, ActionRequest
from comfyui_comovi.comovi_model.nano.people import load_nano_body as drawn_body
from comfyui_comovi.comovi_model.nano.scene import HEIGHT, WIDTH, sample_scene
from comfyui_comovi.comovi_model.nano.start import draw_nano_map, draw_start, nano_neutral

PROMPT = "a man in a yellow shirt and black trousers bows"
NANO, MANNEQUIN = "nano (embedded)", "mannequin (embedded)"
VIEW: dict[str, Any] = {
    "width": 128, "height": 192, "field_of_view": 40.0, "distance": 0.0, "turn": 0.0, "across": 0.5, "down": 0.5,
}  # fmt: skip
SAVING = {"root": "centred", "joint_names": "smpl"}


@pytest.fixture(scope="module")
def motion() -> BodyMotion:
    """A step to the left of a drawn person, every fourth frame, in the camera frame."""
    scene = sample_scene(11, drawn_body(), ActionRequest(ACTION_NAMES.index("step_aside"), "left", ""))
    rotations, transl = (torch.from_numpy(array).float()[::4] for array in scene.camera_motion(drawn_body()))
    camera = Camera(torch.from_numpy(scene.camera.K).float(), WIDTH, HEIGHT)
    return BodyMotion(rotations, torch.from_numpy(scene.betas).float(), transl, "camera", camera, 16.0, "mannequin-v1")


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


def test_the_nano_start_is_the_one_that_the_command_draws(comfyui, Graph):
    g = Graph()
    who = body(g)
    start = g.add("CoMoVi_NanoStart", prompt=PROMPT, seed=5)
    first = g.save_images(start)
    drawn = g.save_images(draw(g, start[1], who, smoothing=2))
    pose = save(g, start[1], who)
    result = comfyui.run(g)
    expected = draw_start(PROMPT, 5)
    assert np.array_equal(pictures(result, first)[0], expected.frame)
    assert np.array_equal(pictures(result, drawn)[0], expected.motion_map)
    found = motion_in(result, pose)
    assert torch.equal(found.rotations, expected.pose.rotations)
    assert torch.equal(found.transl, expected.pose.transl)
    up = found.provenance["camera_up"]
    assert np.allclose(up, expected.view.rotation[:, 1], atol=1e-6)


def test_a_picture_and_a_pose_replace_the_drawing(comfyui, Graph):
    grey = np.full((384, 256, 3), 0.4, np.float32)
    g = Graph()
    picture = g.add("LoadImage", image=comfyui.upload_image(grey, "grey.png"))
    pose = g.add("CoMoVi_StartPose", body=body(g), pose="nano neutral", **VIEW)
    start = g.add("CoMoVi_NanoStart", prompt=PROMPT, seed=0, picture=picture, pose=pose)
    first, notes = g.save_images(start), g.add("PreviewAny", source=start[2])
    same = save(g, start[1], body(g))
    result = comfyui.run(g)
    assert np.all(pictures(result, first) == 102)
    assert pictures(result, first).shape == (1, 192, 128, 3)
    assert "256x384 pixels; it was resized to 128x192" in result.text(notes)
    assert torch.allclose(motion_in(result, same).transl, nano_neutral().transl, atol=1e-5)


def test_every_named_pose_stands_in_the_middle_of_its_picture(comfyui, Graph):
    g = Graph()
    who = body(g)
    shown = {}
    for name in (*pose_names(), "nano neutral"):
        pose = g.add("CoMoVi_StartPose", body=who, pose=name, **VIEW)
        shown[name] = g.save_images(draw(g, pose, who))
    result = comfyui.run(g)
    seen = {name: pictures(result, node)[0] for name, node in shown.items()}
    for name, picture in seen.items():
        rows, columns = np.nonzero(silhouette(torch.from_numpy(picture).float() / 255).numpy())
        middle = ((columns.min() + columns.max()) / 2 + 0.5, (rows.min() + rows.max()) / 2 + 0.5)
        assert np.allclose(middle, (64, 96), atol=1.6 if name != "nano neutral" else 20), name
    assert len({picture.tobytes() for picture in seen.values()}) == len(seen)


def test_a_clip_goes_on_from_the_last_frame_of_another(comfyui, Graph, motion):
    g = Graph()
    loaded = load(g, upload(comfyui, motion, "chain.npz"))
    who = body(g)
    views = {**VIEW, "motion": loaded, "pose": "from motion"}
    last = save(g, g.add("CoMoVi_StartPose", body=who, **views), who)
    second = save(g, g.add("CoMoVi_StartPose", body=who, **views, frame_index=1), who)
    result = comfyui.run(g)
    for node, index in ((last, -1), (second, 1)):
        found = motion_in(result, node)
        assert torch.equal(found.rotations[0], motion.rotations[index])
        assert torch.equal(found.transl[0], motion.transl[index])
        assert torch.allclose(found.camera.K, motion.camera.K)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"frame_index": 99}, "frame_index 99 is not in a motion of 9 frames; give -9 to 8"),
        ({"width": 256, "height": 192}, "set width and height to 128 and 192 or a multiple"),
        ({"motion": None}, "no motion is wired"),
    ],
)
def test_a_start_pose_that_cannot_be_is_a_sentence(comfyui, Graph, motion, change, sentence):
    g = Graph()
    inputs = {**VIEW, "pose": "from motion", "motion": load(g, upload(comfyui, motion, "chain.npz")), **change}
    g.save_images(draw(g, g.add("CoMoVi_StartPose", body=body(g), **without_none(inputs)), body(g)))
    result = comfyui.run(g, check=False)
    assert sentence in result.error
    assert "\n" not in result.failure["exception_message"].strip()


def without_none(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if value is not None}


@pytest.mark.parametrize("smoothing", [1, 2])
def test_maps_of_a_motion_are_those_of_the_core(comfyui, Graph, motion, smoothing):
    g = Graph()
    loaded = load(g, upload(comfyui, motion, "map.npz"))
    shown = g.save_images(draw(g, loaded, body(g), smoothing=smoothing))
    flat = g.save_images(draw(g, loaded, body(g), width=64, height=96, shading="flat"))
    result = comfyui.run(g)
    model = load_nano_body()
    lit = draw_nano_map(motion) if smoothing == 2 else to_uint8(render_motion_map(model, motion, 192, 128)).numpy()
    assert np.array_equal(pictures(result, shown), lit)
    assert np.array_equal(pictures(result, flat), to_uint8(render_motion_map(model, motion, 96, 64, "flat")).numpy())


def test_a_map_that_does_not_fit_into_memory_is_a_sentence(comfyui, Graph, motion):
    g = Graph()
    loaded = load(g, upload(comfyui, motion, "map.npz"))
    g.save_images(draw(g, loaded, body(g), width=8192, height=8192, smoothing=4))
    result = comfyui.run(g, check=False)
    assert "GiB of memory" in result.error and comfyui.alive()


def test_a_motion_is_placed_where_its_map_shows_it(comfyui, Graph, motion):
    still = replace(motion, transl=motion.transl[:1].expand(len(motion), -1))
    g = Graph()
    who = body(g)
    shown = draw(g, load(g, upload(comfyui, motion, "truth.npz")), who, smoothing=2)
    lost = load(g, upload(comfyui, still, "still.npz"))
    place = g.add("CoMoVi_PlaceMotion", motion=lost, body=who, motion_map=shown, floor=True)
    placed = save(g, place, who)
    result = comfyui.run(g)
    found = motion_in(result, placed)
    assert float((motion.transl - still.transl)[:, 0].abs().max()) > 0.2
    assert float((found.transl - motion.transl)[:, 0].abs().max()) < 0.03
    told = result.progress(place)
    assert len(told) >= 2 and told[-1] == (11, 11)  # messages that come too fast are dropped by the core


def test_a_motion_without_a_camera_is_put_before_one(comfyui, Graph, motion):
    """The driving motion of a clip: an AMASS file begins where the start pose of the clip stands."""
    path = comfyui.base / "to_upload" / "drive.npz"
    path.parent.mkdir(exist_ok=True)
    save_amass(path, motion, load_nano_body())
    g = Graph()
    who = body(g)
    loaded = load(g, comfyui.upload(path))
    info = g.add("PreviewAny", source=loaded[1])
    start = g.add("CoMoVi_StartPose", body=who, pose="from motion", **VIEW, motion=loaded, frame_index=0)
    driven = g.add("CoMoVi_SetCamera", motion=loaded, body=who, **VIEW, start_pose=start)
    alone = g.add("CoMoVi_SetCamera", motion=loaded, body=who, **VIEW)
    nodes = [save(g, node, who) for node in (start, driven, alone)]
    shown = g.save_images(draw(g, alone, who))
    result = comfyui.run(g)
    first, whole, framed = (motion_in(result, node) for node in nodes)
    assert torch.allclose(whole.transl[0], first.transl[0], atol=1e-4)
    assert torch.allclose(whole.rotations[0], first.rotations[0], atol=1e-4)
    path_length = (motion.transl[-1] - motion.transl[0]).norm()
    for moved in (whole, framed):
        assert len(moved) == len(motion) and moved.frame == "camera"
        assert torch.allclose((moved.transl[-1] - moved.transl[0]).norm(), path_length, atol=1e-3)
    mask = silhouette(torch.from_numpy(result.images(shown)))
    assert bool(mask.flatten(1).any(1).all())
    assert not bool(mask[:, [0, -1]].any() or mask[:, :, [0, -1]].any())  # all of it is in the picture
    assert "9 frames at 16 per second" in result.text(info)


WRITTEN = tuple(row.name for row in FORMATS.values() if row.writes)
BEGINS = {"glb": b"glTF", "bvh": b"HIERARCHY", "usda": b"#usda", "pc2": b"POINTCACHE2", "obj": b"PK", "json": b"{"}


def test_motions_are_written_listed_and_read_again_in_every_format(comfyui, Graph, motion):
    """One prompt writes all, a second one reads all; poses come back as well as the format can hold them."""
    g = Graph()
    loaded, who = load(g, upload(comfyui, motion, "out.npz")), body(g)
    saved = {format: save(g, loaded, who, format, f"some/{format}") for format in WRITTEN}
    shown = {format: g.add("PreviewAny", source=node) for format, node in saved.items()}
    result = comfyui.run(g)
    g = Graph()
    again = {}
    for format, node in saved.items():
        file, *beside = result.files(node)
        assert (file["subfolder"], file["type"]) == ("some", "output")
        assert file["filename"].endswith(FORMATS[format].suffix)
        assert [other["filename"][-4:] for other in beside] == ([".obj"] if format == "pc2" else [])
        assert result.text(shown[format]) == f"some/{file['filename']}"
        assert result.content(node).startswith(BEGINS.get(format, b""))
        read = load(g, f"some/{file['filename']} [output]", body=body(g))
        again[format] = save(g, g.add("CoMoVi_SetCamera", motion=read, body=body(g), **VIEW), body(g))
    result = comfyui.run(g)
    model = load_nano_body()
    truth = pose_joints(model, motion.rotations, motion.betas, motion.transl)
    for format, node in again.items():
        found = motion_in(result, node)
        joints = pose_joints(model, found.rotations, found.betas, found.transl)
        if format == "humanml3d":  # 20 frames per second, and one less
            assert len(found) >= len(motion) and found.fps == 20
            continue
        assert len(found) == len(motion), format
        error = (shape_of(joints) - shape_of(truth)).abs().mean()
        assert float(error) < (0.03 if format in ("obj", "pc2", "joints") else 0.005), format


def shape_of(joints: torch.Tensor) -> torch.Tensor:
    """Distances (F, 24, 24) between joints: the pose, wherever it stands."""
    return torch.cdist(joints, joints)


def test_a_comovi_file_loses_nothing_and_is_an_amass_file_too(comfyui, Graph, motion):
    g = Graph()
    saved = save(g, load(g, upload(comfyui, motion, "out.npz")), body(g, MANNEQUIN))
    result = comfyui.run(g)
    found = motion_in(result, saved)
    assert torch.equal(found.rotations, motion.rotations) and torch.equal(found.transl, motion.transl)
    assert np.load(io.BytesIO(result.content(saved)))["poses"].shape == (len(motion), 156)


def test_the_options_of_formats_reach_the_files(comfyui, Graph, motion):
    g = Graph()
    loaded, who = load(g, upload(comfyui, motion, "out.npz")), body(g)
    usual = {"motion": loaded, "body": who, "filename_prefix": "options/x"}
    named = g.add("CoMoVi_SaveMotion", **usual, format="bvh", root="off", joint_names="mixamo")
    spot = g.add("CoMoVi_SaveMotion", **usual, format="glb", root="off", joint_names="smpl")
    result = comfyui.run(g)
    assert b"mixamorig" in result.content(named)
    assert np.ptp(root_path(result.content(spot)), axis=0)[[0, 2]].max() < 1e-6


def test_a_saved_motion_can_be_loaded_again(comfyui, Graph, motion):
    g = Graph()
    saved = save(g, load(g, upload(comfyui, motion, "out.npz")), body(g), prefix="again/x")
    name = comfyui.run(g).files(saved)[0]["filename"]
    g = Graph()
    again = save(g, load(g, f"again/{name} [output]"), body(g))
    assert torch.equal(motion_in(comfyui.run(g), again).rotations, motion.rotations)


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(comfyui, Graph, motion):
    g = Graph()
    file = upload(comfyui, motion, "changing.npz")
    loaded = load(g, file)
    saved = save(g, loaded, body(g))
    comfyui.run(g)
    assert loaded.id not in comfyui.run(g).executed()
    time.sleep(0.02)
    upload(comfyui, motion.slice(0, 3), "changing.npz")
    result = comfyui.run(g)
    assert loaded.id in result.executed()
    assert len(motion_in(result, saved)) == 3


def test_the_3d_file_moves_and_reaches_the_preview(comfyui, Graph, motion):
    g = Graph()
    who = body(g, MANNEQUIN)
    file = upload(comfyui, motion, "glb.npz")
    nodes = {
        root: g.add("CoMoVi_MotionTo3D", motion=load(g, file), body=who, root=root, filename_prefix=f"3d/{root}")
        for root in ("centred", "absolute", "off")
    }
    preview = g.add("Preview3D", model_file=nodes["centred"])
    if comfyui.install.version != "0.3.64":
        other = g.add("Preview3D", model_file=nodes["off"][1])
    result = comfyui.run(g)
    (shown, *_) = result.outputs[preview.id]["result"]
    (listed,) = result.files(nodes["centred"])
    assert shown == f"{listed['subfolder']}/{listed['filename']}"
    if comfyui.install.version != "0.3.64":
        assert result.outputs[other.id]["result"][0].endswith(".glb")
    paths = {root: root_path(result.content(node)) for root, node in nodes.items()}
    assert len(paths["centred"]) == len(motion)
    assert np.allclose(paths["centred"][0, [0, 2]], 0, atol=1e-5)
    assert np.abs(paths["centred"][-1, 0] - (motion.transl[-1, 0] - motion.transl[0, 0]).numpy()) < 0.02
    assert np.ptp(paths["off"], axis=0)[[0, 2]].max() < 1e-6
    assert paths["absolute"][0, 2] < -5  # metres before the camera, which looks along -z


def root_path(glb: bytes) -> np.ndarray:
    """The animated translation (F, 3) of the root joint in a GLB file."""
    length = struct.unpack_from("<I", glb, 12)[0]
    document, binary = json.loads(glb[20 : 20 + length]), glb[28 + length :]
    animation = document["animations"][0]
    (channel,) = [c for c in animation["channels"] if c["target"]["path"] == "translation"]
    accessor = document["accessors"][animation["samplers"][channel["sampler"]]["output"]]
    view = document["bufferViews"][accessor["bufferView"]]
    return np.frombuffer(binary, "<f4", 3 * accessor["count"], view["byteOffset"]).reshape(-1, 3)


def test_the_body_lies_over_its_video(comfyui, Graph, motion):
    g = Graph()
    who, loaded = body(g), load(g, upload(comfyui, motion, "over.npz"))
    video = g.add("Probe_MakeImage", kind="grey", width=128, height=192, frames=len(motion), seed=0)
    shown = {
        (opacity, style): g.save_images(
            g.add("CoMoVi_OverlayMotion", images=video, motion=loaded, body=who, opacity=opacity, style=style)
        )
        for opacity, style in ((0.0, "solid"), (1.0, "solid"), (0.5, "parts"), (1.0, "normals"), (1.0, "wireframe"))
    }
    result = comfyui.run(g)
    seen = {key: result.images(node) for key, node in shown.items()}
    mask = silhouette(render_motion_map(load_nano_body(), motion, 192, 128)).numpy()
    grey = seen[0.0, "solid"]
    assert np.ptp(grey) == 0
    for key, picture in seen.items():
        if key[0]:
            changed = np.abs(picture - grey).max(-1) > 0.02
            assert changed[mask].mean() > (0.9 if key[1] != "wireframe" else 0.1), key
            assert changed[~mask].mean() < 0.03, key


def test_a_motion_of_another_body_is_taken_without_its_shape(comfyui, Graph, motion):
    """Betas of an SMPL person mean nothing to the mannequin: nodes that show drop them, the map wants to be told."""
    foreign = replace(motion, body_model="SMPL+H female", betas=torch.linspace(-2, 2, 10))
    g = Graph()
    who, loaded = body(g), load(g, upload(comfyui, foreign, "smpl.npz"))
    glb = g.add("CoMoVi_MotionTo3D", motion=loaded, body=who, root="off", filename_prefix="3d/foreign")
    framed = save(g, g.add("CoMoVi_SetCamera", motion=loaded, body=who, **VIEW), who)
    told = load(g, "smpl.npz", body=who)
    shown, info = g.save_images(draw(g, told, who)), g.add("PreviewAny", source=told[1])
    result = comfyui.run(g)
    assert result.content(glb)[:4] == b"glTF"
    assert float(motion_in(result, framed).betas.abs().max()) == 0
    assert len(result.files(shown)) == len(motion)
    assert "betas of body 'SMPL+H female' mean nothing" in result.text(info)
    g = Graph()
    g.save_images(draw(g, load(g, "smpl.npz"), body(g)))
    assert "betas mean nothing to body" in comfyui.run(g, check=False).error


def test_pose_data_is_made(comfyui, Graph, motion):
    g = Graph()
    made = g.add("CoMoVi_MotionToPoseData", motion=load(g, upload(comfyui, motion, "pd.npz")), body=body(g))
    shown = g.add("PreviewAny", source=made)
    text = comfyui.run(g).text(shown)
    for key in ("pred_global_rots", "pred_joint_coords", "pred_vertices", "pred_cam_t", "_skeleton_override"):
        assert key in text


HOSTILE = ["../../x", "/etc/passwd", "..\\..\\x", "a/../../../x", "", "nul\x00", "  ", "x" * 4000]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused_at_validation(comfyui, Graph, motion, name):
    g = Graph()
    g.add("CoMoVi_SaveMotion", motion=load(g, name), body=body(g, name), filename_prefix=name, format="glb", **SAVING)
    result = comfyui.run(g, check=False)
    for entry in ("file", "body", "filename_prefix"):
        assert refusal(result, entry)
    g = Graph()
    ok = load(g, upload(comfyui, motion, "ok.npz"))
    g.add("CoMoVi_MotionTo3D", motion=ok, body=body(g), root="centred", filename_prefix=name)
    assert refusal(comfyui.run(g, check=False), "filename_prefix")
    assert comfyui.alive()


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("CoMoVi_StartPose", {"pose": "flying"}),
        ("CoMoVi_DrawMotionMap", {"shading": "disco"}),
        ("CoMoVi_SaveMotion", {"format": "fbx"}),
        ("CoMoVi_SaveMotion", {"root": "moon"}),
        ("CoMoVi_MotionTo3D", {"root": "moon"}),
        ("CoMoVi_OverlayMotion", {"style": "disco"}),
        ("CoMoVi_LoadMotion", {"up_axis": "w"}),
        ("CoMoVi_LoadMotion", {"units": "parsec"}),
        ("CoMoVi_LoadMotion", {"space": "outer"}),
        ("CoMoVi_LoadMotion", {"fps": -1}),
        ("CoMoVi_StartPose", {"width": 0}),
        ("CoMoVi_StartPose", {"field_of_view": 180.0}),
        ("CoMoVi_DrawMotionMap", {"smoothing": 9}),
        ("CoMoVi_OverlayMotion", {"opacity": 2.0}),
        ("CoMoVi_NanoStart", {"seed": -1}),
    ],
)
def test_bad_values_are_refused_at_validation(comfyui, Graph, motion, node, inputs):
    """Also where the core does not look at the lists of V3 nodes."""
    file = upload(comfyui, motion, "ok.npz")
    g = Graph()
    usual: dict[str, dict[str, Any]] = {
        "CoMoVi_StartPose": {"body": body(g), "pose": "standing", **VIEW},
        "CoMoVi_DrawMotionMap": {"width": 0, "height": 0, "shading": "flat", "smoothing": 1},
        "CoMoVi_SaveMotion": {"filename_prefix": "x", "format": "glb", **SAVING},
        "CoMoVi_MotionTo3D": {"root": "centred", "filename_prefix": "x"},
        "CoMoVi_OverlayMotion": {"opacity": 1.0, "style": "solid", "images": g.add("EmptyImage", **EMPTY)},
        "CoMoVi_LoadMotion": {"file": file, "fps": 0.0, "up_axis": "y"},
        "CoMoVi_NanoStart": {"prompt": PROMPT, "seed": 0},
    }
    wired = {"motion": load(g, file), "body": body(g)} if node not in ("CoMoVi_LoadMotion", "CoMoVi_NanoStart") else {}
    if node == "CoMoVi_StartPose":
        wired = {}
    made = g.add(node, **{**wired, **usual[node], **inputs})
    if node in ("CoMoVi_OverlayMotion", "CoMoVi_DrawMotionMap", "CoMoVi_NanoStart"):
        g.save_images(made)
    elif node in ("CoMoVi_StartPose", "CoMoVi_LoadMotion"):
        save(g, made, body(g))
    (name,) = inputs
    assert refusal(comfyui.run(g, check=False), name)


EMPTY = {"width": 128, "height": 192, "batch_size": 1, "color": 0}


@pytest.mark.parametrize("kind", ["nan", "no frames", "one channel", "nothing wide"])
def test_broken_pictures_are_a_sentence(comfyui, Graph, motion, kind):
    g = Graph()
    loaded, who = load(g, upload(comfyui, motion, "ok.npz")), body(g)
    broken = g.add("Probe_MakeImage", kind=kind, width=128, height=192, frames=len(motion), seed=0)
    place = g.add("CoMoVi_PlaceMotion", motion=loaded, body=who, motion_map=broken, floor=True)
    save(g, place, who)
    result = comfyui.run(g, check=False)
    assert "motion_map" in result.error
    assert "\n" not in result.failure["exception_message"].strip()


def test_files_that_are_no_motions_are_a_sentence(comfyui, Graph):
    rubbish = {"text.npz": b"not a zip at all", "empty.bvh": b"", "half.bvh": b"HIERARCHY\nROOT", "bad.json": b"{"}
    for name, content in rubbish.items():
        path = comfyui.base / "input" / name
        path.write_bytes(content)
        g = Graph()
        save(g, load(g, name), body(g))
        result = comfyui.run(g, check=False)
        assert name in result.error, result.error
        assert len(result.failure["exception_message"].strip().splitlines()) == 1
        path.unlink()


def test_the_stop_button_works_while_a_map_is_drawn(comfyui, Graph, motion):
    long = BodyMotion(
        motion.rotations.repeat(30, 1, 1, 1),
        motion.betas,
        motion.transl.repeat(30, 1),
        camera=motion.camera,
        body_model=motion.body_model,
    )
    g = Graph()
    drawn = draw(g, load(g, upload(comfyui, long, "long.npz")), body(g, MANNEQUIN), width=512, height=768, smoothing=2)
    g.add("PreviewImage", images=drawn)
    pressed: list[float] = []

    def press(event) -> None:
        if event.type == "progress" and event.data.get("node") == drawn.id and event.data["value"] and not pressed:
            pressed.append(time.monotonic())
            threading.Thread(target=comfyui.client.post, args=("/interrupt", {})).start()

    result = comfyui.run(g, check=False, on_event=press)
    stopped = time.monotonic()
    assert pressed, "the node told no progress"
    assert result.error
    assert stopped - pressed[0] < 5
    again = Graph()
    shown = again.save_images(draw(again, load(again, upload(comfyui, motion, "map.npz")), body(again)))
    assert len(comfyui.run(again).files(shown)) == len(motion)


def test_a_motion_is_read_from_its_map(comfyui, Graph, motion):
    g = Graph()
    who = body(g)
    truth = load(g, upload(comfyui, motion, "truth.npz"))
    start = g.add("CoMoVi_StartPose", body=who, pose="from motion", **VIEW, motion=truth, frame_index=0)
    shown = draw(g, truth, who, smoothing=2)
    fit = g.add("CoMoVi_MotionFromMap", motion_map=shown, start_pose=start, body=who, fps=16.0)
    saved, report = save(g, fit, who), g.add("PreviewAny", source=fit[1])
    result = comfyui.run(g)
    found = motion_in(result, saved)
    model = load_nano_body()
    error = pose_joints(model, found.rotations, found.betas, found.transl)
    error = (error - pose_joints(model, motion.rotations, motion.betas, motion.transl)).norm(dim=-1)
    assert float(error.mean()) < 0.05  # metres
    assert bool(found.valid.all())
    assert "9 frames; score" in result.text(report)
    done, total = result.progress(fit)[-1]
    assert done == total


def test_a_flat_map_is_read_without_a_start_pose(new_comfyui, Graph, motion):
    """Only the lens is known; the search finds the first pose itself."""
    seen = motion.slice(0, 3)
    g = Graph()
    who = body(g)
    shown = draw(g, load(g, upload(new_comfyui, seen, "flat.npz")), who, shading="flat", smoothing=2)
    degrees = float(2 * torch.atan(96 / motion.camera.K[1, 1]).rad2deg())
    known = {"field_of_view": degrees, "shading": "flat"}
    fit = g.add("CoMoVi_MotionFromMap", motion_map=shown, body=who, fps=16.0, **known)
    saved = save(g, fit, who)
    found = motion_in(new_comfyui.run(g), saved)
    model = load_nano_body()
    ours = pose_joints(model, found.rotations, found.betas, found.transl)
    truth = pose_joints(model, seen.rotations, seen.betas, seen.transl)
    assert float((ours[:, 0] - truth[:, 0]).norm(dim=-1).max()) < 0.5  # of 9 m, because the stature is not known
    error = (ours - ours[:, :1] - truth + truth[:, :1]).norm(dim=-1)
    assert float(error.mean()) < 0.06  # metres


def test_a_driving_motion_begins_exactly_in_the_first_frame(comfyui, Graph):
    """The chain of the workflow that drives a video: the nano camera looks down two degrees, and nothing tilts."""
    g = Graph()
    who, driving = body(g), g.add("CoMoVi_LoadMotion", file="walk (example)", fps=0.0, up_axis="as in the file")
    start = g.add("CoMoVi_NanoStart", prompt=PROMPT, seed=3, pose=driving)
    driven = g.add("CoMoVi_SetCamera", motion=driving, body=who, **VIEW, start_pose=start[1])
    first = g.save_images(draw(g, start[1], who, smoothing=2))
    whole = g.save_images(draw(g, driven, who, smoothing=2))
    stood = g.add("CoMoVi_MotionTo3D", motion=driven, body=who, root="centred", filename_prefix="3d/driven")
    result = comfyui.run(g)
    maps = pictures(result, whole)
    assert len(maps) == 33
    assert np.abs(maps[0].astype(int) - pictures(result, first)[0]).mean() < 0.05
    path = root_path(result.content(stood))
    assert np.linalg.norm(path[-1, [0, 2]]) > 0.5
    slope = np.polyfit(np.linalg.norm(path[:, [0, 2]] - path[0, [0, 2]], axis=1), path[:, 1], 1)[0]
    assert abs(slope) < 0.015  # it bobs as a walk does, and does not climb; 0.035 with the camera taken for level


@pytest.mark.parametrize("role", ["new", "old"])
def test_pose_data_go_out_and_come_in(comfyui_servers, role):
    """The tested cores have no nodes at the other end, so ours run inside ComfyUI's Python."""
    install = comfyui_servers.install(role)
    script = Path(__file__).parent / "pose_data_checks.py"
    command = [str(install.python), str(script), str(install.home), str(PACKAGE)]
    done = subprocess.run(command, cwd=install.home, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    assert figures["frames"] == 33 and figures["image_size"] == [480, 640]
    assert figures["nearest"] > 1  # metres before the camera
    assert figures["unchanged"]
    assert figures["joint_error"] < 0.02  # metres
    assert [number for number, valid in enumerate(figures["valid"]) if not valid] == [5]
    assert figures["camera"] == [640, 480, pytest.approx(659.4, abs=0.1)]
    assert figures["start"] == [1, "camera"]
    assert "missing in 1 frames" in figures["info"]
    assert "must be the pose data of SAM 3D Body, got str" in figures["refused"]
