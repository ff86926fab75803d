"""Starts, cameras, maps and motions from maps on real servers: each is what our own core makes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.body_files import load_nano_body
from comfyui_comovi.comovi_model.body.files.amass import save_amass
from comfyui_comovi.comovi_model.body.map_colours import silhouette, to_uint8
from comfyui_comovi.comovi_model.body.map_render import render_motion_map
from comfyui_comovi.comovi_model.body.named_poses import pose_names
from comfyui_comovi.comovi_model.body.smpl import pose_joints
from comfyui_comovi.comovi_model.nano.start import draw_nano_map, draw_start, nano_neutral
from motion_graph import (
    PROMPT,
    VIEW,
    body,
    draw,
    load,
    motion_in,
    pictures,
    root_path,
    save,
    upload,
)
from run_in_comfy import run_checks


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
    figures = run_checks(comfyui_servers, role, "pose_data_checks.py")
    assert figures["frames"] == 33 and figures["image_size"] == [480, 640]
    assert figures["nearest"] > 1  # metres before the camera
    assert figures["unchanged"]
    assert figures["joint_error"] < 0.02  # metres
    assert [number for number, valid in enumerate(figures["valid"]) if not valid] == [5]
    assert figures["camera"] == [640, 480, pytest.approx(659.4, abs=0.1)]
    assert figures["start"] == [1, "camera"]
    assert "missing in 1 frames" in figures["info"]
    assert "must be the pose data of SAM 3D Body, got str" in figures["refused"]
