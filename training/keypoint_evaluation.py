"""Measure the fit of a body to keypoints on people that no training has seen.

    comovi evaluate keypoints --count 300 --seed 1 --json keypoints.json
    python -m comfyui_comovi.training.keypoint_evaluation --table --count 100

A person is a pure function of (seed, number). Held out from training: the random streams (other words), the actions
(`TEST_ACTIONS`: 15 that training never draws from), and all everyday poses (lifter_everyday.py, "evaluation"). Not held
out: the mannequin and its ten shape directions, the limits of the joints, and the way cameras are drawn. A share of
`SHARES` of the people comes from each kind; "random" draws every joint's angles within the same limits as training.

Keypoints: the joints and the mannequin's face in a picture whose longer side is 512 pixels, the person filling 40 to
97 % of it, seen from anywhere round, 18 to 75 degrees wide. Standard noise: 5 px standard deviation per coordinate,
10 % missing, 2 % anywhere in the picture with full confidence; confidences say nothing. Besides, eyes, ears and nose on
the far side of the head are missing, as with detectors. The focal length is told, except in the rows "no focal".

pa_mpjpe_mm   median over people of the mean distance of the 24 joints after the best similarity (scale, turn, shift)
unmirrored    share of people whose distance to the truth is smaller than to the truth mirrored in depth
seconds_each  mean wall time of one fit
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..comovi_model.body.mannequin import load_mannequin
from ..comovi_model.body.smpl import BodyModel, pose_joints, rest_joints
from ..comovi_model.errors import ComoviError
from ..comovi_model.estimate.keypoint_fit import MODES, KeypointFit, fit_keypoints
from ..comovi_model.estimate.lifter_body import KeypointBody, keypoint_body
from ..comovi_model.files import atomic_path
from .lifter_people import TEST_NOISE, Noise, People, draw_people
from .lifter_poses import (
    TEST_ACTIONS,
    action_poses,
    everyday_poses,
    jittered,
    mirrored,
    random_poses,
)
from .lifter_train import numbers
from .similarity import best_turn

SHARES = {"actions": 0.45, "everyday": 0.4, "random": 0.15}
NOISES = {
    "none": Noise((0, 0), (0, 0), (0, 0)),
    "2.5 px, 5 % missing, 1 % wild": Noise((2.5, 2.5), (0.05, 0.05), (0.01, 0.01)),
    "5 px, 10 % missing, 2 % wild": TEST_NOISE,
    "10 px, 20 % missing, 4 % wild": Noise((10, 10), (0.2, 0.2), (0.04, 0.04)),
    "standard, beside the joints": replace(TEST_NOISE, beside=1.0),
    "standard, a third swapped": replace(TEST_NOISE, swapped=0.125),
    "standard, cut by the picture": replace(TEST_NOISE, cut=1.0),
}
BARS = {"pa_mpjpe_mm": 55.0, "seconds_each": 2.0, "unmirrored": 0.97}


@dataclass(frozen=True)
class TestPerson:
    kind: str
    people: People  # one


@cache
def _mannequin() -> tuple[BodyModel, KeypointBody]:
    body = load_mannequin()
    return body, keypoint_body(body)


def make_person(seed: int, number: int, noise: Noise = TEST_NOISE) -> TestPerson:
    """Person `number` of a seed; the same body, pose and camera whatever the noise."""
    body, skeleton = _mannequin()
    rng = numbers("keypoints evaluation", seed, number)
    kind = list(SHARES)[int(rng.choice(len(SHARES), p=list(SHARES.values())))]
    if kind == "actions":
        rest, ground = rest_joints(body).double().numpy(), float(body.v_template[:, 1].min())
        local = action_poses(TEST_ACTIONS, 1, rng, rest, ground)
    else:
        local = everyday_poses("evaluation", 1, rng) if kind == "everyday" else random_poses(1, rng)
    local = jittered(mirrored(local) if rng.random() < 0.5 else local, rng, 4.0)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    return TestPerson(kind, draw_people(torch.from_numpy(local).float(), skeleton, noise, generator))


def procrustes_errors(found: Tensor, true: Tensor) -> Tensor:
    """Joints (B, J, 3) twice, metres -> mean distance (B,) in mm after the best similarity without reflection."""
    x, y = (points - points.mean(1, keepdim=True) for points in (found.double(), true.double()))
    return 1e3 * (x @ best_turn(x, y) - y).norm(dim=-1).mean(1)


def mirrored_in_depth(joints: Tensor) -> Tensor:
    """(..., 3) camera frame: looks the same in a distant camera's picture, but is the other-handed body."""
    return joints * torch.tensor([1.0, 1.0, -1.0])


@dataclass(frozen=True)
class Measured:
    kind: str
    pa: float
    pa_mirrored: float
    mpjpe: float  # pelvis on pelvis, mm
    seconds: float
    residual_px: float
    margin: float


def measure(person: TestPerson, mode: str = "both", tell_focal: bool = True) -> Measured:
    """One fit."""
    body, skeleton = _mannequin()
    people = person.people
    size = (int(people.size[0, 0]), int(people.size[0, 1]))
    points = people.keypoints[0].double().numpy()
    focal = float(people.focal[0]) if tell_focal else None
    began = time.perf_counter()
    fit: KeypointFit | None
    try:
        fit = fit_keypoints(points, size, body, focal_px=focal, mode=mode)
    except ComoviError:  # too few points are seen: counts as the worst there is
        fit = None
    seconds = time.perf_counter() - began
    true = skeleton.posed(people.rotations).joints_at(people.betas)
    if fit is None:
        return Measured(person.kind, 1e3, 0.0, 1e3, seconds, 0.0, 0.0)
    found = pose_joints(body, fit.motion.rotations, fit.motion.betas)
    found = found - found[:, :1]
    return Measured(
        person.kind,
        float(procrustes_errors(found, true)),
        float(procrustes_errors(found, mirrored_in_depth(true))),
        float(1e3 * (found - true).norm(dim=-1).mean()),
        seconds,
        fit.residual_px,
        fit.mirrored_margin,
    )


