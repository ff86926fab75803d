"""People before cameras, and what a keypoint detector says of them: training and test data of the keypoint lifter.

Pictures have a longer side of 512 pixels. Letters: B people, K = 18 keypoints, J = 24 joints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..comovi_model.body.cameras import frame_rotation
from ..comovi_model.body.rotations import axis_angle_to_matrix
from ..comovi_model.estimate.lifter_body import HEAD, LEFT_SHOULDER, NECK, RIGHT_SHOULDER, KeypointBody

LONG_SIDE = 512.0
ASPECTS = (0.5, 0.5625, 0.6667, 0.75, 1.0, 1.0, 1.3333, 1.5, 1.7778)  # width over height
NEAREST = 0.35  # metres from the camera to the nearest keypoint
# Where detectors put a keypoint beside the joint of our body, metres; one person's detector is always off the same way.
BESIDE = (0.012, 0.0, 0.02, 0.015, 0.015, 0.02, 0.015, 0.015, 0.03, 0.015, 0.015, 0.03, 0.015, 0.015) + (0.01,) * 4
LIMBS = ((2, 3, 4), (5, 6, 7), (8, 9, 10), (11, 12, 13))


@dataclass(frozen=True)
class Noise:
    """What a detector does. Pairs are limits between which each person's own value is drawn."""

    pixels: tuple[float, float] = (5.0, 5.0)  # standard deviation, at a picture of 512 pixels
    missing: tuple[float, float] = (0.1, 0.1)
    wild: tuple[float, float] = (0.02, 0.02)  # share of keypoints that lie anywhere in the picture
    swapped: float = 0.0  # share of people with left and right of both arms, both legs or the face exchanged
    beside: float = 0.0  # times BESIDE
    cut: float = 0.0  # share of people of whom a part below, above or beside a line is missing
    confident: tuple[float, float] = (0.5, 1.0)


# Training: every second person has a detector of any kind, the others a usual one.
TRAINING_NOISE = Noise((0.0, 10.0), (0.0, 0.22), (0.0, 0.04), swapped=0.03, beside=0.7, cut=0.08, confident=(0.3, 1.0))
USUAL_NOISE = Noise((2.5, 7.5), (0.0, 0.2), (0.0, 0.04), swapped=0.01, confident=(0.3, 1.0))
TEST_NOISE = Noise()


@dataclass(frozen=True)
class People:
    """B people with the truth."""

    keypoints: Tensor  # (B, K, 3) pixels and confidence, 0 = missing
    size: Tensor  # (B, 2) height, width
    focal: Tensor  # (B,) pixels
    rotations: Tensor  # (B, J, 3, 3), the root's in the camera frame
    betas: Tensor  # (B, 10)
    pelvis: Tensor  # (B, 3) metres, camera frame
    clean: Tensor  # (B, K, 2) pixels, true places

    def __len__(self) -> int:
        return len(self.focal)

    def __getitem__(self, index: slice | Tensor) -> People:
        return replace(self, **{name: value[index] for name, value in vars(self).items()})


def together(people: Sequence[People]) -> People:
    """All of them, one after the other."""
    return People(**{name: torch.cat([getattr(some, name) for some in people]) for name in vars(people[0])})


def draw_people(local: Tensor, body: KeypointBody, noise: Noise, generator: torch.Generator) -> People:
    """Poses (B, J, 3, 3), whose roots do not turn round the vertical -> people seen by cameras, with noise."""
    count = len(local)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator)

    betas = normal(10).clamp(-2.5, 2.5)
    aspect = torch.tensor(ASPECTS)[torch.randint(len(ASPECTS), (count,), generator=generator)]
    width = LONG_SIDE * aspect.clamp(max=1)
    size = torch.stack([width / aspect, width], -1).round()
    view = torch.exp(uniform(math.log(18.0), math.log(75.0)))  # degrees across the longer side
    focal = LONG_SIDE / 2 / torch.tan(torch.deg2rad(view) / 2)
    high = torch.where(uniform(0, 1) < 0.15, uniform(-30, 50), 9 * normal() + 4)  # degrees that the camera looks down
    rolled = 4 * normal()
    turns = [(1, uniform(-math.pi, math.pi)), (0, torch.deg2rad(high)), (2, torch.deg2rad(rolled))]
    root = frame_rotation("yup", "camera").expand(count, 3, 3)
    for axis, angle in turns:  # heading, then the camera's height, then its roll, all in y-up axes
        vector = torch.zeros(count, 3)
        vector[:, axis] = angle
        root = root @ axis_angle_to_matrix(vector) if axis == 1 else _before(axis_angle_to_matrix(vector), root)
    rotations = local.clone()
    rotations[:, 0] = root @ local[:, 0]
    posed = body.posed(rotations)
    points = posed.points_at(betas)  # (B, K, 3) from the pelvis
    truncated = uniform(0, 1) < noise.cut
    filled = torch.where(truncated, uniform(0.9, 1.5), uniform(0.4, 0.97))
    pelvis = _place(points, size, focal, filled, uniform(-1, 1), uniform(-1, 1))
    beside = points + noise.beside * torch.tensor(BESIDE)[:, None] * normal(18, 3)
    clean, seen = _project(points + pelvis[:, None], size, focal), _project(beside + pelvis[:, None], size, focal)
    keypoints = _detected(seen, posed.turns, points + pelvis[:, None], size, truncated, noise, generator)
    return People(keypoints, size, focal, rotations, betas, pelvis, clean)


