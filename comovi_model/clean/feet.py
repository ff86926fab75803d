"""The feet of a motion, seen with y up: where they are, when they stand, how far they slide while they stand.

Letters: F frames, J = 24 joints. Foot points are left ankle, left toe, right ankle, right toe, in that order: (F, 4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..body.cameras import frame_rotation
from ..body.frames import check_same_body
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel, joint_transforms, rest_joints, shaped_vertices
from ..body.upright import camera_up, shortest_turn
from .gaps import runs, valid_frames
from .manifold import regression_coefficients, window_index

FOOT_JOINTS = (7, 10, 8, 11)
SKATING_MM = 25.0  # of a point in contact within one frame at 20 frames per second; what published tables count


@dataclass(frozen=True)
class ContactSettings:
    """When a point of the foot counts as standing. Both signs of evidence are added, so one may make up for the other.

    The limits hold for motion without noise; `noise_share` times the measured noise of each point comes on top, up to
    `most` times the limit: feet that swing are faster than that. The numbers were chosen among 160 sets by agreement
    with the true contacts of synthetic walks, marches, kicks, turns and jumps at 16 and 30 frames per second: F1 0.95
    without noise, then 0.93, 0.91 and 0.83 at the noise levels of known_motion.py.
    """

    speed: float = 0.2  # m/s after smoothing, at which evidence turns against contact
    height: float = 0.05  # metres above standing height, likewise
    radius: float = 0.1  # metres that a standing point may be from the middle of its contact
    noise_share: float = 2.0
    most: float = 2.5
    smoothing_seconds: float = 0.1  # sigma of the bell over the positions
    swing_share: float = 0.15  # of the speed of the point's quickest tenth of frames, where that is more than `speed`
    patience: float = 1.0  # evidence (1 is a frame of perfect rest) that a change of state must bring
    shortest_seconds: float = 0.12  # shorter contacts are dropped


@dataclass(frozen=True)
class Skeleton:
    """All joints of a motion in world axes with y up; float64."""

    positions: Tensor  # (F, J, 3) metres
    orientations: Tensor  # (F, J, 3, 3)
    standing: Tensor  # (4,) height of each foot point above the sole when the foot is flat
    turn: Tensor  # (3, 3): from the motion's axes to these

    @property
    def foot_points(self) -> Tensor:
        """(F, 4, 3)."""
        return self.positions[:, list(FOOT_JOINTS)]


def to_yup(motion: BodyMotion) -> Tensor:
    """(3, 3) float64: from the motion's axes to x left, y up, z to the front; a camera is level or says its up."""
    turn = frame_rotation(motion.frame, "yup").double()
    if motion.frame == "camera":
        turn = shortest_turn((turn @ camera_up(motion).double()).float(), torch.tensor([0.0, 1.0, 0.0])).double() @ turn
    return turn


def skeleton(motion: BodyMotion, model: BodyModel) -> Skeleton:
    check_same_body(model, motion)
    turn = to_yup(motion)
    rest = rest_joints(model, motion.betas).double()
    world = joint_transforms(motion.rotations.double(), rest, motion.transl.double())
    sole = shaped_vertices(model, motion.betas)[:, 1].min().double()
    return Skeleton(
        positions=world[..., :3, 3] @ turn.T,
        orientations=turn @ world[..., :3, :3],
        standing=rest[list(FOOT_JOINTS), 1] - sole,
        turn=turn,
    )


def floor_height(body: Skeleton, contacts: Tensor | None = None) -> float:
    """Height of the floor under the motion: the median under standing feet, or, before contacts are known, under
    the lower foot of the quarter of frames in which it is lowest."""
    under = body.foot_points[..., 1] - body.standing  # (F, 4)
    if contacts is not None and bool(contacts.any()):
        return float(under[contacts].median())
    return float(under.amin(1).quantile(0.25))


def foot_contacts(motion: BodyMotion, model: BodyModel, settings: ContactSettings | None = None) -> Tensor:
    """(F, 4) bool: which foot points stand on the floor."""
    return contacts_of(skeleton(motion, model), motion.fps, settings, valid_frames(motion))


def contacts_of(
    body: Skeleton, fps: float, settings: ContactSettings | None = None, valid: Tensor | None = None
) -> Tensor:
    """As `foot_contacts`; the floor is found twice, at first from the lowest feet, then from the standing ones."""
    settings = settings or ContactSettings()
    valid = torch.ones(len(body.positions), dtype=torch.bool) if valid is None else valid
    if not bool(valid.any()):
        return valid[:, None].expand(-1, len(FOOT_JOINTS))
    floor = floor_height(replace(body, positions=body.positions[valid]))
    for _ in range(2):
        contacts = _contacts_on(body, floor, fps, settings, valid)
        floor = floor_height(body, contacts) if bool(contacts.any()) else floor
    return contacts


