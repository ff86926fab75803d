"""Fewer, evenly spread triangles on the vertices of a body, for wireframes that stay readable in a small picture.

Letters: V vertices, N faces, E edges, S seeds. Seeds are spread by farthest-point sampling; every other vertex joins
the seed that is nearest along the surface, and where three such regions meet there is a coarse triangle.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..body.smpl import BodyModel

SEEDS = 1100
FEW_FACES = 2600  # bodies with no more faces than this are drawn as they are


def coarse_faces(model: BodyModel, seeds: int = SEEDS) -> Tensor:
    """(n, 3) int64: corners are vertices of the body, so the triangles move with it."""
    if len(model.faces) <= FEW_FACES or len(model.v_template) <= seeds:
        return model.faces
    points = model.v_template.double().cpu()
    faces = model.faces.cpu()
    seed = _spread(points, seeds)
    region = _nearest_along_surface(points, faces, seed)
    corners = seed[region[faces]]  # (N, 3)
    apart = (corners[:, 0] != corners[:, 1]) & (corners[:, 1] != corners[:, 2]) & (corners[:, 2] != corners[:, 0])
    corners = corners[apart]
    first = corners.argmin(1, keepdim=True)
    turned = corners.gather(1, (first + torch.arange(3)) % 3)  # the same triangle may meet in several faces
    return torch.unique(turned, dim=0).to(model.faces.device)


def _spread(points: Tensor, count: int) -> Tensor:
    """Indices (S,): each the vertex farthest from all before it."""
    chosen = [int(points[:, 1].argmax())]
    distance = (points - points[chosen[0]]).square().sum(1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen)


def _nearest_along_surface(points: Tensor, faces: Tensor, seed: Tensor) -> Tensor:
    """(V,) index into seed: shortest way along edges, relaxed until nothing changes. Vertices of pieces without a
    seed (eyes, teeth) join seed 0, where they make no triangle."""
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    start, end = torch.cat([edges, edges.flip(1)]).T
    length = (points[start] - points[end]).norm(dim=1)
    distance = torch.full((len(points),), torch.inf, dtype=points.dtype)
    region = torch.zeros(len(points), dtype=torch.int64)
    distance[seed], region[seed] = 0, torch.arange(len(seed))
    for _ in range(len(points)):
        through = distance[start] + length
        best = distance.scatter_reduce(0, end, through, "amin")
        better = best < distance
        if not bool(better.any()):
            break
        winning = better[end] & (through == best[end])
        region = region.scatter(0, end[winning], region[start[winning]])
        distance = best
    return region
