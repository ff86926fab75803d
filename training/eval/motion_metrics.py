"""The numbers of the HumanML3D protocol, as plain functions of embeddings.

N motions, M numbers per embedding, P embeddings in a pool. All in float64 numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...comovi_model.errors import ComoviError

POOL = 32  # sentences that compete for a motion


class Estimate(NamedTuple):
    """Mean over repetitions and half the width of its 95 % interval."""

    mean: float
    interval: float


def frechet_distance(first: np.ndarray, other: np.ndarray) -> float:
    """FID: the distance of two sets (N, M) and (N', M), each taken as a Gaussian.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). The eigenvalues of C1 C2 are those of the symmetric R C2 R with
    R = C1^(1/2), so no square root of a general matrix is needed.
    """
    for name, rows in (("first", first), ("other", other)):
        if rows.ndim != 2 or len(rows) < 2:
            raise ComoviError(f"the Fréchet distance needs at least two embeddings, the {name} set has {len(rows)}.")
    gap = first.mean(0) - other.mean(0)
    one, two = np.atleast_2d(np.cov(first, rowvar=False)), np.atleast_2d(np.cov(other, rowvar=False))
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    inner = root @ two @ root
    overlap = np.sqrt(np.linalg.eigvalsh((inner + inner.T) / 2).clip(0)).sum()
    return float(max(gap @ gap + np.trace(one) + np.trace(two) - 2 * overlap, 0.0))


def distances(first: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Euclidean distances (N, N') between rows."""
    square = (first**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * first @ other.T
    return np.sqrt(square.clip(0))


def r_precision(texts: np.ndarray, motions: np.ndarray, top: int = 3) -> np.ndarray:
    """Share of texts (P, M) whose own motion is among the 1, 2, .. `top` nearest of the pool (P, M), (top,)."""
    apart = distances(texts, motions)
    closer = (apart < np.diag(apart)[:, None]).sum(1)
    ties = (apart == np.diag(apart)[:, None]).sum(1) - 1
    rank = closer + ties / 2  # equal distances share their places
    return np.array([(rank < k).mean() for k in range(1, top + 1)])


def matching_distance(texts: np.ndarray, motions: np.ndarray) -> float:
    """MM-Dist: mean distance of every text to its own motion."""
    return float(np.linalg.norm(texts - motions, axis=1).mean())


def diversity(motions: np.ndarray, pairs: int, rng: np.random.Generator) -> float:
    """Mean distance of random pairs; as many as asked for, at most N."""
    pairs = min(pairs, len(motions))
    one, two = rng.permutation(len(motions))[:pairs], rng.permutation(len(motions))[:pairs]
    return float(np.linalg.norm(motions[one] - motions[two], axis=1).mean())


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 1.96 standard errors, with the standard deviation over N as published code takes it."""
    values_array = np.asarray(values, np.float64)
    return Estimate(float(values_array.mean()), float(1.96 * values_array.std() / np.sqrt(len(values_array))))


def pools(count: int, rng: np.random.Generator, size: int = POOL) -> list[np.ndarray]:
    """Random pools of `size` clips without repetition; what is left over sits out. Fewer clips make one small pool."""
    order = rng.permutation(count)
    if count < size:
        return [order]
    return [order[start : start + size] for start in range(0, count - size + 1, size)]