def _contacts_on(body: Skeleton, floor: float, fps: float, settings: ContactSettings, valid: Tensor) -> Tensor:
    track = _smoothed(body.foot_points, settings.smoothing_seconds * fps, valid)
    speed = track.velocity.norm(dim=-1) * fps
    height = track.place[..., 1] - body.standing - floor

    def limit(value: float, noise: Tensor) -> Tensor:
        return (value + settings.noise_share * noise).clamp_max(settings.most * value)

    speed_limit = limit(settings.speed, track.velocity_noise * fps)
    speed_limit = torch.maximum(speed_limit, settings.swing_share * speed.quantile(0.9, dim=0))
    height_limit = limit(settings.height, track.place_noise)
    evidence = (1 - speed / speed_limit).clamp(-2, 1) + (1 - height / height_limit).clamp(-2, 0.5)
    evidence = torch.where(valid[:, None], evidence, 0.0)  # the frames around a gap decide
    contacts = _two_states(evidence, settings.patience)
    radius = limit(settings.radius, track.place_noise)
    shortest = max(2, round(settings.shortest_seconds * fps))
    kept = torch.zeros_like(contacts)
    for point in range(contacts.shape[1]):
        for start, stop in runs(contacts[:, point]):
            for first, end in _places(track.place[:, point], start, stop, float(radius[point]), shortest):
                kept[first:end, point] = True
    return kept & valid[:, None]


def _places(place: Tensor, start: int, stop: int, radius: float, shortest: int) -> list[tuple[int, int]]:
    """Cuts frames start..stop-1 of place (F, 3) into stretches that each stay within `radius` of their middle."""
    cut_off = start == 0 or stop == len(place)  # the contact goes on outside the clip
    if stop - start < shortest and not cut_off:
        return []
    away = (place[start:stop] - place[start:stop].median(0).values).norm(dim=-1) > radius
    if not bool(away.any()):
        return [(start, stop)]
    if bool(away.all()):
        return []
    pieces = runs(away) + runs(~away)
    return [cut for a, b in pieces for cut in _places(place, start + a, start + b, radius, shortest)]


@dataclass(frozen=True)
class _Track:
    """Foot points smoothed over time."""

    place: Tensor  # (F, 4, 3)
    velocity: Tensor  # (F, 4, 3) per frame
    place_noise: Tensor  # (4,) standard deviation per axis that is left in `place`
    velocity_noise: Tensor  # (4,) and in `velocity`


def _smoothed(points: Tensor, sigma: float, valid: Tensor) -> _Track:
    """Lines fitted to (F, P, 3) under a bell; what they leave over, in the calmer half of the frames, is noise."""
    index = window_index(len(points), max(1, round(2.5 * sigma)))
    offsets = (index - torch.arange(len(points))[:, None]).double()
    bell = torch.exp(-0.5 * (offsets / max(sigma, 0.3)) ** 2) * valid[index]
    level = regression_coefficients(offsets, bell, 1)
    slope = bell * (offsets - (bell * offsets).sum(1, keepdim=True) / bell.sum(1, keepdim=True).clamp_min(1e-12))
    slope = slope / (slope * offsets).sum(1, keepdim=True).clamp_min(1e-12)
    window = points[index]  # (F, W, P, 3)
    place = torch.einsum("fw,fwpk->fpk", level, window)
    velocity = torch.einsum("fw,fwpk->fpk", slope, window)
    # The median length of a three-dimensional normal error is 1.538 standard deviations.
    noise = (points - place)[valid].norm(dim=-1).median(0).values / 1.538
    left, left_in_speed = (rows[valid].norm(dim=1).median() for rows in (level, slope))
    return _Track(place, velocity, noise * left, noise * left_in_speed)


def _two_states(evidence: Tensor, patience: float) -> Tensor:
    """evidence (F, P), positive for contact -> the states (F, P) that agree most, each change costing `patience`.

    The best path of two states (Viterbi): a threshold that remembers, without lag.
    """
    num_frames = len(evidence)
    score = torch.stack([-evidence[0], evidence[0]])  # (2, P): moving, standing
    came_from = []
    for frame in range(1, num_frames):
        switched = score.flip(0) - patience
        stay = score >= switched
        came_from.append(stay)
        score = torch.where(stay, score, switched) + torch.stack([-evidence[frame], evidence[frame]])
    state = score[1] > score[0]
    states = [state]
    for stay in reversed(came_from):
        kept = torch.where(state, stay[1], stay[0])
        state = torch.where(kept, state, ~state)
        states.append(state)
    return torch.stack(states[::-1])


@dataclass(frozen=True)
class Skate:
    """How far foot points slide along the floor while they stand."""

    metres_per_second: float  # mean over all frames in contact
    share: float  # of those frames in which a point slides faster than 25 mm in a twentieth of a second
    frames: int  # foot points x frames in contact


def skate(motion: BodyMotion, model: BodyModel, contacts: Tensor | None = None) -> Skate:
    """contacts (F, 4): from elsewhere, as from a clean version of the motion; None finds them here."""
    body = skeleton(motion, model)
    if contacts is None:
        contacts = contacts_of(body, motion.fps, valid=valid_frames(motion))
    both = contacts[1:] & contacts[:-1]
    slide = body.foot_points[..., [0, 2]].diff(dim=0).norm(dim=-1)[both] * motion.fps
    if not len(slide):
        return Skate(0.0, 0.0, 0)
    fast = (slide > SKATING_MM / 1000 * 20).double().mean()
    return Skate(float(slide.mean()), float(fast), len(slide))
