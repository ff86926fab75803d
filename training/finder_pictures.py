"""Pictures for the person finder: cut-out people before invented places, and frames of our own synthetic clips.

`Picture` carries the truth about everybody in it. Two kinds of samples are made from it: the square round the whole
picture, with the middles and boxes of all, and the close look at one person, with the keypoints of that person alone.

Letters: H x W pixels, K = 18 keypoints, CELLS = 32.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from ..comovi_model.estimate.finder import View, close_view, network_input
from ..comovi_model.estimate.finder_net import CELLS, SIDE, STRIDE
from ..comovi_model.nano.draw import draw_clip
from ..comovi_model.nano.people import load_nano_body
from ..comovi_model.nano.scene import NUM_FRAMES, sample_scene, skin
from .finder_people import OCCLUDED, Cutout, any_colour, load_model, seen_share

MIRRORED = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)  # keypoints with left and right exchanged
SMALLEST_PART = 0.25  # share of a person's box inside the picture below which nobody can be expected to find it


@dataclass(frozen=True)
class Truth:
    """One person of a picture: box (4,) inside the picture, keypoints (K, 3) with the share seen (0: not)."""

    box: np.ndarray
    keypoints: np.ndarray


@dataclass(frozen=True)
class Picture:
    pixels: np.ndarray  # (H, W, 3) uint8
    people: tuple[Truth, ...]


# --- places


def draw_place(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """A place without people: a room, a cloudy texture, or plain; most with clutter."""
    kind = rng.integers(4)
    if kind == 0:
        pixels = np.empty((height, width, 3))
        line = int(height * rng.uniform(0.3, 0.95))
        wall, floor = any_colour(rng), any_colour(rng)
        shade = np.linspace(rng.uniform(0.7, 1.1), rng.uniform(0.7, 1.1), height)[:, None, None]
        pixels[:line], pixels[line:] = wall, floor
        pixels *= shade
    elif kind == 1:
        pixels = clouds(width, height, rng)
    elif kind == 2:
        first, second = any_colour(rng), any_colour(rng)
        angle = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[0:height, 0:width]
        ramp = (x * np.cos(angle) + y * np.sin(angle)) / max(width, height)
        if rng.random() < 0.3:
            ramp = np.floor(ramp * rng.uniform(4, 30)) % 2
        pixels = first + np.clip(ramp, 0, 1)[..., None] * (second - first)
    else:
        pixels = np.broadcast_to(any_colour(rng), (height, width, 3)) + rng.normal(0, 0.01, (height, width, 3))
    picture = Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.75:
        clutter(picture, int(rng.exponential(14)), rng)
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 3))) if rng.random() < 0.4 else picture


def clouds(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of several sizes between two colours, (H, W, 3)."""
    total = np.zeros((height, width))
    for level in range(2, 8):
        small = rng.normal(0, 1, (2**level, 2**level)).astype(np.float32)
        total += np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)) / 1.7**level
    mix = 1 / (1 + np.exp(-3 * total / max(total.std(), 1e-6)))
    first, second = any_colour(rng), any_colour(rng)
    return first + mix[..., None] * (second - first)


def clutter(picture: Image.Image, count: int, rng: np.random.Generator) -> None:
    """Things: boxes, discs, poles, lines, many-sided shapes; some of the colours of skin and of the size of limbs."""
    draw, (width, height) = ImageDraw.Draw(picture), picture.size
    for _ in range(count):
        colour = any_colour(rng) if rng.random() < 0.8 else np.array([0.85, 0.62, 0.5]) * rng.uniform(0.4, 1.1)
        fill = tuple(int(v) for v in np.clip(colour, 0, 1) * 255)
        x, y = rng.uniform(-0.1, 1.1) * width, rng.uniform(-0.1, 1.1) * height
        a, b = np.exp(rng.uniform(np.log(3), np.log(0.6 * width), 2))
        kind = rng.integers(5)
        if kind == 0:
            draw.rectangle([x - a / 2, y - b / 2, x + a / 2, y + b / 2], fill=fill)
        elif kind == 1:
            draw.ellipse([x - a / 2, y - b / 2, x + a / 2, y + b / 2], fill=fill)
        elif kind == 2:
            angle, length = rng.uniform(0, np.pi), rng.uniform(0.1, 1) * height
            end = (x + length * np.cos(angle), y + length * np.sin(angle))
            draw.line([x, y, *end], fill=fill, width=int(rng.integers(1, 16)))
        elif kind == 3:
            corners = rng.normal(0, 0.3, (int(rng.integers(3, 8)), 2)) * [a, b] + [x, y]
            draw.polygon([tuple(corner) for corner in corners.tolist()], fill=fill)
        else:
            wide = rng.uniform(2, 20)
            draw.rectangle([x, y, x + wide, y + rng.uniform(0.2, 1) * height], fill=fill)


