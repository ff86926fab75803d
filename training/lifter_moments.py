"""Moments of movements that nobody wrote: people on their feet, with arms, feet and trunk anywhere they may be.

For training the keypoint lifter. The controls are those of the written actions (nano/skeleton.py: where the feet
stand, how deep the knees are bent, how the trunk leans, four angles of each arm), drawn at random instead of following
curves, so that moments have what all actions share and no action of their own. Letters: N moments.
"""

from __future__ import annotations

import numpy as np

from ..comovi_model.nano.skeleton import Arm, Foot, Tracks, solve_tracks, standing_tracks
from .lifter_everyday import ARMS

ACTIVE_ARM, ALIKE = 0.7, 0.45  # shares: arms that do something, pairs of arms that do the same
WRITTEN = 0.5  # share of active arms that go to a written pose of training; the others go anywhere
STEPPED, LIFTED, CROUCHED, AIRBORNE = 0.45, 0.25, 0.35, 0.06  # shares of people
ANYWHERE = {"abduct": (0.0, 172.0), "forward": (-45.0, 110.0), "elbow": (0.0, 140.0), "twist": (-95.0, 90.0)}
# Standard deviations in degrees, and limits from which a fifth of the people have a value instead.
TRUNK = {
    "pelvis_pitch": (4.0, (-18.0, 45.0)), "pelvis_roll": (3.0, (-10.0, 10.0)), "spine_pitch": (6.0, (-20.0, 55.0)),
    "spine_roll": (5.0, (-30.0, 30.0)), "spine_yaw": (9.0, (-42.0, 42.0)), "head_pitch": (7.0, (-25.0, 30.0)),
    "head_yaw": (12.0, (-50.0, 50.0)),
}  # fmt: skip
FAR = 0.2
HANGING = 5.0  # degrees of an elbow of which a written pose says nothing


def free_moments(count: int, rng: np.random.Generator, joints: np.ndarray, ground: float) -> np.ndarray:
    """Local rotations (N, 24, 3, 3) of people at rest joints (24, 3), metres, with soles at `ground`."""
    tracks = standing_tracks(count, joints)
    for name, (spread, limits) in TRUNK.items():
        usual, far = spread * rng.standard_normal(count), rng.uniform(*limits, count)
        tracks[name] = np.radians(np.where(rng.random(count) < FAR, far, usual))
    _arms(tracks, count, rng)
    _feet(tracks, count, rng)
    return solve_tracks(tracks, joints, ground)[0]


def _arms(tracks: Tracks, count: int, rng: np.random.Generator) -> None:
    left = _arm_angles(count, rng)
    alike = rng.random(count) < ALIKE
    right = {name: np.where(alike, left[name], value) for name, value in _arm_angles(count, rng).items()}
    for arm, angles in ((tracks.left_arm, left), (tracks.right_arm, right)):
        _set(arm, angles, rng)


def _set(arm: Arm, angles: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    """From hanging on the way to the angles; most arms arrive."""
    count = len(arm.abduct)
    way = np.where(rng.random(count) < 0.5, 1.0, rng.random(count)) * angles["active"]
    for name in ANYWHERE:
        target = np.radians(angles[name] + 5 * rng.standard_normal(count))
        setattr(arm, name, getattr(arm, name) + way * (target - getattr(arm, name)))


def _arm_angles(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    written = [pose for kind in ("training", "practice") for pose in ARMS[kind].values()]
    chosen, known = rng.integers(len(written), size=count), rng.random(count) < WRITTEN
    angles = {"active": (rng.random(count) < ACTIVE_ARM).astype(float)}
    for name, limits in ANYWHERE.items():
        usual = HANGING if name == "elbow" else 0.0
        table = np.array([pose.get(name, usual) for pose in written])
        angles[name] = np.where(known, table[chosen], rng.uniform(*limits, count))
    return angles


def _feet(tracks: Tracks, count: int, rng: np.random.Generator) -> None:
    def some(share: float) -> np.ndarray:
        return (rng.random(count) < share).astype(float)

    crouch = some(CROUCHED) * rng.uniform(0, 0.45, count)  # metres, as all lengths here
    tracks["drop"] = crouch + 0.01 * np.abs(rng.standard_normal(count))
    tracks["air"] = some(AIRBORNE) * rng.uniform(0, 0.25, count)
    tracks["pelvis_x"], tracks["pelvis_z"] = (0.05 * rng.standard_normal(count) for _ in range(2))
    tracks["pelvis_z"] = tracks["pelvis_z"] - rng.uniform(0, 0.9, count) * crouch  # as if to sit down
    stepped, lifted, higher = some(STEPPED), some(LIFTED), rng.random(count) < 0.5
    for foot, outward, mine in ((tracks.left_foot, 1.0, higher), (tracks.right_foot, -1.0, ~higher)):
        _place(foot, outward, stepped, lifted * mine, tracks["air"], rng)


def _place(foot: Foot, outward: float, stepped: np.ndarray, lifted: np.ndarray, air: np.ndarray,
           rng: np.random.Generator) -> None:  # fmt: skip
    count = len(stepped)
    up = lifted * rng.uniform(0, 0.65, count)
    foot.x = foot.x + outward * stepped * (0.06 + 0.12 * rng.standard_normal(count))
    foot.z = foot.z + stepped * 0.2 * rng.standard_normal(count) + lifted * rng.uniform(-0.3, 0.6, count)
    foot.y = foot.y + air + up
    foot.yaw = foot.yaw + outward * np.radians(8 * rng.standard_normal(count) * stepped)
    raised = np.radians(rng.uniform(-30, 60, count)) * lifted + np.radians(rng.uniform(0, 35, count)) * (air > 0)
    heel = np.radians(rng.uniform(0, 30, count)) * (rng.random(count) < 0.15)
    foot.pitch = foot.pitch + np.maximum(raised, heel * (1 - lifted)) + np.minimum(raised, 0)
