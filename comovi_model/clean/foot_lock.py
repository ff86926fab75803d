"""Feet that stand, stand still: ankles and toes are pinned while they are in contact, and the legs follow.

Letters: F frames, J = 24 joints, P = 4 foot points (left ankle, left toe, right ankle, right toe). World axes with y
up, metres, float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..body.motion import BodyMotion
from ..body.smpl import BodyModel
from .feet import ContactSettings, Skeleton, contacts_of, floor_height, skeleton
from .gaps import neighbours, runs, valid_frames
from .history import noted
from .legs import LONGEST, Leg, between, reach
from .manifold import filter_path, regression_coefficients, window_index

LEGS = ((1, 4, 7, 10), (2, 5, 8, 11))  # hip, knee, ankle, toe of the left and the right leg
ANKLES, TOES = (0, 2), (1, 3)  # as foot points


@dataclass(frozen=True)
class FootLockSettings:
    blend_seconds: float = 0.2  # in which a foot leaves and returns to the path it had
    contacts: ContactSettings = field(default_factory=ContactSettings)
    flat_floor: bool = False  # standing feet come to one height, and the pelvis rises and sinks along
    step_height: float = 0.1  # metres; feet that stand further from the floor stand on something and stay there
    lowest_pelvis: float = 0.08  # metres it may sink where a planted foot would be out of the leg's reach


def lock_feet(
    motion: BodyMotion, model: BodyModel, settings: FootLockSettings | None = None, contacts: Tensor | None = None
) -> BodyMotion:
    """contacts (F, 4) bool replaces those that are found, by `foot_contacts`, and once more when feet stand still: the
    first and last frames of a contact then show.

    While an ankle or toe stands, it stays where it is on average; before and after, its correction fades in and out.
    A foot keeps its orientation in the world, apart from the turn that keeps a standing toe in place. Only hips,
    knees and ankles turn; where a pinned foot would be out of reach, the pelvis is lowered a little. With flat_floor
    all feet stand at one height, as people do, and the whole body rises and sinks to suit.
    """
    settings = settings or FootLockSettings()
    body = skeleton(motion, model)
    if contacts is None:
        contacts = contacts_of(body, motion.fps, settings.contacts, valid_frames(motion))
        once = lock_feet(motion, model, settings, contacts)
        contacts = contacts | contacts_of(skeleton(once, model), motion.fps, settings.contacts, valid_frames(motion))
    contacts = contacts & valid_frames(motion)[:, None]
    if not bool(contacts.any()):
        return motion
    blend = max(1, round(settings.blend_seconds * motion.fps))
    targets = _targets(body.foot_points, contacts)
    lift = torch.zeros(len(motion), 3, dtype=torch.float64)
    if settings.flat_floor:
        targets = _levelled(targets, body, contacts, settings.step_height)
        lift[:, 1] = _rise(targets - body.foot_points, contacts, blend)
        body = _lifted(body, lift)
    points = _wanted_points(body.foot_points, targets, contacts, blend)
    sunk = _pelvis_drop(body, points[:, ANKLES], contacts, blend).clamp_max(settings.lowest_pelvis)
    drop = torch.zeros_like(lift)
    drop[:, 1] = -sunk
    rotations = motion.rotations.double().clone()
    for side, joints in enumerate(LEGS):
        _solve_leg(body, joints, points[:, ANKLES[side]], points[:, TOES[side]], drop, rotations)
    transl = motion.transl.double() + (lift + drop) @ body.turn  # back to the motion's axes: turn^T acting on columns
    valid = valid_frames(motion)
    locked = replace(
        motion,
        rotations=torch.where(valid[:, None, None, None], rotations.float(), motion.rotations),
        transl=torch.where(valid[:, None], transl.float(), motion.transl),
    )
    return noted(locked, {"foot_lock": int(contacts.any(1).sum()), "blend_frames": blend})


def _wanted_points(now: Tensor, targets: Tensor, contacts: Tensor, blend: int) -> Tensor:
    """Foot points (F, P, 3) with the standing ones at their targets and the others fading back to their own path."""
    offset, weight = _faded(targets - now, contacts, blend)
    wanted = now + offset
    # Ankle and toe are one bone apart: who is pinned more firmly decides, the other one follows.
    for ankle, toe in zip(ANKLES, TOES, strict=True):
        length = (now[:, toe] - now[:, ankle]).norm(dim=-1, keepdim=True)
        bone = wanted[:, toe] - wanted[:, ankle]
        excess = bone - F.normalize(bone, dim=-1) * length  # what the toe would have to give up
        share = weight[:, toe] / (weight[:, toe] + weight[:, ankle]).clamp_min(1e-9)
        wanted[:, ankle] += share[:, None] * excess
    return wanted


def _targets(now: Tensor, contacts: Tensor) -> Tensor:
    """Where each standing point is to stay: its median during the contact; (F, P, 3), unused elsewhere."""
    targets = now.clone()
    for point in (*ANKLES, *TOES):
        for start, stop in runs(contacts[:, point]):
            targets[start:stop, point] = now[start:stop, point].median(0).values
    for ankle, toe in zip(ANKLES, TOES, strict=True):
        for start, stop in runs(contacts[:, toe]):
            flat = contacts[start:stop, ankle]
            if not bool(flat.any()):
                continue
            # A flat foot has its ankle pinned already: the toe's place is made one bone away from it.
            length = (now[start, toe] - now[start, ankle]).norm()
            pinned = targets[start:stop, ankle][flat].mean(0)
            direction = (now[start:stop, toe] - now[start:stop, ankle])[flat].median(0).values
            targets[start:stop, toe] = pinned + length * F.normalize(direction, dim=0)
    return targets


def _levelled(targets: Tensor, body: Skeleton, contacts: Tensor, step_height: float) -> Tensor:
    """Targets (F, P, 3) of feet near the floor, brought to the height at which they stand on it."""
    level = floor_height(body, contacts) + body.standing  # (P,)
    near = (targets[..., 1] - level).abs() < step_height
    height = torch.where(near, level.expand_as(near), targets[..., 1])
    return torch.stack([targets[..., 0], height, targets[..., 2]], -1)


def _rise(offset: Tensor, contacts: Tensor, blend: int) -> Tensor:
    """(F,) metres that the whole body goes up with its standing feet, from their offsets (F, P, 3); smooth."""
    standing = contacts.double()
    wanted = (offset[..., 1] * standing).sum(1) / standing.sum(1).clamp_min(1)
    before, after, share = neighbours(contacts.any(1))
    wanted = wanted[before] + share * (wanted[after] - wanted[before])
    index = window_index(len(wanted), 2 * blend)
    offsets = (index - torch.arange(len(wanted))[:, None]).double()
    bell = torch.exp(-0.5 * (offsets / blend) ** 2)
    return filter_path(wanted[:, None], index, regression_coefficients(offsets, bell, 1))[:, 0]


def _lifted(body: Skeleton, lift: Tensor) -> Skeleton:
    return replace(body, positions=body.positions + lift[:, None])


def _faded(offset: Tensor, contacts: Tensor, blend: int) -> tuple[Tensor, Tensor]:
    """Offsets (F, P, 3) kept in contact and faded out on both sides, and their weights (F, P)."""
    num_frames = len(offset)
    total, weight = torch.zeros_like(offset), torch.zeros_like(offset[..., 0])
    u = 1 - (torch.arange(blend, dtype=torch.float64) + 1) / (blend + 1)
    ease = u * u * (3 - 2 * u)  # from nearly 1 to nearly 0
    for point in range(offset.shape[1]):
        for start, stop in runs(contacts[:, point]):
            after = slice(stop, min(stop + blend, num_frames))
            before = torch.arange(start - 1, max(start - 1 - blend, -1), -1)
            for where, at in ((after, stop - 1), (before, start)):
                share = ease[: len(weight[where, point])]
                weight[where, point] += share
                total[where, point] += share[:, None] * offset[at, point]
        crowded = weight[:, point].clamp_min(1)  # between two contacts close together
        total[:, point] /= crowded[:, None]
        weight[:, point] /= crowded
        standing = contacts[:, point]
        total[standing, point], weight[standing, point] = offset[standing, point], 1.0
    return total, weight


def _pelvis_drop(body: Skeleton, ankles: Tensor, contacts: Tensor, blend: int) -> Tensor:
    """(F,) metres by which the pelvis sinks so that standing ankles (F, 2, 3) are in reach, without a jerk."""
    needed = torch.zeros(len(ankles), dtype=torch.float64)
    for side, (hip, knee, ankle, _) in enumerate(LEGS):
        place = body.positions
        longest = LONGEST * (
            (place[:, knee] - place[:, hip]).norm(dim=-1) + (place[:, ankle] - place[:, knee]).norm(dim=-1)
        )
        line = place[:, hip] - ankles[:, side]
        # Highest the hip may be above the ankle at this horizontal distance.
        highest = (longest**2 - line[:, 0] ** 2 - line[:, 2] ** 2).clamp_min(0).sqrt()
        standing = contacts[:, ANKLES[side]] | contacts[:, TOES[side]]
        needed = torch.maximum(needed, torch.where(standing, line[:, 1] - highest, 0.0))
    if not bool((needed > 0).any()):
        return needed
    # The largest need round each frame, then a mean of the same width: never below the need, and without corners.
    padded = F.pad(needed[None, None], (2 * blend, 2 * blend), mode="replicate")
    largest = F.max_pool1d(padded, 2 * blend + 1, stride=1)
    return F.avg_pool1d(largest, 2 * blend + 1, stride=1)[0, 0]


def _solve_leg(
    body: Skeleton, joints: tuple[int, int, int, int], ankle_at: Tensor, toe_at: Tensor, lift: Tensor, rotations: Tensor
) -> None:
    """Writes the leg's new local rotations into rotations (F, J, 3, 3)."""
    hip, knee, ankle, toe = joints
    place, turned = body.positions, body.orientations
    old = Leg(place[:, hip], place[:, knee], place[:, ankle], turned[:, hip], turned[:, knee])
    new = reach(old, place[:, hip] + lift, ankle_at)
    bone = F.normalize(place[:, toe] - place[:, ankle], dim=-1)
    foot = between(bone, F.normalize(toe_at - new.ankle, dim=-1)) @ turned[:, ankle]
    rotations[:, hip] = turned[:, 0].transpose(-1, -2) @ new.thigh
    rotations[:, knee] = new.thigh.transpose(-1, -2) @ new.shin
    rotations[:, ankle] = new.shin.transpose(-1, -2) @ foot
