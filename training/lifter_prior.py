"""Make the pose prior of the keypoint refinement from the poses that the lifter learns from.

    python -m comfyui_comovi.training.lifter_prior --out comovi_model/assets/lifter_prior.safetensors

Mixtures of Gaussians over the rotation vectors of trunk, arm and leg, by expectation and maximisation; limits are the
range of each number over poses whose every angle was drawn within the limits of its joint.
Letters: N poses, M Gaussians, D numbers of a limb.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from ..comovi_model.body.rotations import matrix_to_axis_angle
from ..comovi_model.estimate.pose_prior import LIMBS
from ..comovi_model.files import atomic_path
from .lifter_poses import jittered, random_poses
from .lifter_train import Source, numbers

GAUSSIANS = {"trunk": 12, "arm": 32, "leg": 28}
POSES = 24_000
ROUNDS = 25
LEAST_SPREAD = 0.06  # radians, added to every direction
SLACK = 0.05  # radians beyond the range seen


def fit_mixture(data: Tensor, count: int, seed: int, rounds: int = ROUNDS) -> tuple[Tensor, Tensor, Tensor]:
    """(N, D) -> weights (M,), means (M, D), lower Cholesky factors of the covariances (M, D, D)."""
    generator = torch.Generator().manual_seed(seed)
    mean = data[torch.randperm(len(data), generator=generator)[:count]]
    for _ in range(10):  # k-means
        nearest = torch.cdist(data, mean).argmin(1)
        mean = torch.stack(
            [data[nearest == m].mean(0) if bool((nearest == m).any()) else mean[m] for m in range(count)]
        )
    belongs = torch.nn.functional.one_hot(nearest, count).double()
    ridge = LEAST_SPREAD**2 * torch.eye(data.shape[1], dtype=data.dtype)
    for _ in range(rounds):
        size = belongs.sum(0).clamp_min(1e-3)
        mean = belongs.T @ data / size[:, None]
        covariance = torch.stack([((data - mean[m]) * belongs[:, m, None]).T @ (data - mean[m]) for m in range(count)])
        factor = torch.linalg.cholesky(covariance / size[:, None, None] + ridge)
        weights = size / size.sum()
        apart = (data[None] - mean[:, None]).transpose(1, 2)  # (M, D, N)
        whitened = torch.linalg.solve_triangular(factor, apart, upper=False).square().sum(1)
        log_density = -0.5 * whitened - factor.diagonal(dim1=1, dim2=2).log().sum(1)[:, None] + weights.log()[:, None]
        belongs = log_density.softmax(0).T
    return weights, mean, factor


def make_prior(seed: int, poses: int = POSES) -> dict[str, Tensor]:
    """The tensors of the file."""
    source, rng = Source(seed), numbers("lifter prior", seed)
    vectors = matrix_to_axis_angle(torch.from_numpy(source.poses(poses, rng)))
    out: dict[str, Tensor] = {}
    for name, joints, _ in (LIMBS[0], LIMBS[1], LIMBS[3]):  # poses came from both sides, so the left ones are enough
        mixture = fit_mixture(vectors[:, list(joints)].flatten(1), GAUSSIANS[name], seed)
        out |= {f"{name}.{part}": value for part, value in zip(("share", "mean", "factor"), mixture, strict=True)}
    allowed = jittered(random_poses(poses, rng), rng, 3.0)
    seen = matrix_to_axis_angle(torch.from_numpy(allowed)).flatten(1)[:16_000]
    limits = torch.quantile(seen, torch.tensor([0.002, 0.998], dtype=torch.float64), dim=0).view(2, -1, 3)
    out["low"], out["high"] = (limits[0] - SLACK).clamp_min(-4), (limits[1] + SLACK).clamp_max(4)
    out["low"][0], out["high"][0] = -4, 4  # the root is free
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--seed", type=int, default=6)
    arguments = parser.parse_args()
    from safetensors.torch import save_file

    tensors = {name: value.half().contiguous() for name, value in make_prior(arguments.seed).items()}
    command = f"python -m comfyui_comovi.training.lifter_prior --seed {arguments.seed}"
    with atomic_path(arguments.out) as temporary:
        save_file(tensors, temporary, {"command": command})


if __name__ == "__main__":
    main()
