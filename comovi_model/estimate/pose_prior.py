"""How people hold their joints: mixtures of Gaussians over the rotation vectors of each limb, and limits.

Limbs are taken for themselves, because what the arms do says little about what the legs do; the right ones are the left
ones mirrored. Made from our own synthetic motion and written poses by training/lifter_prior.py.
Letters: B poses, J = 24 joints, M Gaussians, D numbers of a limb = 3 for each of its joints.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..body.parts import NUM_JOINTS
from ..body.rotations import axis_angle_to_matrix
from ..errors import ComoviError
from ..fit.surface import log_derivative

ASSET = Path(__file__).resolve().parents[1] / "assets" / "lifter_prior.safetensors"
LIMIT_SPREAD = 0.1  # radians beyond a limit that cost as much as one standard deviation
# Mixture, joints, and the signs of their rotation vectors: a mirror at x = 0 keeps turns about x.
LIMBS = (
    ("trunk", (3, 6, 9, 12, 15), (1.0, 1.0, 1.0)),
    ("arm", (13, 16, 18, 20, 22), (1.0, 1.0, 1.0)),
    ("arm", (14, 17, 19, 21, 23), (1.0, -1.0, -1.0)),
    ("leg", (1, 4, 7, 10), (1.0, 1.0, 1.0)),
    ("leg", (2, 5, 8, 11), (1.0, -1.0, -1.0)),
)


@dataclass(frozen=True)
class Mixture:
    """float64"""

    share: Tensor  # (M,) log weights
    mean: Tensor  # (M, D)
    root: Tensor  # (M, D, D), lower triangular: precision = root^T root

    def nearest(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) -> the least of minus log density over the Gaussians (B,), its number (B,)."""
        apart = torch.einsum("mij,bmj->bmi", self.root, vector[:, None] - self.mean)
        offset = self.root.diagonal(dim1=1, dim2=2).log().sum(1) + self.share
        return (0.5 * apart.square().sum(-1) - offset).min(1)


@dataclass(frozen=True)
class PosePrior:
    mixtures: dict[str, Mixture]
    low: Tensor  # (J, 3) float64, least and largest value of each number of a rotation vector; the root's are free
    high: Tensor  # (J, 3)

    def energy(self, vector: Tensor) -> Tensor:
        """Local rotation vectors (B, J, 3) -> minus log density (B,), up to a constant."""
        total = torch.zeros(len(vector), dtype=vector.dtype)
        for name, joints, signs in LIMBS:
            total = total + self.mixtures[name].nearest(_limb(vector, joints, signs))[0]
        return total

    def beyond(self, vector: Tensor) -> Tensor:
        """(B,) half the squared distance beyond the limits, in LIMIT_SPREADs."""
        return 0.5 * self._excess(vector).square().sum((1, 2))

    def _excess(self, vector: Tensor) -> Tensor:
        return ((vector - self.high).clamp_min(0) - (self.low - vector).clamp_min(0)) / LIMIT_SPREAD

    def add(self, information: Tensor, slope: Tensor, vector: Tensor, weight: float, start: int) -> None:
        """Adds the nearest Gaussians and the limits to normal equations of R <- R exp(delta), deltas from `start`."""
        change = log_derivative(vector)
        excess = self._excess(vector)
        edge = change * ((excess != 0).to(vector) / LIMIT_SPREAD)[..., None]
        own = start + torch.arange(3 * NUM_JOINTS).view(NUM_JOINTS, 3)
        information[:, own[:, :, None], own[:, None, :]] += edge.transpose(-1, -2) @ edge
        slope[:, own] += (edge.transpose(-1, -2) @ excess[..., None]).squeeze(-1)
        for name, joints, signs in LIMBS:
            mixture, limb = self.mixtures[name], _limb(vector, joints, signs)
            chosen = mixture.nearest(limb)[1]
            root = weight**0.5 * mixture.root[chosen]  # (B, D, D)
            sides = torch.tensor(signs, dtype=root.dtype)[:, None]
            rows = root @ _blocks(change[:, list(joints)] * sides)
            values = (root @ (limb - mixture.mean[chosen])[..., None]).squeeze(-1)
            index = own[list(joints)].flatten()
            information[:, index[:, None], index[None]] += rows.transpose(1, 2) @ rows
            slope[:, index] += (rows.transpose(1, 2) @ values[..., None]).squeeze(-1)

    def common(self, arms: int = 2, legs: int = 2) -> Tensor:
        """(arms * legs, 23, 3, 3): the commonest arms with the commonest legs, both sides alike."""
        best = {name: mixture.share.argsort(descending=True) for name, mixture in self.mixtures.items()}
        poses = []
        for arm in best["arm"][:arms]:
            for leg in best["leg"][:legs]:
                vector = torch.zeros(NUM_JOINTS, 3, dtype=torch.float64)
                for (name, joints, signs), number in zip(LIMBS, (best["trunk"][0], arm, arm, leg, leg), strict=True):
                    mean = self.mixtures[name].mean[number].view(-1, 3)
                    vector[list(joints)] = mean * torch.tensor(signs, dtype=torch.float64)
                poses.append(axis_angle_to_matrix(vector[1:]))
        return torch.stack(poses)


def _limb(vector: Tensor, joints: tuple[int, ...], signs: tuple[float, float, float]) -> Tensor:
    """(B, J, 3) -> (B, D) as those of a left limb."""
    return (vector[:, list(joints)] * torch.tensor(signs, dtype=vector.dtype)).flatten(1)


def _blocks(matrices: Tensor) -> Tensor:
    """(B, n, 3, 3) -> (B, 3 n, 3 n) with them on the diagonal."""
    batch, count = matrices.shape[:2]
    out = matrices.new_zeros(batch, count, 3, count, 3)
    index = torch.arange(count)
    out[:, index, :, index, :] = matrices.transpose(0, 1)
    return out.flatten(3, 4).flatten(1, 2)


def prior_from(tensors: dict[str, Tensor]) -> PosePrior:
    """From the tensors of the file; "factor" is the lower Cholesky factor of each covariance."""
    mixtures = {}
    for name in {limb[0] for limb in LIMBS}:
        factor = tensors[f"{name}.factor"].double().tril()
        identity = torch.eye(factor.shape[-1], dtype=torch.float64).expand_as(factor)
        root = torch.linalg.solve_triangular(factor, identity, upper=False)
        mixtures[name] = Mixture(tensors[f"{name}.share"].double().log(), tensors[f"{name}.mean"].double(), root)
    return PosePrior(mixtures, tensors["low"].double(), tensors["high"].double())


@lru_cache(maxsize=1)
def load_prior() -> PosePrior:
    """The prior that is shipped."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return prior_from(load_file(ASSET))
    except (SafetensorError, OSError, KeyError) as error:
        raise ComoviError(
            f"{ASSET}: the pose prior is missing or damaged ({error}); install the package again."
        ) from None
