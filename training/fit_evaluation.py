"""Measure the fit of a motion map on clips that no tuning has seen.

    comovi evaluate fit --count 64 --seed 1 --json fit.json

A clip is 33 frames of 352 x 640 pixels: an action of `fit_clips.HELD_OUT_ACTIONS` by the mannequin with its own shape,
heading and camera, drawn as a motion map, through H.264 (crf 18, yuv420p) and back, fitted. Every clip is fitted in
five ways; figures are means over clips.

mpjpe_mm, root_mm, normal_deg   from the true first pose. Joints: mean distance of the 24 joints, pelvis on pelvis.
                                Root: distance of the pelvis. Normals: mean angle between the normals drawn at pixels
                                that the true and the found body both cover
_perturbed                      all 24 joints of the first pose turned by 20 degrees about random axes
_blind                          no first pose; shape and camera known
_mild, _medium                  true first pose, map disturbed as generators do (fit_clips.MILD, MEDIUM), then the codec
depth_mm                        mean of the signed error of the pelvis along the view: a bias that `root_mm` hides
worst_mpjpe_mm, worst_clip      the worst of all fits
failed                          fits whose mean joint error is above 80 mm
unflagged_failures              of these, the ones in which less than a quarter of the frames above 80 mm is flagged
flagged_good_frames             share of the frames below 40 mm that are flagged
seconds_per_frame               wall time of fitting, all variants; cpu_seconds_per_frame: processor time

With `--variants` other fits of the same clips are made instead, by name or group:

wrong     _betas: shape off by 1 standard deviation in each parameter; _focal: focal length 10 % too long, so that the
          root is off by the same share of its distance; _mirrored: left and right of the first pose confused
ladder    the true start with maps that are disturbed less and more: _light, _mild, _medium, _heavy

Fits that are done are kept in a file beside the JSON file (fit.clips.jsonl), one line each, with a fingerprint of the
program: a run that was stopped goes on, and `--share 1/2` and `--share 2/2` make half of the clips each, at two times
or in two places; the figures are those of all lines found.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..comovi_model.body.mannequin import load_mannequin
from ..comovi_model.body.map_render import vertex_normals, visible_body
from ..comovi_model.body.motion import BodyMotion
from ..comovi_model.body.smpl import BodyModel, pose_body, pose_joints
from ..comovi_model.errors import ComoviError
from ..comovi_model.files import atomic_path
from ..comovi_model.fit import fit_motion_map
from .fit_clips import HEIGHT, WIDTH, FitClip, disturb, draw_clip, make_clip, through_codec
from .fit_ledger import FAILURE_MM, Ledger, Measured
from .fit_variants import DISTURBANCES, EVERY, GROUPS, USUAL, parse_variants, start_of

GOOD_MM = 40.0
NORMAL_FRAMES = 4  # every fourth frame is drawn for normal_deg
BARS = {
    "mpjpe_mm": 25.0, "root_mm": 30.0, "normal_deg": 6.0, "mpjpe_mm_perturbed": 30.0, "mpjpe_mm_blind": 35.0,
    "mpjpe_mm_mild": 35.0, "mpjpe_mm_medium": 70.0, "seconds_per_frame": 1.5,
}  # fmt: skip


def joint_errors(body: BodyModel, found: BodyMotion, true: BodyMotion) -> tuple[Tensor, Tensor]:
    """Mean distance of the joints with pelvis on pelvis, and distance of the pelvis, (F,) mm each."""
    ours, theirs = (pose_joints(body, m.rotations, m.betas, m.transl) for m in (found, true))
    apart = (ours - ours[:, :1]) - (theirs - theirs[:, :1])
    return 1e3 * apart.norm(dim=-1).mean(1), 1e3 * (ours[:, 0] - theirs[:, 0]).norm(dim=-1)


def normal_error(body: BodyModel, found: BodyMotion, true: BodyMotion) -> float:
    """Mean angle in degrees between the normals of two bodies at the pixels that both cover."""
    pictures, masks = [], []
    for motion in (found, true):
        assert motion.camera is not None
        pick = slice(0, len(motion), NORMAL_FRAMES)
        vertices = pose_body(body, motion.rotations[pick], motion.betas, motion.transl[pick]).vertices
        pixels = visible_body(body, vertices, motion.camera.K, HEIGHT, WIDTH)
        normals = F.normalize(pixels.interpolate(vertex_normals(vertices, body.faces), body.faces), dim=-1)
        pictures.append(pixels.image(normals, 0.0))
        masks.append(pixels.mask())
    both = masks[0] & masks[1]
    if not bool(both.any()):
        return 180.0
    cosine = (pictures[0][both] * pictures[1][both]).sum(-1).clamp(-1, 1)
    return float(torch.rad2deg(torch.acos(cosine)).mean())


@cache
def _body() -> BodyModel:
    return load_mannequin()


def fit_variant(clip: FitClip, frames: np.ndarray, variant: str) -> Measured:
    """Fits the decoded frames of a clip, starting as the variant says, and measures."""
    body, true = _body(), clip.motion
    start = start_of(clip, variant, body)
    given = start or true
    begin, begin_cpu = time.perf_counter(), time.process_time()
    result = fit_motion_map(frames, body, start, camera=given.camera, betas=given.betas)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    joints, root = joint_errors(body, result.motion, true)
    found, actual = (pose_joints(body, m.rotations, m.betas, m.transl)[:, 0, 2] for m in (result.motion, true))
    return Measured(
        joints.tolist(), root.tolist(), normal_error(body, result.motion, true), [bool(f) for f in result.flags],
        seconds / len(frames), cpu / len(frames), 1e3 * float((found - actual).mean()),
    )  # fmt: skip


def measure_fits(seed: int, index: int, variants: tuple[str, ...]) -> Iterator[tuple[str, str, Measured]]:
    """Name of a held-out clip, variant, and its fit, one after the other."""
    torch.set_num_threads(1)
    clip = make_clip("evaluation", seed, index, _body())
    drawn = draw_clip(clip, _body())
    clean = None
    for variant in variants:
        if variant in DISTURBANCES:
            frames = through_codec(disturb(drawn, DISTURBANCES[variant], clip.noise_seed))
        else:
            frames = clean = through_codec(drawn) if clean is None else clean
        yield clip.name, variant, fit_variant(clip, frames, variant)


def measure_clip(seed: int, index: int, variants: tuple[str, ...] = USUAL) -> list[tuple[str, str, Measured]]:
    return list(measure_fits(seed, index, variants))


def figures_of(clips: dict[str, dict[str, Measured]]) -> dict:
    """All figures; keys of `clips` are "number name"."""
    figures: dict = {}
    for variant in EVERY:
        fits = [measured[variant] for measured in clips.values() if variant in measured]
        if fits:
            figures[f"mpjpe_mm{variant}"] = float(np.mean([fit.mpjpe for fit in fits]))
            figures[f"root_mm{variant}"] = float(np.mean([np.mean(fit.root) for fit in fits]))
            figures[f"worst_mpjpe_mm{variant}"] = max(fit.mpjpe for fit in fits)
            figures[f"normal_deg{variant}"] = float(np.mean([fit.normal_deg for fit in fits]))
            figures[f"depth_mm{variant}"] = float(np.mean([fit.depth for fit in fits]))
    every = [(f"{name}{variant}", fit) for name, measured in clips.items() for variant, fit in measured.items()]
    worst = max(every, key=lambda item: item[1].mpjpe)
    good = [flag for _, fit in every for flag, error in zip(fit.flagged, fit.joints, strict=True) if error < GOOD_MM]
    bad = [flag for _, fit in every for flag, error in zip(fit.flagged, fit.joints, strict=True) if error > FAILURE_MM]
    figures |= {
        "worst_mpjpe_mm": worst[1].mpjpe,
        "worst_clip": worst[0],
        "fits": len(every),
        "failed": sum(fit.failed for _, fit in every),
        "unflagged_failures": sum(fit.unflagged for _, fit in every),
        "failed_true_start": sum(measured[""].failed for measured in clips.values() if "" in measured),
        "flagged_good_frames": float(np.mean(good)) if good else None,
        "flagged_bad_frames": float(np.mean(bad)) if bad else None,
        "seconds_per_frame": float(np.mean([fit.seconds for _, fit in every])),
        "cpu_seconds_per_frame": float(np.mean([fit.cpu_seconds for _, fit in every])),
    }
    figures["per_clip"] = {
        name: {f"mpjpe_mm{variant}": round(fit.mpjpe, 1) for variant, fit in measured.items()}
        for name, measured in clips.items()
    }
    figures["bars_met"] = {name: figures[name] <= bar for name, bar in BARS.items() if name in figures}
    return figures


def _measure(
    seed: int, jobs: list[tuple[int, tuple[str, ...]]], workers: int
) -> Iterator[tuple[int, str, str, Measured]]:
    """Index, name, variant and fit, as they are done."""
    if workers == 1:
        for index, variants in jobs:
            for fit in measure_fits(seed, index, variants):
                yield index, *fit
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(measure_clip, seed, index, variants): index for index, variants in jobs}
        for job in as_completed(waiting):
            for fit in job.result():
                yield waiting[job], *fit


def run(
    count: int,
    seed: int,
    json_path: str | Path | None,
    workers: int = 1,
    variants: tuple[str, ...] = USUAL,
    share: tuple[int, int] = (1, 1),
) -> dict:
    """What `comovi evaluate fit` does: one line per fit, then the table; the JSON file is renewed after every fit.

    share (k, n) makes every n-th clip only, beginning with the k-th.
    """
    if count < 1:
        raise ComoviError(f"the number of clips must be at least 1, got {count}.")
    if not 1 <= share[0] <= share[1]:
        raise ComoviError(f"a share is K/N with K from 1 to N, got {share[0]}/{share[1]}.")
    ledger = Ledger(Path(json_path).with_suffix(".clips.jsonl") if json_path else None, seed)
    mine = range(share[0] - 1, count, share[1])
    jobs = [(index, missing) for index in mine if (missing := ledger.missing(index, variants))]
    if len(jobs) < len(mine):
        print(f"{len(mine) - len(jobs)} clips are taken from {ledger.path}", flush=True)
    for index, name, variant, fit in _measure(seed, jobs, workers):
        ledger.add(index, name, {variant: fit})
        flagged = f"{sum(fit.flagged):3d} of {len(fit.flagged)} frames flagged"
        print(f"{index:3d} {name:16s} {variant or '_true':10s} {fit.mpjpe:6.1f} mm  {flagged}  "
              f"{fit.cpu_seconds:.2f} CPU s/frame", flush=True)  # fmt: skip
        _write(json_path, ledger, count, variants)
    figures = _write(json_path, ledger, count, variants)
    print("\n".join(_table(figures)))
    return figures


def _write(json_path: str | Path | None, ledger: Ledger, count: int, variants: tuple[str, ...]) -> dict:
    clips = ledger.table(count, variants)
    figures = {"count": len(clips), "seed": ledger.seed, **figures_of(clips)}
    if json_path:
        with atomic_path(json_path) as temporary:
            temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def _table(figures: dict) -> list[str]:
    lines = []
    for name, value in figures.items():
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            shown = f"{value:.2f}" if isinstance(value, float) else str(value)
            bar = f"  (at most {BARS[name]:g})" if name in BARS else ""
            lines.append(f"{name:28s}{shown}{bar}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--workers", type=int, default=1, help="processes; each uses one thread")
    add_options(parser)
    arguments = parser.parse_args()
    run_arguments(arguments)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the fit only, also for `comovi evaluate`."""
    choices = ", ".join([*GROUPS, *(variant.removeprefix("_") or "true" for variant in EVERY)])
    parser.add_argument("--variants", default="usual", metavar="LIST", help=f"for the fit: which fits, of {choices}")
    parser.add_argument("--share", default="1/1", metavar="K/N", help="for the fit: every N-th clip from the K-th")


def run_arguments(arguments: argparse.Namespace) -> dict:
    try:
        first, parts = (int(part) for part in arguments.share.split("/"))
    except ValueError:
        raise ComoviError(f"a share is K/N, as 1/2, got {arguments.share!r}.") from None
    variants = parse_variants(arguments.variants)
    return run(arguments.count, arguments.seed, arguments.json, arguments.workers, variants, (first, parts))


if __name__ == "__main__":
    main()
