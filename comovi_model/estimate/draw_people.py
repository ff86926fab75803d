"""People drawn into their picture: box, number and keypoints with the limbs between them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..show.lettering import LEFT, RIGHT, font
from .people import Person

LIMBS = (
    (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
    (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
MIDDLE = "#e8d65a"
RIGHT_POINTS, LEFT_POINTS = {2, 3, 4, 8, 9, 10, 14, 16}, {5, 6, 7, 11, 12, 13, 15, 17}


def draw_people(picture: np.ndarray, people: Sequence[Person]) -> np.ndarray:
    """(H, W, 3) uint8 with the people over it; limbs of the person's left are orange, of the right blue."""
    image = Image.fromarray(np.ascontiguousarray(picture[..., :3]))
    draw = ImageDraw.Draw(image)
    thick = max(1, round(min(image.size) / 200))
    for number, person in enumerate(people):
        red, green, blue = colorsys.hsv_to_rgb((0.33 + 0.618 * number) % 1, 0.75, 0.95)
        colour = (round(255 * red), round(255 * green), round(255 * blue))
        draw.rectangle([float(side) for side in person.box], outline=colour, width=thick)
        _label(draw, person, str(number), colour, image.size)
        if person.keypoints is not None:
            _skeleton(draw, person.keypoints, thick)
    return np.array(image)


def _label(draw: ImageDraw.ImageDraw, person: Person, text: str, colour: tuple, size: tuple[int, int]) -> None:
    letters = font(max(10, round(min(size) / 24)))
    left, top = max(0.0, float(person.box[0])), max(0.0, float(person.box[1]))
    draw.rectangle(draw.textbbox((left + 3, top + 2), text, font=letters), fill=colour)
    draw.text((left + 3, top + 2), text, font=letters, fill=(0, 0, 0))


def _skeleton(draw: ImageDraw.ImageDraw, keypoints: np.ndarray, thick: int) -> None:
    seen = keypoints[:, 2] > 0
    for start, end in LIMBS:
        if seen[start] and seen[end]:
            draw.line([*keypoints[start, :2], *keypoints[end, :2]], fill=_side(end), width=2 * thick)
    for number, (x, y, confidence) in enumerate(keypoints):
        if confidence > 0:
            radius = 2 * thick
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=_side(number), outline=(255, 255, 255))


def _side(point: int) -> str:
    return RIGHT if point in RIGHT_POINTS else LEFT if point in LEFT_POINTS else MIDDLE
