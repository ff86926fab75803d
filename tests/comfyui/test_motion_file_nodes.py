"""Motion files, 3D files, overlays and pose data on real servers: what is written is what our own core writes."""

from __future__ import annotations

import io
import time
from dataclasses import replace

import numpy as np
import torch
from comfyui_comovi.comovi_model.body.body_files import load_nano_body
from comfyui_comovi.comovi_model.body.map_colours import silhouette
from comfyui_comovi.comovi_model.body.map_render import render_motion_map
from comfyui_comovi.comovi_model.body.smpl import pose_joints
from comfyui_comovi.comovi_model.motion_io import FORMATS
from motion_graph import (
    MANNEQUIN,
    VIEW,
    body,
    draw,
    load,
    motion_in,
    root_path,
    save,
    upload,
)

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


def test_pictures_of_another_shape_than_the_camera_are_named_in_the_log(new_comfyui, Graph, motion):
    """They may have been stretched, which is drawn rightly, or cropped, which is not: the user has to know."""
    g = Graph()
    who, loaded = body(g), load(g, upload(new_comfyui, motion.slice(0, 1), "stretched.npz"))
    for width in (256, 128):
        video = g.add("EmptyImage", width=width, height=192, batch_size=1, color=0)
        g.save_images(g.add("CoMoVi_OverlayMotion", images=video, motion=loaded, body=who, opacity=1.0, style="solid"))
    new_comfyui.run(g)
    log = new_comfyui.log()
    assert "Overlay Motion: the pictures are 256 x 192 and the camera of the motion is 128 x 192" in log
    assert "the pictures are 128 x 192 and the camera of the motion is 128 x 192" not in log


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


def test_an_example_says_which_widgets_it_did_not_heed(comfyui, Graph):
    g = Graph()
    plain = g.add(
        "PreviewAny", source=g.add("CoMoVi_LoadMotion", file="walk (example)", fps=0, up_axis="as in the file")[1]
    )
    turned = g.add("PreviewAny", source=g.add("CoMoVi_LoadMotion", file="walk (example)", fps=30, up_axis="z")[1])
    result = comfyui.run(g)
    assert "not heeded" not in result.outputs[plain.id]["text"][0]
    assert "not heeded, as examples say it themselves: fps, up_axis" in result.outputs[turned.id]["text"][0]
