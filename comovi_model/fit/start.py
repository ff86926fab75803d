"""The pose to begin with: the given one, made to fit, or one found blind. Also the colours of the map.

Letters: B poses, J = 24 joints.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..body.rotations import axis_angle_to_matrix
from .observation import COLOUR, CORE, Calibration, Observation
from .priors import prediction_spread
from .score import Score, score_poses
from .search import best_of, pick, search_limb
from .solve import Pull, fit_poses
from .surface import Pose, Subject, area_normals, posed_vertices, predicted_colours
from .terms import COARSE, FINE, Stage, look, project, visible_points

YAWS = 8
KEY_FRAMES = 5
GOOD = 0.30  # a score above is worth other tries
SURE = 0.24  # a given pose that fits so well needs no other
SAME = 0.01  # the given pose may score worse than a free fit by this and is kept


def fit_start(subject: Subject, seen: Observation, frame: int, given: Pose, fine: Stage = FINE) -> tuple[Pose, Score]:
    """A pose (1) near the given one that explains the frame."""
    at = torch.tensor([frame], device=given.transl.device)
    near = fit_poses(subject, seen, at, given, fine, 6, Pull(0.0, given, prediction_spread(0.6), 0.04))
    near_score = score_poses(subject, seen, at, near)
    if float(near_score.mean) < SURE:
        return near, near_score
    free = fit_poses(subject, seen, at, given, COARSE, 25, Pull(2.0))
    free = fit_poses(subject, seen, at, free, fine, 10, Pull(1.0))
    free_score = score_poses(subject, seen, at, free)
    if float(near_score.mean) <= float(free_score.mean) + SAME:
        return near, near_score
    return search_all_limbs(subject, seen, frame, free, free_score, fine)


def search_all_limbs(
    subject: Subject, seen: Observation, frame: int, pose: Pose, score: Score, fine: Stage
) -> tuple[Pose, Score]:
    """Tries other poses of each limb, the worst first."""
    at = torch.tensor([frame], device=pose.transl.device)
    improved = False
    for limb in score.limbs[0].argsort(descending=True).tolist():
        pose, score, better = search_limb(subject, seen, frame, pose, score, limb, [], fine)
        improved |= better
    if improved:
        again = fit_poses(subject, seen, at, pose, fine, 6, Pull(0.5))
        pose, score = best_of(subject, seen, frame, [pose, again])
    return pose, score


def standing_pose(kind: str, yaw: Tensor) -> Tensor:
    """Rotations (B, J, 3, 3) in the camera frame of an upright person turned by yaw (B,): "standing" or "sitting"."""
    vector = torch.zeros(24, 3)
    vector[16, 2], vector[17, 2] = -1.2, 1.2  # arms hang
    vector[18, 1], vector[19, 1] = -0.4, 0.4
    if kind == "sitting":
        vector[1:3, 0], vector[4:6, 0] = -1.3, 1.4
    rotations = axis_angle_to_matrix(vector).repeat(len(yaw), 1, 1, 1)
    upright = axis_angle_to_matrix(torch.tensor([math.pi, 0.0, 0.0]))
    turn = axis_angle_to_matrix(torch.stack([torch.zeros_like(yaw), yaw, torch.zeros_like(yaw)], 1))
    rotations[:, 0] = upright @ turn
    return rotations


def place_in_box(subject: Subject, seen: Observation, frame: Tensor, rotations: Tensor) -> Pose:
    """Poses (B) placed so that they are as tall as the silhouettes of frames (B,) and in the same spot."""
    level = seen.fine
    K = level.K[frame]
    mask = level.mask[frame]
    rows, columns = mask.any(2).float(), mask.any(1).float()
    top, left = rows.argmax(1), columns.argmax(1)
    bottom = rows.shape[1] - rows.flip(1).argmax(1)
    right = columns.shape[1] - columns.flip(1).argmax(1)
    pose = Pose(rotations, torch.zeros(len(rotations), 3, device=rotations.device))
    vertices, _ = posed_vertices(subject.coarse, subject.skeleton(pose), pose)
    low, high = vertices.amin(1), vertices.amax(1)
    depth = K[:, 1, 1] * (high - low)[:, 1] / (bottom - top).clamp_min(1)
    centre = torch.stack([(left + right) / 2, (top + bottom) / 2], 1)
    ray = (centre - K[:, :2, 2]) / K[:, [0, 1], [0, 1]]
    place = torch.cat([ray * depth[:, None], depth[:, None]], 1)
    return Pose(rotations, place - (low + high) / 2)


def find_start(subject: Subject, seen: Observation, empty: Tensor, fine: Stage = FINE) -> tuple[int, Pose, Score]:
    """A frame whose pose could be found without knowing anything, the pose (1) and its score."""
    known = (~empty).nonzero().squeeze(1)
    spots = torch.linspace(0, len(known) - 1, min(KEY_FRAMES, len(known))).round().long()
    keys = known[spots.to(known.device)]
    yaw = torch.arange(YAWS) * (2 * math.pi / YAWS)
    guesses = torch.cat([standing_pose(kind, yaw) for kind in ("standing", "sitting")]).to(subject.rest_joints)
    frame = keys.repeat_interleave(len(guesses))
    pose = place_in_box(subject, seen, frame, guesses.repeat(len(keys), 1, 1, 1))
    for keep, steps, stage, bends in ((6, 8, COARSE, 2.0), (2, 10, COARSE, 1.0), (1, 8, fine, 1.0)):
        chosen = _best_per_frame(score_poses(subject, seen, frame, pose).mean, frame, keep)
        frame, pose = frame[chosen], pose[chosen]
        pose = fit_poses(subject, seen, frame, pose, stage, steps, Pull(bends))
    score = score_poses(subject, seen, frame, pose)
    best = int(score.mean.argmin())
    found, found_score = search_all_limbs(subject, seen, int(frame[best]), pose[[best]], pick(score, [best]), fine)
    return int(frame[best]), found, found_score


def _best_per_frame(score: Tensor, frame: Tensor, keep: int) -> Tensor:
    """Indices of the `keep` lowest scores of each frame."""
    chosen = []
    for value in frame.unique():
        members = (frame == value).nonzero().squeeze(1)
        chosen.append(members[score[members].argsort()[:keep]])
    return torch.cat(chosen)


def measure_colours(
    subject: Subject, seen: Observation, frame: int, pose: Pose, undone: Calibration | None = None
) -> Calibration | None:
    """How the colours of the map differ from drawn ones, judged by a pose (1) that fits; None if it cannot be judged.

    A line per channel by iterated robust regression over points in the core of the silhouette. `undone` is what has
    been corrected already; the result contains it.
    """
    level, at = seen.fine, torch.tensor([frame], device=pose.transl.device)
    view = look(subject, level, at, pose)
    vertices, _ = posed_vertices(subject.full, view.skeleton, pose)
    normals, _ = area_normals(subject.full, vertices)
    position, _ = project(vertices, level.K[at])
    facing = -(normals * F.normalize(vertices, dim=-1)).sum(-1)
    sampled = level.sample(at, position)
    used = (
        visible_points(view, position, vertices[..., 2], 0.02) & (facing > 0.3) & (sampled[..., CORE].squeeze(-1) > 0.9)
    )
    if int(used.sum()) < 100:
        return None
    drawn, _ = predicted_colours(subject, subject.full.part, vertices, normals)
    drawn, shown = drawn[used].double(), sampled[..., COLOUR][used].double()
    gains, offsets = [], []
    for channel in range(3):
        x, y = drawn[:, channel], shown[:, channel]
        gain, offset = torch.ones((), dtype=torch.float64), (y - x).median()
        for _ in range(10):
            error = y - gain * x - offset
            weight = 1 / (1 + (error / 0.03).square()).square()
            total = weight.sum()
            mean_x, mean_y = (weight * x).sum() / total, (weight * y).sum() / total
            spread = (weight * (x - mean_x).square()).sum() + 1e-3 * total * 0.02
            gain = ((weight * (x - mean_x) * (y - mean_y)).sum() + 1e-3 * total * 0.02) / spread
            offset = mean_y - gain * mean_x
        gains.append(float(gain.clamp(0.8, 1.25)))
        offsets.append(float(offset.clamp(-0.15, 0.15)))
    before = undone or Calibration()
    # shown = g0 (g1 drawn + o1) + o0
    total = [g0 * g1 for g0, g1 in zip(before.gain, gains, strict=True)]
    rest = [g0 * o1 + o0 for g0, o1, o0 in zip(before.gain, offsets, before.offset, strict=True)]
    return Calibration((total[0], total[1], total[2]), (rest[0], rest[1], rest[2]))
