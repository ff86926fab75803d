"""Robust refinement of bodies against keypoints: Levenberg-Marquardt steps on a batch of hypotheses at once.

What is made small is, in half squared standard deviations,

    keypoints   Geman-McClure of the distance in the picture: wild points stop pulling
    prior       the nearest Gaussian of pose_prior.py, and the limits of the joints
    answer      distance of every joint's rotation from the lifter's answer, in the spreads that the lifter itself tells
    depth       distance of every joint's place, from the pelvis, from the lifter's answer, above all in depth, of which
                the keypoints say nothing
    shape       betas, from 0 (or from the lifter's, for the body that it knows)

Letters: B hypotheses, K = 18 keypoints, J = 24 joints, U = 85 unknowns: pelvis, 24 rotation vectors, 10 betas.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..body.parts import NUM_JOINTS
from ..body.rotations import axis_angle_to_matrix, matrix_to_axis_angle, skew
from ..fit.surface import log_derivative
from .lifter_body import FACE, HEAD, JOINT_OF_KEYPOINT, NECK, KeypointBody, PosedKeypoints
from .pose_prior import PosePrior

TURNS, BETAS = 3, 3 + 3 * NUM_JOINTS  # where rotation vectors and betas begin among the unknowns
UNKNOWNS = BETAS + 10
LARGEST_TURN, LARGEST_STEP = 0.5, 0.5  # radians and, of the distance, metres per step
NEAREST = 0.15  # metres before the camera that a keypoint is kept
DAMPING, MORE, LESS = 1e-2, 8.0, 0.3


@dataclass(frozen=True)
class Weights:
    """How much each thing counts."""

    prior: float = 0.15
    answer: float = 2.0
    place: tuple[float, float, float] = (9, 9, 9)  # metres: how far the lifter's joints are probably off
    shape: float = 1.0
    noise: float = 0.03  # standard deviation of a good keypoint, of the side of the person's square
    robust: float = 3.0  # noise deviations at which a keypoint has lost half its pull, at the end


@dataclass(frozen=True)
class Target:
    """Keypoints of one person and the camera."""

    points: Tensor  # (K, 2) pixels from the principal point
    trust: Tensor  # (K,) 0 = missing
    focal: float
    side: float  # pixels, of the person's square


@dataclass(frozen=True)
class Bodies:
    """B hypotheses, float64."""

    rotations: Tensor  # (B, J, 3, 3), the root's in the camera frame
    pelvis: Tensor  # (B, 3) metres
    betas: Tensor  # (B, 10)

    def __getitem__(self, index: Tensor | slice) -> Bodies:
        return Bodies(self.rotations[index], self.pelvis[index], self.betas[index])

    def moved(self, step: Tensor) -> Bodies:
        """Step (B, U): R_j <- R_j exp(delta_j)."""
        turn = axis_angle_to_matrix(step[:, TURNS:BETAS].unflatten(1, (NUM_JOINTS, 3)))
        return Bodies(self.rotations @ turn, self.pelvis + step[:, :3], self.betas + step[:, BETAS:])

    def where(self, better: Tensor, other: Bodies) -> Bodies:
        """Those of `other` where `better` (B,)."""
        pick = better[:, None, None, None]
        return Bodies(
            torch.where(pick, other.rotations, self.rotations),
            torch.where(better[:, None], other.pelvis, self.pelvis),
            torch.where(better[:, None], other.betas, self.betas),
        )


def join(bodies: list[Bodies]) -> Bodies:
    return Bodies(*(torch.cat([getattr(b, name) for b in bodies]) for name in ("rotations", "pelvis", "betas")))


@dataclass(frozen=True)
class Answer:
    """What the lifter said, as something to stay near."""

    rotations: Tensor  # (J, 3, 3)
    spread: Tensor  # (J,) radians
    betas: Tensor  # (10,)
    joints: Tensor  # (J, 3) metres from the pelvis


@dataclass(frozen=True)
class Problem:
    """Everything that a hypothesis is judged by."""

    body: KeypointBody  # float64
    target: Target
    prior: PosePrior
    answer: Answer | None = None
    weights: Weights = Weights()

    def refined(self, bodies: Bodies, steps: int, robust: tuple[float, float]) -> Bodies:
        """At most `steps` steps, the robust width going from the first to the second of `robust` (noise deviations)."""
        damping = torch.full((len(bodies.pelvis),), DAMPING, dtype=torch.float64)
        for number in range(steps):
            share = min(1.0, 1.5 * number / max(1, steps - 1))  # the last third at the final width
            width = robust[0] ** (1 - share) * robust[1] ** share
            now, information, slope = self._system(bodies, width)
            diagonal = torch.diag_embed(damping[:, None] * information.diagonal(dim1=1, dim2=2) + 1e-6)
            step = -torch.cholesky_solve(slope[..., None], torch.linalg.cholesky(information + diagonal)).squeeze(-1)
            candidate = bodies.moved(_clamped(step, bodies.pelvis[:, 2]))
            better = self.energy(candidate, width) < now
            bodies = bodies.where(better, candidate)
            damping = torch.where(better, damping * LESS, damping * MORE).clamp(1e-5, 1e6)
        return bodies

    def energy(self, bodies: Bodies, width: float | None = None) -> Tensor:
        """(B,)"""
        return self._energy(self.body.posed(bodies.rotations), bodies, self.weights.robust if width is None else width)

    def _energy(self, posed: PosedKeypoints, bodies: Bodies, width: float) -> Tensor:
        apart, depth = self._apart(posed, bodies)
        total = (self._trust() * _geman_mcclure(apart.square().sum(-1), width)).sum(1)
        held = matrix_to_axis_angle(bodies.rotations)
        total = total + self.weights.prior * self.prior.energy(held) + self.prior.beyond(held)
        centre = torch.zeros(10, dtype=torch.float64) if self.answer is None else self.answer.betas
        total = total + 0.5 * self.weights.shape * (bodies.betas - centre).square().sum(1)
        if self.answer is not None:
            vector = self._from_answer(bodies)
            total = total + 0.5 * self.weights.answer * (vector / self.answer.spread[:, None]).square().sum((1, 2))
            total = total + 0.5 * self._off_place(posed, bodies).square().sum((1, 2))
        return total.masked_fill((depth < NEAREST).any(1), torch.inf)

    def errors(self, bodies: Bodies) -> Tensor:
        """(B, K) pixels."""
        apart, _ = self._apart(self.body.posed(bodies.rotations), bodies)
        return apart.norm(dim=-1) * self.weights.noise * self.target.side

    def _trust(self) -> Tensor:
        """(K,): the neck says nothing that the shoulders do not; without a known face its points say nothing."""
        trust = self.target.trust.clone()
        if bool((trust[[2, 5]] > 0).all()):
            trust[NECK] = 0
        if not self.body.has_face:
            trust[list(FACE)] = 0
        return trust

    def _apart(self, posed: PosedKeypoints, bodies: Bodies) -> tuple[Tensor, Tensor]:
        """Distances in the picture in noise deviations (B, K, 2), and depths (B, K)."""
        points = posed.points_at(bodies.betas) + bodies.pelvis[:, None]
        depth = points[..., 2]
        seen = self.target.focal * points[..., :2] / depth.clamp_min(NEAREST)[..., None]
        return (seen - self.target.points) / (self.weights.noise * self.target.side), depth

    def _off_place(self, posed: PosedKeypoints, bodies: Bodies) -> Tensor:
        """(B, J, 3): joints from the pelvis beside those of the answer, in probable errors."""
        assert self.answer is not None
        joints = posed.joints_at(bodies.betas)
        return (joints - self.answer.joints) / torch.tensor(self.weights.place, dtype=joints.dtype)

    def _from_answer(self, bodies: Bodies) -> Tensor:
        """(B, J, 3)"""
        assert self.answer is not None
        return matrix_to_axis_angle(self.answer.rotations.transpose(-1, -2) @ bodies.rotations)

    def _system(self, bodies: Bodies, width: float) -> tuple[Tensor, Tensor, Tensor]:
        """Energy (B,) and normal equations (B, U, U), (B, U)."""
        posed = self.body.posed(bodies.rotations)
        points = posed.points_at(bodies.betas) + bodies.pelvis[:, None]  # (B, K, 3)
        joints = posed.joints_at(bodies.betas) + bodies.pelvis[:, None]
        # A point moves with every joint above it: (A_j delta) x (X - t_j).
        arm = points[:, :, None] - joints[:, None]  # (B, K, J, 3)
        turned = -skew(arm) @ posed.turns[:, None]  # (B, K, J, 3, 3)
        turned = turned * self._carried()[..., None, None]
        count = len(points)
        moves = torch.eye(3, dtype=points.dtype).expand(count, points.shape[1], 3, 3)
        slopes = torch.cat([moves, turned.transpose(2, 3).flatten(3), posed.points[..., 1:]], -1)  # (B, K, 3, U)
        depth = points[..., 2].clamp_min(NEAREST)
        lens = points.new_zeros(count, points.shape[1], 2, 3)
        lens[..., 0, 0] = lens[..., 1, 1] = self.target.focal / depth
        lens[..., 2] = -self.target.focal * points[..., :2] / depth[..., None] ** 2
        rows = (lens @ slopes) / (self.weights.noise * self.target.side)  # (B, K, 2, U)
        apart, _ = self._apart(posed, bodies)
        pull = self._trust() / (1 + apart.square().sum(-1) / width**2).square()  # (B, K)
        weighted = (rows * pull[..., None, None]).flatten(1, 2)
        information = weighted.transpose(1, 2) @ rows.flatten(1, 2)
        slope = (weighted.transpose(1, 2) @ apart.flatten(1)[..., None]).squeeze(-1)
        held = matrix_to_axis_angle(bodies.rotations)
        self.prior.add(information, slope, held, self.weights.prior, TURNS)
        shape = torch.arange(BETAS, UNKNOWNS)
        centre = 0.0 if self.answer is None else self.answer.betas
        information[:, shape, shape] += self.weights.shape
        slope[:, BETAS:] += self.weights.shape * (bodies.betas - centre)
        if self.answer is not None:
            self._add_answer(information, slope, bodies)
            self._add_place(information, slope, posed, bodies)
        return self._energy(posed, bodies, width), information, slope

    def _add_answer(self, information: Tensor, slope: Tensor, bodies: Bodies) -> None:
        assert self.answer is not None
        vector = self._from_answer(bodies)
        change = log_derivative(vector)
        certainty = (self.weights.answer / self.answer.spread.square())[:, None, None]
        block = change.transpose(-1, -2) @ change * certainty
        own = TURNS + torch.arange(3 * NUM_JOINTS).view(NUM_JOINTS, 3)
        information[:, own[:, :, None], own[:, None, :]] += block
        slope[:, own] += (change.transpose(-1, -2) @ vector[..., None] * certainty).squeeze(-1)

    def _add_place(self, information: Tensor, slope: Tensor, posed: PosedKeypoints, bodies: Bodies) -> None:
        joints = posed.joints_at(bodies.betas)
        turned = -skew(joints[:, :, None] - joints[:, None]) @ posed.turns[:, None]  # (B, J, J, 3, 3)
        turned = turned * self.body.above[..., None, None]
        scale = torch.tensor(self.weights.place, dtype=joints.dtype)[:, None]
        rows = torch.cat([turned.transpose(2, 3).flatten(3), posed.joints[..., 1:]], -1) / scale  # (B, J, 3, U - 3)
        flat = rows.flatten(1, 2)
        information[:, 3:, 3:] += flat.transpose(1, 2) @ flat
        slope[:, 3:] += (flat.transpose(1, 2) @ self._off_place(posed, bodies).flatten(1)[..., None]).squeeze(-1)

    def _carried(self) -> Tensor:
        """(K, J): 1 where turning a joint moves the keypoint."""
        above = self.body.above
        carried = above[list(JOINT_OF_KEYPOINT)].clone()  # a joint does not move itself, but then its arm is 0
        carried[NECK] = (above[16] + above[17]) / 2
        carried[list(FACE)] = above[HEAD]
        return carried


def _geman_mcclure(squared: Tensor, width: float) -> Tensor:
    return 0.5 * squared / (1 + squared / width**2)


def _clamped(step: Tensor, depth: Tensor) -> Tensor:
    """(B, U) with no joint turned and no pelvis moved too far."""
    turns = step[:, TURNS:BETAS].unflatten(1, (-1, 3))
    turns = turns * (LARGEST_TURN / turns.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
    limit = LARGEST_STEP * depth.clamp_min(0.5)[:, None]
    move = step[:, :3] * (limit / step[:, :3].norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
    return torch.cat([move, turns.flatten(1), step[:, BETAS:].clamp(-1, 1)], 1)


def place_by_points(problem: Problem, bodies: Bodies, rounds: int = 8) -> Bodies:
    """Every hypothesis moved to where its keypoints fall on those seen, as far as most of them agree."""
    target = problem.target
    points = problem.body.posed(bodies.rotations).points_at(bodies.betas)  # (B, K, 3)
    trust = problem._trust()
    u, v = target.points.unbind(-1)
    x, y, z = points.unbind(-1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    # u (z + p_z) = f (x + p_x), linear in the pelvis p
    rows = torch.stack([
        torch.stack([target.focal * one, zero, -u.expand_as(x)], -1),
        torch.stack([zero, target.focal * one, -v.expand_as(x)], -1),
    ], 2)  # fmt: skip
    values = torch.stack([u * z - target.focal * x, v * z - target.focal * y], -1)  # (B, K, 2)
    weight = trust.expand_as(x)
    pelvis = bodies.pelvis
    for _ in range(rounds):
        weighted = rows * weight[..., None, None]
        normal = torch.einsum("bkri,bkrj->bij", weighted, rows) + 1e-6 * torch.eye(3, dtype=x.dtype)
        right = torch.einsum("bkri,bkr->bi", weighted, values)
        pelvis = torch.linalg.solve(normal, right[..., None]).squeeze(-1)
        pelvis = torch.cat([pelvis[:, :2], pelvis[:, 2:].clamp_min(0.5)], 1)
        apart, _ = problem._apart(problem.body.posed(bodies.rotations), replace(bodies, pelvis=pelvis))
        error = apart.norm(dim=-1)
        usual = error.masked_fill(trust <= 0, torch.nan).nanmedian(1, keepdim=True).values.clamp_min(1.0)
        weight = trust / (1 + (error / (2 * usual)).square()).square()
    return replace(bodies, pelvis=pelvis)