# --- pictures with people


def compose(pick: Callable[[], Cutout], place: Image.Image, count: int, rng: np.random.Generator) -> Picture:
    """`count` people of one pool before a place; the later ones stand before the earlier ones."""
    width, height = place.size
    picture = place.copy()
    people: list[Truth] = []
    usual = rng.uniform(0.3, 1.0) if count < 2 else rng.uniform(0.25, 0.85)
    for _ in range(count):
        cutout = pick()
        tall, wide = cutout.alpha.shape
        if count < 2 and rng.random() < 0.25:
            usual = rng.uniform(1.0, 2.2)  # too large for the picture: half a person
        scale = np.exp(rng.normal(0, 0.15)) * usual * min(height / tall, 1.3 * width / wide)
        scale = max(scale, 24 / max(tall, wide))
        size = (max(int(wide * scale), 4), max(int(tall * scale), 4))
        spare = (width - size[0], height - size[1])
        middle = [rng.uniform(min(0, s), max(0, s)) for s in spare]
        left, top = (int(m + rng.normal(0, 0.06) * extent) for m, extent in zip(middle, (width, height), strict=True))
        flip = rng.random() < 0.5
        alpha = Image.fromarray(cutout.alpha).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        colour = Image.fromarray(cutout.colour).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        points = cutout.keypoints.copy()
        points[:, :2] *= [size[0] / wide, size[1] / tall]
        if flip:
            alpha, colour = (im.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for im in (alpha, colour))
            points[:, 0] = size[0] - points[:, 0]
            points = points[list(MIRRORED)]
        points[:, :2] += [left, top]
        if rng.random() < 0.4:
            shadow(picture, left, top, *size, rng)
        layer = np.asarray(colour).astype(np.float32) * rng.uniform(0.7, 1.2)
        cover = np.asarray(alpha).astype(np.float32)[..., None] / 255
        people = [covered(truth, cover[..., 0], left, top) for truth in people]
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + size[0], width), min(top + size[1], height)
        if x1 <= x0 or y1 <= y0:
            continue
        inside = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        behind = np.asarray(picture.crop((x0, y0, x1, y1))).astype(np.float32)
        mixed = np.clip(behind * (1 - cover[inside]) + layer[inside], 0, 255).astype(np.uint8)
        picture.paste(Image.fromarray(mixed), (x0, y0))
        truth = inside_picture(np.array([left, top, left + size[0], top + size[1]], float), points, width, height)
        if truth is not None:
            people.append(truth)
    return Picture(np.asarray(picture), tuple(people))


def shadow(picture: Image.Image, left: int, top: int, wide: int, tall: int, rng: np.random.Generator) -> None:
    """A dark soft disc below somebody."""
    mask = Image.new("L", picture.size, 0)
    y, half = top + tall * rng.uniform(0.93, 1.0), wide * rng.uniform(0.4, 0.8)
    box = [left + wide / 2 - half, y - 0.04 * tall, left + wide / 2 + half, y + 0.04 * tall]
    ImageDraw.Draw(mask).ellipse(box, fill=int(rng.uniform(40, 150)))
    picture.paste((0, 0, 0), mask=mask.filter(ImageFilter.BoxBlur(0.02 * tall)))


