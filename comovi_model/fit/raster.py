"""A z-buffer for the small faces of the fit: as body/rasterise.py, but in float32 and with square tiles of two sizes.

A fit draws thousands of pictures of 100 by 200 pixels whose faces cover a few pixels each, so it pays to have few
operations. Letters: B poses, V vertices, N faces, T tiles, P covered pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..body.rasterise import NEAR, Pixels

TILES = (4, 8)  # pixels; larger faces are cut into tiles of the larger size
TILES_AT_ONCE = 2**16
POSES_PIXELS, POSES_FACES = 2**22, 2**19  # per group of poses
SLACK = -1e-4  # of an edge function: neighbours leave no holes between them
LAST = 2**31 - 1


def draw(vertices: Tensor, faces: Tensor, K: Tensor, height: int, width: int) -> Pixels:
    """Vertices (B, V, 3), faces (N, 3) counter-clockwise from outside, K (3, 3) or (B, 3, 3) -> what pixels see."""
    group = max(1, min(POSES_PIXELS // (height * width), POSES_FACES // max(1, len(faces))))
    if len(vertices) <= group:
        index, face, bary, depth = _draw(vertices, faces, K, height, width)
        return Pixels(index, face, bary, depth, (len(vertices), height, width))
    columns = []
    for start in range(0, len(vertices), group):
        piece = slice(start, start + group)
        index, *rest = _draw(vertices[piece], faces, K if K.dim() == 2 else K[piece], height, width)
        columns.append((index + start * height * width, *rest))
    index, face, bary, depth = (torch.cat(column) for column in zip(*columns, strict=True))
    return Pixels(index, face, bary, depth, (len(vertices), height, width))


def _draw(vertices: Tensor, faces: Tensor, K: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    batch, count = vertices.shape[:2]
    x, y, z = vertices.permute(2, 0, 1).contiguous()  # (B, V)
    inverse_z = 1 / z
    fx, fy, cx, cy = (K[..., row, column, None] for row, column in ((0, 0), (1, 1), (0, 2), (1, 2)))
    columns = (fx * x * inverse_z + (cx - 0.5)).view(-1)
    rows = (fy * y * inverse_z + (cy - 0.5)).view(-1)
    inverse_z = inverse_z.view(-1)
    corners = faces.T
    if batch > 1:
        corners = (corners[:, None] + (torch.arange(batch, device=faces.device) * count)[:, None]).flatten(1)
    corners = list(corners.contiguous())  # three of (B * N,)
    u, v = ([value.index_select(0, corner) for corner in corners] for value in (columns, rows))
    area = (u[1] - u[0]) * (v[2] - v[0]) - (v[1] - v[0]) * (u[2] - u[0])
    left, right = torch.minimum(torch.minimum(*u[:2]), u[2]), torch.maximum(torch.maximum(*u[:2]), u[2])
    top, bottom = torch.minimum(torch.minimum(*v[:2]), v[2]), torch.maximum(torch.maximum(*v[:2]), v[2])
    box = torch.stack([left.ceil_().clamp_min_(0), top.ceil_().clamp_min_(0),
                       right.floor_().clamp_max_(width - 1), bottom.floor_().clamp_max_(height - 1)])  # fmt: skip
    keep = (area < 0) & (box[2] >= box[0]) & (box[3] >= box[1])
    if not bool(((inverse_z > 0) & (inverse_z < 1 / NEAR)).all()):  # False for NaN, too
        for corner in corners:
            near = inverse_z.index_select(0, corner)
            keep &= (near > 0) & (near < 1 / NEAR)
    kept = keep.nonzero().squeeze(1)
    corners = [corner.index_select(0, kept) for corner in corners]
    u, v, w = (
        torch.stack([value.index_select(0, corner) for corner in corners]) for value in (columns, rows, inverse_z)
    )  # (3, T)
    box, area = box.index_select(1, kept), area.index_select(0, kept)
    owner = torch.zeros_like(kept) if batch == 1 else _quotient(kept, len(faces))
    # Edge i is opposite corner i and is >= 0 inside (y points down, so a visible face has negative area).
    u1, v1 = u.roll(-1, 0), v.roll(-1, 0)
    a, b = v.roll(1, 0) - v1, u1 - u.roll(1, 0)
    scene = _Scene(owner, a, b, u1, v1, w / -area, height, width)
    keys = torch.zeros(batch * height * width, dtype=torch.int64, device=faces.device)
    small = torch.maximum(box[2] - box[0], box[3] - box[1]) < TILES[0]
    for tile, members in ((TILES[0], small), (TILES[1], ~small)):
        which = members.nonzero().squeeze(1)
        corner = box[:2].index_select(1, which)
        if tile == TILES[1]:
            which, corner = _cut(which, box.index_select(1, which), tile)
        for start in range(0, len(which), TILES_AT_ONCE):
            piece = slice(start, start + TILES_AT_ONCE)
            scene.mark(keys, which[piece], corner[:, piece], tile)

    seen = keys.nonzero().squeeze(1)
    triangle = LAST - (keys.index_select(0, seen) & LAST)
    row = _quotient(seen, width)
    column = seen - row * width
    frame = owner.index_select(0, triangle)
    px, py = column.to(u), (row - frame * height).to(u)
    a, b, u1, v1, w = (value.index_select(1, triangle) for value in (a, b, u1, v1, w))
    weight = (a * (px - u1) + b * (py - v1)).clamp_min_(0)  # (3, P)
    over_z = weight * w
    total = over_z[0] + over_z[1] + over_z[2]
    depth = (weight[0] + weight[1] + weight[2]) / total
    face = kept.index_select(0, triangle) - frame * len(faces)
    return seen, face, (over_z / total).T.contiguous(), depth


def _quotient(value: Tensor, divisor: int) -> Tensor:
    """value // divisor for integers from 0; division of int64 is ten times slower."""
    return ((value.double() + 0.5) / divisor).long()


