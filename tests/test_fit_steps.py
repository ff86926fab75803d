"""The pieces of the fit of motion maps: derivatives, distances, normal equations."""

from __future__ import annotations

import math

import pytest
import torch
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.rasterise import visible_pixels
from comfyui_comovi.comovi_model.body.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from comfyui_comovi.comovi_model.body.smpl import pose_body
from comfyui_comovi.comovi_model.body.toy import random_rotations, toy_body
from comfyui_comovi.comovi_model.fit import observation, priors, raster, refine, surface, terms
from comfyui_comovi.comovi_model.fit.banded import solve_banded

UPRIGHT = axis_angle_to_matrix(torch.tensor([torch.pi, 0.0, 0.0], dtype=torch.float64))


def a_subject(rigid: bool = False) -> surface.Subject:
    body = toy_body().to(torch.float64)
    if rigid:
        weights = torch.zeros_like(body.weights)
        weights[torch.arange(len(weights)), body.weights.argmax(1)] = 1
        body = type(body)(**{**body.__dict__, "weights": weights})
    return surface.make_subject(body, None)


def a_pose(count: int = 2) -> surface.Pose:
    rotations = random_rotations(count, 24, seed=3, angle=0.4).double()
    rotations[:, 0] = UPRIGHT @ rotations[:, 0]
    return surface.Pose(rotations, torch.tensor([[0.1, 0.2, 4.0]], dtype=torch.float64).repeat(count, 1))


def numeric(function, pose: surface.Pose, step: float = 1e-6) -> torch.Tensor:
    """Central differences of function(pose) (B, ...) -> (B, ..., 75)."""
    columns = []
    for unknown in range(surface.UNKNOWNS):
        move = torch.zeros(len(pose), surface.UNKNOWNS, dtype=torch.float64)
        move[:, unknown] = step
        columns.append((function(pose.moved(move)) - function(pose.moved(-move))) / (2 * step))
    return torch.stack(columns, -1)


def own_axes(subject, pose, rows: torch.Tensor) -> torch.Tensor:
    """World rows (B, R, 75) -> rows for the unknowns of Pose.moved."""
    eye = torch.eye(surface.UNKNOWNS, dtype=torch.float64).expand(len(pose), -1, -1)
    skeleton = subject.skeleton(pose)
    # local_system(J = 1) gives change^T 1 change; its slope of a row r is change^T r.
    return torch.stack([surface.local_system(skeleton, eye, rows[:, k])[1] for k in range(rows.shape[1])], 1)


def test_the_skeleton_and_the_skin_are_those_of_the_body():
    body, pose = toy_body(posedirs=True), a_pose()
    subject = surface.make_subject(body, torch.linspace(-1, 1, 10))
    pose = surface.Pose(pose.rotations.float(), pose.transl.float())
    expected = pose_body(body, pose.rotations, torch.linspace(-1, 1, 10), pose.transl)
    skeleton = subject.skeleton(pose)
    vertices, _ = surface.posed_vertices(subject.full, skeleton, pose)
    assert torch.allclose(vertices, expected.vertices, atol=2e-5)
    assert torch.allclose(skeleton.place, expected.joints, atol=2e-5)


def test_points_move_as_their_leverage_says():
    subject, pose = a_subject(), a_pose()
    rest, weights = (x.expand(2, *x.shape) for x in (subject.full.rest[::40], subject.full.weights[::40]))
    lever = surface.leverage(subject, subject.skeleton(pose), rest, weights)
    direction = torch.randn(2, rest.shape[1], 1, 3, dtype=torch.float64)
    rows = own_axes(subject, pose, surface.world_rows(lever, direction).flatten(1, 2))

    def along(moved):
        points, _ = surface.posed_vertices(subject.full, subject.skeleton(moved), moved)
        return (points[:, ::40] * direction[:, :, 0]).sum(-1)

    assert torch.allclose(rows, numeric(along, pose), atol=1e-5)


def test_colours_change_with_the_pose_as_their_rows_say():
    """Residuals of colour see normals turn; on rigid parts that is exact. The light is taken as fixed."""
    subject, pose = a_subject(rigid=True), a_pose()
    picked = torch.arange(0, len(subject.full.rest), 40)
    skeleton = subject.skeleton(pose)
    points, normals = surface.posed_vertices(subject.full, skeleton, pose, normals=True)
    points, normals = points[:, picked], normals[:, picked]
    rest, weights = (x[picked].expand(2, -1, -1) for x in (subject.full.rest, subject.full.weights))
    part = subject.full.part[picked]
    _, turn = surface.predicted_colours(subject, part, points, normals)
    lever = surface.leverage(subject, skeleton, rest, weights)
    rows = surface.world_rows(lever, torch.zeros_like(turn), normals, turn)
    rows = own_axes(subject, pose, rows.flatten(1, 2)).unflatten(1, (-1, 3))

    def colours(moved):
        _, turned = surface.posed_vertices(subject.full, subject.skeleton(moved), moved, normals=True)
        return surface.predicted_colours(subject, part, points, turned[:, picked])[0]

    assert torch.allclose(rows, numeric(colours, pose), atol=1e-5)


