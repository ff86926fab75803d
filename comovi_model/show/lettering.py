"""Words in pictures, and the colours of our pages."""

from __future__ import annotations

from functools import lru_cache

from PIL import ImageFont

PAPER, INK, PALE_INK, RULE = "#fbfbf9", "#1d1d1f", "#6e6e73", "#dcdcd8"
LEFT, RIGHT, TRUNK = "#d9822b", "#2f6fb7", "#5a5f66"  # one hue per side of the body, told apart by everyone


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own typeface (Aileron), so that a page looks the same on every machine."""
    return ImageFont.load_default(size)  # type: ignore[return-value]


def fit_text(text: str, size: int, width: int) -> str:
    """The text, shortened with an ellipsis where it is wider than `width` pixels."""
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
