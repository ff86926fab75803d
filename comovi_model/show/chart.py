"""Charts with Pillow alone: a page, axes with sensible ticks, lines, bars and words, drawn finely and then reduced.

All positions are in pixels of the finished page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .lettering import INK, PALE_INK, PAPER, RULE, fit_text, font

FINE = 3  # times finer in each direction than the finished page
GRID = "#ecece8"


class Page:
    """A white page to draw on; `finished` reduces it."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._image = Image.new("RGB", (width * FINE, height * FINE), PAPER)
        self._pen = ImageDraw.Draw(self._image)

    def finished(self) -> np.ndarray:
        """(height, width, 3) uint8."""
        return np.asarray(self._image.resize((self.width, self.height), Image.Resampling.LANCZOS))

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1.0) -> None:
        """A line through points with round corners and ends."""
        fine = [(x * FINE, y * FINE) for x, y in points]
        thick = max(1, round(width * FINE))
        self._pen.line(fine, colour, width=thick, joint="curve")
        if thick > 3:
            for x, y in (fine[0], fine[-1]):
                self._pen.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), colour)

    def rectangle(
        self, box: tuple[float, float, float, float], fill: str | None = None, edge: str | None = None
    ) -> None:
        self._pen.rectangle([value * FINE for value in box], fill, edge, width=FINE)

    def bar(self, box: tuple[float, float, float, float], fill: str, radius: float = 2.0) -> None:
        """A filled box with round corners."""
        self._pen.rounded_rectangle([value * FINE for value in box], radius * FINE, fill)

    def disc(self, x: float, y: float, radius: float, fill: str, edge: str | None = None) -> None:
        box = [(value + sign * radius) * FINE for sign in (-1, 1) for value in (x, y)]
        self._pen.ellipse(box, fill, edge, width=FINE)

    def ellipse(self, x: float, y: float, long: float, short: float, turn: float, fill: str) -> None:
        """An ellipse of half axes long and short; its long axis points to (sin turn, -cos turn), radians."""
        steps = [2 * math.pi * k / 40 for k in range(40)]
        s, c = math.sin(turn), math.cos(turn)
        spots = [(short * math.cos(t), -long * math.sin(t)) for t in steps]
        self._pen.polygon([((x + a * c - b * s) * FINE, (y + a * s + b * c) * FINE) for a, b in spots], fill)

    def text(self, x: float, y: float, words: str, size: int = 14, colour: str = PALE_INK, anchor: str = "la") -> None:
        self._pen.text((x * FINE, y * FINE), words, colour, font(size * FINE), anchor=anchor)

    @staticmethod
    def text_width(words: str, size: int = 14) -> float:
        return font(size * FINE).getlength(words) / FINE

    def heading(self, x: float, y: float, width: float, title: str, subtitle: str) -> None:
        self.text(x, y, fit_text(title, 26, int(width)), 26, INK)
        self.text(x, y + 38, fit_text(subtitle, 15, int(width)), 15)


@dataclass(frozen=True)
class Axes:
    """A box on a page with a scale on each side."""

    page: Page
    box: tuple[float, float, float, float]  # left, top, right, bottom
    x: tuple[float, float]  # values at left and right
    y: tuple[float, float]  # values at bottom and top

    def at(self, x: float, y: float) -> tuple[float, float]:
        left, top, right, bottom = self.box
        u, v = (x - self.x[0]) / (self.x[1] - self.x[0]), (y - self.y[0]) / (self.y[1] - self.y[0])
        return left + u * (right - left), bottom - v * (bottom - top)

    def draw(self, title: str = "", x_label: str = "", x_numbers: bool = True, y_numbers: bool = True) -> None:
        """Grid, numbers, title above, label of x below right."""
        left, top, right, bottom = self.box
        for value in ticks(*self.x, max(2, int((right - left) / 90))):
            place = self.at(value, self.y[0])[0]
            self.page.line([(place, top), (place, bottom)], GRID)
            if x_numbers:
                self.page.text(place, bottom + 7, plain(value), 13, anchor="ma")
        for value in ticks(*self.y, max(2, int((bottom - top) / 38))):
            place = self.at(self.x[0], value)[1]
            self.page.line([(left, place), (right, place)], GRID)
            if y_numbers:
                self.page.text(left - 8, place, plain(value), 13, anchor="rm")
        self.page.rectangle(self.box, edge=RULE)
        self.page.text(left, top - 24, title, 15, INK)
        self.page.text(right, bottom + 24, x_label, 13, anchor="ra")

    def curve(self, x: np.ndarray, y: np.ndarray, colour: str, width: float = 2.0) -> None:
        """A line through the points; NaN interrupts it, and a lone point becomes a dot."""
        for piece in finite_pieces(y):
            points = [self.at(float(a), float(b)) for a, b in zip(x[piece], y[piece], strict=True)]
            if len(points) == 1:
                self.page.disc(*points[0], width, colour)
            else:
                self.page.line(points, colour, width)

    def level(self, value: float, colour: str) -> None:
        """A dashed line across at height `value`."""
        left, _, right, _ = self.box
        height = self.at(self.x[0], value)[1]
        for start in np.arange(left, right, 9):
            self.page.line([(start, height), (min(start + 5, right), height)], colour, 1.2)


def finite_pieces(values: np.ndarray) -> list[slice]:
    """Runs of finite numbers."""
    known = np.concatenate([[False], np.isfinite(values), [False]]).astype(np.int8)
    starts, ends = np.flatnonzero(np.diff(known) == 1), np.flatnonzero(np.diff(known) == -1)
    return [slice(int(a), int(b)) for a, b in zip(starts, ends, strict=True)]


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """(first, last + 1) of every run of True."""
    return [(piece.start, piece.stop) for piece in finite_pieces(np.where(flags, 0.0, np.nan))]


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between low and high, at most about `most` of them."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if span / (power * factor) <= most)
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    return [number * step for number in range(first, last + 1)]


def padded(values: np.ndarray, low: float | None = None, least: float = 1e-3) -> tuple[float, float]:
    """A range that shows all values with some air; `low` fixes its lower end, `least` is its smallest height."""
    known = values[np.isfinite(values)]
    bottom, top = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    bottom = bottom if low is None else min(low, bottom)
    missing = max(0.0, least - (top - bottom))
    bottom, top = (bottom - missing / 2, top + missing / 2) if low is None else (bottom, top + missing)
    air = 0.08 * (top - bottom)
    return (bottom if low is not None and bottom == low else bottom - air), top + air


def plain(value: float) -> str:
    """A tick's number without needless digits."""
    return f"{0.0 if abs(value) < 1e-9 else value:.6g}"
