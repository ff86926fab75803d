"""Which face does each pixel see? A z-buffer in plain PyTorch, the same code on CPU and CUDA.

Letters: F frames, V vertices, N faces, P covered pixels, T tiles (a face and a small rectangle of pixels).

Every visible face is cut into rectangles of at most 64x64 pixels that cover its bounding box. Rectangles of
equal size class are tested together: the three edge functions and 1/z are affine in the pixel position, so a
class is a few broadcast sums. Pixels inside go to the z-buffer as one 63-bit number, depth above face index,
with an atomic maximum; the result does not depend on order, so it is the same on every device.

Rule: pixel centres i + 0.5, edges included (no holes between neighbours), greater 1/z in float32 wins, then
the lower face index. Coordinates are float64, where the sum of the two neighbours' rounding errors is about
1e-13 pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ComoviError

NEAR = 1e-3  # metres; a face with a vertex nearer than this, or behind the camera, is not drawn
TILE_SIZES = (4, 8, 16, 64)  # pixels; widths and heights are classed separately
CANDIDATES = 2**17  # pixels tested per step: about ten arrays of 1 MB, which stay in the cache
MAX_PIXELS, MAX_FACES = 2**23, 2**20  # per group of frames; a group needs up to about 200 MB


@dataclass(frozen=True)
class Pixels:
    """The covered pixels of a batch of frames, in picture order."""

    index: Tensor  # (P,) int64, (frame * H + row) * W + column
    face: Tensor  # (P,) int64
    bary: Tensor  # (P, 3) float32, perspective-correct weights of the face's three vertices
    depth: Tensor  # (P,) float32, metres along z
    shape: tuple[int, int, int]  # (F, H, W)

    @property
    def frame(self) -> Tensor:
        """(P,) int64"""
        return self.index // (self.shape[1] * self.shape[2])

    def interpolate(self, attributes: Tensor, faces: Tensor) -> Tensor:
        """Vertex attributes (F, V, C) or (V, C) -> their values at the covered pixels (P, C)."""
        corners = faces[self.face]  # (P, 3)
        if attributes.dim() == 3:
            corners = corners + (self.frame * attributes.shape[1])[:, None]
            attributes = attributes.flatten(0, 1)
        values = self.bary[:, :1] * attributes[corners[:, 0]]
        values += self.bary[:, 1:2] * attributes[corners[:, 1]]
        return values + self.bary[:, 2:] * attributes[corners[:, 2]]

    def image(self, values: Tensor, background: Tensor | float, out: Tensor | None = None) -> Tensor:
        """Values (P, C) on a background (broadcastable to (F, H, W, C)) -> (F, H, W, C), in `out` if given."""
        picture = values.new_empty(*self.shape, values.shape[1]) if out is None else out
        picture[...] = torch.as_tensor(background, dtype=values.dtype, device=values.device)
        picture.view(-1, values.shape[1])[self.index] = values
        return picture

    def mask(self) -> Tensor:
        """(F, H, W) bool, True where a face is seen."""
        covered = torch.zeros(self.shape, dtype=torch.bool, device=self.index.device)
        covered.view(-1)[self.index] = True
        return covered


@dataclass(frozen=True)
class Fragments:
    """What every pixel sees."""

    face: Tensor  # (F, H, W) int64, -1 where nothing is seen
    bary: Tensor  # (F, H, W, 3) float32, perspective-correct
    depth: Tensor  # (F, H, W) float32, 0 where nothing is seen


@contextmanager
def one_thread() -> Iterator[None]:
    """Drawing is thousands of short operations, for which a second OpenMP thread is rarely worth its waking.

    Beside another busy program the threads wait for each other: 81 frames took 18 s of CPU instead of 2.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def rasterise(
    vertices: Tensor, faces: Tensor, K: Tensor, height: int, width: int, cull: bool = True, backend: str = "auto"
) -> Fragments:
    """As visible_pixels, but as full pictures."""
    pixels = visible_pixels(vertices, faces, K, height, width, cull, backend)
    return Fragments(
        face=pixels.image(pixels.face[:, None], -1).squeeze(-1),
        bary=pixels.image(pixels.bary, 0.0),
        depth=pixels.image(pixels.depth[:, None], 0.0).squeeze(-1),
    )


