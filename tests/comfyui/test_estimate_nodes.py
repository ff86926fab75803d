"""The nodes that estimate bodies, on real servers: what comes out is what our own core finds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.adjust_pose import adjust_pose
from comfyui_comovi.comovi_model.body.body_files import load_nano_body
from comfyui_comovi.comovi_model.body.cameras import project
from comfyui_comovi.comovi_model.body.smpl import pose_joints
from comfyui_comovi.comovi_model.estimate.photo import Sources, estimate_photo
from comfyui_comovi.comovi_model.estimate.photo_camera import photo_camera
from motion_graph import body, draw, motion_in, pictures, save
from PIL import Image
from run_in_comfy import run_checks

sys.path.append(str(Path(__file__).parent.parent))

import estimate_parts as parts

CLIP = {"fps": 4.0, "smoothing": "none", "strength": 0.5, "longest_gap": 0.5}
WHO = {"who": "largest", "index": 0}


def keypoints(g, motion):
    people = [[person] for person in parts.true_people(motion)]
    size = (motion.camera.height, motion.camera.width)
    return g.add("Probe_MakeValue", json=json.dumps(parts.pose_keypoint(people, size)))


def photo(g, name: str = "arms raised (example)", person: int = 1):
    return g.add("CoMoVi_LoadPhoto", photo=name, person=person)


def test_an_example_photo_comes_with_its_lens_and_its_true_pose(comfyui, Graph):
    g = Graph()
    loaded = photo(g)
    shown, info = g.save_images(loaded), g.add("PreviewAny", source=loaded[3])
    pose = save(g, loaded[2], body(g))
    result = comfyui.run(g)
    picture, truth = parts.example("arms raised")
    assert np.array_equal(pictures(result, shown)[0], picture)
    assert torch.equal(motion_in(result, pose).rotations, truth.rotations)
    assert "512 x 768 pixels; an example" in result.text(info)


def test_a_photo_keeps_its_focal_length_and_has_no_true_pose(comfyui, Graph):
    path = comfyui.base / "to_upload" / "exif.jpg"
    path.parent.mkdir(exist_ok=True)
    image = Image.fromarray(parts.example("standing")[0])
    exif = image.getexif()
    exif.get_ifd(0x8769)[0xA405] = 28
    image.save(path, exif=exif)
    name = comfyui.upload(path)
    g = Graph()
    loaded = photo(g, name)
    focal, info = g.add("PreviewAny", source=loaded[1]), g.add("PreviewAny", source=loaded[3])
    result = comfyui.run(g)
    assert float(result.text(focal)) == pytest.approx(28 * np.hypot(512, 768) / np.hypot(36, 24), rel=1e-3)
    assert "35 mm equivalent" in result.text(info)
    g = Graph()
    save(g, photo(g, name)[2], body(g))
    assert "only an example has a true pose" in str(comfyui.run(g, check=False).failure)


def test_a_pose_from_keypoints_is_what_the_core_finds(comfyui, Graph):
    picture, truth = parts.example("arms raised")
    focal = float(truth.camera.K[0, 0])
    g = Graph()
    loaded, who = photo(g), body(g)
    pose = g.add("CoMoVi_EstimatePose", image=loaded, body=who, **WHO, people=keypoints(g, truth), focal_px=focal)
    saved, over, report = save(g, pose, who), g.save_images(pose[1]), g.add("PreviewAny", source=pose[2])
    result = comfyui.run(g)
    camera = photo_camera(picture.shape[:2], focal_px=focal)
    sources = Sources(people=parts.true_people(truth), camera=camera)
    (ours,) = estimate_photo(picture, load_nano_body(), sources)
    found = motion_in(result, saved)
    assert torch.allclose(found.transl, ours.motion.transl, atol=0.02)
    model = load_nano_body()
    pixels = [project(pose_joints(model, m.rotations, m.betas, m.transl), m.camera.K) for m in (found, truth)]
    assert float((pixels[0] - pixels[1]).norm(dim=-1).median()) < 8
    assert "keypoints, lifted and refined (approximate)" in result.text(report)
    changed = np.abs(pictures(result, over)[0].astype(int) - picture).max(-1) > 8
    assert 0.03 < changed.mean() < 0.3


def test_everybody_in_the_picture_gets_a_motion_and_a_map(comfyui, Graph):
    _, truth = parts.example("standing")
    (right,) = parts.true_people(truth)
    left = right.keypoints - [150, 0, 0]
    both = [[right, parts.Person(right.box - [150, 0, 150, 0], keypoints=left)]]
    g = Graph()
    who = body(g)
    people = g.add("Probe_MakeValue", json=json.dumps(parts.pose_keypoint(both, (768, 512))))
    asked = {"who": "all", "index": 0, "people": people}
    pose = g.add("CoMoVi_EstimatePose", image=photo(g, "standing (example)"), body=who, **asked)
    maps, report = g.save_images(draw(g, pose, who, width=128, height=192)), g.add("PreviewAny", source=pose[2])
    result = comfyui.run(g)
    drawn = pictures(result, maps)
    assert drawn.shape == (2, 192, 128, 3)
    middles = [np.nonzero(picture.min(-1) < 250)[1].mean() for picture in drawn]
    assert middles[1] - middles[0] == pytest.approx(150 / 4, abs=6)
    assert "person 0" in result.text(report) and "person 1" in result.text(report)


def test_keypoints_alone_give_a_motion(comfyui, Graph):
    _, truth = parts.walk()
    short = truth.slice(0, 2)
    g = Graph()
    who = body(g)
    fit = g.add("CoMoVi_FitKeypoints", keypoints=keypoints(g, short), body=who, **CLIP, **WHO)
    saved, report = save(g, fit, who), g.add("PreviewAny", source=fit[1])
    result = comfyui.run(g)
    found = motion_in(result, saved)
    assert len(found) == 2 and found.camera.height == 768 and found.fps == 4.0
    assert result.progress(fit)[-1] == (4, 4)
    assert "approximate" in result.text(report)
    assert "steadied" not in result.text(report)  # smoothing none leaves the poses as they were read


def test_three_points_make_no_body_out_of_a_black_picture(comfyui, Graph):
    points = np.zeros((18, 3))
    points[[2, 5, 8]] = (400, 300, 1), (600, 310, 1), (430, 650, 1)
    record = {"canvas_width": 1024, "canvas_height": 1024, "people": [{"pose_keypoints_2d": points.ravel().tolist()}]}
    for frames, sentence in ((1, "3 keypoints of the person are seen"), (2, "in none of 2 frames with the person")):
        g = Graph()
        value = g.add("Probe_MakeValue", json=json.dumps([record] * frames))
        fit = g.add("CoMoVi_FitKeypoints", keypoints=value, body=body(g), **CLIP, **WHO)
        save(g, fit, body(g))
        assert sentence in comfyui.run(g, check=False).error


def test_a_painted_mask_is_somebody_whatever_the_finder_sees(comfyui, Graph):
    g = Graph()
    empty = g.add("Probe_MakeImage", kind="grey", width=256, height=192, frames=1, seed=1)
    mask = g.add("SolidMask", value=1.0, width=256, height=192)
    people = g.add("CoMoVi_FindPeople", images=empty, who="mask", index=0, mask=mask)
    report = g.add("PreviewAny", source=people[3])
    assert "0: box 0, 0 to 256, 192" in comfyui.run(g).text(report)


def test_people_are_shown_and_handed_on(comfyui, Graph):
    picture, truth = parts.example("standing")
    g = Graph()
    loaded = photo(g, "standing (example)")
    people = g.add("CoMoVi_FindPeople", images=loaded, who="all", index=0, people=keypoints(g, truth))
    drawn, count = g.save_images(people[1]), g.add("PreviewAny", source=people[2])
    report = g.add("PreviewAny", source=people[3])
    motion = g.add("CoMoVi_EstimateMotion", images=loaded, body=body(g), **CLIP, **WHO, people=people)
    saved = save(g, motion, body(g))
    result = comfyui.run(g)
    assert result.text(count) == "1" and "18 keypoints" in result.text(report)
    shown = pictures(result, drawn)[0]
    (person,) = parts.true_people(truth)
    left, top = (int(side) for side in person.box[:2])
    assert shown.shape == picture.shape and not np.array_equal(shown[top + 40, left], picture[top + 40, left])
    assert len(motion_in(result, saved)) == 1


def test_a_joint_is_turned_and_shown(comfyui, Graph):
    _, truth = parts.example("arms raised")
    g = Graph()
    loaded, who = photo(g), body(g)
    turned = {"joint": "left elbow", "x": 0.0, "y": -60.0, "z": 10.0, "mirrored": True}
    adjusted = g.add("CoMoVi_AdjustPose", motion=loaded[2], body=who, **turned, image=loaded)
    saved, shown = save(g, adjusted, who), g.save_images(adjusted[1])
    alone = g.save_images(g.add("CoMoVi_AdjustPose", motion=loaded[2], body=who, **turned)[1])
    result = comfyui.run(g)
    wanted = adjust_pose(truth, "left elbow", (0, -60, 10), True)
    assert torch.allclose(motion_in(result, saved).rotations, wanted.rotations, atol=1e-6)
    assert pictures(result, shown).shape == (1, 768, 512, 3)
    assert pictures(result, alone).shape == (1, 512, 341, 3)


@pytest.mark.parametrize(
    ("people", "inputs", "sentence"),
    [
        ([{"people": [], "canvas_width": 512, "canvas_height": 768}], {}, "name nobody"),
        ([[float("nan"), 0, 9, 9]], {}, "not finite"),
        ([[900, 0, 950, 90]], {}, "outside the picture of 512x768"),
        ([[10, 10, 90, 90]], {"who": "index", "index": 3}, "person 3 is asked for, but 1 person was found"),
        ([[10, 10, 90, 90]], {"way": "SAM 3D Body"}, "pose data of SAM 3D Body is not given"),
    ],
)
def test_people_that_cannot_be_are_a_sentence(comfyui, Graph, people, inputs, sentence):
    g = Graph()
    value = g.add("Probe_MakeValue", json=json.dumps(people))
    source = value if isinstance(people[0], dict) else value[1]
    pose = g.add("CoMoVi_EstimatePose", image=photo(g), body=body(g), **{**WHO, **inputs}, people=source)
    g.save_images(pose[1])
    result = comfyui.run(g, check=False)
    assert sentence in result.error, result.error
    assert "\n" not in result.failure["exception_message"].strip()


def test_checkpoints_that_are_none_are_refused_by_name(comfyui, Graph):
    folder = comfyui.base / "models" / "comovi"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {"smplx_head.decpose.weight": torch.zeros(1)}}, folder / "bedlam.ckpt")
    torch.save({"state_dict": {"head.dec_kp.weight": torch.zeros(1)}}, folder / "densekp.ckpt")
    for name, sentence in {"bedlam.ckpt": "SMPL-X variant", "densekp.ckpt": "dense-keypoint network"}.items():
        g = Graph()
        loaded = g.add("CoMoVi_LoadCameraHMR", checkpoint=name, field_of_view_checkpoint="none")
        pose = g.add("CoMoVi_EstimatePose", image=photo(g), body=body(g), **WHO, estimator=loaded)
        g.save_images(pose[1])
        assert sentence in comfyui.run(g, check=False).error


@pytest.mark.parametrize("role", ["new", "old"])
def test_what_no_file_here_can_feed_runs_in_comfyuis_python(comfyui_servers, role):
    """CameraHMR at a small size under ComfyUI's memory management; SAM 3D Body's surface as a motion map."""
    figures = run_checks(comfyui_servers, role, "estimator_checks.py")
    assert figures["way"].startswith("made by: CameraHMR")
    assert figures["frames"] == 3 and figures["people"] == 2
    assert figures["loaded"] and figures["steps"] == [6, 6]
    assert figures["map"] == [2, 96, 64, 3] and 0.02 < figures["covered"] < 0.6 and figures["empty"] == 1.0
