"""Measures the cleaning on motion whose truth is known:

python -m comfyui_comovi.comovi_model.clean.benchmark [smoothing|feet|resampling] [--seeds 8] [--json FILE]

Prints tables in Markdown; docs/clean.md shows them. Synthetic motions (known_motion.py) on the mannequin.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..body.body_files import load_mannequin_body
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel
from ..files import atomic_path
from .feet import foot_contacts, skate, skeleton
from .foot_lock import lock_feet
from .known_motion import LEVELS, SHAKING, Noise, noisy, synthetic_motion
from .measures import jitter, joint_positions, mean_angle_degrees, mean_distance_mm
from .smoothing import smooth
from .time_base import resample

ACTIONS = ("walk", "wave", "kick", "punch", "squat", "jump", "turn", "march")
RATES = (16.0, 30.0)
STRENGTHS = (0.25, 0.5, 0.75, 1.0)
STANDING_SPEED = 0.05  # m/s, slower points of a clean motion stand


@dataclass(frozen=True)
class Row:
    """One line of a table: named numbers."""

    name: str
    numbers: dict[str, float]


def smoothing_table(model: BodyModel, seeds: int, fps: float, noise: Noise) -> list[Row]:
    """Means over actions and seeds: error against the truth, jitter, and what the method does to motion without noise.

    The truth's own jitter is the first line.
    """
    truths = [synthetic_motion(model, action, seed, fps) for seed in range(seeds) for action in ACTIONS]
    rough = [noisy(truth, noise, 1000 + number) for number, truth in enumerate(truths)]
    ways: list[tuple[str, Callable[[BodyMotion], BodyMotion]]] = [("noisy, as it came", lambda motion: motion)]
    ways.append(("paper", lambda motion: smooth(motion, "paper")))
    for method in ("savgol", "gaussian", "one-euro"):
        for strength in STRENGTHS:
            ways.append((f"{method}, strength {strength:g}", _smoother(method, strength)))
    own = _mean([jitter(truth, model) for truth in truths])
    rows = [Row("truth", {"mm": 0.0, "degrees": 0.0, "jitter": own, "cost_mm": 0.0})]
    for name, way in ways:
        calm = [way(motion) for motion in rough]
        numbers = {
            "mm": _mean([mean_distance_mm(a, b, model) for a, b in zip(truths, calm, strict=True)]),
            "degrees": _mean([mean_angle_degrees(a, b) for a, b in zip(truths, calm, strict=True)]),
            "jitter": _mean([jitter(motion, model) for motion in calm]),
            "cost_mm": _mean([mean_distance_mm(truth, way(truth), model) for truth in truths]),
        }
        rows.append(Row(name, numbers))
    return rows


def _smoother(method: str, strength: float) -> Callable[[BodyMotion], BodyMotion]:
    return lambda motion: smooth(motion, method, strength)


def true_contacts(motion: BodyMotion, model: BodyModel) -> Tensor:
    """(F, 4) bool of a motion without noise: the points that hardly move towards both neighbouring frames."""
    steps = skeleton(motion, model).foot_points.diff(dim=0).norm(dim=-1) * motion.fps
    nothing = torch.zeros_like(steps[:1])
    return torch.maximum(torch.cat([steps, nothing]), torch.cat([nothing, steps])) < STANDING_SPEED


def foot_table(model: BodyModel, seeds: int, fps: float) -> list[Row]:
    """Sliding of the feet that truly stand, and of those found to stand, before and after the lock, on noisy walks."""
    rows = []
    for level, noise in LEVELS.items():
        found: list[dict[str, float]] = []
        for seed in range(seeds):
            truth = synthetic_motion(model, "walk", seed, fps)
            motion = noisy(truth, noise, 2000 + seed)
            standing, seen = true_contacts(truth, model), foot_contacts(motion, model)
            locked = lock_feet(motion, model)
            before, after = skate(motion, model, standing), skate(locked, model, standing)
            own_before, own_after = skate(motion, model, seen), skate(locked, model, seen)
            found.append(
                {
                    "before_m_s": before.metres_per_second,
                    "after_m_s": after.metres_per_second,
                    "reduction": 1 - after.metres_per_second / before.metres_per_second,
                    "own_reduction": 1 - own_after.metres_per_second / own_before.metres_per_second,
                    "moved_mm": mean_distance_mm(motion, locked, model),
                    "error_before_mm": mean_distance_mm(truth, motion, model),
                    "error_after_mm": mean_distance_mm(truth, locked, model),
                }
            )
        rows.append(Row(level, {name: _mean([one[name] for one in found]) for name in found[0]}))
        rows[-1].numbers["worst_reduction"] = min(one["reduction"] for one in found)
        rows[-1].numbers["most_moved_mm"] = max(one["moved_mm"] for one in found)
    return rows


def resampling_table(model: BodyModel, seeds: int) -> list[Row]:
    """30 -> 16 -> 30 frames per second of motion without noise, by interpolation."""
    rows = []
    for interpolation in ("slerp", "cubic"):
        means, worst = [], []
        for seed in range(seeds):
            for action in ACTIONS:
                motion = synthetic_motion(model, action, seed, 30.0)
                back = resample(resample(motion, 16, interpolation), 30, interpolation)
                away = joint_positions(motion.slice(0, len(back)), model) - joint_positions(back, model)
                means.append(float(away.norm(dim=-1).mean() * 1000))
                worst.append(float(away.norm(dim=-1).max() * 1000))
        rows.append(
            Row(interpolation, {"mean_mm": _mean(means), "worst_clip_mm": max(means), "worst_joint_mm": max(worst)})
        )
    return rows


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def markdown(title: str, rows: list[Row]) -> str:
    """A table with two or three digits per number."""
    names = list(rows[0].numbers)
    lines = [f"**{title}**", "", f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    lines += [f"| {row.name} | {' | '.join(f'{row.numbers[name]:.3g}' for name in names)} |" for row in rows]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the cleaning of motions.")
    parser.add_argument("what", nargs="*", choices=["smoothing", "feet", "resampling", []], help="default: all")
    parser.add_argument("--seeds", type=int, default=8, help="clips of each action (8)")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()

    model = load_mannequin_body()
    wanted = options.what or ["smoothing", "feet", "resampling"]
    tables: dict[str, list[Row]] = {}
    if "smoothing" in wanted:
        for fps in RATES:
            for name, noise in (("shaking", SHAKING), ("medium noise", LEVELS["medium"])):
                rows = smoothing_table(model, options.seeds, fps, noise)
                tables[f"smoothing, {name}, {fps:g} frames per second"] = rows
    if "feet" in wanted:
        for fps in RATES:
            tables[f"foot lock, noisy walks, {fps:g} frames per second"] = foot_table(model, options.seeds, fps)
    if "resampling" in wanted:
        tables["resampling 30 -> 16 -> 30"] = resampling_table(model, options.seeds)
    for title, rows in tables.items():
        print(markdown(title, rows))
    if options.json is not None:
        numbers = {title: {row.name: row.numbers for row in rows} for title, rows in tables.items()}
        with atomic_path(options.json) as temporary:
            temporary.write_text(json.dumps({"seeds": options.seeds, **numbers}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
