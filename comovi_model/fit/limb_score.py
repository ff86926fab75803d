"""Scores many poses of one arm or leg quickly: the rest of the body is drawn once, each limb is laid over it.

Letters: C candidates, P pixels of the coarse level. The same score as score.py, up to rounding; only the few
pixels of a limb are touched per candidate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .observation import COLOUR, Observation
from .raster import draw
from .score import LIMBS, ONE_SIDED, pixel_cost
from .surface import Mesh, Pose, Subject, dot, posed_vertices, predicted_colours, unit

RANKING = 3
MOVES = 1e-3  # share of the weights of a vertex that belongs to the limb


@dataclass(frozen=True)
class LimbMesh:
    """The coarse mesh cut in two: what turns with a limb, and what does not."""

    moving: Mesh
    still: Tensor  # (N', 3) faces of the coarse mesh


def limb_mesh(subject: Subject, limb: int) -> LimbMesh:
    mesh = subject.coarse
    share = mesh.weights @ subject.below[:, LIMBS[limb][0]]
    corners = (share > MOVES)[mesh.faces]
    faces = mesh.faces[corners.any(1)]
    used = faces.unique()
    number = torch.zeros(len(mesh.rest), dtype=torch.int64, device=faces.device)
    number[used] = torch.arange(len(used), device=faces.device)
    posedirs = None if mesh.posedirs is None else mesh.posedirs.unflatten(1, (-1, 3))[:, used].flatten(1)
    moving = Mesh(
        mesh.rest[used], mesh.normals[used], mesh.weights[used], mesh.part[used], number[faces], posedirs
    )  # fmt: skip
    return LimbMesh(moving, mesh.faces[~corners.any(1)])


@dataclass(frozen=True)
class Backdrop:
    """A frame with the body drawn without one limb; arrays over the pixels of the coarse level (h * w)."""

    limb: LimbMesh
    K: Tensor  # (3, 3)
    size: tuple[int, int]
    shown: Tensor  # (P, 3) colours of the map
    inside: Tensor  # (P,) bool
    cost: Tensor  # (P,) without the limb
    union: Tensor  # (P,) bool, of the two silhouettes without the limb
    depth: Tensor  # (P,) of the body without the limb, infinite beside it


def backdrop(subject: Subject, seen: Observation, frame: int, pose: Pose, limb: int) -> Backdrop:
    """Draws a pose (1) without its limb."""
    cut = limb_mesh(subject, limb)
    level = seen.coarse
    height, width = level.size
    shown = level.field[frame].view(height * width, -1)[:, COLOUR]
    inside = level.cover[frame].view(-1) >= 0.5
    vertices, normals = posed_vertices(subject.coarse, subject.skeleton(pose), pose, normals=True)
    assert normals is not None
    pixels = draw(vertices, cut.still, level.K[frame], height, width)
    colours, _ = predicted_colours(subject, subject.coarse.part, vertices, normals)
    cost = torch.where(inside, ONE_SIDED, 0.0)
    cost[pixels.index] = pixel_cost(pixels.interpolate(colours, cut.still), shown[pixels.index], inside[pixels.index])
    union = inside.clone()
    union[pixels.index] = True
    depth = torch.full_like(cost, torch.inf)
    depth[pixels.index] = pixels.depth
    return Backdrop(cut, level.K[frame], (height, width), shown, inside, cost, union, depth)


def score_limbs(subject: Subject, behind: Backdrop, candidates: Pose) -> Tensor:
    """Scores (C,) of poses that differ from the backdrop's in its limb only."""
    mesh, (height, width) = behind.limb.moving, behind.size
    vertices, normals = posed_vertices(mesh, subject.skeleton(candidates), candidates, normals=True)
    assert normals is not None
    pixels = draw(vertices, mesh.faces, behind.K, height, width)
    colours, _ = predicted_colours(subject, mesh.part, vertices, normals)
    owner = pixels.frame
    place = pixels.index - owner * (height * width)
    cost = pixel_cost(pixels.interpolate(colours, mesh.faces), behind.shown[place], behind.inside[place])
    change = torch.where(pixels.depth < behind.depth[place], cost - behind.cost[place], 0.0)
    zero = change.new_zeros(len(candidates))
    total = behind.cost.sum() + zero.index_add(0, owner, change)
    added = (~behind.union[place]).to(change)
    return total / (behind.union.sum() + zero.index_add(0, owner, added)).clamp_min(1)


def rank_limbs(subject: Subject, behind: Backdrop, candidates: Pose, group: int = 512) -> Tensor:
    """What candidates (C) add to the summed cost, roughly: every third vertex stands for the pixels around it.

    Fifty times faster than drawing, so that all directions of an arm can be tried; a limb that covers its own pixels
    twice is judged wrongly.
    """
    mesh, (height, width) = behind.limb.moving, behind.size
    area = _vertex_area(mesh)[::RANKING]
    posedirs = None if mesh.posedirs is None else mesh.posedirs.unflatten(1, (-1, 3))[:, ::RANKING].flatten(1)
    mesh = replace(
        mesh, rest=mesh.rest[::RANKING], normals=mesh.normals[::RANKING], weights=mesh.weights[::RANKING],
        part=mesh.part[::RANKING],
        posedirs=posedirs,
    )  # fmt: skip
    out = []
    for start in range(0, len(candidates), group):
        some = candidates[start : start + group]
        points, normals = posed_vertices(mesh, subject.skeleton(some), some, normals=True)
        assert normals is not None
        depth = points[..., 2].clamp_min(0.05)
        across = behind.K[0, 0] * points[..., 0] / depth + behind.K[0, 2]
        down = behind.K[1, 1] * points[..., 1] / depth + behind.K[1, 2]
        seen = (across >= 0) & (across < width) & (down >= 0) & (down < height)
        place = down.long().clamp(0, height - 1) * width + across.long().clamp(0, width - 1)
        facing = -dot(normals, unit(points))
        colours, _ = predicted_colours(subject, mesh.part, points, normals)
        cost = pixel_cost(
            colours.flatten(0, 1), behind.shown[place].flatten(0, 1), behind.inside[place].flatten()
        ).view_as(depth)
        pixels = area * facing.clamp_min(0) * behind.K[0, 0] * behind.K[1, 1] / depth.square()
        front = seen & (depth < behind.depth[place] + 0.02)
        out.append((pixels * front * (cost - behind.cost[place])).sum(1))
    return torch.cat(out)


def _vertex_area(mesh: Mesh) -> Tensor:
    """(V,) square metres: a third of the faces around each vertex."""
    first, second, third = mesh.rest[mesh.faces.T]
    face = torch.linalg.cross(second - first, third - first).norm(dim=-1) / 6
    out = mesh.rest.new_zeros(len(mesh.rest))
    for corner in range(3):
        out.index_add_(0, mesh.faces[:, corner], face)
    return out
