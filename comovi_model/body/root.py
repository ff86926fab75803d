"""Finds where the body stands in each frame from its silhouettes, when only its pose is known.

Letters: F frames, H W picture, J = 24 joints. The pose head gives rotations but no path (Eq. 7-9), and the motion
map has the path but no numbers. With the pose, the shape and the camera known, three numbers per frame are left:
the centre of the silhouette gives x and y, the square root of its area gives the depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ComoviError
from .cameras import Camera
from .map_render import visible_body
from .rasterise import one_thread
from .smpl import BodyModel, pose_body

DAMPING = 0.9  # of the depth: 0.7 leaves a tenth of a walk undone, 1.0 answers fully to every ragged outline
LARGEST_DEPTH_RATIO = 1.25  # per round, so that a broken silhouette cannot throw the body away
SMALLEST_AREA = 0.1  # of the drawn silhouette; less is no silhouette of this body
SMOOTHING = (0.25, 0.5, 0.25)  # over time, of the correction only


@dataclass(frozen=True)
class _Moments:
    """Of F silhouettes."""

    centre: Tensor  # (F, 2) pixels, column and row
    area: Tensor  # (F,) pixels


def recover_root(
    model: BodyModel,
    rotations: Tensor,
    betas: Tensor | None,
    camera: Camera,
    first_transl: Tensor,
    silhouettes: Tensor,
    smooth: bool = True,
) -> Tensor:
    """-> transl (F, 3) in metres, camera frame; frame 0 keeps first_transl (3,).

    rotations (F, 24, 3, 3) in the camera frame, silhouettes (F, H, W) bool of the whole body seen by `camera` (of a
    motion map: map_colours.silhouette). Three rounds of draw, compare, move: two with depth, one without. What the
    silhouette of frame 0 shows differently from the body drawn at first_transl (blurred outlines, another shape) is
    taken as a property of the pictures and allowed for in all frames. Frames without a usable silhouette are filled
    in from their neighbours. On 33 frames of the small mannequin at 128x192, walking 1 m away: 1 mm sideways and
    9 mm in depth on average; with outlines blurred and torn and joints off by 0.12 rad, 6 mm and 0.1 m.
    """
    frames = len(rotations)
    if silhouettes.dim() != 3 or len(silhouettes) != frames:
        raise ComoviError(
            f"the root needs one silhouette per pose: got {frames} poses and silhouettes {tuple(silhouettes.shape)}."
        )
    height, width = silhouettes.shape[1:]
    camera = camera.resized(width, height)
    seen = _moments(silhouettes)
    start = first_transl.to(rotations).expand(frames, 3).clone()
    # Poses of all frames at the root of frame 0; moving a body moves all its vertices alike.
    vertices = pose_body(model, rotations, betas).vertices
    pelvis_depth = pose_body(model, rotations[:1], betas).joints[0, 0, 2]

    drawn = _draw(model, vertices[:1] + start[:1, None], camera.frames(0, 1), height, width)
    if float(drawn.area[0]) == 0:
        raise ComoviError("the body of the first frame lies outside the picture; check the first position and camera.")
    bias = _bias(seen, drawn)
    transl = start
    usable = torch.ones(frames, dtype=torch.bool, device=transl.device)
    for with_depth in (True, True, False):
        drawn = _draw(model, vertices + transl[:, None], camera, height, width)
        transl, usable = _step(transl, seen, drawn, bias, camera, pelvis_depth, with_depth)
        transl = _filled(transl, usable, start)
    if smooth:
        transl = start + _smoothed(transl - start)
    return torch.cat([start[:1], transl[1:]])


def _draw(model: BodyModel, vertices: Tensor, camera: Camera, height: int, width: int) -> _Moments:
    with one_thread():
        pixels = visible_body(model, vertices, camera.K, height, width)
    count = len(vertices)
    row, column = pixels.index // width % height, pixels.index % width
    values = torch.stack([torch.ones_like(row), column, row], 1).to(vertices.dtype) + vertices.new_tensor([0, 0.5, 0.5])
    sums = vertices.new_zeros(count, 3, dtype=torch.float64).index_add_(0, pixels.frame, values.double())
    return _Moments((sums[:, 1:] / sums[:, :1].clamp_min(1)).to(vertices), sums[:, 0].to(vertices))


def _moments(silhouettes: Tensor) -> _Moments:
    mask = silhouettes.double()
    area = mask.sum((1, 2))
    column = torch.arange(mask.shape[2], device=mask.device, dtype=mask.dtype) + 0.5
    row = torch.arange(mask.shape[1], device=mask.device, dtype=mask.dtype) + 0.5
    sums = torch.stack([(mask.sum(1) * column).sum(1), (mask.sum(2) * row).sum(1)], 1)
    return _Moments((sums / area.clamp_min(1)[:, None]).float(), area.float())


def _bias(seen: _Moments, drawn: _Moments) -> tuple[Tensor, Tensor]:
    """How frame 0 is seen differently from how it is drawn: shift (2,) pixels, ratio of areas ()."""
    ratio = seen.area[0] / drawn.area[0]
    if not 0.5 < float(ratio) < 2:  # not this body, or nothing seen: no property of the pictures
        return torch.zeros_like(drawn.centre[0]), torch.ones_like(ratio)
    return seen.centre[0] - drawn.centre[0], ratio


def _step(
    transl: Tensor,
    seen: _Moments,
    drawn: _Moments,
    bias: tuple[Tensor, Tensor],
    camera: Camera,
    pelvis_depth: Tensor,
    with_depth: bool,
) -> tuple[Tensor, Tensor]:
    """One correction -> transl (F, 3), and which frames had a usable silhouette (F,)."""
    shift, ratio = bias
    usable = seen.area > SMALLEST_AREA * drawn.area.clamp_min(1)
    depth = transl[:, 2] + pelvis_depth
    new_depth = depth
    if with_depth:
        wanted = (
            (drawn.area * ratio / seen.area.clamp_min(1)).sqrt().clamp(1 / LARGEST_DEPTH_RATIO, LARGEST_DEPTH_RATIO)
        )
        known = usable & (drawn.area > 0)
        new_depth = torch.where(known, depth * wanted**DAMPING, depth)
    # The ray through the silhouette's centre moves by the difference of the centres; the body follows it.
    focal = camera.K[..., [0, 1], [0, 1]]
    move = (seen.centre - shift - drawn.centre) / focal * depth[:, None]
    scale = (new_depth / depth)[:, None]
    centre = camera.K[..., :2, 2]
    ray = (drawn.centre - centre) / focal  # where the body is seen now, at depth 1
    across = transl[:, :2] + torch.where(usable[:, None], move + ray * depth[:, None] * (scale - 1), 0)
    return torch.cat([across, (new_depth - pelvis_depth)[:, None]], 1), usable


def _filled(transl: Tensor, usable: Tensor, start: Tensor) -> Tensor:
    """Frames that were not usable, interpolated between those that were; frame 0 always counts as known."""
    known = usable.clone()
    known[0] = True
    anchored = torch.cat([start[:1], transl[1:]])
    if bool(known.all()):
        return anchored
    index = torch.arange(len(transl), device=transl.device)
    before = torch.where(known, index, -1).cummax(0).values
    after = torch.where(known, index, len(transl)).flip(0).cummin(0).values.flip(0)
    after = torch.where(after == len(transl), before, after)
    part = ((index - before) / (after - before).clamp_min(1)).to(transl)[:, None]
    return anchored[before] * (1 - part) + anchored[after] * part


def _smoothed(path: Tensor) -> Tensor:
    """(F, 3) filtered over time, ends repeated."""
    kernel = path.new_tensor(SMOOTHING).expand(3, 1, -1)
    padded = F.pad(path.T[None], [len(SMOOTHING) // 2] * 2, mode="replicate")
    return F.conv1d(padded, kernel, groups=3)[0].T
