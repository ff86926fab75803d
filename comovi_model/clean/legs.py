"""Two-bone inverse kinematics of legs: new hip, knee and ankle rotations that put an ankle in a given place.

Letters: F frames. World axes, float64, metres. Bones keep their lengths; the knee keeps its side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..body.rotations import skew

LONGEST = 0.9995  # share of the straight leg that may be used: a straight knee has no side to bend to
WEAK_BEND = 0.02  # metres: a knee less off the line from hip to ankle takes its side from the hinge of the body


@dataclass(frozen=True)
class Leg:
    """One leg in F frames."""

    hip: Tensor  # (F, 3)
    knee: Tensor
    ankle: Tensor
    thigh: Tensor  # (F, 3, 3) orientation of the hip joint's frame
    shin: Tensor

    @property
    def lengths(self) -> tuple[Tensor, Tensor]:
        """Of thigh and shin, (F, 1) each."""
        return (self.knee - self.hip).norm(dim=-1, keepdim=True), (self.ankle - self.knee).norm(dim=-1, keepdim=True)


def between(start: Tensor, end: Tensor) -> Tensor:
    """Unit vectors (..., 3) twice -> the rotation (..., 3, 3) by the least angle that takes one to the other."""
    cross = skew(torch.linalg.cross(start, end))
    cosine = (start * end).sum(-1)[..., None, None]
    identity = torch.eye(3, dtype=start.dtype, device=start.device)
    return identity + cross + cross @ cross / (1 + cosine).clamp_min(1e-6)


def reach(leg: Leg, hip: Tensor, target: Tensor) -> Leg:
    """The leg from a hip (F, 3) to an ankle at target (F, 3), or as near to it as its bones allow.

    First the whole leg swings onto the new line from hip to ankle, then the knee opens or closes in the plane in
    which it was bent. A leg that is already there is not touched.
    """
    upper, lower = leg.lengths
    old, new = leg.ankle - leg.hip, target - hip
    old_line, new_line = F.normalize(old, dim=-1), F.normalize(new, dim=-1)
    swing = between(old_line, new_line)
    distance = new.norm(dim=-1, keepdim=True)
    # A leg may stay as straight as it was, but is not straightened further than LONGEST.
    longest = torch.maximum(LONGEST * (upper + lower), old.norm(dim=-1, keepdim=True))
    distance = torch.minimum(torch.maximum(distance, 1.001 * (upper - lower).abs() + 1e-6), longest)

    bent = leg.knee - leg.hip
    bent = bent - (bent * old_line).sum(-1, keepdim=True) * old_line  # how far the knee is off the line
    hinge = leg.thigh[..., 0]  # the knee turns about the x axis of the thigh, forward is +
    forward = torch.linalg.cross(old_line, hinge)
    moved = (target - hip - old).norm(dim=-1, keepdim=True)
    side = F.normalize(bent + moved.clamp_max(WEAK_BEND) * F.normalize(forward, dim=-1), dim=-1)
    side = (swing @ side[..., None])[..., 0]
    side = F.normalize(side - (side * new_line).sum(-1, keepdim=True) * new_line, dim=-1)

    along = (upper**2 + distance**2 - lower**2) / (2 * distance)
    knee = hip + along * new_line + (upper**2 - along**2).clamp_min(0).sqrt() * side
    ankle = hip + distance * new_line
    thigh = _turned(swing, leg.thigh, leg.knee - leg.hip, knee - hip)
    shin = _turned(swing, leg.shin, leg.ankle - leg.knee, ankle - knee)
    return Leg(hip, knee, ankle, thigh, shin)


def _turned(swing: Tensor, orientation: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """The bone's frame after the swing and then the least turn onto its new direction."""
    swung = (swing @ old[..., None])[..., 0]
    return between(F.normalize(swung, dim=-1), F.normalize(new, dim=-1)) @ swing @ orientation
