"""Rotations as axis-angle, quaternion, matrix and two 6D layouts, with batch shapes (...).

Matrices are (..., 3, 3) and act on column vectors. Quaternions are (w, x, y, z), unit length.
Axis-angle is (..., 3) in radians. The 6D layouts differ and must never be mixed, because the wrong one
gives the *inverse* rotation, which looks plausible:

    rows     [R[0, :], R[1, :]]   PyTorch3D; the pose head, the initial pose and the npz files of CoMoVi
    columns  [R[:, 0], R[:, 1]]   Zhou et al. 2019 as in HMR2 and CameraHMR; cont6d of HumanML3D
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """(..., 3) -> (..., 3, 3), Rodrigues' formula; exact and differentiable at angle 0."""
    angle_squared = (axis_angle * axis_angle).sum(-1)
    small = angle_squared < 1e-8
    angle = torch.where(small, torch.ones_like(angle_squared), angle_squared).sqrt()
    # Taylor series below 1e-4 rad, where sin(x)/x and (1-cos x)/x^2 lose their digits.
    sine = torch.where(small, 1 - angle_squared / 6, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - angle_squared / 24, 2 * ((angle / 2).sin() / angle) ** 2)
    cross = skew(axis_angle)
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + sine[..., None, None] * cross + cosine[..., None, None] * (cross @ cross)


def skew(vector: Tensor) -> Tensor:
    """(..., 3) -> (..., 3, 3) with skew(a) @ b = a x b."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 3), angle in [0, pi].

    It goes through the quaternion: arccos of the trace has no digits left near 0 and pi.
    """
    quaternion = matrix_to_quaternion(matrix)
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    vector = quaternion[..., 1:]
    sine = vector.norm(dim=-1, keepdim=True)  # of half the angle
    angle = 2 * torch.atan2(sine, quaternion[..., :1])
    small = sine < 1e-7
    factor = torch.where(small, torch.full_like(sine, 2.0), angle / torch.where(small, torch.ones_like(sine), sine))
    return vector * factor


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 4) as (w, x, y, z), w >= 0.

    Of the four formulas the one with the largest denominator is used, so no angle is singular.
    """
    m = matrix
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    # squares[i] = (2 q_i)^2
    squares = torch.stack([1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz], -1)
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    w2, x2, y2, z2 = squares.unbind(-1)
    candidates = torch.stack([w2, wx, wy, wz, wx, x2, xy, xz, wy, xy, y2, yz, wz, xz, yz, z2], -1).unflatten(-1, (4, 4))
    best = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    quaternion = F.normalize(candidates.gather(-2, best).squeeze(-2), dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """(..., 4) as (w, x, y, z), any length -> (..., 3, 3)."""
    w, x, y, z = F.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def quaternion_slerp(start: Tensor, end: Tensor, fraction: Tensor | float) -> Tensor:
    """Shortest-way interpolation of unit quaternions (..., 4); fraction is a number or (...)."""
    fraction = torch.as_tensor(fraction, dtype=start.dtype, device=start.device)[..., None]
    cosine = (start * end).sum(-1, keepdim=True)
    end = torch.where(cosine < 0, -end, end)
    angle = torch.atan2((end - start * cosine.abs()).norm(dim=-1, keepdim=True), cosine.abs())
    sine = angle.sin()
    near = sine < 1e-6
    safe = torch.where(near, torch.ones_like(sine), sine)
    first = torch.where(near, 1 - fraction, ((1 - fraction) * angle).sin() / safe)
    second = torch.where(near, fraction + torch.zeros_like(angle), (fraction * angle).sin() / safe)
    return F.normalize(first * start + second * end, dim=-1)


def slerp(start: Tensor, end: Tensor, fraction: Tensor | float) -> Tensor:
    """Shortest-way interpolation of matrices (..., 3, 3); fraction is a number or (...)."""
    return quaternion_to_matrix(quaternion_slerp(matrix_to_quaternion(start), matrix_to_quaternion(end), fraction))


def continuous_quaternions(quaternions: Tensor) -> Tensor:
    """(F, ..., 4) with signs chosen so that every frame lies in the hemisphere of the frame before it."""
    flips = (quaternions[1:] * quaternions[:-1]).sum(-1) < 0
    signs = torch.cat([torch.ones_like(quaternions[:1, ..., 0]), 1 - 2 * flips.to(quaternions.dtype)])
    return quaternions * signs.cumprod(0)[..., None]


def matrix_to_6d_rows(matrix: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 6) = [R[0, :], R[1, :]]."""
    return matrix[..., :2, :].flatten(-2)


def matrix_from_6d_rows(rows: Tensor) -> Tensor:
    """(..., 6) = two rows of any length and angle -> (..., 3, 3), by Gram-Schmidt."""
    return torch.stack(_orthonormal(rows[..., :3], rows[..., 3:]), -2)


def matrix_to_6d_columns(matrix: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 6) = [R[:, 0], R[:, 1]]."""
    return matrix[..., :2].transpose(-1, -2).flatten(-2)


def matrix_from_6d_columns(columns: Tensor) -> Tensor:
    """(..., 6) = two columns of any length and angle -> (..., 3, 3), by Gram-Schmidt."""
    return torch.stack(_orthonormal(columns[..., :3], columns[..., 3:]), -1)


def _orthonormal(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a = F.normalize(first, dim=-1)
    b = F.normalize(second - (a * second).sum(-1, keepdim=True) * a, dim=-1)
    return a, b, torch.cross(a, b, dim=-1)


def rotation_angle(matrix: Tensor) -> Tensor:
    """Angle (...) in radians, in [0, pi], of rotations (..., 3, 3)."""
    return matrix_to_axis_angle(matrix).norm(dim=-1)


def rotation_error(matrix: Tensor) -> Tensor:
    """How far (..., 3, 3) is from a rotation: largest entry of |R R^T - 1|, infinite for reflections and NaN."""
    identity = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    error = (matrix @ matrix.transpose(-1, -2) - identity).abs().amax((-1, -2))
    bad = ~torch.isfinite(error) | (torch.linalg.det(torch.nan_to_num(matrix)) <= 0)
    return torch.where(bad, torch.full_like(error, torch.inf), error)
