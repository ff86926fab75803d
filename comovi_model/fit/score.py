"""How well a pose explains a frame: draw it and compare (analysis by synthesis).

Letters: B poses, P pixels of the coarse level. Per pixel of the union of the two silhouettes: 1.2 where only one of
them is, else half the colour error in green and blue (normals) plus half the error in red (parts), each at most 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..body.parts import NUM_PARTS, PART_OF_JOINT
from .observation import COLOUR, Observation
from .surface import Pose, Subject, predicted_colours
from .terms import NORMAL_SCALE, PART_SCALE, look

ONE_SIDED = 1.2
LIMBS = ((16, 18, 20), (17, 19, 21), (1, 4, 7), (2, 5, 8))  # joints of left and right arm, left and right leg
LIMB_PARTS = ((16, 18, 20, 22), (17, 19, 21, 23), (1, 4, 7, 10), (2, 5, 8, 11))  # joints whose parts count to it


@dataclass(frozen=True)
class Score:
    mean: Tensor  # (B,) over the union
    limbs: Tensor  # (B, 4) what each limb adds to the mean, where the body shows it or the picture shows it uncovered
    overlap: Tensor  # (B,) intersection over union of the silhouettes
    share: Tensor | None = None  # (B, 4) of the union in which each limb is drawn


def limb_of_part() -> Tensor:
    """(24,) int64: 0..3, or 4 for the trunk."""
    out = torch.full((NUM_PARTS,), len(LIMBS))
    for limb, joints in enumerate(LIMB_PARTS):
        for joint in joints:
            out[PART_OF_JOINT[joint]] = limb
    return out


def seen_parts(red: Tensor, flat: bool) -> Tensor:
    """The likely part of colours whose light level is not known (the middle one is taken)."""
    level, base = (1.0, 0.0) if flat else (0.65, 0.2)
    return ((48 * (red - base) / level - 1) / 2).round().clamp(0, NUM_PARTS - 1).long()


@torch.no_grad()
def score_poses(subject: Subject, seen: Observation, frame: Tensor, pose: Pose, group: int = 64) -> Score:
    """Poses (B) against frames (B,)."""
    parts = [
        _score(subject, seen, frame[i : i + group], pose[i : i + group]) for i in range(0, len(pose), group)
    ]  # fmt: skip
    columns = zip(*((p.mean, p.limbs, p.overlap, p.share) for p in parts), strict=True)
    return Score(*(torch.cat(column) for column in columns))


def pixel_cost(drawn: Tensor, shown: Tensor, inside: Tensor) -> Tensor:
    """Cost (P,) of pixels drawn in colours (P, 3) where colours (P, 3) are shown, inside the silhouette or not (P,)."""
    difference = (drawn - shown).abs()
    normal = (difference[:, 1:].square().sum(1) * (NORMAL_SCALE**2 / 0.3)).clamp_max(1)
    part = (difference[:, 0] * (PART_SCALE / 4)).clamp_max(1)
    return torch.where(inside, 0.5 * normal + 0.5 * part, ONE_SIDED)


def _score(subject: Subject, seen: Observation, frame: Tensor, pose: Pose) -> Score:
    level = seen.coarse
    view = look(subject, level, frame, pose)
    mesh = subject.coarse
    colours, _ = predicted_colours(subject, mesh.part, view.vertices, view.normals)
    drawn = view.pixels.interpolate(colours, mesh.faces)  # (P, 3)
    area = level.cover.shape[1] * level.cover.shape[2]
    owner = view.pixels.frame
    place = frame[owner] * area + view.pixels.index - owner * area
    shown = level.field.view(-1, level.field.shape[-1])[place][:, COLOUR]
    inside = level.cover.view(-1)[place] >= 0.5
    cost = pixel_cost(drawn, shown, inside)

    batch = len(pose)
    limb_index = limb_of_part().to(cost.device)
    corner = mesh.part[mesh.faces[view.pixels.face, 0]]
    limb = owner * 5 + limb_index[corner]
    cost_sum = cost.new_zeros(batch * 5).index_add_(0, limb, cost)
    count = cost.new_zeros(batch * 5).index_add_(0, limb, torch.ones_like(cost))
    both = cost.new_zeros(batch).index_add_(0, owner, inside.to(cost))
    drawn_share = count.view(batch, 5)[:, :4].clone()

    left = (level.mask[frame] & ~view.covered).flatten().nonzero().squeeze(1)  # shown, not drawn
    owner = left // area
    red = level.field.view(-1, level.field.shape[-1])[frame[owner] * area + left - owner * area][:, 0]
    limb = owner * 5 + limb_index[seen_parts(red, subject.flat)]
    ones = torch.ones_like(red)
    cost_sum.index_add_(0, limb, ONE_SIDED * ones)
    count.index_add_(0, limb, ones)
    cost_sum, count = cost_sum.view(batch, 5), count.view(batch, 5)
    union = count.sum(1)
    return Score(
        cost_sum.sum(1) / union.clamp_min(1) + (union < 1) * ONE_SIDED,
        cost_sum[:, :4] / union.clamp_min(1)[:, None],
        both / union.clamp_min(1),
        drawn_share / union.clamp_min(1)[:, None],
    )
