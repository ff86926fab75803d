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
from .limb_score import backdrop, rank_limbs, score_limbs
from .observation import Observation
from .priors import prediction_spread
from .score import LIMBS, Score, score_poses
from .solve import Pull, fit_poses
from .surface import Pose, Subject, join_poses
from .terms import FINE, Stage

RANDOM_CANDIDATES = 18
RANDOM_SPREAD = (0.7, 0.6, 0.2)  # radians at shoulder or hip, elbow or knee, wrist or ankle
RANKED, DRAWN = 300, 40  # candidates that are looked at more closely
VARIED, VARIANTS, VARIANT_SPREAD = 8, 14, (0.25, 0.25, 0.15)  # the best are varied once more
REFINED = 3
BEHIND = 0.01  # or when, after two steps, they still score worse than the present pose by this
HOPELESS = 0.035  # a search ends when all candidates, as drawn, score so much worse
GAIN = 0.012  # of the score, or the limb stays: hidden limbs gain less by chance, lost ones 0.02 and more


EVIDENT = 0.025  # share of the picture that a limb covers; one that shows less of itself must gain more
HIDDEN_GAIN = 0.012


def _turn_to(start: Tensor, end: Tensor) -> Tensor:
    """The shortest rotations (..., 3, 3) that take unit vector start (3,) to unit vectors end (..., 3)."""
    axis = torch.linalg.cross(start.expand_as(end), end)
    sine, cosine = axis.norm(dim=-1, keepdim=True), (start * end).sum(-1, keepdim=True)
    return axis_angle_to_matrix(F.normalize(axis, dim=-1) * torch.atan2(sine, cosine))


def _directions(count: int) -> Tensor:
    """(count, 3) unit vectors all over the sphere (a Fibonacci lattice)."""
    number = torch.arange(count) + 0.5
    height = 1 - 2 * number / count
    angle = number * 2.399963  # the golden angle
    ring = (1 - height.square()).sqrt()
    return torch.stack([ring * angle.cos(), height, ring * angle.sin()], 1)


