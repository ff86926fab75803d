"""Poses of bodies at rest that nobody wrote: whatever stays where it is, with hands that touch something.

For training the keypoint lifter. People in photographs stand, sit, kneel, lean and lie in ways that no list names, but
nearly all of them would not fall over the next moment, and their hands are often at their own body. Both can be asked
of any pose: bodies are drawn from the limits of the joints, and those are kept whose centre of mass is above what
carries them (the floor, or a seat below the buttocks) and whose limbs are not inside the trunk; each arm is the one of
several that comes nearest to what it shall touch. Letters: N poses, J = 24 joints, C = 13 places that may carry.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..comovi_model.estimate.lifter_body import KeypointBody, PosedKeypoints
from .lifter_poses import (
    ARM,
    LEG,
    TRUNK,
    everyday_arms,
    random_angles,
    rotations_of,
)

# Shares of a body's mass, between pairs of joints: Winter, Biomechanics and Motor Control of Human Movement, table 4.1.
MASSES = (
    (0, 9, 0.30), (9, 12, 0.20), (12, 15, 0.08), (16, 18, 0.028), (17, 19, 0.028), (18, 20, 0.022), (19, 21, 0.022),
    (1, 4, 0.10), (2, 5, 0.10), (4, 7, 0.0465), (5, 8, 0.0465), (7, 10, 0.0145), (8, 11, 0.0145),
)  # fmt: skip
# Joints that may carry, and how far the skin is from each, metres; the buttocks are below the hips.
CARRYING = (
    (10, 0.03), (11, 0.03), (7, 0.08), (8, 0.08), (4, 0.06), (5, 0.06), (1, 0.10), (2, 0.10), (20, 0.04), (21, 0.04),
    (18, 0.05), (19, 0.05), (9, 0.12),
)  # fmt: skip
HIPS = (6, 7)  # their places in CARRYING
NEAR_GROUND, STEADY = 0.05, 0.06  # metres: a place this far above the lowest carries too; how far outside one may be
SEATED, SEAT = 0.3, (0.05, 0.6)  # share of people who may sit on something; its height above the feet, metres
STRAIGHT, ALIKE, UPRIGHT = 0.25, 0.4, 0.6  # shares of legs nearly straight, of pairs of legs alike, of upright trunks
TOUCHING = 0.45  # share of arms whose hand shall touch something
# What hands touch: a joint and a place in its frame (left side), metres; mirrored for the right hand.
TOUCHED = (
    (0, (0.17, 0.05, 0.03)), (0, (0.08, 0.0, -0.13)), (3, (0.0, 0.02, 0.13)), (9, (-0.08, 0.05, 0.14)),
    (1, (0.05, -0.2, 0.1)), (4, (0.0, 0.0, 0.07)), (7, (0.0, 0.05, 0.06)), (17, (0.0, 0.02, 0.05)),
    (19, (0.0, 0.0, 0.05)), (5, (0.0, 0.0, 0.07)), (15, (0.0, 0.0, 0.12)), (15, (0.09, 0.07, 0.02)),
    (15, (0.0, 0.2, 0.0)), (12, (0.02, 0.03, -0.08)), (21, (0.0, 0.0, 0.04)),
)  # fmt: skip
TRIES = 24  # arms from which the nearest is taken
DIRECTIONS = 24  # in which a body might fall
AT_ONCE = 8192  # candidates, of which about one in seven is kept


def balanced_poses(count: int, rng: np.random.Generator, body: KeypointBody) -> np.ndarray:
    """Local rotations (N, J, 3, 3) of bodies that would stay where they are; the root leans but does not turn round."""
    body = replace(body, offsets=body.offsets[..., :1], face=body.face[..., :1])  # the mean shape is enough
    kept: list[np.ndarray] = []
    while sum(map(len, kept)) < count:
        local = _candidates(AT_ONCE, rng)
        posed = body.posed(torch.from_numpy(local).float())
        kept.append(_with_arms(local[_steady(posed, rng) & _apart(posed)], rng, body))
    return np.concatenate(kept)[:count]


def _candidates(count: int, rng: np.random.Generator) -> np.ndarray:
    """Bodies from the limits of the joints, leaning anywhere."""
    legs = [random_angles(LEG, count, rng) for _ in range(2)]
    straight = rng.random(count) < STRAIGHT
    for leg in legs:
        for name, value in (("flex", 0.0), ("knee", 4.0), ("abduct", 4.0)):
            leg[name] = np.where(straight, value + 0.25 * (leg[name] - value), leg[name])
    alike = rng.random(count) < ALIKE
    legs[1] = {name: np.where(alike, legs[0][name], value) for name, value in legs[1].items()}
    trunk = random_angles(TRUNK, count, rng)
    upright = rng.random(count) < UPRIGHT
    for name in ("pitch", "tilt"):
        low, _, high, _ = TRUNK[name]
        trunk[name] = np.where(upright, 0.6 * trunk[name], rng.uniform(low, high, count))
    return rotations_of(trunk, [everyday_arms(count, rng) for _ in range(2)], legs, rng)


def _steady(posed: PosedKeypoints, rng: np.random.Generator) -> np.ndarray:
    """(N,): the centre of mass is above the places that carry."""
    joints = posed.joints[..., 0].double().numpy()  # (N, J, 3), y up
    centre = sum(share * (joints[:, a] + joints[:, b]) / 2 for a, b, share in MASSES) / sum(s for _, _, s in MASSES)
    index, skin = (np.array(column) for column in zip(*CARRYING, strict=True))
    places = joints[:, index]  # (N, C, 3)
    height = places[..., 1] - skin
    lowest = height.min(1, keepdims=True)
    carries = height < lowest + NEAR_GROUND
    hips = height[:, list(HIPS)]
    knees = joints[:, [4, 5], 1] - joints[:, [1, 2], 1]
    above = hips.mean(1) - lowest[:, 0]
    sits = (rng.random(len(joints)) < SEATED) & (above > SEAT[0]) & (above < SEAT[1])
    sits &= (np.abs(knees) < 0.3).all(1) & (np.abs(hips[:, 0] - hips[:, 1]) < 0.08)
    carries[:, list(HIPS)] |= sits[:, None]
    angle = np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
    ways = np.stack([np.cos(angle), np.sin(angle)])  # (2, D)
    reach = np.where(carries[..., None], places[..., [0, 2]] @ ways, -np.inf).max(1)
    return (centre[:, [0, 2]] @ ways <= reach + STEADY).all(1)


def _apart(posed: PosedKeypoints) -> np.ndarray:
    """(N,): neither forearms, knees nor ankles are inside the trunk, and the legs are not inside each other."""
    joints = posed.joints[..., 0]
    near = torch.zeros(len(joints), dtype=torch.bool)
    for joint, distance in ((18, 0.10), (19, 0.10), (20, 0.13), (21, 0.13), (4, 0.14), (5, 0.14), (7, 0.15), (8, 0.15)):
        near |= _beside(joints[:, joint], joints[:, 0], joints[:, 12]) < distance
    for one, other, distance in ((7, 8, 0.09), (4, 5, 0.10), (20, 21, 0.05)):
        near |= (joints[:, one] - joints[:, other]).norm(dim=-1) < distance
    near |= _beside(joints[:, 7], joints[:, 2], joints[:, 5]) < 0.1
    near |= _beside(joints[:, 8], joints[:, 1], joints[:, 4]) < 0.1
    return ~near.numpy()


def _beside(point: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """(N,) distances of points (N, 3) from segments."""
    along = end - start
    way = ((point - start) * along).sum(-1) / along.square().sum(-1).clamp_min(1e-9)
    return (point - start - way.clamp(0, 1)[:, None] * along).norm(dim=-1)


def _with_arms(local: np.ndarray, rng: np.random.Generator, body: KeypointBody) -> np.ndarray:
    """Some arms touch something: the nearest of TRIES that are not inside the trunk."""
    out = local.copy()
    for side, joints in enumerate(([13, 16, 18, 20, 22], [14, 17, 19, 21, 23])):
        chosen = np.flatnonzero(rng.random(len(local)) < TOUCHING)
        tries = np.repeat(out[chosen], TRIES, 0)
        arms = [random_angles(ARM, len(tries), rng) for _ in range(2)]
        still = {name: np.zeros(len(tries)) for name in (*TRUNK, *LEG)}
        tries[:, joints] = rotations_of(still, arms, [still, still], rng)[:, joints]
        posed = body.posed(torch.from_numpy(tries).float())
        away = _missed(posed, np.repeat(rng.integers(len(TOUCHED), size=len(chosen)), TRIES), side)
        away = away + 1.0 * ~_apart(posed)
        best = away.reshape(len(chosen), TRIES).argmin(1) + TRIES * np.arange(len(chosen))
        out[chosen] = tries[best]
    return out


def _missed(posed: PosedKeypoints, touched: np.ndarray, side: int) -> np.ndarray:
    """(N,) metres between the hand and what it shall touch."""
    mirror = {0: 0, 1: 2, 3: 3, 4: 5, 5: 4, 7: 8, 9: 9, 12: 12, 15: 15, 17: 16, 19: 18, 21: 20}
    joint = np.array([mirror[j] if side else j for j, _ in TOUCHED])[touched]
    place = torch.tensor([place for _, place in TOUCHED])[touched]
    if side:
        place = place * torch.tensor([-1.0, 1.0, 1.0])
    every = torch.arange(len(joint))
    wanted = posed.joints[every, joint, :, 0] + torch.einsum("nxy,ny->nx", posed.turns[every, joint], place)
    return (posed.joints[:, 22 + side, :, 0] - wanted).norm(dim=-1).numpy()
