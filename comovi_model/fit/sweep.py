"""Lets doubtful frames learn from the frames around them, and searches the limbs of those that stay doubtful.

Letters: F frames, J = 24 joints.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..body.rotations import slerp
from .score import LIMBS, Score, score_poses
from .search import GAIN, best_of
from .solve import expecting, fit_poses
from .surface import Pose, join_poses
from .track import Track, find_limb

PERCENTILE = 0.25  # of the scores of a clip: these frames fit
SCORE, LIMB = 0.015, 0.010  # a frame is doubtful where its score or that of a limb is worse than theirs by so much
SEARCHED = 0.022  # a score so much worse asks for a search of its limbs
SMALL_GAIN = 0.006  # is enough to move a limb where something must be wrong
TRIED = 2  # ways of learning from the neighbours that are fitted
BETTER = 0.004  # of the score
SEARCHES = 0.6  # per frame, on average


def sweep(track: Track, direction: int, searching: bool = True) -> int:
    """Goes through the frames forth (1) or back (-1); -> how many were improved."""
    frames = len(track.seen)
    order = range(1, frames) if direction > 0 else range(frames - 2, -1, -1)
    known = ~track.empty
    if int(known.sum()) < 2:
        return 0
    level = float(torch.quantile(track.score[known], PERCENTILE))
    usual = torch.quantile(track.limbs[known], PERCENTILE, dim=0)
    improved, budget = 0, max(4, round(SEARCHES * frames)) if searching else 0
    for frame in order:
        neighbour = frame - direction
        if bool(track.empty[frame]) or bool(track.empty[neighbour]):
            continue
        excess = (track.limbs[frame] - usual).tolist()
        if max(excess) <= LIMB and float(track.score[frame]) <= level + SCORE:
            continue
        track.on_frame()
        own, own_score = track.at(frame), track.score_at(frame)
        pose, score = learn(track, frame, neighbour, own, own_score)
        excess = (score.limbs[0] - usual).tolist()
        for limb in _suspects(excess, float(score.mean[0]) - level):
            if budget <= 0:
                break
            budget -= (frame, limb) not in track.in_vain
            gain = SMALL_GAIN if float(score.mean) > level + SEARCHED else GAIN
            pose, score, better = find_limb(track, frame, pose, score, limb, [track.at(neighbour)], gain)
            if better and float(score.mean) < level + SEARCHED:
                break
        if float(score.mean) < float(own_score.mean) - 0.002:
            track.put(frame, pose, score)
            # What was searched in vain beside another pose may be found beside this one.
            if float(score.mean) < float(own_score.mean) - 0.02:
                track.in_vain -= {(frame, limb) for limb in range(len(LIMBS))}
            improved += 1
    return improved


def _suspects(excess: list[float], worse: float) -> list[int]:
    """Limbs to search: those that add to the score, or, where the whole frame is bad, the arms in any case."""
    ranked = sorted(range(len(LIMBS)), key=lambda limb: -excess[limb])
    if worse > SEARCHED:
        return [limb for limb in ranked if limb < 2 or excess[limb] > LIMB][:3]
    return [limb for limb in ranked[:1] if excess[limb] > LIMB + 0.005]


def learn(track: Track, frame: int, neighbour: int, own: Pose, own_score: Score) -> tuple[Pose, Score]:
    """The pose (1) of a frame, or a better one made from its neighbours': a limb, all of it, or what lies between."""
    other = track.at(neighbour)
    options = [other]
    for limb in LIMBS:
        options.append(mixed(own, other, limb))
    beyond = 2 * frame - neighbour
    if 0 <= beyond < len(track.seen) and not bool(track.empty[beyond]):
        middle = between(other, track.at(beyond), 0.5)
        options.append(middle)
        options += [mixed(own, middle, limb) for limb in LIMBS]
    joined = join_poses(options)
    at = torch.full((len(joined),), frame, device=own.transl.device)
    order = score_poses(track.subject, track.seen, at, joined).mean.argsort()[:TRIED]
    chosen = joined[order]
    fitted = fit_poses(
        track.subject, track.seen, at[:TRIED], chosen, track.fine, 3, expecting(chosen, 2.0, 0.3)
    )  # fmt: skip
    found, score = best_of(track.subject, track.seen, frame, [fitted, chosen])
    return (found, score) if float(score.mean) < float(own_score.mean) - BETTER else (own, own_score)


def mixed(own: Pose, other: Pose, joints: tuple[int, ...]) -> Pose:
    """A pose with some joints of another."""
    rotations = own.rotations.clone()
    rotations[:, list(joints)] = other.rotations[:, list(joints)]
    return Pose(rotations, own.transl)


def between(first: Pose, second: Pose, part: float) -> Pose:
    """The pose (1) at `part` of the way from one to another."""
    share: Tensor = first.transl.new_full((1, first.rotations.shape[1]), part)
    return Pose(slerp(first.rotations, second.rotations, share), torch.lerp(first.transl, second.transl, part))