def covered(truth: Truth, cover: np.ndarray, left: int, top: int) -> Truth:
    """Keypoints of a person that somebody else, pasted at (left, top), hides."""
    points = truth.keypoints.copy()
    at: np.ndarray = np.floor(points[:, :2] - [left, top]).astype(int)
    for number, (x, y) in enumerate(at.tolist()):
        within = 0 <= x < cover.shape[1] and 0 <= y < cover.shape[0]
        if points[number, 2] > 0 and within and cover[y, x] > 0.5:
            points[number, 2] = min(points[number, 2], OCCLUDED)
    return Truth(truth.box, points)


def inside_picture(box: np.ndarray, points: np.ndarray, width: int, height: int) -> Truth | None:
    """What of a person is inside the picture; None where too little is."""
    clipped = np.clip(box, 0, [width, height, width, height])
    share = np.prod(clipped[2:] - clipped[:2]) / max(np.prod(box[2:] - box[:2]), 1e-9)
    inside = ((points[:, :2] >= 0) & (points[:, :2] < [width, height])).all(1, keepdims=True)
    points = np.where(inside, points, 0.0)
    if share < SMALLEST_PART and (points[:, 2] > 0).sum() < 5:
        return None
    return Truth(clipped, points)


def clip_picture(seed: int, rng: np.random.Generator) -> Picture:
    """A frame of a synthetic clip, as the embedded model was trained on."""
    small, model = load_nano_body(), load_model(False)
    scene = sample_scene(seed, small)
    frame = int(rng.integers(NUM_FRAMES)) if rng.random() < 0.7 else 0
    pixels = draw_clip(scene, small, slice(frame, frame + 1)).video[0]
    rotations, transl = scene.camera_motion(small)
    turns = rotations[frame : frame + 1]
    vertices = skin(small, scene.betas, turns, transl[frame : frame + 1])[0][0]
    pelvis = small.shaped(scene.betas)[1][0] + transl[frame]
    points = model.skeleton.posed(torch.from_numpy(turns)).points_at(torch.from_numpy(scene.betas)[None])[0].numpy()
    points = points + pelvis
    focal, (height, width) = scene.camera.focal_px, pixels.shape[:2]
    seen = seen_share(points, vertices)
    centre = [width / 2, height / 2]
    flat = vertices[:, :2] / vertices[:, 2:] * focal + centre
    where = np.concatenate([points[:, :2] / points[:, 2:] * focal + centre, seen[:, None]], -1)
    truth = inside_picture(np.concatenate([flat.min(0), flat.max(0)]), where, width, height)
    return Picture(pixels, (truth,) if truth is not None else ())