def _before(turn: Tensor, root: Tensor) -> Tensor:
    """A turn about an axis of the camera, written in y-up axes, made after `root`."""
    level = frame_rotation("yup", "camera")
    return level @ turn @ level.T @ root


def _project(points: Tensor, size: Tensor, focal: Tensor) -> Tensor:
    return points[..., :2] / points[..., 2:] * focal[:, None, None] + size.flip(-1)[:, None] / 2


def _place(points: Tensor, size: Tensor, focal: Tensor, filled: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """The pelvis (B, 3) so that the person fills that share of the picture and lies anywhere where it fits."""
    extent = points[..., :2].amax(1) - points[..., :2].amin(1)
    nearest = NEAREST - points[..., 2].amin(1)
    room = size.flip(-1)
    depth = torch.maximum(focal * (extent / room).amax(-1) / filled, nearest)
    pelvis = torch.cat([torch.zeros(len(points), 2), depth[:, None]], -1)
    where = torch.stack([across, down], -1)
    for _ in range(3):
        seen = _project(points + pelvis[:, None], size, focal)
        low, high = seen.amin(1), seen.amax(1)
        share = ((high - low) / room).amax(-1)
        pelvis[:, 2] = torch.maximum(pelvis[:, 2] * (share / filled).clamp(0.7, 1.4), nearest)
        slack = (room - (high - low)).abs() / 2 * 0.95
        wanted = room / 2 + where * slack
        pelvis[:, :2] += (wanted - (low + high) / 2) / focal[:, None] * pelvis[:, 2:]
    return pelvis


def _detected(seen: Tensor, turns: Tensor, points: Tensor, size: Tensor, truncated: Tensor, noise: Noise,
              generator: torch.Generator) -> Tensor:  # fmt: skip
    """True places (B, K, 2) -> what the detector says, (B, K, 3)."""
    count = len(seen)

    def rand(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    def between(limits: tuple[float, float]) -> Tensor:
        return (limits[0] + (limits[1] - limits[0]) * rand()[:, None]).expand(count, 18)

    spread = between(noise.pixels)[..., None]
    found = seen + spread * torch.randn(count, 18, 2, generator=generator)
    confidence = noise.confident[0] + (noise.confident[1] - noise.confident[0]) * rand(18)
    wild = rand(18) < between(noise.wild)
    anywhere = rand(18, 2) * size.flip(-1)[:, None]
    found = torch.where(wild[..., None], anywhere, found)
    if noise.swapped:
        found = _swapped(found, rand(3) < noise.swapped)
    gone = (rand(18) < between(noise.missing)) | _turned_away(turns, points, rand(18)) & ~wild
    if noise.cut:  # what lies outside of the picture, and sometimes a whole side of the person
        outside = ((seen < 0) | (seen > size.flip(-1)[:, None])).any(-1)
        low, high = seen.amin(1, keepdim=True), seen.amax(1, keepdim=True)
        inside = (seen - low) / (high - low).clamp_min(1)
        legs = (inside[..., 1] > 0.3 + 0.7 * rand()[:, None]) & (rand()[:, None] < 0.7)
        side = (inside[..., 0] > 0.4 + 0.6 * rand()[:, None]) & (rand()[:, None] < 0.3)
        gone |= (outside | legs | side) & truncated[:, None]
    neck = ~gone[:, RIGHT_SHOULDER] & ~gone[:, LEFT_SHOULDER]
    found[:, NECK] = (found[:, RIGHT_SHOULDER] + found[:, LEFT_SHOULDER]) / 2  # as detectors with COCO's points do
    gone[:, NECK] = ~neck
    confidence = confidence.masked_fill(gone, 0)
    return torch.cat([found.masked_fill(gone[..., None], 0), confidence[..., None]], -1)


def _turned_away(turns: Tensor, points: Tensor, chance: Tensor) -> Tensor:
    """(B, K): points of the face on the far side of the head are not detected."""
    sight = -torch.nn.functional.normalize(points[:, 0], dim=-1)  # from the head to the camera
    axes = turns[:, HEAD]  # columns: the head's left, up, front
    front = (axes[..., 2] * sight).sum(-1, keepdim=True)
    left = (axes[..., 0] * sight).sum(-1, keepdim=True)
    hidden = torch.zeros_like(chance, dtype=torch.bool)
    edge = 0.2 * (chance - 0.5)
    hidden[:, [0]] = front + edge[:, [0]] < -0.25
    for point, side in ((14, -1), (15, 1)):
        hidden[:, [point]] = front + 0.45 * side * left + edge[:, [point]] < -0.12
    for point, side in ((16, -1), (17, 1)):
        hidden[:, [point]] = side * left + edge[:, [point]] < -0.35
    return hidden


def _swapped(found: Tensor, which: Tensor) -> Tensor:
    """Exchanges left and right of the arms, the legs, the face where `which` (B, 3)."""
    out = found.clone()
    pairs = (((2, 5), (3, 6), (4, 7)), ((8, 11), (9, 12), (10, 13)), ((14, 15), (16, 17)))
    for group, members in enumerate(pairs):
        chosen = which[:, group, None]
        for right, left in members:
            out[:, right] = torch.where(chosen, found[:, left], found[:, right])
            out[:, left] = torch.where(chosen, found[:, right], found[:, left])
    return out