def figures_of(fits: list[Measured]) -> dict:
    pa = np.array([fit.pa for fit in fits])
    figures: dict = {
        "pa_mpjpe_mm": float(np.median(pa)),
        "seconds_each": float(np.mean([fit.seconds for fit in fits])),
        "unmirrored": float(np.mean([fit.pa < fit.pa_mirrored for fit in fits])),
        "pa_mpjpe_mm_mean": float(pa.mean()),
        "pa_mpjpe_mm_90": float(np.quantile(pa, 0.9)),
        "mpjpe_mm": float(np.median([fit.mpjpe for fit in fits])),
        "residual_px": float(np.median([fit.residual_px for fit in fits])),
        "seconds_worst": float(np.max([fit.seconds for fit in fits])),
    }
    for kind in SHARES:
        chosen = [fit.pa for fit in fits if fit.kind == kind]
        if chosen:
            figures[f"pa_mpjpe_mm_{kind}"] = float(np.median(chosen))
    return figures


def run(
    count: int, seed: int, json_path: str | Path | None, *, mode: str = "both", noise: Noise = TEST_NOISE,
    tell_focal: bool = True, quiet: bool = False,
) -> dict:  # fmt: skip
    """What `comovi evaluate keypoints` does; the JSON file is renewed every 25 people."""
    if count < 1:
        raise ComoviError(f"the number of people must be at least 1, got {count}.")
    measure(make_person(seed, count, noise), mode, tell_focal)  # loads everything; not counted
    fits: list[Measured] = []
    figures: dict = {}
    for number in range(count):
        fits.append(measure(make_person(seed, number, noise), mode, tell_focal))
        if (number + 1) % 25 == 0 or number + 1 == count:
            met = figures_of(fits)
            bars = {name: met[name] >= bar if name == "unmirrored" else met[name] <= bar for name, bar in BARS.items()}
            figures = {"count": len(fits), "seed": seed, "mode": mode, **met, "bars_met": bars}
            with atomic_path(Path(json_path)) if json_path else nullcontext() as temporary:
                if temporary:
                    temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
            if not quiet:
                print(
                    f"{len(fits):4d} people: PA-MPJPE {met['pa_mpjpe_mm']:.1f} mm (median), unmirrored "
                    f"{100 * met['unmirrored']:.1f} %, {met['seconds_each']:.2f} s each",
                    flush=True,
                )
    return figures


def table(count: int, seed: int) -> list[tuple[str, str, dict]]:
    """(noise, stages, figures) of every row."""
    jobs: list[tuple[str, Noise, str, bool]] = []
    for name, noise in NOISES.items():
        jobs.append((name, noise, "both", True))
        if noise is TEST_NOISE:
            jobs += [(name, noise, mode, True) for mode in MODES if mode != "both"]
            jobs.append((f"{name}, no focal", noise, "both", False))
    rows = []
    for name, noise, mode, tell_focal in jobs:
        figures = run(count, seed, None, mode=mode, noise=noise, tell_focal=tell_focal, quiet=True)
        rows.append((name, mode, figures))
        print(_row(*rows[-1]), flush=True)
    return rows


def _row(name: str, mode: str, figures: dict) -> str:
    kinds = " | ".join(f"{figures.get(f'pa_mpjpe_mm_{kind}', float('nan')):.0f}" for kind in SHARES)
    return (
        f"| {name} | {mode} | {figures['pa_mpjpe_mm']:.1f} | {figures['pa_mpjpe_mm_90']:.0f} | {kinds} | "
        f"{100 * figures['unmirrored']:.1f} | {figures['seconds_each']:.2f} |"
    )


def write_table(count: int, seed: int, json_path: Path | None) -> None:
    """Prints the rows of `table` as Markdown; as JSON too."""
    rows = table(count, seed)
    if json_path:
        with atomic_path(json_path) as temporary:
            named = [{"noise": name, "stages": mode, **figures} for name, mode, figures in rows]
            temporary.write_text(json.dumps(named, indent=1) + "\n", encoding="utf-8")


def run_arguments(arguments: argparse.Namespace) -> None:
    """For the command's evaluate verb."""
    if arguments.no_exchange or arguments.workers != 1:
        raise ComoviError("keypoints are evaluated in one process; leave --workers and --no-exchange out.")
    if arguments.table:
        write_table(arguments.count, arguments.seed, arguments.json)
    else:
        run(arguments.count, arguments.seed, arguments.json)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=90_001)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--mode", choices=MODES, default="both", help="the lifter alone, the refinement alone, or both")
    parser.add_argument("--no-focal", action="store_true", help="do not tell the focal length")
    parser.add_argument("--table", action="store_true", help="every noise level, and each stage alone")
    arguments = parser.parse_args()
    if arguments.table:
        write_table(arguments.count, arguments.seed, arguments.json)
    else:
        run(arguments.count, arguments.seed, arguments.json, mode=arguments.mode, tell_focal=not arguments.no_focal)


if __name__ == "__main__":
    main()
