"""Filtering rotations where they live: as axis-angle about a local mean, never as Euler angles or raw matrices.

Letters: F frames, W frames of a window, J joints. Everything here is float64.

A linear filter y = sum_w c_w x_w has no meaning on rotations, but it has one in the tangent space at a rotation close
to all of them. So each window is written about its mean M as v_w = log(M^T R_w), and the filtered rotation is
M exp(sum_w c_w v_w).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..body.rotations import axis_angle_to_matrix, matrix_to_axis_angle, matrix_to_quaternion, quaternion_to_matrix

CHUNK = 8192  # frames of windows at a time: 14 MB with 24 joints


def relative_log(base: Tensor, rotation: Tensor) -> Tensor:
    """(..., 3, 3) twice -> (..., 3): the axis-angle that leads from `base` to `rotation`, in the axes of `base`."""
    return matrix_to_axis_angle(base.transpose(-1, -2) @ rotation)


def step_from(base: Tensor, axis_angle: Tensor) -> Tensor:
    """The inverse of `relative_log`."""
    return base @ axis_angle_to_matrix(axis_angle)


def window_index(num_frames: int, radius: int) -> Tensor:
    """(F, W) int64: the W = min(2 radius + 1, F) frames round each frame; at the ends the window stops moving."""
    width = min(2 * radius + 1, num_frames)
    first = (torch.arange(num_frames) - radius).clamp(0, num_frames - width)
    return first[:, None] + torch.arange(width)


def regression_coefficients(offsets: Tensor, weights: Tensor, degree: int) -> Tensor:
    """Coefficients (F, W) of the value at offset 0 of the weighted least-squares polynomial through W samples.

    offsets (F, W) in any unit, weights (F, W) >= 0. Equal weights give Savitzky-Golay (with the fitted ends that
    scipy calls "interp"); a bell of degree 1 gives the Gaussian mean inside and no bias at the ends. Where too few
    samples have weight, the polynomial of least norm is taken.
    """
    root = weights.clamp_min(0).sqrt()
    scale = offsets.abs().amax(-1, keepdim=True).clamp_min(1e-9)  # keeps the powers of one size
    powers = (offsets / scale)[..., None] ** torch.arange(degree + 1, dtype=offsets.dtype)
    solve = torch.linalg.pinv(root[..., None] * powers, rtol=1e-9)  # (F, degree + 1, W)
    return solve[:, 0] * root


def filter_rotations(rotations: Tensor, index: Tensor, coefficients: Tensor, weights: Tensor) -> Tensor:
    """rotations (F, J, 3, 3), windows index (F', W) with coefficients (F', W) -> (F', J, 3, 3).

    weights (F', W) >= 0 say which frames make the local mean.
    """
    rotations = rotations.double()
    quaternions = matrix_to_quaternion(rotations)
    pieces = []
    at_once = max(1, CHUNK // index.shape[1])
    for start in range(0, len(index), at_once):
        rows = slice(start, start + at_once)
        window = rotations[index[rows]]  # (C, W, J, 3, 3)
        mean = _local_mean(quaternions[index[rows]], weights[rows].double())
        away = relative_log(mean[:, None], window)  # (C, W, J, 3)
        pieces.append(step_from(mean, torch.einsum("cw,cwjk->cjk", coefficients[rows].double(), away)))
    return torch.cat(pieces)


def filter_path(path: Tensor, index: Tensor, coefficients: Tensor) -> Tensor:
    """path (F, D), as `filter_rotations` -> (F', D)."""
    return torch.einsum("fw,fwd->fd", coefficients.double(), path.double()[index])


def _local_mean(quaternions: Tensor, weights: Tensor) -> Tensor:
    """Windows (C, W, J, 4), weights (C, W) -> mean rotations (C, J, 3, 3).

    Signs are aligned with the heaviest frame of the window; only the base of a tangent space is wanted.
    """
    heaviest = weights.argmax(1)[:, None, None, None].expand(-1, 1, *quaternions.shape[2:])
    cosine = (quaternions * quaternions.gather(1, heaviest)).sum(-1, keepdim=True)
    aligned = torch.where(cosine < 0, -quaternions, quaternions)
    return quaternion_to_matrix(torch.einsum("cw,cwjk->cjk", weights, aligned))
