"""The verb `watch`: a run as one page, with its curves, its samples and its settings; no network, no server.

The page is a single HTML file. `--follow` writes it anew while the run goes on, and the page reloads itself.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..comovi_model.errors import ComoviError
from ..comovi_model.files import atomic_path
from .config_file import RESOLVED
from .metrics import LOG, read_log

PAGE = "report.html"
WIDTH, HEIGHT, MARGIN = 560, 240, 46  # pixels of a chart
POINTS = 400  # at most, per curve
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#bf3989", "#57606a")
STRIPS = 12  # newest samples that are shown
STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1200px;padding:0 1rem;color:#1f2328}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}.charts{display:flex;flex-wrap:wrap;gap:1rem}
figure{margin:0}figcaption{color:#57606a;font-size:.85rem}img,video{max-width:100%;display:block}
pre{background:#f6f8fa;padding:1rem;overflow:auto}table{border-collapse:collapse}td{padding:.1rem .8rem .1rem 0}"""


def page(run: Path, reload_seconds: int = 0) -> str:
    """The page of a run, as HTML."""
    lines = read_log(run)
    if not lines:
        raise ComoviError(f"{run} has no {LOG} yet; give the folder of a run, as runs/NAME.")
    groups = group_curves(lines)
    last = lines[-1]
    facts = [("step", f"{last['step']:,}")] + [
        (name, f"{last[name]:.4g}") for name in ("loss", "clips_per_second", "lr", "grad_norm") if name in last
    ]
    parts = [
        "<!doctype html><meta charset='utf-8'>",
        f"<meta http-equiv='refresh' content='{reload_seconds}'>" if reload_seconds else "",
        f"<title>{html.escape(run.name)}</title><style>{STYLE}</style><h1>{html.escape(run.name)}</h1>",
        "<table>" + "".join(f"<tr><td>{html.escape(k)}<td>{v}" for k, v in facts) + "</table>",
        "<h2>Curves</h2><div class='charts'>",
        *(f"<figure>{chart(curves)}<figcaption>{html.escape(name)}</figcaption></figure>" for name, curves in groups),
        "</div>",
        samples(run),
    ]
    settings = run / RESOLVED
    if settings.exists():
        parts.append(f"<h2>Settings</h2><pre>{html.escape(settings.read_text(encoding='utf-8'))}</pre>")
    return "\n".join(part for part in parts if part) + "\n"


def group_curves(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, dict[str, list[tuple[float, float]]]]]:
    """Curves (step, value) by chart: a training loss stands beside the same loss on held-out clips."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for name, value in line.items():
            if name != "step" and isinstance(value, (int, float)) and math.isfinite(value):
                curves.setdefault(name, []).append((line["step"], value))
    groups: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, points in curves.items():
        chart_name, _, quantile = name.removeprefix("validation/").partition("@")
        if quantile:
            chart_name += " on held-out clips, by quantile of the timesteps"
        groups.setdefault(chart_name, {})[name] = points
    return list(groups.items())


def chart(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Curves as an SVG picture; values that span more than a factor of 20 get a logarithmic axis."""
    steps = [step for points in curves.values() for step, _ in points]
    values = [value for points in curves.values() for _, value in points]
    low, high = min(values), max(values)
    log = low > 0 and high / low > 20
    scale = (lambda v: math.log10(v)) if log else (lambda v: v)
    bottom, top = scale(low), scale(high)
    if top - bottom < 1e-12:
        bottom, top = bottom - 0.5, top + 0.5
    first, end = min(steps), max(max(steps), min(steps) + 1)

    def x(step: float) -> float:
        return MARGIN + (step - first) / (end - first) * (WIDTH - MARGIN - 8)

    def y(value: float) -> float:
        return 14 + (top - scale(value)) / (top - bottom) * (HEIGHT - 14 - 24)

    out = [f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' font-size='11' fill='#57606a'>"]
    for part in range(5):
        level = bottom + (top - bottom) * part / 4
        value = 10**level if log else level
        height = 14 + (top - level) / (top - bottom) * (HEIGHT - 14 - 24)
        out.append(f"<path d='M{MARGIN} {height:.1f}H{WIDTH - 8}' stroke='#d0d7de'/>")
        out.append(f"<text x='{MARGIN - 4}' y='{height + 4:.1f}' text-anchor='end'>{value:.3g}</text>")
    out.append(f"<text x='{MARGIN}' y='{HEIGHT - 6}'>step {first:,}</text>")
    out.append(f"<text x='{WIDTH - 8}' y='{HEIGHT - 6}' text-anchor='end'>{end:,}</text>")
    for number, (name, points) in enumerate(curves.items()):
        colour, shown = COLOURS[number % len(COLOURS)], thinned(points)
        line = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in shown)
        out.append(f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='1.5'/>")
        label = html.escape(name.removeprefix("validation/") if "@" in name else name)
        out.append(f"<text x='{WIDTH - 12}' y='{26 + 13 * number}' text-anchor='end' fill='{colour}'>{label}</text>")
    return "".join([*out, "</svg>"])


def thinned(points: Sequence[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """At most `most` points: means over runs of equal length."""
    if len(points) <= most:
        return list(points)
    size = -(-len(points) // most)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def samples(run: Path) -> str:
    """The newest samples: generated above, the clip itself below; pictures are part of the page."""
    shown: list[str] = []
    for file in sorted((run / "samples").glob("*/samples.json"), reverse=True):
        try:
            rows = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue
        for row in rows:
            if len(shown) < STRIPS and "strip" in row and (file.parent / row["strip"]).is_file():
                shown.append(_strip(file.parent, row))
    return "<h2>Samples: generated, and below the clip itself</h2>" + "".join(shown) if shown else ""


def _strip(folder: Path, row: Mapping[str, Any]) -> str:
    picture = base64.b64encode((folder / Path(row["strip"]).name).read_bytes()).decode()
    error = f", pose {row['pose_degrees']:.1f}° from the clip's" if "pose_degrees" in row else ""
    text = html.escape(f"step {row['step']:,}: {row['sentence']}") + error
    return f"<figure><img src='data:image/jpeg;base64,{picture}'><figcaption>{text}</figcaption></figure>"


def write_page(run: Path, out: Path, reload_seconds: int = 0) -> Path:
    text = page(run, reload_seconds)
    with atomic_path(out) as path:
        path.write_text(text, encoding="utf-8")
    return out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--out", type=Path, help=f"the page (default: RUN/{PAGE})")
    parser.add_argument("--follow", action="store_true", help="write it anew while the run goes on, until Ctrl-C")
    parser.add_argument("--every", type=int, default=20, metavar="SECONDS", help="with --follow")


def run(options: argparse.Namespace) -> int:
    out = options.out or options.run / PAGE
    if options.every < 1:
        raise ComoviError(f"--every is {options.every}; give at least one second.")
    print(write_page(options.run, out, options.every if options.follow else 0), flush=True)
    while options.follow:
        time.sleep(options.every)
        write_page(options.run, out, options.every)
    return 0
