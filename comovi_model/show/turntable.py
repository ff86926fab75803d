"""A motion seen from around it: a camera that circles the moving person, or stands to one side.

Letters: F frames, V vertices, H x W pixels. World: y up, floor at y = 0, metres.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..body.motion import BodyMotion
from ..body.smpl import BodyModel
from ..errors import ComoviError
from .lettering import font
from .painter import Painter, check_style
from .stage import View, draw_scene, light_beside, orbit_view
from .standing import Standing, stand

VIEWS = {  # name -> degrees round the person (0 is in front, 90 the person's left), degrees above the floor
    "turntable": (0.0, 12.0),
    "front": (0.0, 8.0),
    "left side": (90.0, 8.0),
    "back": (180.0, 8.0),
    "right side": (270.0, 8.0),
    "three-quarter": (40.0, 14.0),
    "top": (0.0, 80.0),
}
FOV = 26.0  # degrees; narrow, so that limbs keep their proportions
STILL = 0.6  # metres: a pelvis that strays less from its middle is watched by a camera that does not follow
FOLLOW_SECONDS = 0.45  # of the smoothing of the following camera
PLACEHOLDER = (0.72, 0.72, 0.72)  # colour of poses that are marked as not valid


def iter_views(
    motion: BodyMotion,
    body: BodyModel,
    height: int,
    width: int,
    *,
    view: str = "turntable",
    turns: float = 1.0,
    style: str = "solid",
    follow: bool = True,
    captions: bool = True,
) -> Generator[Tensor, None, None]:
    """Yields one picture (H, W, 3) float32 in 0..1 per frame of the motion.

    `turns` is how often the camera of "turntable" goes round during the clip; the other VIEWS stand still. follow=True
    lets the camera go along with a person who walks away. Poses marked as not valid are drawn pale.
    """
    if view not in VIEWS:
        raise ComoviError(f"unknown view {view!r}; choose one of {', '.join(VIEWS)}.")
    check_style(style)
    check_size(height, width)
    if not math.isfinite(turns):
        raise ComoviError(f"turns must be a number, got {turns}.")
    standing = stand(motion, body)
    body = body.to("cpu")
    painter, pale = Painter(body, style), Painter(body, "solid", PLACEHOLDER)
    targets = camera_targets(standing, follow)
    azimuth, elevation = VIEWS[view]
    assert standing.motion.valid is not None
    frames = len(standing.motion)
    step = 360 * turns / frames if view == "turntable" else 0.0

    def cameras(distance: float) -> list[View]:
        angles = [azimuth + step * frame for frame in range(frames)]
        return [
            orbit_view(target, angle, elevation, distance, FOV, height, width)
            for target, angle in zip(targets, angles, strict=True)
        ]

    distance = fitting_distance(standing.each(), cameras(1.0))
    light = light_beside(azimuth)
    for frame, (camera, vertices) in enumerate(zip(cameras(distance), standing.each(), strict=True)):
        one = painter if standing.motion.valid[frame] else pale
        picture = draw_scene(one, vertices[None], camera, targets[frame], towards=light).clamp(0, 1)
        yield captioned(picture, frame, motion.fps) if captions else picture


def camera_targets(standing: Standing, follow: bool = True) -> Tensor:
    """Where the camera looks in every frame, (F, 3): half-way up the clip's highest point, above the person."""
    place = standing.joints[:, 0]
    middle = (place.amin(0) + place.amax(0)) / 2
    if follow and float((place - middle)[:, [0, 2]].norm(dim=1).max()) > STILL:
        target = _smoothed(place, FOLLOW_SECONDS * standing.motion.fps)
    else:
        target = middle.expand_as(place).clone()
    target[:, 1] = standing.high[1] / 2
    return target


def _smoothed(path: Tensor, sigma: float) -> Tensor:
    """(F, 3) smoothed over time: straight lines fitted under a bell, so that the ends of a walk do not lag behind."""
    radius = max(1, math.ceil(3 * sigma))
    offset = torch.arange(-radius, radius + 1)
    index = torch.arange(len(path))[:, None] + offset  # (F, W)
    there = (index >= 0) & (index < len(path))
    weights = torch.exp(-0.5 * (offset.double() / max(sigma, 1e-3)) ** 2) * there
    weights = weights / weights.sum(1, keepdim=True)
    mean = (weights * offset).sum(1, keepdim=True)
    spread = (weights * (offset - mean) ** 2).sum(1, keepdim=True).clamp_min(1e-9)
    lines = weights - weights * (offset - mean) * mean / spread
    return torch.einsum("fw,fwc->fc", lines, path[index.clamp(0, len(path) - 1)].double()).float()


def fitting_distance(bodies: Iterable[Tensor], cameras: list[View], margin: float = 1.08) -> float:
    """Metres from the target at which every camera, given at distance 1, sees its body (V, 3) whole."""
    furthest = 0.0
    for points, camera in zip(bodies, cameras, strict=True):
        seen = camera.to_camera(points)
        across = seen[:, :2].abs() / camera.K[:2, 2] * camera.K[[0, 1], [0, 1]]  # depth at which it meets the border
        furthest = max(furthest, float((across.amax(1) * margin - seen[:, 2] + 1).max()))
    return furthest


def captioned(picture: Tensor, frame: int, fps: float) -> Tensor:
    """The picture with time and frame number in the lower left corner."""
    height = picture.shape[0]
    size = max(9, round(height / 42))
    image = Image.fromarray((picture * 255).round().to(torch.uint8).numpy())
    text = f"{frame / fps:.2f} s   frame {frame}"
    ImageDraw.Draw(image).text((size, height - 2 * size), text, (108, 110, 115), font(size))
    return torch.from_numpy(np.asarray(image).copy()).to(picture) / 255


def check_size(height: int, width: int) -> None:
    if not (32 <= height <= 8192 and 32 <= width <= 8192):
        raise ComoviError(f"pictures must be from 32 to 8192 pixels on a side, got {width}x{height}.")
