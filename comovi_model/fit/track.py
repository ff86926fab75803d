"""Follows a person from frame to frame, and repairs what was lost. Letters: F frames, J = 24 joints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..body.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from .observation import Observation
from .priors import prediction_spread
from .score import LIMBS, Score, score_poses
from .search import GAIN, best_of, search_limb
from .solve import Pull, expecting, fit_poses
from .start import find_start
from .surface import Pose, Subject
from .terms import COARSE, FINE, Stage

BLIND_AFTER = (2, 8)  # failing frames in a row, after which the person is sought blind
MOMENTUM = 0.7  # of the last step that the prediction repeats
FINE_STEPS = 5
WRONG = 0.03  # above it, the worst limb is searched in any case
SUSPECT = 0.02  # a score above the usual one by this asks for another try
LOST = 0.015  # a limb is searched for when it adds so much more than usual to the score
REST = 3  # frames without a new search of a limb that was not found
LARGEST_SHARE = 1.0  # searches per frame, on average


SCORE = 0.34  # a frame fails above this score,
REFERENCE = 1.35  # or above this times the score that the clip began with: disturbed maps score worse;
ASTRAY = 1.8  # times that score, a frame is not even worth starting the next one from;
LARGEST_REFERENCE = 0.45  # but a start that fits worse than this vouches for nothing


@dataclass
class Track:
    """The poses found so far, and how well they fit."""

    subject: Subject
    seen: Observation
    pose: Pose  # (F)
    score: Tensor  # (F,)
    limbs: Tensor  # (F, 4)
    overlap: Tensor  # (F,)
    empty: Tensor  # (F,) bool: no person to be seen
    fine: Stage = FINE
    searches: int = 0
    in_vain: set[tuple[int, int]] = field(default_factory=set)  # frame and limb of searches that found nothing
    reference: float = 0.2  # the score of the frame that the fit began with
    on_frame: Callable[[], None] = field(default=lambda: None)

    def at(self, frame: int) -> Pose:
        return self.pose[[frame]]

    def score_at(self, frame: int) -> Score:
        index = [frame]
        return Score(self.score[index], self.limbs[index], self.overlap[index])

    def put(self, frame: int, pose: Pose, score: Score) -> None:
        self.pose.rotations[frame], self.pose.transl[frame] = pose.rotations[0], pose.transl[0]
        self.score[frame], self.limbs[frame] = score.mean[0], score.limbs[0]
        self.overlap[frame] = score.overlap[0]

    def rescore(self) -> None:
        every = torch.arange(len(self.pose), device=self.score.device)
        score = score_poses(self.subject, self.seen, every, self.pose)
        self.score, self.limbs, self.overlap = score.mean, score.limbs, score.overlap


def score_limit(track: Track) -> float:
    """The score above which a frame of this clip has failed."""
    return max(SCORE, REFERENCE * min(track.reference, LARGEST_REFERENCE))


def astray_limit(track: Track) -> float:
    """The score above which a pose is no basis for others. Frame 0 of a generated map is cleaner than the rest."""
    return max(SCORE, ASTRAY * min(track.reference, LARGEST_REFERENCE))


def empty_track(subject: Subject, seen: Observation, empty: Tensor, fine: Stage = FINE) -> Track:
    frames, device = len(seen), subject.rest_joints.device
    rotations = torch.eye(3, device=device).expand(frames, 24, 3, 3).clone()
    large = torch.full((frames,), 2.0, device=device)
    return Track(
        subject, seen, Pose(rotations, torch.zeros(frames, 3, device=device)),
        large, large[:, None].expand(-1, 4).clone(), torch.zeros(frames, device=device), empty, fine,
    )  # fmt: skip


def predict(last: Pose, before: Pose | None) -> Pose:
    """The pose (1) after `last` if the movement slows down a little."""
    if before is None:
        return last
    turn = matrix_to_axis_angle(before.rotations.transpose(-1, -2) @ last.rotations)
    turn = turn * (0.6 / turn.norm(dim=-1, keepdim=True).clamp_min(0.6))
    step = MOMENTUM * (last.transl - before.transl)
    return Pose(last.rotations @ axis_angle_to_matrix(MOMENTUM * turn), last.transl + step)


def follow(track: Track, start: int, direction: int) -> None:
    """Fits frames after (direction 1) or before (-1) `start`, whose pose is known."""
    usual = track.limbs[start].clone()
    frame, before = start, None
    good, failures, level = track.at(start), 0, float(track.score[start])
    budget = max(2, round(LARGEST_SHARE * len(track.seen)))
    rest = [0] * len(LIMBS)  # frames during which a limb that could not be found is left alone
    while 0 <= frame + direction < len(track.seen):
        last, frame = good, frame + direction
        guess = predict(last, before)
        track.on_frame()
        if bool(track.empty[frame]):
            track.put(frame, last, track.score_at(frame))
            before = None
            continue
        at = torch.tensor([frame], device=last.transl.device)
        pose = fit_poses(track.subject, track.seen, at, guess, track.fine, FINE_STEPS, expecting(guess, 1.0, 0.3))
        pose, score = best_of(track.subject, track.seen, frame, [pose, guess, last])  # descent may lead astray
        if float(score.mean) > level + SUSPECT:  # a fast movement needs the wide reach of the coarse stage
            wide = fit_poses(track.subject, track.seen, at, guess, COARSE, 2, expecting(guess, 1.5, 0.3))
            wide = fit_poses(track.subject, track.seen, at, wide, track.fine, FINE_STEPS, expecting(guess, 1.5, 0.3))
            pose, score = best_of(track.subject, track.seen, frame, [pose, wide])
        rest = [max(0, frames - 1) for frames in rest]
        excess = (score.limbs[0] - usual).tolist()
        lost = [limb for limb in range(len(LIMBS)) if excess[limb] > (3 if rest[limb] else 1) * LOST]
        if not lost and float(score.mean) > level + WRONG:
            lost = [limb for limb in (max(range(len(LIMBS)), key=excess.__getitem__),) if not rest[limb]]
        lost.sort(key=lambda limb: -excess[limb])
        for limb in lost[: min(2, budget)]:
            budget -= 1
            pose, score, better = find_limb(track, frame, pose, score, limb, [last, guess])
            rest[limb] = 0 if better else REST
        track.put(frame, pose, score)
        # The usual cost follows slowly, and hardly upwards: what stays lost must not become usual.
        if float(score.mean) > astray_limit(track):  # lost: the next frame begins where all was well
            failures += 1
            pose, score = find_again(track, frame, good, pose, score, blind=failures in BLIND_AFTER)
            track.put(frame, pose, score)
        if float(score.mean) > astray_limit(track):
            before = None
            continue
        failures, good = 0, pose
        rise = score.limbs[0] - usual
        usual += torch.where(rise > 0, 0.05, 0.3) * rise
        level += (0.05 if float(score.mean) > level else 0.3) * (float(score.mean) - level)
        before = last


def find_again(track: Track, frame: int, good: Pose, pose: Pose, score: Score, blind: bool) -> tuple[Pose, Score]:
    """Another try at a frame (pose and score so far) from the last good pose, or from no pose at all."""
    at = torch.tensor([frame], device=pose.transl.device)
    wide = fit_poses(track.subject, track.seen, at, good, COARSE, 12, Pull(1.0))
    wide = fit_poses(track.subject, track.seen, at, wide, track.fine, 6, Pull(0.5))
    options = [pose, wide]
    if blind:
        others = torch.arange(len(track.seen), device=track.score.device) != frame
        options.append(find_start(track.subject, track.seen, others, track.fine)[1])
    found, found_score = best_of(track.subject, track.seen, frame, options)
    return (found, found_score) if float(found_score.mean) < float(score.mean) - GAIN else (pose, score)


def find_limb(
    track: Track, frame: int, pose: Pose, score: Score, limb: int, hints: list[Pose], gain: float = GAIN
) -> tuple[Pose, Score, bool]:
    """Searches one limb and, if that helped, fits the whole body once more."""
    if (frame, limb) in track.in_vain:
        return pose, score, False
    track.searches += 1
    found, found_score, better = search_limb(
        track.subject, track.seen, frame, pose, score, limb, hints, track.fine, gain
    )  # fmt: skip
    if not better:
        track.in_vain.add((frame, limb))
        return found, found_score, False
    at = torch.tensor([frame], device=pose.transl.device)
    again = fit_poses(track.subject, track.seen, at, found, track.fine, 3, Pull(0.3, found, prediction_spread(2), 0.06))
    again_score = score_poses(track.subject, track.seen, at, again)
    if again_score.mean[0] < found_score.mean[0]:
        return again, again_score, True
    return found, found_score, True
