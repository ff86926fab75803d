"""Pose data for ComfyUI's body nodes: the skeleton inside it moves the surface inside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body, load_nano_body
from comfyui_comovi.comovi_model.body.cameras import Camera, project
from comfyui_comovi.comovi_model.body.mannequin import landmarks
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.pose_data import FACE, OPENPOSE_18, SKELETON, face_points, pose_data_of
from comfyui_comovi.comovi_model.body.smpl import pose_body
from comfyui_comovi.comovi_model.body.toy import random_rotations

TWIN = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def body():
    return load_nano_body()


def a_motion(frames: int = 20, **changes) -> BodyMotion:
    torch.manual_seed(4)
    rotations = random_rotations(frames, 24)
    transl = torch.randn(frames, 3) * 0.2 + torch.tensor([0.1, 0.2, 5.0])
    camera = Camera.from_focal(800.0, 640, 480)
    fields = {"camera": camera, "fps": 16.0, "body_model": "mannequin-v1", **changes}
    return BodyMotion(rotations, torch.randn(10) * 0.5, transl, **fields)


def test_the_skeleton_moves_the_surface(body):
    data = pose_data_of(a_motion(), body)
    rig = data["_skeleton_override"]
    weights, joints = rig["lbs_compact_weights"], rig["lbs_compact_joints"].astype(np.int64)
    from_joint = rig["rest_verts_m"][:, None] - rig["bind_global_m"][joints, :3]  # (V, 8, 3)
    assert np.all(rig["bind_global_m"][:, 3:] == [0, 0, 0, 1, 1])
    for (person,) in data["frames"]:
        turns, places = person["pred_global_rots"], person["pred_joint_coords"]
        moved = np.einsum("vkab,vkb->vka", turns[joints], from_joint) + places[joints]
        surface = (moved * weights[..., None]).sum(1) @ TWIN
        assert np.abs(surface - person["pred_vertices"]).max() < 1e-4


def test_the_core_sees_the_body_where_our_camera_does(body):
    """It projects with one focal length about the middle of the picture."""
    motion = a_motion()
    data = pose_data_of(motion, body)
    posed = pose_body(body, motion.rotations, motion.betas, motion.transl)
    ours, joints = project(posed.vertices, motion.camera.K), project(posed.joints, motion.camera.K)
    for (person,), expected, key_points in zip(data["frames"], ours, joints, strict=True):
        bones = person["pred_joint_coords"][:24] * [1, -1, -1] + person["pred_cam_t"]
        assert np.abs(bones[:, :2] / bones[:, 2:] * 800 + [320, 240] - key_points.numpy()).max() < 0.05
        points = person["pred_vertices"] + person["pred_cam_t"]
        pixels = points[:, :2] / points[:, 2:] * person["focal_length"] + [320, 240]
        assert np.abs(pixels - expected.numpy()).max() < 0.05
        assert np.allclose(person["bbox"], [*pixels.min(0), *pixels.max(0)], atol=0.05)
    assert data["image_size"] == (480, 640)


def test_a_camera_that_looks_past_the_middle_keeps_the_body_in_its_place(body):
    camera = Camera.from_focal(800.0, 640, 480).cropped(-60, 20, 640, 480)
    motion = a_motion(camera=camera)
    (person,) = pose_data_of(motion, body)["frames"][0]
    points = (person["pred_vertices"] + person["pred_cam_t"])[None]
    pixels = points[0, :, :2] / points[0, :, 2:] * 800 + [320, 240]
    vertices = pose_body(body, motion.rotations[:1], motion.betas, motion.transl[:1]).vertices
    assert np.abs(pixels - project(vertices, camera.K)[0].numpy()).mean() < 6  # 60 pixels without the correction


def test_types_and_shapes_are_the_documented_ones(body):
    data = pose_data_of(a_motion(3), body)
    vertices, joints = len(body.v_template), len(SKELETON)
    rig, (person,) = data["_skeleton_override"], data["frames"][1]
    assert {name: (value.dtype.name, value.shape) for name, value in person.items()} == {
        "pred_vertices": ("float32", (vertices, 3)),
        "pred_cam_t": ("float32", (3,)),
        "pred_joint_coords": ("float32", (joints, 3)),
        "pred_global_rots": ("float32", (joints, 3, 3)),
        "focal_length": ("float32", ()),
        "bbox": ("float32", (4,)),
    }
    described = {name: (v.dtype.name, v.shape) for name, v in rig.items() if isinstance(v, np.ndarray)}
    assert described == {
        "parents": ("int32", (joints,)),
        "bind_global_m": ("float32", (joints, 8)),
        "lbs_compact_joints": ("uint16", (vertices, 8)),
        "lbs_compact_weights": ("float32", (vertices, 8)),
        "rest_verts_m": ("float32", (vertices, 3)),
        "faces": ("uint32", (len(body.faces), 3)),
        "openpose18_joint_indices": ("int32", (18, 2)),
    }
    assert rig["per_frame_y_down"] is False
    assert 1 <= rig["lbs_compact_max_inf"] <= 8
    assert np.allclose(rig["lbs_compact_weights"].sum(1), 1, atol=1e-5)
    assert data["hand_vert_mask"].dtype == bool and 0 < data["hand_vert_mask"].mean() < 0.5
    assert float(rig["rest_verts_m"][:, 1].min()) == pytest.approx(0, abs=1e-6)


def test_at_rest_the_keypoints_are_where_people_have_them(body):
    rig = pose_data_of(a_motion(1), body)["_skeleton_override"]
    rest = rig["bind_global_m"][:, :3]
    first, second = rig["openpose18_joint_indices"].T
    points = np.where(second[:, None] < 0, rest[first], (rest[first] + rest[second]) / 2)
    named = {"/".join(names): point for names, point in zip(OPENPOSE_18, points, strict=True)}
    nose, neck = named["nose"], named["left_shoulder/right_shoulder"]
    assert abs(float(nose[0])) < 0.01 and abs(float(neck[0])) < 0.01
    for name in ("eye", "ear", "shoulder", "hip", "ankle"):
        left, right = named[f"left_{name}"], named[f"right_{name}"]
        assert left[0] > 0 > right[0]
        assert np.allclose(left * [-1, 1, 1], right, atol=0.02)
    assert named["left_ear"][2] < named["left_eye"][2] < nose[2]
    assert named["left_eye"][1] > nose[1] > neck[1] > named["left_hip"][1] > named["left_ankle"][1]


def test_the_face_is_found_without_names_of_vertices():
    model = load_mannequin_body()
    known = landmarks()
    found = dict(zip(FACE, face_points(model, model.v_template), strict=True))
    pairs = {"nose": "nose", "right_eye": "reye", "left_eye": "leye", "right_ear": "rear", "left_ear": "lear"}
    for ours, theirs in pairs.items():
        assert float((found[ours] - model.v_template[known[theirs]]).norm()) < 0.035, ours


def test_frames_without_a_pose_have_no_person_and_any_motion_has_a_view(body):
    valid = torch.ones(20, dtype=torch.bool)
    valid[3] = False
    data = pose_data_of(a_motion(valid=valid), body)
    assert [len(people) for people in data["frames"]] == [1, 1, 1, 0] + [1] * 16
    upright = replace(a_motion(2), frame="yup", camera=None)
    (person,) = pose_data_of(upright, body)["frames"][0]
    assert float((person["pred_vertices"] + person["pred_cam_t"])[:, 2].min()) > 0


def test_progress_is_told_and_what_it_raises_ends_the_work(body):
    told: list[tuple[int, int]] = []
    pose_data_of(a_motion(20), body, lambda done, total: told.append((done, total)))
    assert told == [(16, 20), (20, 20)]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pose_data_of(a_motion(20), body, stop)
