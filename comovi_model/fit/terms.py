"""What the picture says about a pose: residuals and their normal equations.

Letters: B poses, V vertices, P points, N pixels of the picture. Positions are pixels of a level.

colour    a visible point has the map colour of its part and normal; in the fine stage the picture may also slide
          under it
pull      a point outside the silhouette goes to the nearest pixel inside; pixels look for the point that fits their
          place and colour and pull it
rim       the outline of the body lies on the outline of the silhouette (fine stage)

Weights are robust (Geman-McClure). All data count DATA_WEIGHT, because neighbouring pixels repeat each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..body.rasterise import Pixels
from .observation import COLOUR, CORE, OUTSIDE, SDF, SLOPE_X, SLOPE_Y, Level, Observation
from .raster import draw
from .surface import (
    Mesh,
    Pose,
    Skeleton,
    Subject,
    area_normals,
    dot,
    leverage,
    local_system,
    posed_vertices,
    predicted_colours,
    rest_of,
    unit,
    world_rows,
)

DATA_WEIGHT = 0.15
NORMAL_SCALE = 3.0  # a colour step of 1 in green or blue is a step of about 3 of the normal (2 / light level)
PART_SCALE = 74.0  # a colour step of 1 in red, in parts numbers (48 / light level)
RIMS = 600  # outline points per pose
HIDDEN_COST = 8.0  # pixels: how unlikely a pixel shows a point that is hidden now


@dataclass(frozen=True)
class Stage:
    """How terms are weighted. sigma: expected error, reach: where a residual stops to count; pixels of the level."""

    fine: bool
    colour_sigma: tuple[float, float, float] = (0.10, 0.05, 0.05)  # red, green, blue
    colour_reach: float = 0.17
    red: float = 0.0  # weight of the red channel, which knows parts only
    sliding: bool = True  # use the slope of the picture
    pull_sigma: float = 2.5
    pull_reach: float = 8.0
    outside_weight: float = 1.0
    matches: int = 0  # random pixels that look for their point
    uncovered: int = 200  # pixels that the body does not cover and that look for their point
    match_weight: float = 1.0
    normal_cost: float = 8.0  # pixels per unit of the normal
    part_cost: float = 6.0  # pixels per part number, at most 3 of them
    rim_sigma: float = 1.0
    rim_reach: float = 4.0
    rim_weight: float = 1.0
    rim_bias: float = 0.0  # pixels by which silhouettes are drawn too small (codec)


COARSE = Stage(fine=False, pull_reach=20.0, matches=350, uncovered=150, normal_cost=10.0, sliding=False)
FINE = Stage(fine=True)


@dataclass(frozen=True)
class View:
    """The body as posed, seen at one level."""

    skeleton: Skeleton
    vertices: Tensor  # (B, V, 3) of the coarse mesh
    normals: Tensor  # (B, V, 3)
    pixels: Pixels  # of the coarse mesh
    covered: Tensor  # (B, h, w) bool
    depth: Tensor  # (B, h, w), 0 where nothing


def look(subject: Subject, level: Level, frame: Tensor, pose: Pose) -> View:
    """Draws the coarse mesh of poses (B) with the cameras of frames (B,)."""
    skeleton = subject.skeleton(pose)
    vertices, normals = posed_vertices(subject.coarse, skeleton, pose, normals=True)
    assert normals is not None
    height, width = level.size
    pixels = draw(vertices, subject.coarse.faces, level.K[frame], height, width)
    depth = pixels.image(pixels.depth[:, None], 0.0).squeeze(-1)
    return View(skeleton, vertices, normals, pixels, depth > 0, depth)


def project(points: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Points (B, P, 3), K (B, 3, 3) -> pixel positions (B, P, 2) and their derivatives (B, P, 2, 3)."""
    fx, fy, cx, cy = (K[:, i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    x, y, z = points.unbind(-1)
    inverse = 1 / z.clamp_min(0.05)
    u, v = x * inverse, y * inverse
    position = torch.stack([fx * u + cx, fy * v + cy], -1)
    zero = torch.zeros_like(u)
    slope = torch.stack([fx * inverse, zero, -fx * u * inverse, zero, fy * inverse, -fy * v * inverse], -1)
    return position, slope.unflatten(-1, (2, 3))


def robust(squared: Tensor, reach: float) -> Tensor:
    """Geman-McClure weight of squared residuals."""
    return 1 / (1 + squared / reach**2).square()


@dataclass(frozen=True)
class System:
    """Normal equations: information (B, 75, 75), slope (B, 75), both float64, and the data cost (B,)."""

    information: Tensor
    slope: Tensor
    cost: Tensor


@dataclass(frozen=True)
class Rows:
    """Residuals of points: value, weight (B, P, r), gradient to the point and to its normal (B, P, r, 3)."""

    rest: Tensor  # (B, P, 3)
    weights: Tensor  # (B, P, J)
    value: Tensor
    weight: Tensor
    gradient: Tensor
    normals: Tensor | None = None  # (B, P, 3)
    turn: Tensor | None = None


def picture_system(subject: Subject, seen: Observation, frame: Tensor, pose: Pose, stage: Stage) -> System:
    """All terms at poses (B) of frames (B,)."""
    level = seen.fine if stage.fine else seen.coarse
    view = look(subject, level, frame, pose)
    return system_of(view.skeleton, subject, picture_rows(subject, level, frame, pose, view, stage))


def system_of(skeleton: Skeleton, subject: Subject, rows: list[Rows]) -> System:
    jacobians, values = [], []
    cost = torch.zeros(len(skeleton.turn), dtype=torch.float64, device=skeleton.turn.device)
    for row in rows:
        lever = leverage(subject, skeleton, row.rest, row.weights)
        root = row.weight.sqrt()
        jacobian = world_rows(lever, row.gradient, row.normals, row.turn) * root[..., None]
        jacobians.append(jacobian.flatten(1, 2))
        values.append((row.value * root).flatten(1))
        cost = cost + values[-1].double().square().sum(1)
    jacobian, value = torch.cat(jacobians, 1), torch.cat(values, 1)
    information = jacobian.transpose(1, 2) @ jacobian
    slope = (jacobian.transpose(1, 2) @ value[..., None]).squeeze(-1)
    return System(*local_system(skeleton, information, slope), cost)


def picture_rows(subject: Subject, level: Level, frame: Tensor, pose: Pose, view: View, stage: Stage) -> list[Rows]:
    K = level.K[frame]
    if stage.fine:
        full, _ = posed_vertices(subject.full, view.skeleton, pose)
        normals, face_normals = area_normals(subject.full, full, subject.sample_fans)
        mesh, picked = subject.full, subject.samples
        points = full[:, picked]
    else:
        mesh, picked = subject.coarse, torch.arange(len(subject.coarse.rest), device=level.cover.device)
        points, normals = view.vertices, view.normals
    position, slope = project(points, K)
    facing = -dot(normals, unit(points))  # cosine to the viewer
    visible = visible_points(view, position, points[..., 2], 0.02 if stage.fine else 0.03) & (facing > 0.05)
    sampled = level.sample(frame, position)
    part = mesh.part[picked]
    colours, colour_turn = predicted_colours(subject, part, points, normals)
    rest = rest_of(mesh, pose)
    rest = rest[..., picked, :].expand(len(pose), -1, -1)
    weights = mesh.weights[picked]

    rows = [_colour_rows(stage, rest, weights, normals, visible, sampled, colours, colour_turn, slope)]
    rows.append(
        _pull_rows(stage, level, frame, view, rest, weights, position, slope, facing, visible, sampled, colours)
    )
    if stage.fine and stage.rim_weight:
        rows.append(_rim_rows(stage, level, frame, subject.full, view, full, face_normals, pose, K))
    return rows


def visible_points(view: View, position: Tensor, depth: Tensor, tolerance: float) -> Tensor:
    """(B, P) bool: is the point the one that its pixel shows?"""
    height, width = view.depth.shape[1:]
    column, row = position[..., 0].long().clamp(0, width - 1), position[..., 1].long().clamp(0, height - 1)
    nearest = view.depth.flatten(1).gather(1, row * width + column)
    return (nearest > 0) & (depth < nearest + tolerance)


def _most(wanted: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
    """Wanted (B, P) bool: moves the wanted points of each pose to the front and cuts off what no pose wants."""
    place = wanted.cumsum(1)
    count = max(int(place[:, -1].max()), 1)
    source = torch.arange(wanted.shape[1], device=wanted.device).expand_as(wanted)
    order = torch.zeros(len(wanted), count + 1, dtype=torch.int64, device=wanted.device)
    order = order.scatter(1, torch.where(wanted, place - 1, count), source)[:, :count]
    columns = (torch.arange(count, device=wanted.device) < place[:, -1:], *columns)
    picked = []
    for column in columns[1:]:
        index = order.view(*order.shape, *[1] * (column.dim() - 2)).expand(*order.shape, *column.shape[2:])
        picked.append(column.gather(1, index))
    return columns[0], *picked


def _colour_rows(stage, rest, weights, normals, visible, sampled, colours, colour_turn, slope) -> Rows:
    weights = weights.expand(len(rest), -1, -1)
    core = sampled[..., CORE].squeeze(-1)
    used = visible & (core > 0.3)
    used, rest, weights, normals, sampled, colours, colour_turn, slope, core = _most(
        used, rest, weights, normals, sampled, colours, colour_turn, slope, core
    )
    first = 0 if stage.red else 1
    value = (colours - sampled[..., COLOUR])[..., first:]
    gradient = torch.zeros_like(value)[..., None].expand(*value.shape, 3)
    if stage.sliding:
        across, down = sampled[..., SLOPE_X][..., first:, None], sampled[..., SLOPE_Y][..., first:, None]
        gradient = -(across * slope[..., None, 0, :] + down * slope[..., None, 1, :])
    squared = value[..., -2:].square().sum(-1, keepdim=True)
    weight = robust(squared, stage.colour_reach).expand_as(value)
    sigma = value.new_tensor(stage.colour_sigma[first:])
    if stage.red:
        own = stage.red * robust(value[..., :1].square(), stage.colour_reach)
        weight = torch.cat([weight[..., :1] * own, weight[..., 1:]], -1)
    weight = DATA_WEIGHT * weight * (used * core)[..., None] / sigma.square()
    return Rows(rest, weights, value, weight, gradient, normals, colour_turn[..., first:, :])


def _pull_rows(stage, level, frame, view, rest, weights, position, slope, facing, visible, sampled, colours) -> Rows:
    """Every pull on a point has equal weight in x and y, so all pulls on it are one residual."""
    offset = sampled[..., OUTSIDE]  # to the nearest pixel inside
    far = offset.square().sum(-1)
    total = stage.outside_weight * robust(far, 2 * stage.pull_reach) * (sampled[..., SDF].squeeze(-1) > 0.5)
    moment = total[..., None] * offset
    pixels, wanted = _seeking_pixels(stage, level, frame, view)
    if pixels.shape[1]:
        best, target = _matches(stage, level, frame, pixels, position, facing, visible, colours)
        step = target - position.gather(1, best[..., None].expand(-1, -1, 2))
        pull = stage.match_weight * wanted * robust(step.square().sum(-1), stage.pull_reach)
        total = total.scatter_add(1, best, pull)
        moment = moment.scatter_add(1, best[..., None].expand(-1, -1, 2), pull[..., None] * step)
    used, rest, weights, total, moment, slope = _most(
        total > 1e-6, rest, weights.expand(len(rest), -1, -1), total, moment, slope
    )
    value = -moment / total.clamp_min(1e-6)[..., None]
    weight = (DATA_WEIGHT / stage.pull_sigma**2 * total * used)[..., None].expand_as(value)
    return Rows(rest, weights, value, weight, slope)


def _seeking_pixels(stage: Stage, level: Level, frame: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """Pixels (B, N), index in the level, that look for their point, and which of them are real (B, N)."""
    inside = level.mask[frame]
    chosen, real = [], []
    for group, count in ((inside & ~_grown(view.covered), stage.uncovered), (inside, stage.matches)):
        if count:
            shuffled = group.flatten(1).index_select(1, level.shuffled)
            wanted, place = _most(shuffled, level.shuffled.expand_as(shuffled))
            chosen.append(place[:, :count])
            real.append(wanted[:, :count])
    if not chosen:
        return frame.new_zeros(len(frame), 0), inside.new_zeros(len(frame), 0)
    return torch.cat(chosen, 1), torch.cat(real, 1)


def _grown(mask: Tensor) -> Tensor:
    """(B, h, w) bool, larger by a pixel on every side."""
    out = mask.clone()
    out[:, 1:] |= mask[:, :-1]
    out[:, :-1] |= mask[:, 1:]
    wide = out.clone()
    wide[:, :, 1:] |= out[:, :, :-1]
    wide[:, :, :-1] |= out[:, :, 1:]
    return wide


def _matches(stage, level, frame, pixels, position, facing, visible, colours) -> tuple[Tensor, Tensor]:
    """The point (B, N) that fits each pixel best in place and colour, and the pixel's position (B, N, 2)."""
    height, width = level.size
    target = torch.stack([pixels % width, pixels // width], -1).to(position.dtype) + 0.5
    shown = level.field.view(len(level.cover), height * width, -1)[frame[:, None], pixels][..., COLOUR]
    usable, number, position, colours, visible = _most(
        facing > -0.2,
        torch.arange(position.shape[1], device=pixels.device).expand(len(position), -1),
        position,
        colours,
        visible,
    )
    scale = stage.normal_cost * NORMAL_SCALE
    ours = torch.cat([target, shown[..., 1:] * scale], -1)
    theirs = torch.cat([position, colours[..., 1:] * scale], -1)
    penalty = HIDDEN_COST**2 * ~visible + 1e6 * ~usable + theirs.square().sum(-1)
    cost = torch.baddbmm(penalty[:, None], ours, theirs.transpose(1, 2), alpha=-2)  # (B, N, V), up to |ours|^2
    part = (shown[..., :1] - colours[..., 0][:, None]).mul_(PART_SCALE * stage.part_cost)
    cost += part.clamp_(-3 * stage.part_cost, 3 * stage.part_cost).square_()
    return number.gather(1, cost.argmin(-1)), target


def _rim_rows(stage, level, frame, mesh: Mesh, view: View, points, face_normals, pose, K) -> Rows:
    """Vertices between a face seen from outside and one seen from inside, where they border the background."""
    away = dot(face_normals, points.index_select(1, mesh.faces[:, 0])) >= 0  # (B, N)
    ends, beside = mesh.edges[:2], mesh.edges[2:]
    owner, edge = (away.index_select(1, beside[0]) != away.index_select(1, beside[1])).nonzero(as_tuple=True)
    rim = torch.zeros(points.shape[:2], dtype=torch.bool, device=points.device)
    rim[owner, ends[0, edge]] = True
    rim[owner, ends[1, edge]] = True
    stride = max(1, int(rim.sum(1).max()) // RIMS)
    if stride > 1:
        rim &= torch.arange(rim.shape[1], device=rim.device) % stride == 0
    rest = rest_of(mesh, pose).expand(len(pose), -1, -1)
    fur = mesh.fur.T.expand(len(pose), -1, -1)
    rim, rest, weights, points, fur = _most(rim, rest, mesh.weights.expand(len(pose), -1, -1), points, fur)
    # The direction outwards is asked for roughly only, so normals may turn along with the bones.
    normals = fur @ view.skeleton.turn.index_select(1, mesh.bones).transpose(2, 3).flatten(1, 2)
    position, slope = project(points, K)
    distance = level.sample(frame, position, level.distance)
    out = F.normalize((slope @ normals[..., None]).squeeze(-1), dim=-1)  # the normal in the picture
    height, width = level.size
    column, row = (position + 2 * out).long().unbind(-1)  # two pixels further there is no body
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    free = ~view.covered.flatten(1).gather(1, row.clamp(0, height - 1) * width + column.clamp(0, width - 1))
    direction = F.normalize(distance[..., 1:], dim=-1)
    agrees = (out * direction).sum(-1) > 0.5
    value = distance[..., :1] + stage.rim_bias  # (B, P, 1)
    used = rim & free & inside & agrees & (value.squeeze(-1).abs() < 11)
    weight = DATA_WEIGHT * stage.rim_weight / stage.rim_sigma**2 * robust(value.square(), stage.rim_reach)
    gradient = (direction[..., None] * slope).sum(-2, keepdim=True)  # (B, P, 1, 3)
    return Rows(rest, weights, value, weight * used[..., None], gradient)
