"""A place to look at motions: a pale floor with a grid of half metres, soft shadows, and cameras around it.

Letters: B bodies, V vertices, H x W pixels. World: y up, floor at y = 0, metres. Camera: x right, y down, z away.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..body.cameras import intrinsics, pixel_rays
from ..body.rasterise import one_thread, visible_pixels
from ..body.smpl import BodyModel
from .painter import Painter

BACKDROP_TOP, BACKDROP = (0.905, 0.915, 0.930), (0.965, 0.965, 0.960)
FLOOR, LINE, FINE_LINE = (0.925, 0.925, 0.918), (0.70, 0.71, 0.72), (0.84, 0.845, 0.85)
CLEAR, GONE = 3.0, 8.0  # metres from the middle: the floor is plain to see up to the first, invisible from the second
LINE_WIDTH = 0.008  # metres
Direction = tuple[float, float, float]
LIGHT: Direction = (0.40, 0.82, 0.42)  # towards the light: high, before the person and to the person's left
TEXEL, LARGEST_MAP = 0.016, 640  # metres; texels on a side
CONTACT_HEIGHT = 0.09  # metres above the floor at which contact darkening has faded to 1/e
LIGHT_SHADE, CONTACT_SHADE = 0.22, 0.42


@dataclass(frozen=True)
class View:
    """A camera in the world."""

    rotation: Tensor  # (3, 3) world -> camera
    position: Tensor  # (3,)
    K: Tensor  # (3, 3) pixels
    height: int
    width: int

    def to_camera(self, points: Tensor) -> Tensor:
        """World points (..., 3) -> camera points (..., 3)."""
        return (points - self.position) @ self.rotation.T

    def project(self, points: Tensor) -> Tensor:
        """World points (..., 3) -> pixels (..., 2)."""
        seen = self.to_camera(points) @ self.K.T
        return seen[..., :2] / seen[..., 2:].clamp_min(1e-6)


def orbit_view(
    target: Tensor, azimuth: float, elevation: float, distance: float, fov: float, height: int, width: int
) -> View:
    """A camera that looks at `target` (3,) from `distance` metres; angles in degrees, azimuth 0 is from +z, 90 from
    +x; fov is the vertical field of view."""
    a, e = math.radians(azimuth), math.radians(elevation)
    back = torch.tensor([math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)])
    right = torch.tensor([math.cos(a), 0.0, -math.sin(a)])
    rotation = torch.stack([right, -torch.linalg.cross(back, right), -back])
    focal = 0.5 * height / math.tan(math.radians(fov) / 2)
    return View(rotation, target + distance * back, intrinsics(focal, width / 2, height / 2), height, width)


@dataclass(frozen=True)
class Shadows:
    """How dark the floor is."""

    shade: Tensor  # (rows, columns) 0..1: rows along z, columns along x
    corner: Tensor  # (2,) x, z of the first texel's outer corner
    texel: float  # metres

    def at(self, place: Tensor) -> Tensor:
        """Floor points (H, W, 2) -> shade (H, W)."""
        size = self.shade.new_tensor(self.shade.shape[::-1]) * self.texel
        where = 2 * (place - self.corner) / size - 1
        return F.grid_sample(self.shade[None, None], where[None], padding_mode="zeros", align_corners=False)[0, 0]


def light_beside(azimuth: float) -> Direction:
    """The usual light, turned so that a camera at this azimuth (degrees) has it at its right shoulder."""
    a, (x, y, z) = math.radians(azimuth), LIGHT
    return (math.cos(a) * x + math.sin(a) * z, y, math.cos(a) * z - math.sin(a) * x)


def cast_shadows(
    model: BodyModel, vertices: Tensor, strengths: list[float] | None = None, towards: Direction = LIGHT
) -> Shadows:
    """Of bodies (B, V, 3): what the light leaves dark, and the darkness under what is close to the floor. `towards`
    the light, in the world."""
    light = vertices.new_tensor(towards)
    height = vertices[..., 1].clamp_min(0)
    below = vertices[..., [0, 2]]
    slanted = below - height[..., None] * (light[[0, 2]] / light[1])
    both = torch.cat([below, slanted], 1)
    low, high = both.amin((0, 1)) - 0.4, both.amax((0, 1)) + 0.4
    texel = max(TEXEL, float((high - low).max()) / LARGEST_MAP)
    columns, rows = (math.ceil(float(side) / texel) for side in high - low)
    strengths = strengths or [1.0] * len(vertices)
    shade = vertices.new_zeros(rows, columns)
    for body, strength in enumerate(strengths):
        cast = _flat(model, slanted[body], torch.ones_like(height[body]), low, texel, rows, columns)
        dark = LIGHT_SHADE * _blurred((cast > 0).to(shade), 0.030 / texel)
        near = _flat(model, below[body], 1 + height[body], low, texel, rows, columns)
        contact = torch.where(near > 0, torch.exp((1 - near) / CONTACT_HEIGHT), 0)
        dark = 1 - (1 - dark) * (1 - CONTACT_SHADE * _blurred(contact, 0.035 / texel))
        shade = 1 - (1 - shade) * (1 - strength * dark)
    return Shadows(shade, low, texel)


def _flat(model: BodyModel, place: Tensor, depth: Tensor, low: Tensor, texel: float, rows: int, columns: int) -> Tensor:
    """Faces laid on the floor at `place` (V, 2); the smallest depth (V,) at each texel, 0 where there is none."""
    points = torch.cat([(place - low) / texel * depth[:, None], depth[:, None]], 1)
    with one_thread():
        pixels = visible_pixels(points[None], model.faces, torch.eye(3).to(points), rows, columns, cull=False)
    return pixels.image(pixels.depth[:, None], 0.0)[0, ..., 0]


def _blurred(picture: Tensor, sigma: float) -> Tensor:
    """Gaussian of sigma texels over (rows, columns)."""
    radius = max(1, math.ceil(2.5 * sigma))
    offset = torch.arange(-radius, radius + 1).to(picture)
    kernel = torch.exp(-0.5 * (offset / max(sigma, 1e-3)) ** 2)
    kernel = kernel / kernel.sum()
    across = F.conv2d(picture[None, None], kernel[None, None, None], padding=(0, radius))
    return F.conv2d(across, kernel[None, None, :, None], padding=(radius, 0))[0, 0]


def draw_floor(view: View, middle: Tensor, shadows: Shadows | None = None) -> Tensor:
    """The empty stage (H, W, 3) seen from `view`; the floor fades out around `middle` (3,)."""
    rays = pixel_rays(view.K, view.height, view.width) @ view.rotation  # (H, W, 3), world
    down = rays[..., 1] < -1e-4
    reach = torch.where(down, -view.position[1] / rays[..., 1].clamp_max(-1e-4), 1e4)
    place = view.position[[0, 2]] + reach[..., None] * rays[..., [0, 2]]  # (H, W, 2)
    distance = (place - middle[[0, 2]]).norm(dim=-1)
    share = ((GONE - distance) / (GONE - CLEAR)).clamp(0, 1)
    share = torch.where(down, share * share * (3 - 2 * share), 0)[..., None]

    colour = rays.new_tensor(FLOOR).expand(*share.shape[:2], 3)
    for spacing, tint in ((0.5, FINE_LINE), (1.0, LINE)):
        line = _line_cover(place, spacing)[..., None]
        colour = colour + line * (rays.new_tensor(tint) - colour)
    height = torch.linspace(0, 1, view.height).to(rays)[:, None, None]
    backdrop = rays.new_tensor(BACKDROP_TOP) * (1 - height) + rays.new_tensor(BACKDROP) * height
    picture = share * colour + (1 - share) * backdrop
    if shadows is not None:
        picture = picture * (1 - shadows.at(place)[..., None] * down[..., None])
    return picture


def _line_cover(place: Tensor, spacing: float) -> Tensor:
    """How much of each pixel is covered by the lines x = n * spacing and z = n * spacing, (H, W)."""
    footprint = torch.maximum(_change(place, 0), _change(place, 1)).clamp_min(1e-6)  # (H, W, 2) metres per pixel
    distance = (place / spacing - (place / spacing).round()).abs() * spacing
    width = torch.maximum(footprint, torch.full_like(footprint, LINE_WIDTH))
    cover = ((width / 2 + footprint / 2 - distance) / footprint).clamp(0, 1) * (LINE_WIDTH / width) ** 0.5
    cover = cover * (1 - footprint / spacing * 2.5).clamp(0, 1)  # a line narrower than its spacing in pixels is a haze
    return 1 - (1 - cover[..., 0]) * (1 - cover[..., 1])


def _change(place: Tensor, axis: int) -> Tensor:
    step = torch.diff(place, dim=axis).abs()
    last = step.narrow(axis, step.shape[axis] - 1, 1)
    return torch.cat([step, last], axis)


def draw_scene(
    painter: Painter,
    vertices: Tensor,
    view: View,
    middle: Tensor,
    strengths: list[float] | None = None,
    on_floor: Callable[[Tensor], Tensor] | None = None,
    towards: Direction = LIGHT,
) -> Tensor:
    """Bodies (B, V, 3) on the stage -> (H, W, 3); the nearest is laid on last. `strengths` below 1 make ghosts,
    `on_floor` draws on the empty stage before they come, `towards` is where the light is."""
    strengths = strengths or [1.0] * len(vertices)
    picture = draw_floor(view, middle, cast_shadows(painter.model, vertices, strengths, towards))
    picture = picture if on_floor is None else on_floor(picture)
    seen = view.to_camera(vertices)
    light = (view.rotation @ vertices.new_tensor(towards)).tolist()
    for body in seen[..., 2].mean(1).argsort(descending=True).tolist():
        painted = painter.paint(seen[body], view.K, view.height, view.width, (light[0], light[1], light[2]))
        picture = strengths[body] * painted[..., :3] + (1 - strengths[body] * painted[..., 3:]) * picture
    return picture