def visible_pixels(
    vertices: Tensor, faces: Tensor, K: Tensor, height: int, width: int, cull: bool = True, backend: str = "auto"
) -> Pixels:
    """Draws F frames at once.

    vertices (F, V, 3) in the camera frame (x right, y down, z away), metres; faces (N, 3) counter-clockwise seen
    from outside; K (3, 3) or (F, 3, 3) in pixels. cull=True skips faces seen from behind: right for closed bodies,
    where it changes no pixel. backend "torch", "nvdiffrast", or "auto": nvdiffrast where it is installed and the
    vertices are on CUDA (its corners snap to 1/16 pixel, so pixels on outlines may differ).
    """
    if vertices.dim() != 3 or vertices.shape[2] != 3:
        raise ComoviError(f"vertices must be (frames, vertices, 3), got {tuple(vertices.shape)}.")
    if height < 1 or width < 1:
        raise ComoviError(f"the picture must have at least one pixel, got {width}x{height}.")
    if backend not in ("auto", "torch", "nvdiffrast"):
        raise ComoviError(f"unknown raster backend {backend!r}; choose auto, torch or nvdiffrast.")
    from . import rasterise_nvdiffrast

    if backend == "nvdiffrast" or (backend == "auto" and vertices.is_cuda and rasterise_nvdiffrast.installed()):
        return rasterise_nvdiffrast.visible_pixels(vertices, faces, K, height, width, cull)
    group = max(1, min(MAX_PIXELS // (height * width), MAX_FACES // max(1, len(faces))))
    parts = []
    for start in range(0, len(vertices), group):
        piece = slice(start, start + group)
        triangles = _visible_triangles(vertices[piece], faces, K if K.dim() == 2 else K[piece], height, width, cull)
        parts.append(_z_buffer(triangles, start, height, width))
    index, face, bary, depth = (torch.cat(column) for column in zip(*parts, strict=True))
    return Pixels(index, face, bary, depth, (len(vertices), height, width))


@dataclass(frozen=True)
class _Triangles:
    """Visible faces of some frames, by face and frame; the centre of pixel (column, row) is at (column, row)."""

    frame: Tensor  # (T,) int64
    face: Tensor  # (T,) int64
    planes: Tensor  # (T, 3, 4) float64: a, b, c of a*column + b*row + c for three edge functions and 1/z
    inverse_z: Tensor  # (T, 3) float64, 1/z of the corners
    box: Tensor  # (T, 4) int64: first column, first row, number of columns, number of rows


def _visible_triangles(vertices: Tensor, faces: Tensor, K: Tensor, height: int, width: int, cull: bool) -> _Triangles:
    points = vertices.double() @ K.double().transpose(-1, -2)  # (F, V, 3): u*z, v*z, z
    u, v, z = points.permute(2, 1, 0).contiguous()  # (V, F) each
    w = 1 / z
    # Nine arrays (N, F), because gathering rows of frames is fast and reductions over three numbers are slow.
    x1, x2, x3 = ((u * w - 0.5).index_select(0, corner) for corner in faces.T)
    y1, y2, y3 = ((v * w - 0.5).index_select(0, corner) for corner in faces.T)
    area = (x2 - x1) * (y3 - y1) - (y2 - y1) * (x3 - x1)
    left = torch.minimum(torch.minimum(x1, x2), x3).ceil_().clamp_min_(0)
    right = torch.maximum(torch.maximum(x1, x2), x3).floor_().clamp_max_(width - 1)
    top = torch.minimum(torch.minimum(y1, y2), y3).ceil_().clamp_min_(0)
    bottom = torch.maximum(torch.maximum(y1, y2), y3).floor_().clamp_max_(height - 1)
    # y points down, so a face seen from outside has negative area.
    keep = (area < 0 if cull else area != 0) & (right >= left) & (bottom >= top)
    in_front = (w > 0) & (w < 1 / NEAR)  # False for NaN, too
    if not in_front.all():
        keep &= in_front[faces].all(1)
    kept = keep.view(-1).nonzero().squeeze(1)
    face = kept // len(vertices)
    frame = kept - face * len(vertices)

    x, y = (
        torch.stack([value.view(-1)[kept] for value in corner]) for corner in ((x1, x2, x3), (y1, y2, y3))
    )  # (3, T)
    next_x, next_y, last_x, last_y = x.roll(-1, 0), y.roll(-1, 0), x.roll(1, 0), y.roll(1, 0)
    # Edge i is opposite corner i, >= 0 inside. The neighbour across an edge has exactly the negated numbers, so no
    # pixel falls between the two.
    edges = torch.stack([next_y - last_y, last_x - next_x, next_x * last_y - last_x * next_y])  # (3, 3, T)
    area = area.view(-1)[kept]
    edges *= area.sign()
    corner_w = w.view(-1)[faces[face].T * len(vertices) + frame]  # (3, T)
    depth_plane = (edges * (corner_w / area.abs())).sum(1, keepdim=True)
    planes = torch.cat([edges, depth_plane], 1).permute(2, 0, 1).contiguous()
    low = torch.stack([left.view(-1)[kept], top.view(-1)[kept]], 1)
    high = torch.stack([right.view(-1)[kept], bottom.view(-1)[kept]], 1)
    return _Triangles(frame, face, planes, corner_w.T.contiguous(), torch.cat([low, high - low + 1], 1).long())


def _z_buffer(
    triangles: _Triangles, first_frame: int, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """-> index, face, bary, depth of the covered pixels (see Pixels); frames count from first_frame."""
    if not len(triangles.face):
        empty = triangles.face
        return empty, empty, empty.new_empty(0, 3, dtype=torch.float32), empty.float()
    window = _Window.around(triangles.box)
    last = 2**31 - 1
    keys = torch.zeros(
        (int(triangles.frame.max()) + 1) * window.pixels, dtype=torch.int64, device=triangles.face.device
    )
    for inside, triangle, inverse_z in _inside(triangles, window):
        key = (inverse_z.float().view(torch.int32).long() << 32) | (last - triangle)
        keys.scatter_reduce_(0, inside, key, "amax")

    seen = keys.nonzero().squeeze(1)
    triangle = last - (keys[seen] & last)
    column, row, frame = window.split(seen)
    a, b, c = triangles.planes[triangle][..., :3].unbind(1)  # (P, 3)
    weights = (a * column[:, None] + (b * row[:, None] + c)).clamp_min_(0)  # screen-space, times the area
    over_z = weights * triangles.inverse_z[triangle]
    inverse_z = _sum3(over_z)
    index = ((frame + first_frame) * height + row) * width + column
    bary, depth = over_z / inverse_z[:, None], _sum3(weights) / inverse_z
    return index, triangles.face[triangle], bary.float(), depth.float()


def _sum3(values: Tensor) -> Tensor:
    """(..., 3) -> (...); .sum(-1) over three numbers is five times slower."""
    return values[..., 0] + values[..., 1] + values[..., 2]


@dataclass(frozen=True)
class _Window:
    """The rectangle of pixels that holds the bodies of all frames of a group."""

    left: int
    top: int
    columns: int
    rows: int

    @classmethod
    def around(cls, box: Tensor) -> _Window:
        left, top = box[:, :2].amin(0).tolist()
        right, bottom = (box[:, :2] + box[:, 2:]).amax(0).tolist()
        return cls(left, top, right - left, bottom - top)

    @property
    def pixels(self) -> int:
        return self.columns * self.rows

    def split(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Index in the window (frame, row, column) -> column and row of the picture, frame."""
        line = index // self.columns
        frame = line // self.rows
        return index - line * self.columns + self.left, line - frame * self.rows + self.top, frame


def _inside(triangles: _Triangles, window: _Window) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields window indices of pixels inside triangles, the triangles, and 1/z there, each (any,)."""
    wide, high = _size_class(triangles.box[:, 2]), _size_class(triangles.box[:, 3])
    for columns in TILE_SIZES:
        for rows in TILE_SIZES:
            members = ((wide == columns) & (high == rows)).nonzero().squeeze(1)
            triangle, box = _tiles(members, triangles.box[members], columns, rows)
            step = max(1, CANDIDATES // (columns * rows))
            for start in range(0, len(triangle), step):
                some, tile = triangle[start : start + step], box[start : start + step]
                which, column, row, inverse_z = _test(triangles.planes[some], tile, columns, rows)
                corner = triangles.frame[some] * window.pixels
                corner += (tile[:, 1] - window.top) * window.columns + (tile[:, 0] - window.left)
                yield corner[which] + row * window.columns + column, some[which], inverse_z


def _size_class(length: Tensor) -> Tensor:
    sizes = torch.tensor(TILE_SIZES, device=length.device)
    return sizes[torch.bucketize(length.contiguous(), sizes).clamp_max(len(TILE_SIZES) - 1)]


def _tiles(triangle: Tensor, box: Tensor, columns: int, rows: int) -> tuple[Tensor, Tensor]:
    """Cuts boxes (T, 4) into tiles of at most columns x rows -> triangle of each tile, box of each tile."""
    across = (box[:, 2] + columns - 1) // columns
    count = across * ((box[:, 3] + rows - 1) // rows)
    total = int(count.sum())
    if total == len(triangle):
        return triangle, box
    owner = torch.arange(len(triangle), device=box.device).repeat_interleave(count)
    number = torch.arange(total, device=box.device) - (count.cumsum(0) - count)[owner]  # of the tile within its box
    box, across = box[owner], across[owner]
    shift = torch.stack([number % across * columns, number // across * rows], 1)
    limit = torch.tensor([columns, rows], device=box.device)
    return triangle[owner], torch.cat([box[:, :2] + shift, torch.minimum(box[:, 2:] - shift, limit)], 1)


def _test(planes: Tensor, box: Tensor, columns: int, rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Planes (T, 3, 4) at all pixels of tiles (T, 4) -> tile, column and row in it, 1/z of the pixels inside."""
    nan = torch.tensor(torch.nan, dtype=torch.float64, device=box.device)  # pixels outside the box fail every test
    offset = torch.arange(max(columns, rows), device=box.device)
    left, top, wide, high = box[..., None].unbind(1)  # (T, 1)
    x = torch.where(offset[:columns] < wide, (left + offset[:columns]).double(), nan)  # (T, columns)
    y = torch.where(offset[:rows] < high, (top + offset[:rows]).double(), nan)  # (T, rows)
    a, b, c = planes[..., None].unbind(1)  # (T, 4, 1)
    across, down = (a * x[:, None])[:, :, None], (b * y[:, None] + c)[..., None]  # (T, 4, 1, columns), (T, 4, rows, 1)
    lowest = across[:, 0] + down[:, 0]  # (T, rows, columns)
    for edge in (1, 2):
        lowest = torch.minimum(lowest, across[:, edge] + down[:, edge])
    inside = (lowest >= 0).view(-1).nonzero().squeeze(1)
    inverse_z = (across[:, 3] + down[:, 3]).view(-1)[inside]
    area = columns * rows
    which = inside // area
    position = inside - which * area
    row = position // columns
    return which, position - row * columns, row, inverse_z