def weathered(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What cameras and files do to a picture: brightness, contrast, colour cast, blur, noise, JPEG."""
    values = pixels.astype(np.float32) / 255
    if rng.random() < 0.8:
        values = (values - 0.5) * rng.uniform(0.6, 1.3) + 0.5 + rng.normal(0, 0.08)
        values = values * (1 + rng.normal(0, 0.07, 3).astype(np.float32))
        values = np.clip(values, 0, 1) ** np.exp(rng.normal(0, 0.2)).astype(np.float32)
    if rng.random() < 0.07:
        values = np.repeat(values.mean(-1, keepdims=True), 3, -1)
    if rng.random() < 0.3:
        values = values + rng.normal(0, rng.uniform(0, 0.06), values.shape).astype(np.float32)
    picture = Image.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))
    if rng.random() < 0.15:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=int(rng.integers(15, 80)))
        picture = Image.open(file)
    return np.asarray(picture)


# --- samples


@dataclass
class Sample:
    """What the network reads and what it should say; keypoints (K, 32 * 32 + 1) add up to one, or are not asked for."""

    square: Tensor  # (4, 128, 128)
    centre: Tensor  # (32, 32), 1 in the middle of each person
    sides: Tensor  # (4, 32, 32) in cells
    sides_weight: Tensor  # (32, 32)
    keypoints: Tensor | None  # (K, 32 * 32 + 1)


def whole_sample(picture: Picture, rng: np.random.Generator) -> Sample:
    """The square round the whole picture, a little moved and scaled; the hint is empty."""
    height, width = picture.pixels.shape[:2]
    side = max(width, height) * np.exp(rng.uniform(-0.05, 0.25))
    view = View(width / 2 + rng.normal(0, 0.03) * side, height / 2 + rng.normal(0, 0.03) * side, side)
    square = worn_square(picture, view, rng)
    boxes = [view.to_view(truth.box.reshape(2, 2)).reshape(4) for truth in picture.people]
    return Sample(network_input(square), *box_maps(boxes), None)


def worn_square(picture: Picture, view: View, rng: np.random.Generator) -> np.ndarray:
    """A square of a picture that cameras and files have worn; what lies outside the picture stays grey."""
    height, width = picture.pixels.shape[:2]
    square = view.cut(Image.fromarray(picture.pixels))
    corners = view.to_view(np.array([[0.0, 0.0], [width, height]]))
    (x0, y0), (x1, y1) = (tuple(int(v) for v in row) for row in np.clip(np.round(corners), 0, SIDE))
    if x1 - x0 > 8 and y1 - y0 > 8:
        square[y0:y1, x0:x1] = weathered(square[y0:y1, x0:x1], rng)
    return square


def close_sample(picture: Picture, truth: Truth, rng: np.random.Generator) -> Sample:
    """The close look at one person, from a box as inexact as the first look gives."""
    size = np.array([*(truth.box[2:] - truth.box[:2])] * 2)
    guess = truth.box + rng.normal(0, 0.05, 4) * size
    view = close_view(guess)
    view = View(view.x, view.y, view.side * float(np.exp(rng.normal(0, 0.08))))
    square = worn_square(picture, view, rng)
    box = view.to_view(truth.box.reshape(2, 2)).reshape(4)
    hint = view.to_view(guess.reshape(2, 2)).reshape(4)
    points = truth.keypoints.copy()
    points[:, :2] = view.to_view(points[:, :2])
    return Sample(network_input(square, hint), *box_maps([box]), keypoint_target(points))


def box_maps(boxes: list[np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes in pixels of the square -> centre, sides and where the sides are asked for."""
    centre, sides, weight = torch.zeros(CELLS, CELLS), torch.ones(4, CELLS, CELLS), torch.zeros(CELLS, CELLS)
    cells = torch.arange(CELLS) + 0.5
    for box in boxes:
        x0, y0, x1, y1 = (float(v) / STRIDE for v in box)
        middle = ((x0 + x1) / 2, (y0 + y1) / 2)
        spread = max(0.9, 0.06 * max(x1 - x0, y1 - y0))
        bump = torch.exp(
            -((cells - middle[0]) ** 2)[None] / (2 * spread**2) - ((cells - middle[1]) ** 2)[:, None] / (2 * spread**2)
        )
        row, column = (min(max(int(m), 0), CELLS - 1) for m in (middle[1], middle[0]))
        bump[row, column] = 1.0
        stronger = bump > centre
        for number, distance in enumerate(
            (cells[None] - x0, cells[:, None] - y0, x1 - cells[None], y1 - cells[:, None])
        ):
            sides[number] = torch.where(stronger, distance.expand(CELLS, CELLS), sides[number])
        centre = torch.maximum(centre, bump)
        size = torch.full((), 1 / max(x1 - x0 + y1 - y0, 1.0))
        weight = torch.where(stronger & (bump > 0.3), size, weight)
    return centre, sides, weight


def keypoint_target(points: np.ndarray, spread: float = 1.0) -> Tensor:
    """Keypoints (K, 3) in pixels of the square -> (K, 32 * 32 + 1), each row a distribution over where it is."""
    cells = np.arange(CELLS) + 0.5
    x = np.exp(-((cells[None] - points[:, :1] / STRIDE) ** 2) / (2 * spread**2))  # (K, 32)
    y = np.exp(-((cells[None] - points[:, 1:2] / STRIDE) ** 2) / (2 * spread**2))
    inside = ((points[:, :2] > 0) & (points[:, :2] < SIDE)).all(1)
    share = np.where(inside, points[:, 2], 0.0)
    share = np.where(share == OCCLUDED, 0.65, share)
    where = (y[:, :, None] * x[:, None, :]).reshape(len(points), -1)
    where *= (share / np.maximum(where.sum(1), 1e-9))[:, None]
    return torch.from_numpy(np.concatenate([where, 1 - share[:, None]], 1).astype(np.float32))