def test_projection_has_the_derivative_it_claims():
    points = torch.randn(1, 5, 3, dtype=torch.float64) * 0.3 + torch.tensor([0.0, 0.0, 4.0])
    K = Camera.from_focal(300.0, 128, 192).K.double()[None]
    _, slope = terms.project(points, K)
    step = 1e-6
    for axis in range(3):
        move = torch.zeros(3, dtype=torch.float64)
        move[axis] = step
        change = (terms.project(points + move, K)[0] - terms.project(points - move, K)[0]) / (2 * step)
        assert torch.allclose(change, slope[..., axis], atol=1e-5)


@pytest.mark.parametrize("size", [1e-9, 0.5, 2.5])
def test_logarithms_change_as_their_derivative_says(size):
    vector = torch.nn.functional.normalize(torch.tensor([[0.3, -0.5, 0.8]], dtype=torch.float64), dim=-1) * size
    rotation = axis_angle_to_matrix(vector)
    for axis in range(3):
        move = torch.zeros(1, 3, dtype=torch.float64)
        move[0, axis] = 1e-4
        turn = axis_angle_to_matrix(move)
        right = (matrix_to_axis_angle(rotation @ turn) - matrix_to_axis_angle(rotation @ turn.mT)) / 2e-4
        left = (matrix_to_axis_angle(turn @ rotation) - matrix_to_axis_angle(turn.mT @ rotation)) / 2e-4
        assert torch.allclose(right, surface.log_derivative(vector)[..., axis], atol=1e-5)
        assert torch.allclose(left, surface.log_derivative(vector, left=True)[..., axis], atol=1e-5)


def cost_of_bends(pose):
    mean, spread = priors.bends()
    vector = matrix_to_axis_angle(pose.rotations)
    return 0.5 * (((vector - mean) / spread).square()).sum((1, 2))


def cost_of_acceleration(pose):
    step = matrix_to_axis_angle(pose.rotations[:-1].mT @ pose.rotations[1:])
    turn = step.diff(dim=0) / (refine.TURN_ACCELERATION * priors.paces()[:, None])
    assert math.isinf(refine.ABRUPT)  # the weights of abrupt movements are not differentiated
    move = pose.transl.diff(n=2, dim=0) / refine.MOVE_ACCELERATION
    return 0.5 * (turn.square().sum() + move.square().sum())


def test_priors_have_the_slope_of_their_cost():
    pose = a_pose(3)
    information = torch.zeros(3, 75, 75, dtype=torch.float64)
    slope = torch.zeros(3, 75, dtype=torch.float64)
    priors.add_bends(information, slope, pose, 1.0)
    assert torch.allclose(slope, numeric(cost_of_bends, pose, 1e-5), atol=1e-3, rtol=1e-5)


