"""Solves the normal equations of a whole clip: every frame is coupled to the two before and the two after it.

Letters: F frames, n unknowns of a frame. Two frames make one block, and blocks are coupled to their neighbours only,
so a block Cholesky factorisation needs F / 2 steps on matrices of 2 n.
"""

from __future__ import annotations

import torch
from torch import Tensor


def solve_banded(diagonal: Tensor, next_one: Tensor, next_two: Tensor, right: Tensor) -> Tensor:
    """Solves H x = right (F, n) for symmetric positive definite H.

    diagonal (F, n, n); next_one (F - 1, n, n) couples row frame t with column frame t + 1; next_two (F - 2, n, n) with
    t + 2. float64.
    """
    frames, n = right.shape
    if frames % 2:  # a last frame that is coupled to nothing
        identity = torch.eye(n, dtype=diagonal.dtype, device=diagonal.device)[None]
        zero = torch.zeros_like(identity)
        diagonal = torch.cat([diagonal, identity])
        next_one, right = torch.cat([next_one, zero]), torch.cat([right, right.new_zeros(1, n)])
        next_two = torch.cat([next_two, zero]) if frames > 1 else next_two
    count = len(right) // 2
    blocks = torch.zeros(count, 2 * n, 2 * n, dtype=diagonal.dtype, device=diagonal.device)
    blocks[:, :n, :n], blocks[:, n:, n:] = diagonal[0::2], diagonal[1::2]
    blocks[:, :n, n:] = next_one[0::2]
    blocks[:, n:, :n] = next_one[0::2].transpose(1, 2)
    upper = torch.zeros(count - 1, 2 * n, 2 * n, dtype=diagonal.dtype, device=diagonal.device)
    if count > 1:
        upper[:, :n, :n], upper[:, n:, n:] = next_two[0::2], next_two[1::2]
        upper[:, n:, :n] = next_one[1::2]  # frame 2k + 1 with 2k + 2
    values = right.reshape(count, 2 * n, 1)
    factors: list[Tensor] = []
    forward: list[Tensor] = []
    for k in range(count):
        block, value = blocks[k], values[k]
        if k:
            # L_k L_k^T = H_kk - U^T H_(k-1)^-1 U
            half = torch.linalg.solve_triangular(factors[-1], upper[k - 1], upper=False)
            block = block - half.T @ half
            value = value - half.T @ forward[-1]
        factors.append(torch.linalg.cholesky(block))
        forward.append(torch.linalg.solve_triangular(factors[-1], value, upper=False))
    solution = [torch.linalg.solve_triangular(factors[-1].T, forward[-1], upper=True)]
    for k in range(count - 2, -1, -1):
        half = torch.linalg.solve_triangular(factors[k], upper[k], upper=False)
        solution.append(torch.linalg.solve_triangular(factors[k].T, forward[k] - half @ solution[-1], upper=True))
    return torch.stack(solution[::-1]).reshape(-1, n)[:frames]
