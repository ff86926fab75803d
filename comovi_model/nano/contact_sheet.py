"""A clip on one page: every fourth frame of each row of pictures, with the sentence above and the seconds below.

Letters: F frames, H x W pixels. Pictures are uint8 RGB.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

EVERY = 4  # frames from one column to the next: one latent frame
CELL_WIDTH = 160  # pixels of one picture on the page
GAP, MARGIN = 6, 28
PAPER, INK, PALE_INK, RULE = "#fbfbf9", "#1d1d1f", "#6e6e73", "#dcdcd8"


def draw_contact_sheet(rows: Mapping[str, np.ndarray], title: str, subtitle: str, fps: float) -> np.ndarray:
    """rows: label -> frames (F, H, W, 3), of one shape. Returns the page (h, w, 3) uint8."""
    frames, height, width = next(iter(rows.values())).shape[:3]
    columns = range(0, frames, EVERY)
    cell_height = round(CELL_WIDTH * height / width)
    left, top = MARGIN + 28, MARGIN + 66
    page_width = left + len(columns) * (CELL_WIDTH + GAP) - GAP + MARGIN
    page_height = top + len(rows) * (cell_height + GAP) - GAP + 32 + MARGIN // 2
    page = Image.new("RGB", (page_width, page_height), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((left, MARGIN - 6), fit_text(title, 26, page_width - left - MARGIN), INK, font(26))
    pen.text((left, MARGIN + 32), fit_text(subtitle, 15, page_width - left - MARGIN), PALE_INK, font(15))
    for row, (label, pictures) in enumerate(rows.items()):
        y = top + row * (cell_height + GAP)
        _upright_text(page, label, MARGIN - 4, y + cell_height // 2)
        for column, frame in enumerate(columns):
            x = left + column * (CELL_WIDTH + GAP)
            page.paste(resized(pictures[frame], CELL_WIDTH, cell_height), (x, y))
            pen.rectangle((x - 1, y - 1, x + CELL_WIDTH, y + cell_height), outline=RULE)
    for column, frame in enumerate(columns):
        centre = left + column * (CELL_WIDTH + GAP) + CELL_WIDTH // 2
        pen.text((centre, page_height - MARGIN // 2 - 24), f"{frame / fps:.2f} s", PALE_INK, font(15), anchor="ma")
    return np.asarray(page)


def side_by_side(panels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Videos (F, H, W, 3) of one height next to each other, with a caption below each: (F, H + 32, w, 3)."""
    frames, height = next(iter(panels.values())).shape[:2]
    gap, caption = 2 * GAP, 32
    width = sum(p.shape[2] for p in panels.values()) + gap * (len(panels) - 1)
    page = Image.new("RGB", (width + width % 2, height + caption + height % 2), PAPER)
    pen, x = ImageDraw.Draw(page), 0
    places = []
    for label, panel in panels.items():
        pen.text((x + panel.shape[2] // 2, height + 5), label, PALE_INK, font(18), anchor="ma")
        places.append(x)
        x += panel.shape[2] + gap
    out = np.repeat(np.asarray(page)[None], frames, 0)
    for x, panel in zip(places, panels.values(), strict=True):
        out[:, :height, x : x + panel.shape[2]] = panel
    return out


def resized(picture: np.ndarray, width: int, height: int) -> Image.Image:
    """A picture (H, W, 3) at another size, by Lanczos' filter."""
    return Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)


def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own typeface (Aileron), so that a page looks the same on every machine."""
    return ImageFont.load_default(size)  # type: ignore[return-value]


def fit_text(text: str, size: int, width: int) -> str:
    """The text, shortened with an ellipsis where it is wider than `width` pixels."""
    letters = font(size)
    if letters.getlength(text) <= width:
        return text
    fits = bisect.bisect_left(range(len(text)), True, key=lambda n: letters.getlength(text[: n + 1] + "…") > width)
    return text[:fits].rstrip() + "…"


def _upright_text(page: Image.Image, text: str, x: int, y: int) -> None:
    """Text read from bottom to top, centred on height y."""
    length, ink = round(font(17).getlength(text)) + 4, Image.new("L", (1, 1))
    ink = Image.new("L", (length, 26), 0)
    ImageDraw.Draw(ink).text((2, 2), text, 255, font(17))
    ink = ink.rotate(90, expand=True)
    page.paste(Image.new("RGB", ink.size, PALE_INK), (x, y - length // 2), ink)
