"""Rotations: every way there leads back, also at 0 and 180 degrees, and the two 6D layouts are not the same."""

from __future__ import annotations

import pytest
import torch
from comfyui_comovi.comovi_model.body import rotations as rot

ANGLES = (0.0, 1e-9, 1e-5, 1e-3, 0.5, 3.0, torch.pi - 1e-3, torch.pi - 1e-7, torch.pi)


def axes(count: int = 50, dtype=torch.float64):
    vectors = torch.randn(count, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return torch.cat([torch.eye(3, dtype=dtype), torch.nn.functional.normalize(vectors, dim=-1)])


def rotations(count: int = 50, dtype=torch.float64):
    angle = torch.rand(count + 3, 1, generator=torch.Generator().manual_seed(1), dtype=dtype) * torch.pi
    return rot.axis_angle_to_matrix(axes(count, dtype) * angle)


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 1e-3)])
def test_axis_angle_survives_the_matrix_at_every_angle(angle, dtype, tolerance):
    axis_angle = axes(dtype=dtype) * angle
    matrix = rot.axis_angle_to_matrix(axis_angle)
    assert rot.rotation_error(matrix).max() < 3e-6
    back = rot.matrix_to_axis_angle(matrix)
    assert torch.allclose(back.norm(dim=-1), torch.full_like(back[:, 0], angle), atol=tolerance)
    assert torch.allclose(rot.axis_angle_to_matrix(back), matrix, atol=1e-6)


def test_a_rotation_turns_vectors_by_the_right_hand():
    quarter = rot.axis_angle_to_matrix(torch.tensor([0.0, 0.0, torch.pi / 2]))
    assert torch.allclose(quarter @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6)


def test_quaternions_and_matrices_are_inverse_of_each_other():
    matrix = rotations()
    quaternion = rot.matrix_to_quaternion(matrix)
    assert torch.allclose(quaternion.norm(dim=-1), torch.ones_like(quaternion[:, 0]))
    assert torch.allclose(rot.quaternion_to_matrix(quaternion), matrix, atol=1e-12)
    assert torch.allclose(rot.quaternion_to_matrix(-3 * quaternion), matrix, atol=1e-12)


def test_rotations_agree_with_scipy():
    scipy_rotation = pytest.importorskip("scipy.spatial.transform", reason="scipy is the oracle here").Rotation
    vectors = axes() * 2.5
    theirs = scipy_rotation.from_rotvec(vectors.numpy())
    assert torch.allclose(rot.axis_angle_to_matrix(vectors), torch.from_numpy(theirs.as_matrix()), atol=1e-12)
    quaternion = torch.from_numpy(theirs.as_quat(canonical=True))[:, [3, 0, 1, 2]]
    assert torch.allclose(rot.matrix_to_quaternion(rot.axis_angle_to_matrix(vectors)), quaternion, atol=1e-12)


def test_both_6d_layouts_round_trip_and_differ_by_a_transpose():
    matrix = rotations()
    rows, columns = rot.matrix_to_6d_rows(matrix), rot.matrix_to_6d_columns(matrix)
    assert torch.equal(rows[:, :3], matrix[:, 0]) and torch.equal(columns[:, :3], matrix[:, :, 0])
    assert torch.allclose(rot.matrix_from_6d_rows(rows), matrix, atol=1e-12)
    assert torch.allclose(rot.matrix_from_6d_columns(columns), matrix, atol=1e-12)
    # Read in the wrong layout it is a perfectly good rotation, the inverse one.
    assert torch.allclose(rot.matrix_from_6d_columns(rows), matrix.transpose(-1, -2), atol=1e-12)
    assert (rot.matrix_from_6d_columns(rows) - matrix).abs().max() > 0.1


def test_any_six_numbers_give_a_rotation():
    numbers = torch.randn(100, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for read in (rot.matrix_from_6d_rows, rot.matrix_from_6d_columns):
        assert rot.rotation_error(read(numbers)).max() < 1e-9


def test_slerp_keeps_the_ends_and_turns_evenly_the_short_way():
    start, end = rotations()[:-1], rotations()[1:]
    assert torch.allclose(rot.slerp(start, end, 0.0), start, atol=1e-9)
    assert torch.allclose(rot.slerp(start, end, 1.0), end, atol=1e-9)
    whole = rot.rotation_angle(start.transpose(-1, -2) @ end)
    quarter = rot.rotation_angle(start.transpose(-1, -2) @ rot.slerp(start, end, 0.25))
    assert torch.allclose(quarter, whole / 4, atol=1e-9)
    assert torch.allclose(rot.slerp(start, start, 0.3), start, atol=1e-9)


def test_continuous_quaternions_never_jump_to_the_other_hemisphere():
    angle = torch.linspace(0, 4 * torch.pi, 50, dtype=torch.float64)
    spin = rot.axis_angle_to_matrix(torch.stack([angle * 0, angle, angle * 0], -1))
    quaternions = rot.continuous_quaternions(rot.matrix_to_quaternion(spin))
    assert ((quaternions[1:] * quaternions[:-1]).sum(-1) > 0).all()
    assert torch.allclose(rot.quaternion_to_matrix(quaternions), spin, atol=1e-9)


def test_reflections_stretches_and_nan_are_not_rotations():
    bad = torch.stack([torch.diag(torch.tensor([1.0, 1, -1])), 1.01 * torch.eye(3), torch.full((3, 3), torch.nan)])
    assert (rot.rotation_error(bad) > 1e-2).all()
    assert rot.rotation_error(torch.eye(3)) == 0


def test_gradients_are_finite_at_zero_rotation():
    zero = torch.zeros(2, 3, requires_grad=True)
    rot.matrix_to_axis_angle(rot.axis_angle_to_matrix(zero)).sum().backward()
    assert torch.isfinite(zero.grad).all()


def test_a_single_frame_is_continuous():
    assert rot.continuous_quaternions(torch.ones(1, 24, 4)).shape == (1, 24, 4)
