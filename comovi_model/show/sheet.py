"""A motion on one page: its poses as ghosts along the path, and as a film strip from the front and the side.

Letters: F frames, V vertices, N poses, H x W pixels. World: y up, floor at y = 0, metres.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..body.motion import BodyMotion
from ..body.smpl import BodyModel
from ..errors import ComoviError
from .lettering import INK, PALE_INK, PAPER, RULE, fit_text, font
from .painter import Painter
from .stage import View, draw_scene, light_beside, orbit_view
from .standing import Standing, stand
from .turntable import FOV, fitting_distance

MARGIN, GAP = 36, 8  # pixels
STEP = 0.42  # metres between the ghosts of a person who walks; who stays in place is drawn side by side instead
GHOST, SOLID = 0.38, 1.0  # how much of the first and of the last pose is seen
SMALLEST, LARGEST = 480, 4096  # width of the page


def draw_sheet(
    motion: BodyMotion,
    body: BodyModel,
    *,
    title: str = "",
    poses: int = 8,
    width: int = 1600,
    style: str = "solid",
) -> np.ndarray:
    """The page (h, width, 3) uint8."""
    if not 2 <= poses <= 24:
        raise ComoviError(f"a sheet shows from 2 to 24 poses, got {poses}.")
    if not SMALLEST <= width <= LARGEST:
        raise ComoviError(f"a sheet is from {SMALLEST} to {LARGEST} pixels wide, got {width}.")
    body = body.to("cpu")
    standing = stand(motion, body)
    frames = chosen_frames(standing, poses)
    painter = Painter(body, style)
    inner = width - 2 * MARGIN
    cell = min((inner - GAP * (len(frames) - 1)) // len(frames), inner // 4)
    tall = round(cell * 1.55)
    wide = round(inner * 0.36)
    top = MARGIN + (66 if title else 34)
    page = Image.new("RGB", (width, top + wide + 2 * (tall + GAP) + 40 + MARGIN), PAPER)
    pen = ImageDraw.Draw(page)
    if title:
        pen.text((MARGIN, MARGIN - 10), fit_text(title, 27, inner), INK, font(27))
    pen.text((MARGIN, top - 34), fit_text(facts(standing), 15, inner), PALE_INK, font(15))

    picture, note = _ghosts(painter, standing, poses, wide, inner)
    _paste(page, pen, picture, MARGIN, top)
    pen.text((MARGIN + 12, top + 10), note, PALE_INK, font(14))
    for row, azimuth in enumerate((0.0, 90.0)):
        y = top + wide + GAP + row * (tall + GAP)
        strip = _strip(painter, standing, frames, azimuth, tall, cell)
        for column, (frame, picture) in enumerate(zip(frames, strip, strict=True)):
            x = MARGIN + column * (cell + GAP)
            _paste(page, pen, as_image(picture), x, y)
            if row:
                label = f"{frame / motion.fps:.2f} s"
                pen.text((x + cell // 2, y + tall + 8), label, PALE_INK, font(15), anchor="ma")
    return np.asarray(page)


def chosen_frames(standing: Standing, poses: int) -> list[int]:
    """Evenly spread over the frames whose pose is known, first and last among them."""
    assert standing.motion.valid is not None
    known = standing.motion.valid.nonzero()[:, 0].tolist() or list(range(len(standing.motion)))
    count = min(poses, len(known))
    return [known[round(number * (len(known) - 1) / max(1, count - 1))] for number in range(count)]


def facts(standing: Standing) -> str:
    """One line: length, rate, distance, body."""
    motion = standing.motion
    place = standing.joints[:, 0][:, [0, 2]]
    travelled = float(place.diff(dim=0).norm(dim=1).sum())
    assert motion.valid is not None
    missing = int((~motion.valid).sum())
    parts = [
        f"{len(motion)} frames at {motion.fps:g} per second, {len(motion) / motion.fps:.2f} s",
        f"path of the pelvis {travelled:.2f} m",
        f"body {motion.body_model}",
    ]
    return "   ·   ".join(parts + ([f"{missing} frames without a pose"] if missing else []))


def _ghosts(painter: Painter, standing: Standing, poses: int, height: int, width: int) -> tuple[Image.Image, str]:
    """All poses in one picture of height x width, and what to say about their places."""
    walked = _stations(standing, poses)
    frames = walked or chosen_frames(standing, poses)
    shift = torch.zeros(len(frames), 3) if walked else _side_by_side(standing, frames)
    vertices = standing.vertices(frames) + shift[:, None]
    low, high = vertices.amin((0, 1)), vertices.amax((0, 1))
    target = torch.stack([(low[0] + high[0]) / 2, high[1] * 0.46, (low[2] + high[2]) / 2])
    azimuth = _broadside(standing, shift, frames)

    def camera(distance: float) -> View:
        return orbit_view(target, azimuth, 9.0, distance, FOV, height, width)

    view = camera(fitting_distance(vertices.flatten(0, 1)[None], [camera(1.0)], 1.14))
    count = len(frames)
    fading = [GHOST + (SOLID - GHOST) * (n / max(1, count - 1)) ** 1.4 for n in range(count)]
    path = standing.joints[frames[0] : frames[-1] + 1, 0] * torch.tensor([1.0, 0.0, 1.0])
    light = light_beside(azimuth)
    if walked:
        picture = draw_scene(painter, vertices, view, target, fading, lambda p: _with_path(p, view, path), light)
    else:
        picture = draw_scene(painter, vertices, view, target, towards=light)
    image = as_image(picture.clamp(0, 1))
    pen = ImageDraw.Draw(image)
    for x, y, frame in zip(*_below(view, vertices), frames, strict=True):
        pen.text((x, min(y + 9, height - 22)), f"{frame / standing.motion.fps:.2f}", PALE_INK, font(13), anchor="ma")
    note = "where the poses happen, with seconds; the line is the path of the pelvis on the floor"
    return image, note if walked else "the poses side by side in the order of time, with seconds"


def _stations(standing: Standing, poses: int) -> list[int]:
    """Frames at equal distances along the path, at least STEP apart; none when the person stays about in place."""
    known = chosen_frames(standing, len(standing.motion))
    place = standing.joints[known, 0][:, [0, 2]]
    travelled = torch.cat([torch.zeros(1), place.diff(dim=0).norm(dim=1).cumsum(0)])
    extent = float((place.amax(0) - place.amin(0)).norm())
    count = min(poses, int(min(float(travelled[-1]), 1.3 * extent) / STEP) + 1)
    if count < 3:
        return []
    wanted = torch.linspace(0, float(travelled[-1]), count)
    chosen = torch.searchsorted(travelled.contiguous(), wanted).clamp(max=len(known) - 1).tolist()
    return [known[n] for n in chosen]


def _side_by_side(standing: Standing, frames: list[int]) -> Tensor:
    """Shifts (N, 3) that set the poses in a row, the first at the left for who stands in front of the person."""
    across = torch.tensor([1.0, 0.0, 0.0])  # to the right in a picture taken from the front
    place = standing.joints[frames, 0] * torch.tensor([1.0, 0.0, 1.0])
    reach = (standing.vertices(frames) - place[:, None]) @ across  # (N, V)
    left, right = -reach.amin(1), reach.amax(1)
    steps = torch.maximum(right[:-1] + left[1:] + 0.06, torch.full_like(right[1:], 0.55))
    row = torch.cat([torch.zeros(1), steps.cumsum(0)])
    return (row - row.mean())[:, None] * across - place


def _below(view: View, vertices: Tensor) -> tuple[list[int], list[int]]:
    """Pixels below the feet of bodies (N, V, 3): the middle across, the lowest down."""
    pixels = view.project(vertices)
    middle = (pixels[..., 0].amin(1) + pixels[..., 0].amax(1)) / 2
    return middle.round().int().tolist(), pixels[..., 1].amax(1).round().int().tolist()


def _broadside(standing: Standing, shift: Tensor, frames: list[int]) -> float:
    """Degrees from which the row of poses is seen at its longest, on the person's front side; if both sides are, the
    one that lets time run to the right."""
    place = (standing.joints[frames, 0] + shift)[:, [0, 2]]
    along = place[-1] - place[0]
    if float(along.norm()) < 1e-3:
        return 0.0
    heading = math.degrees(math.atan2(float(along[0]), float(along[1])))
    sides = [heading - 68, heading + 68] if shift.abs().max() == 0 else [heading - 90, heading + 90]
    return min(sides, key=lambda side: round(abs((side + 180) % 360 - 180)))


def _with_path(picture: Tensor, view: View, path: Tensor) -> Tensor:
    """A thin line along points (P, 3), drawn finely and then reduced."""
    scale = 3
    layer = Image.new("L", (view.width * scale, view.height * scale), 0)
    points = [(float(x) * scale, float(y) * scale) for x, y in view.project(path)]
    if len(points) > 1:
        ImageDraw.Draw(layer).line(points, 255, width=3 * scale, joint="curve")
    cover = np.asarray(layer.resize((view.width, view.height), Image.Resampling.LANCZOS), np.float32) / 255
    share = 0.75 * torch.from_numpy(cover)[..., None]
    return (1 - share) * picture + share * picture.new_tensor([0.83, 0.38, 0.20])


def _strip(
    painter: Painter, standing: Standing, frames: list[int], azimuth: float, height: int, width: int
) -> list[Tensor]:
    """Every pose by itself, all at one scale."""
    vertices = standing.vertices(frames)
    targets = standing.joints[frames, 0].clone()
    targets[:, 1] = float(vertices[..., 1].max()) / 2

    def cameras(distance: float) -> list[View]:
        return [orbit_view(target, azimuth, 7.0, distance, FOV, height, width) for target in targets]

    distance = fitting_distance(vertices, cameras(1.0), 1.10)
    return [
        draw_scene(painter, vertices[n : n + 1], camera, targets[n], towards=light_beside(azimuth)).clamp(0, 1)
        for n, camera in enumerate(cameras(distance))
    ]


def as_image(picture: Tensor) -> Image.Image:
    """(H, W, 3) in 0..1 as a Pillow picture."""
    return Image.fromarray((picture * 255).round().to(torch.uint8).numpy())


def _paste(page: Image.Image, pen: ImageDraw.ImageDraw, image: Image.Image, x: int, y: int) -> None:
    page.paste(image, (x, y))
    pen.rectangle((x - 1, y - 1, x + image.width, y + image.height), outline=RULE)