def test_smoothness_has_the_slope_of_its_cost(monkeypatch):
    monkeypatch.setattr(refine, "ABRUPT", math.inf)
    pose = a_pose(5)
    pose = surface.Pose(random_rotations(5, 24, seed=8, angle=0.3).double(), torch.randn(5, 3, dtype=torch.float64))
    diagonal, slope = torch.zeros(5, 75, 75, dtype=torch.float64), torch.zeros(5, 75, dtype=torch.float64)
    refine.add_smoothness(diagonal, slope, pose)
    for frame, unknown in ((0, 1), (1, 20), (2, 40), (3, 74), (4, 5), (2, 3)):
        move = torch.zeros(5, 75, dtype=torch.float64)
        move[frame, unknown] = 1e-5
        expected = (cost_of_acceleration(pose.moved(move)) - cost_of_acceleration(pose.moved(-move))) / 2e-5
        assert slope[frame, unknown] == pytest.approx(float(expected), rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("frames", [1, 2, 3, 6, 9])
def test_the_banded_solution_is_the_dense_one(frames):
    size = 7
    generator = torch.Generator().manual_seed(frames)
    dense = torch.zeros(frames * size, frames * size, dtype=torch.float64)
    for first in range(frames):  # sums of squares of rows that touch at most three frames
        last = min(first + 3, frames)
        rows = torch.randn(3 * size, (last - first) * size, generator=generator, dtype=torch.float64)
        place = slice(first * size, last * size)
        dense[place, place] += rows.T @ rows
    dense += torch.eye(frames * size)
    block = dense.view(frames, size, frames, size).permute(0, 2, 1, 3)
    right = torch.randn(frames, size, generator=generator, dtype=torch.float64)
    diagonal = torch.stack([block[t, t] for t in range(frames)])
    empty = diagonal.new_zeros(0, size, size)
    one = torch.stack([block[t, t + 1] for t in range(frames - 1)]) if frames > 1 else empty
    two = torch.stack([block[t, t + 2] for t in range(frames - 2)]) if frames > 2 else empty
    expected = torch.linalg.solve(dense, right.flatten()).view(frames, size)
    assert torch.allclose(solve_banded(diagonal, one, two, right), expected, atol=1e-8)


def test_the_nearest_pixel_is_the_nearest():
    mask = torch.rand(2, 17, 23, generator=torch.Generator().manual_seed(1)) > 0.93
    dx, dy = observation.nearest_offset(mask)
    for frame in range(2):
        seeds = mask[frame].nonzero().double()
        every = torch.stack(torch.meshgrid(torch.arange(17.0), torch.arange(23.0), indexing="ij"), -1).double()
        expected = torch.cdist(every.view(-1, 2), seeds).amin(1).view(17, 23)
        assert torch.allclose(torch.hypot(dx[frame], dy[frame]).double(), expected, atol=1e-5)
        row, column = 8, 11
        assert mask[frame, row + int(dy[frame, row, column]), column + int(dx[frame, row, column])]


def test_the_distance_to_an_outline_is_right_to_a_tenth_of_a_pixel():
    fine = torch.arange(8 * 64, dtype=torch.float32) / 8 + 1 / 16
    inside = ((fine[:, None] - 31.3).square() + (fine[None] - 30.8).square()).sqrt() < 20.4
    cover = inside.float().view(1, 64, 8, 64, 8).mean((2, 4))
    mask = cover >= 0.5
    outside = torch.stack(observation.nearest_offset(mask), 1)
    distance = observation.signed_distance(mask, cover, outside)[0]
    centre = torch.arange(64.0) + 0.5
    true = ((centre[:, None] - 31.3).square() + (centre[None] - 30.8).square()).sqrt() - 20.4
    near = true.abs() < 1
    assert (distance - true)[near].abs().max() < 0.1
    assert (distance - true)[true.abs() < 8].abs().max() < 0.7


def test_the_silhouette_keeps_its_place_under_blur():
    picture = torch.ones(1, 160, 120, 3)
    picture[:, 30:130, 40:80] = torch.tensor([0.4, 0.7, 0.6])
    blurred = observation._blur(picture.permute(0, 3, 1, 2), 1.5).permute(0, 2, 3, 1)
    sharp, soft = observation.foreground(picture), observation.foreground(blurred)
    assert sharp.sum() == 100 * 40
    assert abs(int(soft.sum()) - 4000) < 120  # a rim of one pixel would be 280


def test_the_coarse_mesh_holds_as_much_as_the_fine_one():
    subject = a_subject()
    assert float(surface._volume(subject.coarse.rest, subject.coarse.faces)) == pytest.approx(
        float(surface._volume(subject.full.rest, subject.full.faces)), rel=0.01
    )


@pytest.mark.parametrize("size", [(120, 90), (37, 250)])
def test_small_faces_are_drawn_as_the_body_draws_them(size):
    """Some faces lie beyond the border, some cover many tiles."""
    subject, pose = a_subject(), a_pose(3)
    vertices, _ = surface.posed_vertices(subject.full, subject.skeleton(pose), pose)
    vertices, faces = vertices.float(), subject.full.faces
    K = Camera.from_focal(260.0, size[1], size[0]).K.expand(3, 3, 3)
    expected = visible_pixels(vertices, faces, K, *size, cull=True, backend="torch")
    drawn = raster.draw(vertices, faces, K, *size)
    assert len(expected.index) > 1000 and torch.equal(drawn.index, expected.index)
    assert (drawn.face == expected.face).float().mean() > 0.999
    same = drawn.face == expected.face
    assert torch.allclose(drawn.depth[same], expected.depth[same], atol=1e-4)
    assert torch.allclose(drawn.bary[same], expected.bary[same], atol=2e-3)


def test_every_edge_of_a_closed_body_lies_between_its_two_faces():
    mesh = a_subject().full
    first, second, one, other = mesh.edges
    assert len(first) == 3 * len(mesh.faces) // 2 and bool((one != other).all())
    for end in (first, second):
        assert bool((mesh.faces[one] == end[:, None]).any(1).all() and (mesh.faces[other] == end[:, None]).any(1).all())


def test_normals_of_some_vertices_are_those_among_all():
    subject, pose = a_subject(), a_pose()
    vertices, _ = surface.posed_vertices(subject.full, subject.skeleton(pose), pose)
    some = torch.tensor([5, 60, 7, 300])
    every, _ = surface.area_normals(subject.full, vertices)
    few, _ = surface.area_normals(subject.full, vertices, subject.full.fans.of(some))
    assert torch.equal(few, every[:, some])


def test_the_depth_inside_is_the_distance_to_the_outside():
    mask = torch.rand(2, 40, 31, generator=torch.Generator().manual_seed(4)) > 0.02
    expected = torch.stack(observation.nearest_offset(~mask), 1).norm(dim=1).clamp_max(6)
    assert torch.allclose(observation.depth_inside(mask, 6), expected, atol=1e-5)
