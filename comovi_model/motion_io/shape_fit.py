"""The shape parameters of our body whose bones are those of a foreign skeleton.

Letters: J = 24 joints of SMPL, K shape parameters, n bones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..body.motion import NUM_BETAS
from ..body.parts import PARENTS
from ..body.smpl import BodyModel, rest_joints

EXACT = 1e-4  # metres: bones that agree so well are this body's
SCATTER = 0.02  # metres, of foreign bone lengths against ours; shape parameters scatter by 1
ROUNDS = 15
LARGEST = 3.0  # of a shape parameter fitted to a foreign skeleton

Pairs = Sequence[tuple[int, int]]
# Joints that keep their distance in every pose: bones, and joints that hang on the same one.
RIGID_PAIRS: Pairs = [(j, p) for j, p in enumerate(PARENTS) if p >= 0] + [
    (a, b) for a in range(24) for b in range(a) if PARENTS[a] == PARENTS[b] and PARENTS[a] >= 0
]


def shape_of_bones(rest: np.ndarray, match: Sequence[int], body: BodyModel) -> tuple[torch.Tensor, str]:
    """rest (N, 3) in metres and match[j], its joint for ours -> betas (10), note.

    Exact where the skeleton was written from this body (also its directions agree), else by bone lengths.
    """
    if body.num_betas == 0:
        return torch.zeros(NUM_BETAS), ""
    pairs = [(j, p) for j, p in enumerate(PARENTS) if p >= 0 and min(match[j], match[p]) >= 0 and match[j] != match[p]]
    theirs = np.array([rest[match[j]] - rest[match[p]] for j, p in pairs])  # (n, 3)
    base, slopes = _bones(body, pairs)
    solution = np.linalg.lstsq(slopes.reshape(len(slopes), -1).T, (theirs - base).ravel(), rcond=1e-6)[0]
    residual = np.abs(base + np.tensordot(solution, slopes, 1) - theirs).max()
    if residual < EXACT and np.abs(solution).max() < 20:
        return _padded(solution), "bone offsets match this body; its shape was recovered from them"
    return shape_of_lengths(pairs, np.linalg.norm(theirs, axis=1), body)


def shape_of_lengths(pairs: Pairs, lengths: np.ndarray, body: BodyModel) -> tuple[torch.Tensor, str]:
    """Distances (n,) in metres between pairs of joints of ours -> betas (10), note."""
    if body.num_betas == 0:
        return torch.zeros(NUM_BETAS), ""
    base, slopes = _bones(body, pairs)
    free = _gauss_newton(base, slopes, lengths, 1e-6, 20.0)
    if np.abs(_lengths(base, slopes, free) - lengths).max() < EXACT:
        return _padded(free), "bone lengths match this body; its shape was recovered from them"
    value = _gauss_newton(base, slopes, lengths, SCATTER, LARGEST)
    off = 1000 * np.abs(_lengths(base, slopes, value) - lengths).mean()
    return _padded(value), f"body shape fitted to the file's bone lengths (they differ by {off:.0f} mm on average)"


def _bones(body: BodyModel, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of the mean body (n, 3) and their change per shape parameter (K, n, 3)."""
    count = min(NUM_BETAS, body.num_betas)
    mean = rest_joints(body, torch.zeros(1)).double().cpu().numpy()
    unit = rest_joints(body, torch.eye(NUM_BETAS)[:count]).double().cpu().numpy() - mean
    ends, starts = [a for a, _ in pairs], [b for _, b in pairs]
    return mean[ends] - mean[starts], unit[:, ends] - unit[:, starts]


def _lengths(base: np.ndarray, slopes: np.ndarray, value: np.ndarray) -> np.ndarray:
    return np.maximum(np.linalg.norm(base + np.tensordot(value, slopes, 1), axis=1), 1e-9)


def _gauss_newton(
    base: np.ndarray, slopes: np.ndarray, lengths: np.ndarray, scatter: float, largest: float
) -> np.ndarray:
    value = np.zeros(len(slopes))
    for _ in range(ROUNDS):
        vectors = base + np.tensordot(value, slopes, 1)
        now = np.maximum(np.linalg.norm(vectors, axis=1), 1e-9)
        jacobian = (slopes * (vectors / now[:, None])).sum(-1).T / scatter  # (n, K)
        error = (lengths - now) / scatter
        step = np.linalg.solve(jacobian.T @ jacobian + np.eye(len(value)), jacobian.T @ error - value)
        value = np.clip(value + step, -largest, largest)
    return value


def _padded(value: np.ndarray) -> torch.Tensor:
    betas = torch.zeros(NUM_BETAS)
    betas[: len(value)] = torch.from_numpy(value)
    return betas
