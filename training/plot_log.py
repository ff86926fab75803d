"""Draw the log of a nano run as an SVG picture.

    python -m comfyui_comovi.training.plot_log runs/nano/log.jsonl docs/nano_training.svg

Left: training losses against steps. Right: held-out losses of motion map and video at the quantiles of the noise (1 is
pure noise, where sampling begins). `comovi-train watch` shows the same and more of a run that goes on.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from ..comovi_model.files import atomic_path

WIDTH, HEIGHT, MARGIN = 460, 280, 48
BRANCHES = ("motion", "video")
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f")


@dataclass(frozen=True)
class Line:
    """One curve: its name and its points (step, value)."""

    name: str
    points: list[tuple[float, float]]


def read_lines(log: Path) -> tuple[list[Line], list[Line]]:
    """Training and validation curves of a log.jsonl; the pose error is shown ten times enlarged."""
    rows = [json.loads(text) for text in log.read_text().splitlines() if text.strip()]
    training = [
        Line(label, [(row["step"], row[key] * scale) for row in rows if key in row])
        for key, label, scale in (("video", "video", 1), ("motion", "motion map", 1), ("pose", "pose x 10", 10))
    ]
    checked = [row for row in rows if "validation/loss" in row]
    keys: list[str] = []
    for branch in BRANCHES:
        every = [key for key in (checked[0] if checked else {}) if key.startswith(f"validation/{branch}@")]
        keys += every[::-1][::2][::-1]  # every other one, the noisiest among them
    validation = [Line(key.removeprefix("validation/"), [(row["step"], row[key]) for row in checked]) for key in keys]
    return training, validation


def panel(lines: list[Line], title: str, left: float) -> str:
    """One diagram as SVG, `left` pixels from the left edge."""
    points = [p for line in lines for p in line.points]
    if not points:
        return ""
    x_max, y_max = max(x for x, _ in points), max(y for _, y in points) * 1.05
    wide, high = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN

    def place(x: float, y: float) -> str:
        return f"{left + MARGIN + wide * x / x_max:.1f},{MARGIN + high * (1 - y / y_max):.1f}"

    parts = [f'<text x="{left + WIDTH / 2}" y="20" text-anchor="middle" font-weight="bold">{title}</text>']
    for step in range(5):
        value = y_max * step / 4
        x0, y0 = place(0, value).split(",")
        parts.append(f'<line x1="{x0}" y1="{y0}" x2="{left + WIDTH - MARGIN}" y2="{y0}" stroke="#ddd"/>')
        parts.append(f'<text x="{float(x0) - 6}" y="{float(y0) + 4}" text-anchor="end">{value:.2f}</text>')
        x1 = place(x_max * step / 4, 0).split(",")[0]
        label = f"{x_max * step / 4:.0f}"
        parts.append(f'<text x="{x1}" y="{HEIGHT - MARGIN + 16}" text-anchor="middle">{label}</text>')
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(place(x, y) for x, y in line.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        row, column = divmod(number, 4)
        x, y = left + MARGIN + 100 * column, HEIGHT - 16 + 12 * row
        parts.append(f'<text x="{x}" y="{y}" fill="{colour}">{line.name}</text>')
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    training, validation = read_lines(options.log)
    body = panel(training, "training loss", 0) + panel(validation, "held-out loss by noise quantile", WIDTH)
    with atomic_path(options.out) as path:
        path.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" height="{HEIGHT + 12}" '
            f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>{body}</svg>\n'
        )


if __name__ == "__main__":
    main()
