"""The parts of the keypoint lifter: the square, the skeleton with a face, the mirror, the network's file."""

from __future__ import annotations

import pytest
import torch
from comfyui_comovi.comovi_model.body.body_files import load_nano_body
from comfyui_comovi.comovi_model.body.mannequin import landmarks, load_mannequin
from comfyui_comovi.comovi_model.body.rotations import axis_angle_to_matrix, matrix_from_6d_columns
from comfyui_comovi.comovi_model.body.smpl import pose_body
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.estimate.keypoint_camera import crop_camera, keypoint_square, pelvis_place
from comfyui_comovi.comovi_model.estimate.lifter import (
    lift,
    load_lifter,
    mirror_keypoints,
    mirror_rotations,
    network_input,
    read_lifter,
    save_lifter,
    without_wild,
)
from comfyui_comovi.comovi_model.estimate.lifter_body import JOINT_OF_KEYPOINT, keypoint_body
from comfyui_comovi.comovi_model.estimate.lifter_net import MISSED, Lifter, LifterConfig, Told, seen_again

SMALL = LifterConfig(width=32, layers=1, heads=2, hidden=32, look_layers=1)


def some_poses(count: int, spread: float = 0.6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return axis_angle_to_matrix(spread * torch.randn(count, 24, 3, generator=generator))


def some_keypoints(count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    points = torch.rand(count, 18, 3, generator=generator)
    return torch.cat([300 * points[..., :2] + 100, 0.5 + 0.5 * points[..., 2:]], -1)


def test_keypoints_of_the_skeleton_are_those_of_the_mesh():
    body, poses = load_mannequin(), some_poses(3)
    betas = torch.randn(3, 10, generator=torch.Generator().manual_seed(4))
    mesh = pose_body(body, poses, betas)
    posed = keypoint_body(body).posed(poses)
    pelvis = mesh.joints[:, :1]
    assert torch.allclose(posed.joints_at(betas), mesh.joints - pelvis, atol=2e-6)
    points = posed.points_at(betas)
    joints = list(range(2, 14))
    there = mesh.joints[:, [JOINT_OF_KEYPOINT[number] for number in joints]] - pelvis
    assert torch.allclose(points[:, joints], there, atol=2e-6)
    for number, name in ((0, "nose"), (14, "reye"), (15, "leye"), (16, "rear"), (17, "lear")):
        assert torch.allclose(points[:, number], mesh.vertices[:, landmarks()[name]] - pelvis[:, 0], atol=2e-6), name


def test_the_small_mannequin_has_the_face_of_the_large_one():
    small, large = keypoint_body(load_nano_body()), keypoint_body(load_mannequin())
    assert small.has_face
    assert torch.allclose(small.face, large.face, atol=1e-3)  # metres; its joints are rounded to float16


def test_one_wild_keypoint_hardly_moves_the_square():
    points = some_keypoints(1)
    wild = points.clone()
    wild[0, 4, :2] = torch.tensor([5000.0, -3000.0])
    assert torch.allclose(keypoint_square(points).centre, keypoint_square(wild).centre, atol=60)
    assert float(keypoint_square(wild).side) < 1.5 * float(keypoint_square(points).side)


def test_the_crop_camera_is_undone_by_its_inverse():
    square = keypoint_square(some_keypoints(2))
    focal, size = torch.tensor([500.0, 900.0]), torch.tensor([[512.0, 400.0], [480.0, 640.0]])
    pelvis = torch.tensor([[0.3, -0.2, 4.0], [-1.0, 0.5, 2.5]])
    assert torch.allclose(
        pelvis_place(crop_camera(pelvis, square, focal, size), square, focal, size), pelvis, atol=1e-5
    )


def test_the_lifter_answers_a_mirrored_picture_with_the_mirrored_body():
    torch.manual_seed(0)
    lifter = Lifter(SMALL).eval()
    for head, std in ((lifter.out, 0.3), *((look.out, 0.1) for look in lifter.again)):
        for tell in head.tell:
            torch.nn.init.normal_(tell.weight, std=std)
    points, size = some_keypoints(), torch.tensor([[512.0, 400.0]]).repeat(4, 1)
    points[1, 3:7, 2] = 0
    focal = torch.full((4,), 600.0)
    one, other = lift(lifter, points, focal, size), lift(lifter, mirror_keypoints(points, size[:, 1]), focal, size)
    assert torch.allclose(mirror_rotations(one.rotations), other.rotations, atol=1e-4)
    assert torch.allclose(one.pelvis * torch.tensor([-1.0, 1.0, 1.0]), other.pelvis, atol=1e-4)
    assert torch.allclose(torch.linalg.det(one.rotations), torch.ones(4, 24), atol=1e-5)


def test_a_look_that_learned_nothing_changes_nothing_and_hears_of_what_it_could_change():
    torch.manual_seed(0)
    lifter = Lifter(SMALL)
    inside, condition, _ = network_input(some_keypoints(), torch.full((4,), 600.0), torch.full((4, 2), 512.0))
    first, *others = lifter.answers(inside, condition)
    assert len(others) == SMALL.looks == 2
    for told in others:
        assert torch.allclose(*(matrix_from_6d_columns(answer.six) for answer in (told, first)), atol=1e-5)
        assert torch.equal(told.betas, first.betas) and torch.equal(told.camera, first.camera)
    others[-1].six.square().sum().backward()
    assert float(lifter.again[1].out.tell[0].weight.grad.abs().sum()) > 0
    assert lifter.out.tell[0].weight.grad is None  # what a look says is taken as given by the next


def test_a_look_reads_where_its_answer_falls_in_the_picture():
    generator = torch.Generator().manual_seed(1)
    body, rotations = keypoint_body(load_mannequin()), some_poses(4)
    betas, keypoints = torch.randn(4, 10, generator=generator), some_keypoints()
    focal, size = torch.tensor([500.0, 700, 900, 400]), torch.tensor([[512.0, 400.0]]).repeat(4, 1)
    inside, condition, square = network_input(keypoints, focal, size)
    camera = torch.tensor([[0.9, 0.1, -0.2], [0.5, 0, 0], [1.1, -0.3, 0.1], [0.7, 0.2, 0.3]])
    points = body.posed(rotations).points_at(betas) + pelvis_place(camera, square, focal, size)[:, None]
    pixels = focal[:, None, None] * points[..., :2] / points[..., 2:] + size.flip(-1)[:, None] / 2
    known = torch.cat([inside, torch.ones(4, 18, 1)], -1)
    known[0, 3] = 0  # a missing one
    told = Told(torch.cat([rotations[..., 0], rotations[..., 1]], -1), betas, camera, torch.zeros(4, 24))
    read, of_joints, columns = seen_again(told, known, condition, body)
    assert torch.allclose(read[..., 4:6], square.inside(pixels).clamp(-3, 3), atol=1e-4)
    wanted = (MISSED * (inside[..., :2] - square.inside(pixels).clamp(-3, 3))).clamp(-3, 3)
    wanted[0, 3] = 0
    assert torch.allclose(read[..., 6:8], wanted, atol=1e-3)
    assert torch.allclose(of_joints[..., 6:9], body.posed(rotations).joints_at(betas), atol=1e-5)
    assert torch.allclose(columns, told.six, atol=1e-5)


def test_a_wild_keypoint_is_left_out_and_the_others_stay():
    lifter, focal, size = load_lifter(), torch.tensor([600.0]), torch.tensor([[512.0, 512.0]])
    rotations = torch.eye(3).repeat(1, 24, 1, 1)
    rotations[:, 0] = torch.diag(torch.tensor([1.0, -1, -1]))  # upright before the camera
    points = lifter.body.posed(rotations).points_at(torch.zeros(1, 10)) + torch.tensor([0, 0, 2.5])
    pixels = 600 * points[..., :2] / points[..., 2:] + 256
    pixels = pixels + 2 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(2))
    keypoints = torch.cat([pixels, torch.ones(1, 18, 1)], -1)
    keypoints[0, 13, 2] = 0
    plain = lift(lifter, keypoints, focal, size)
    assert torch.equal(without_wild(lifter, keypoints, plain, focal, size), keypoints)
    moved = keypoints.clone()
    moved[0, 4, :2] += torch.tensor([150.0, -120.0])  # a wrist
    kept = without_wild(lifter, moved, lift(lifter, moved, focal, size), focal, size)
    assert (kept[0, :, 2] > 0).tolist() == [number not in (4, 13) for number in range(18)]
    again = lift(lifter, kept, focal, size)
    there, wrong, better = (
        lifter.body.posed(found.rotations).joints_at(found.betas)
        for found in (plain, lift(lifter, moved, focal, size), again)
    )
    assert float((better - there).norm(dim=-1).mean()) < 0.6 * float((wrong - there).norm(dim=-1).mean())


def test_a_lifter_comes_back_from_its_file_and_other_files_are_refused(tmp_path):
    lifter = Lifter(SMALL)
    save_lifter(lifter, tmp_path / "small.safetensors", "a test")
    again = read_lifter(tmp_path / "small.safetensors")
    assert again.config == lifter.config
    assert torch.allclose(again.place, lifter.place, atol=1e-3)
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors here")
    with pytest.raises(ComoviError, match="expected the weights of a keypoint lifter"):
        read_lifter(tmp_path / "bad.safetensors")


def test_the_shipped_lifter_is_a_small_transformer():
    lifter = load_lifter()
    assert sum(value.numel() for value in lifter.parameters()) < 7_500_000
    lifted = lift(lifter, some_keypoints(1), torch.tensor([600.0]), torch.tensor([[512.0, 512.0]]))
    assert lifted.rotations.shape == (1, 24, 3, 3)
    assert float(lifted.pelvis[0, 2]) > 0
