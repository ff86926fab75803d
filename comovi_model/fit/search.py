"""Finds a lost limb by trying: many poses of one arm or leg are drawn and scored, the best are fitted.

An arm that slips behind its trunk in the fit never comes back by descent, and costs little in the score; trying poses
all round the joint finds it. Letters: B poses, C candidates, J = 24 joints.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..body.rotations import axis_angle_to_matrix
from .observation import Observation
from .priors import prediction_spread
from .score import LIMBS, Score, score_poses
from .solve import Pull, fit_poses
from .surface import Pose, Subject, join_poses
from .terms import COARSE, FINE, Stage

RANDOM_CANDIDATES = 18
RANDOM_SPREAD = (0.7, 0.6, 0.2)  # radians at shoulder or hip, elbow or knee, wrist or ankle
REFINED, FINISHED = 5, 2
GAIN = 0.004  # of the score, or the limb stays


def _turn_to(start: Tensor, end: Tensor) -> Tensor:
    """The shortest rotations (..., 3, 3) that take unit vector start (3,) to unit vectors end (..., 3)."""
    axis = torch.linalg.cross(start.expand_as(end), end)
    sine, cosine = axis.norm(dim=-1, keepdim=True), (start * end).sum(-1, keepdim=True)
    return axis_angle_to_matrix(F.normalize(axis, dim=-1) * torch.atan2(sine, cosine))


@cache
def limb_grid(limb: int) -> Tensor:
    """(C, 3, 3, 3): rotations of the limb's three joints. Body axes: y up, z forward, x to the person's left."""
    left = limb in (0, 2)
    side = 1.0 if left else -1.0
    if limb < 2:
        along = torch.tensor([side, 0.0, 0.0])  # the arm in the T-pose
        directions = [(0.25, -1, 0.1), (0.3, -0.6, 0.8), (0.1, 0.0, 1.0), (-0.5, -0.3, 0.8), (1.0, 0.0, 0.2),
                      (0.4, -0.7, -0.6), (0.4, 1.0, 0.2), (0.8, 0.5, 0.7)]  # fmt: skip
        twists, bends, hinge = (-1.4, -0.3, 0.8), (0.2, 1.2, 2.1), torch.tensor([0.0, -side, 0.0])
    else:
        along = torch.tensor([0.0, -1.0, 0.0])
        directions = [(0.05, -1, 0.1), (0.1, -0.8, 0.6), (0.15, -0.1, 1.0), (0.1, -0.9, -0.45), (0.6, -0.8, 0.1)]
        twists, bends, hinge = (-0.3, 0.3), (0.15, 0.9, 1.8), torch.tensor([1.0, 0.0, 0.0])
    out = []
    for direction in directions:
        end = F.normalize(torch.tensor(direction) * torch.tensor([side, 1.0, 1.0]), dim=0)
        swing = _turn_to(along, end)
        for twist in twists:
            upper = swing @ axis_angle_to_matrix(along * twist * side)
            for bend in bends:
                out.append(torch.stack([upper, axis_angle_to_matrix(hinge * bend), torch.eye(3)]))
    return torch.stack(out)


def limb_candidates(pose: Pose, limb: int, hints: list[Pose], seed: int) -> Pose:
    """The pose (1) with its limb replaced in every way worth trying; first as it is."""
    joints = list(LIMBS[limb])
    grid = limb_grid(limb).to(pose.rotations)
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor(RANDOM_SPREAD)[:, None]
    noise = torch.randn(RANDOM_CANDIDATES, 3, 3, generator=generator) * spread
    near = pose.rotations[:, joints] @ axis_angle_to_matrix(noise).to(pose.rotations)
    options = [pose.rotations[:, joints], near, grid, *(hint.rotations[:1, joints] for hint in hints)]
    limbs = torch.cat(options)
    rotations = pose.rotations.repeat(len(limbs), 1, 1, 1)
    rotations[:, joints] = limbs
    return Pose(rotations, pose.transl.repeat(len(limbs), 1))


def search_limb(
    subject: Subject,
    seen: Observation,
    frame: int,
    pose: Pose,
    score: Score,
    limb: int,
    hints: list[Pose],
    fine: Stage = FINE,
) -> tuple[Pose, Score, bool]:
    """The pose (1) of a frame with its limb found anew, its score, and whether that was better than before."""
    candidates = limb_candidates(pose, limb, hints, seed=17 * frame + limb)
    at = torch.full((len(candidates),), frame, device=pose.transl.device)
    order = score_poses(subject, seen, at, candidates).mean[1:].argsort() + 1  # without the present one
    chosen = _different(candidates, order, limb)
    spread = prediction_spread(0.5)
    spread[list(LIMBS[limb])] = 1.5
    chosen = fit_poses(subject, seen, at[: len(chosen)], chosen, COARSE, 4, Pull(0.5, chosen, spread, 0.03))
    best = score_poses(subject, seen, at[: len(chosen)], chosen).mean.argsort()[:FINISHED]
    chosen = chosen[best]
    chosen = fit_poses(subject, seen, at[: len(chosen)], chosen, fine, 4, Pull(0.3, chosen, spread, 0.03))
    scores = score_poses(subject, seen, at[: len(chosen)], chosen)
    winner = int(scores.mean.argmin())
    if float(scores.mean[winner]) > float(score.mean[0]) - GAIN:
        return pose, score, False
    return chosen[[winner]], pick(scores, [winner]), True


def _different(candidates: Pose, order: Tensor, limb: int) -> Pose:
    """The best candidates whose limbs differ by more than 0.5 rad from better ones."""
    upper = candidates.rotations[:, list(LIMBS[limb])[:2]]
    kept: list[int] = []
    for index in order.tolist():
        if all(float((upper[index] - upper[k]).square().sum()) > 0.5 for k in kept):
            kept.append(index)
        if len(kept) == REFINED:
            break
    return candidates[kept]


def pick(score: Score, index: list[int] | Tensor) -> Score:
    return Score(score.mean[index], score.limbs[index], score.overlap[index])


def best_of(subject: Subject, seen: Observation, frame: int, poses: list[Pose]) -> tuple[Pose, Score]:
    """The pose (1) with the lowest score; all are poses of one frame."""
    joined = join_poses(poses)
    at = torch.full((len(joined),), frame, device=joined.transl.device)
    scores = score_poses(subject, seen, at, joined)
    winner = int(scores.mean.argmin())
    return joined[[winner]], pick(scores, [winner])