@cache
def limb_grid(limb: int) -> Tensor:
    """(C, 3, 3, 3): rotations of the limb's three joints. Body axes: y up, z forward, x to the person's left."""
    side = 1.0 if limb in (0, 2) else -1.0
    if limb < 2:
        along = torch.tensor([side, 0.0, 0.0])  # the arm in the T-pose
        ways = _directions(80)
        ways = ways[(ways[:, 0] > -0.75) & (ways[:, 2] > -0.75)]
        twists, hinge = [-1.8, -1.1, -0.4, 0.3, 1.0], torch.tensor([0.0, -side, 0.0])
        bends = [0.1, 0.8, 1.5, 2.2]
    else:
        along = torch.tensor([0.0, -1.0, 0.0])
        ways = _directions(90)
        ways = ways[(ways[:, 1] < 0.4) & (ways[:, 2] > -0.7) & (ways[:, 0] > -0.5) & (ways[:, 0] < 0.85)]
        twists, hinge = [-0.5, 0.0, 0.5], torch.tensor([1.0, 0.0, 0.0])
        bends = [0.1, 0.7, 1.3, 2.0]
    swing = _turn_to(along, ways * torch.tensor([side, 1.0, 1.0]))  # (D, 3, 3)
    twist = axis_angle_to_matrix(along * torch.tensor(twists)[:, None] * side)
    bend = axis_angle_to_matrix(hinge * torch.tensor(bends)[:, None])
    upper = (swing[:, None] @ twist).flatten(0, 1)  # (D * T, 3, 3)
    lower = bend.repeat(len(upper), 1, 1)
    upper = upper.repeat_interleave(len(bend), 0)
    return torch.stack([upper, lower, torch.eye(3).expand_as(upper)], 1)


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
    gain: float = GAIN,
) -> tuple[Pose, Score, bool]:
    """The pose (1) of a frame with its limb found anew, its score, and whether that gained enough."""
    candidates = limb_candidates(pose, limb, hints, seed=17 * frame + limb)
    behind = backdrop(subject, seen, frame, pose, limb)
    candidates = _different(candidates, rank_limbs(subject, behind, candidates).argsort()[:RANKED], limb, DRAWN)
    candidates = _different(candidates, score_limbs(subject, behind, candidates).argsort(), limb, VARIED)
    candidates = _varied(candidates, limb, seed=17 * frame + limb)
    drawn = score_limbs(subject, behind, candidates)
    if float(drawn.min()) > float(score.mean[0]) + HOPELESS:
        return pose, score, False
    # The present pose takes part, so that no limb wins by what the rest of the body gains in the same steps.
    chosen = join_poses([pose, _different(candidates, drawn.argsort(), limb, REFINED, 0.5)])
    at = torch.full((len(chosen),), frame, device=pose.transl.device)
    spread = prediction_spread(0.5)
    spread[list(LIMBS[limb])] = 1.5
    # Fine steps only: coarse ones pull limbs to pixels of others and score worse than where they began.
    pull = Pull(0.4, chosen, spread, 0.03)
    chosen = fit_poses(subject, seen, at, chosen, fine, 2, pull)
    scores = score_poses(subject, seen, at, chosen)
    hopeful = [0, 1 + int(scores.mean[1:].argmin())] if len(chosen) > 1 else [0]
    if len(hopeful) < 2 or float(scores.mean[hopeful[1]]) > min(float(scores.mean[0]), float(score.mean)) + BEHIND:
        hopeful = [0]
    pull = Pull(0.4, chosen[hopeful], spread, 0.03)
    chosen = fit_poses(subject, seen, at[hopeful], chosen[hopeful], fine, 3, pull)
    scores = score_poses(subject, seen, at[hopeful], chosen)
    # Among limbs that explain the picture alike (a hidden one), the one nearest to the present pose is likeliest.
    apart = (chosen.rotations - pose.rotations)[:, list(LIMBS[limb])].square().sum((1, 2, 3))
    winner = int((scores.mean + 0.5 * gain * (apart / 4).clamp_max(1)).argmin())
    present = min(float(score.mean[0]), float(scores.mean[0]))
    assert scores.share is not None
    if float(scores.share[[0, winner], limb].max()) < EVIDENT:  # drawn before or after
        gain = max(gain, HIDDEN_GAIN)
    if winner and float(scores.mean[winner]) < present - gain:
        return chosen[[winner]], pick(scores, [winner]), True
    if float(scores.mean[0]) < float(score.mean[0]):
        return chosen[[0]], pick(scores, [0]), False
    return pose, score, False


def _varied(poses: Pose, limb: int, seed: int) -> Pose:
    """The poses and, for each, some with the limb turned a little."""
    joints = list(LIMBS[limb])
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(VARIANTS, len(poses), 3, 3, generator=generator) * torch.tensor(VARIANT_SPREAD)[:, None]
    noise[0] = 0
    rotations = poses.rotations.repeat(VARIANTS, 1, 1, 1)
    rotations[:, joints] = rotations[:, joints] @ axis_angle_to_matrix(noise.flatten(0, 1)).to(rotations)
    return Pose(rotations, poses.transl.repeat(VARIANTS, 1))


def _different(candidates: Pose, order: Tensor, limb: int, count: int, apart: float = 0.3) -> Pose:
    """The first candidates in `order` whose limbs differ from each other; `apart` is a squared distance of matrices."""
    upper = candidates.rotations[order][:, list(LIMBS[limb])[:2]].flatten(1)
    near = (upper[:, None] - upper[None]).square().sum(-1) < apart
    free = torch.ones(len(upper), dtype=torch.bool)
    kept: list[int] = []
    near = near.cpu()
    for index in range(len(upper)):
        if free[index]:
            kept.append(index)
            free &= ~near[index]
            if len(kept) == count:
                break
    return candidates[order[kept]]


def pick(score: Score, index: list[int] | Tensor) -> Score:
    return Score(score.mean[index], score.limbs[index], score.overlap[index])


def best_of(subject: Subject, seen: Observation, frame: int, poses: list[Pose]) -> tuple[Pose, Score]:
    """The pose (1) with the lowest score; all are poses of one frame."""
    joined = join_poses(poses)
    at = torch.full((len(joined),), frame, device=joined.transl.device)
    scores = score_poses(subject, seen, at, joined)
    winner = int(scores.mean.argmin())
    return joined[[winner]], pick(scores, [winner])
