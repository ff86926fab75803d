"""What an evaluation of the nano model looks like on paper: bars, a table, a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

FRAMES_SHOWN = slice(0, None, 4)  # 9 of 33
CAPTION_HEIGHT = 14


@dataclass(frozen=True)
class Bar:
    """What it must reach: `least` (better: `goal`), at most `most`; `of_truth`: in units of the truth's figure."""

    least: float
    goal: float | None = None
    most: float | None = None
    of_truth: bool = False

    def met(self, value: float | None, truth: float) -> bool:
        if value is None:  # no case could be asked, as for sides where no action has one
            return False
        scale = truth if self.of_truth else 1.0
        return bool(value >= self.least * scale and (self.most is None or value <= self.most))

    def __str__(self) -> str:
        if self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        goal = f" ({self.goal:g})" if self.goal is not None else ""
        return f">= {self.least:g}{goal}" + (" x truth" if self.of_truth else "")


BARS = {
    "action_accuracy": Bar(0.85, 0.95),
    "side_accuracy": Bar(0.80, 0.95),
    "pixel_action_accuracy": Bar(0.60, 0.80),
    "motion_ratio": Bar(0.7, most=1.4),
    "change_iou": Bar(0.6, 0.8, of_truth=True),
    "video_map_iou": Bar(0.75, 0.82),
    "motion_map_iou": Bar(0.65, 0.78),
    "colour_accuracy": Bar(0.85),
    "autoencoder_psnr_rgb": Bar(28, 30),
    "autoencoder_psnr_map": Bar(27, 29),
}
ROWS = (
    "action_accuracy", "side_accuracy", "pixel_action_accuracy", "pixel_side_accuracy", "joint_error_mm",
    "motion_ratio", "motion_ratio_video", "change_iou", "change_iou_share", "video_map_iou", "motion_map_iou",
    "colour_accuracy", "autoencoder_psnr_rgb", "autoencoder_psnr_map",
)  # fmt: skip


def bars_met(figures: Mapping) -> dict[str, bool]:
    """Measure -> does it reach its bar?"""
    return {name: bool(bar.met(figures[name], figures.get(f"{name}_truth", 1.0))) for name, bar in BARS.items()}


def format_table(figures: Mapping) -> str:
    """Ours beside truth (through the autoencoder), a frozen clip and the bar (goal in brackets); * = bar missed."""
    met = bars_met(figures)
    lines = [f"{'measure':24}{'ours':>9} {'truth':>9}{'frozen':>9}   bar (goal)"]
    for name in ROWS:
        cells = []
        for key in (name, f"{name}_truth", f"{name}_frozen"):
            value = figures.get(key)
            digits = 1 if name.startswith(("joint", "autoencoder")) else 3
            cells.append("-" if value is None else f"{value:.{digits}f}")
        star = " " if met.get(name, True) else "*"
        lines.append(f"{name:24}{cells[0]:>9}{star}{cells[1]:>9}{cells[2]:>9}   {BARS.get(name, '')}")
    noise = 50 / figures["count"] ** 0.5
    lines.append(
        f"{figures['count']} clips, seed {figures['seed']}, {figures['seconds_per_clip']:.2f} s to generate a clip; "
        f"shares of clips are uncertain by up to {noise:.1f} %"
    )
    return "\n".join(lines)


def contact_sheet(clips: list[tuple[str, list[np.ndarray]]], columns: int = 2) -> Image.Image:
    """Captions and clips (T, H, W, 3) below each other, every fourth frame, the pictures of one caption as rows."""
    cells = []
    for caption, pictures in clips:
        strips = [np.concatenate(list(picture[FRAMES_SHOWN]), 1) for picture in pictures]
        cell = Image.fromarray(
            np.concatenate([np.full((CAPTION_HEIGHT, strips[0].shape[1], 3), 255, np.uint8), *strips])
        )
        ImageDraw.Draw(cell).text((4, 1), caption, fill=(0, 0, 0))
        cells.append(cell)
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    width, height = cells[0].size
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for number, cell in enumerate(cells):
        sheet.paste(cell, (number % columns * width, number // columns * height))
    return sheet