def _cut(which: Tensor, box: Tensor, tile: int) -> tuple[Tensor, Tensor]:
    """Boxes (4, T) of faces (T,) -> the face of each tile (T',) and the tile's left and top pixel (2, T')."""
    across = ((box[2] - box[0]) / tile).long() + 1
    down = ((box[3] - box[1]) / tile).long() + 1
    number = across * down
    owner = torch.arange(len(which), device=which.device).repeat_interleave(number)
    place = torch.arange(len(owner), device=which.device) - (number.cumsum(0) - number)[owner]
    across = across[owner]
    row = place // across
    return which[owner], box[:2].index_select(1, owner) + torch.stack([place - row * across, row]).to(box) * tile


@dataclass(frozen=True)
class _Scene:
    """The visible faces of all poses, T of them."""

    owner: Tensor  # (T,) int64, pose
    a: Tensor  # (3, T) slopes of the edge functions
    b: Tensor
    u1: Tensor  # (3, T) column of a corner on each edge
    v1: Tensor  # (3, T) row
    share: Tensor  # (3, T): the edge functions times this add up to the inverse depth
    height: int
    width: int

    def mark(self, keys: Tensor, some: Tensor, corner: Tensor, tile: int) -> None:
        """Writes faces `some` (T',) into the z-buffer (B * h * w,) at the pixels of their tiles from `corner`."""
        shift = tile.bit_length() - 1
        offset = torch.arange(tile * tile, device=keys.device)
        row, column = offset >> shift, offset & (tile - 1)
        a, b, u1, v1 = (value.index_select(1, some) for value in (self.a, self.b, self.u1, self.v1))
        base = a * (corner[0] - u1) + b * (corner[1] - v1)  # at the corner of the tile, for the precision of float32
        basis = torch.stack([torch.ones_like(offset), column, row], 1).to(a)  # (S * S, 3)
        edge = basis @ torch.stack([base, a, b], 1)  # (3, S * S, T')
        hit = (torch.minimum(torch.minimum(edge[0], edge[1]), edge[2]) >= SLACK).view(-1).nonzero().squeeze(1)
        place = _quotient(hit, len(some))
        which = hit - place * len(some)
        face = some.index_select(0, which)
        column, row = column.index_select(0, place), row.index_select(0, place)
        left, top = corner.long().index_select(1, which)
        column += left
        row += top
        weight = edge.view(3, -1).index_select(1, hit) * self.share.index_select(1, face)
        inverse_z = (weight[0] + weight[1] + weight[2]).clamp_min_(1e-9)
        key = (inverse_z.view(torch.int32).long() << 32) | (LAST - face)
        index = (self.owner.index_select(0, face) * self.height + row) * self.width + column
        beyond = (column >= self.width) | (row >= self.height)
        keys.scatter_reduce_(0, index.masked_fill_(beyond, 0), key.masked_fill_(beyond, 0), "amax")
