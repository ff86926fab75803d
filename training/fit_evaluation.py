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
_betas, _focal                  only with --variants: shape off by 1 standard deviation in each parameter; focal length
                                10 % too long. The root is then off by the same share of its distance
worst_mpjpe_mm, worst_clip      the worst of all fits
failed                          fits whose mean joint error is above 80 mm
unflagged_failures              of these, the ones in which less than a quarter of the frames above 80 mm is flagged
flagged_good_frames             share of the frames below 40 mm that are flagged
seconds_per_frame               wall time of fitting, all variants; cpu_seconds_per_frame: processor time
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
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
from ..comovi_model.body.rotations import axis_angle_to_matrix
from ..comovi_model.body.smpl import BodyModel, pose_body, pose_joints, rest_joints
from ..comovi_model.errors import ComoviError
from ..comovi_model.files import atomic_path
from ..comovi_model.fit import fit_motion_map
from .fit_clips import HEIGHT, MEDIUM, MILD, WIDTH, FitClip, disturb, draw_clip, make_clip, through_codec

FAILURE_MM = 80.0
GOOD_MM = 40.0
FLAGGED_SHARE = 0.25  # of the failing frames, for a failed clip to count as flagged
TURN_DEGREES = 20.0
VARIANTS = ("", "_perturbed", "_blind", "_mild", "_medium")
EXTRA_VARIANTS = ("_betas", "_focal")  # measured where asked for
FOCAL_ERROR = 1.1
NORMAL_FRAMES = 4  # every fourth frame is drawn for normal_deg
BARS = {
    "mpjpe_mm": 25.0, "root_mm": 30.0, "normal_deg": 6.0, "mpjpe_mm_perturbed": 30.0, "mpjpe_mm_blind": 35.0,
    "mpjpe_mm_mild": 35.0, "mpjpe_mm_medium": 70.0, "seconds_per_frame": 1.5,
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One fit of one clip; errors of every frame in mm."""

    joints: list[float]
    root: list[float]
    normal_deg: float
    flagged: list[bool]
    seconds: float  # per frame, wall
    cpu_seconds: float

    @property
    def mpjpe(self) -> float:
        return float(np.mean(self.joints))

    @property
    def failed(self) -> bool:
        return self.mpjpe > FAILURE_MM

    @property
    def unflagged(self) -> bool:
        """A failure that the fit did not notice."""
        flags = [flag for flag, error in zip(self.flagged, self.joints, strict=True) if error > FAILURE_MM]
        return self.failed and float(np.mean(flags)) < FLAGGED_SHARE


def perturbed(start: BodyMotion, seed: int) -> BodyMotion:
    """Every joint of a first pose turned by 20 degrees about a random axis."""
    generator = torch.Generator().manual_seed(seed)
    axes = F.normalize(torch.randn(*start.rotations.shape[:2], 3, generator=generator), dim=-1)
    return replace(start, rotations=start.rotations @ axis_angle_to_matrix(axes * math.radians(TURN_DEGREES)))


def wrong_betas(body: BodyModel, start: BodyMotion, seed: int) -> BodyMotion:
    """Every shape parameter off by a normal number of spread 1; the pelvis stays where it is."""
    betas = start.betas + torch.randn(10, generator=torch.Generator().manual_seed(seed))
    moved = rest_joints(body, start.betas)[0] - rest_joints(body, betas)[0]
    return replace(start, betas=betas, transl=start.transl + moved)


def wrong_focal(start: BodyMotion) -> BodyMotion:
    """A focal length 10 % too long, and the body as much further away."""
    assert start.camera is not None
    K = start.camera.K.clone()
    K[0, 0], K[1, 1] = FOCAL_ERROR * K[0, 0], FOCAL_ERROR * K[1, 1]
    return replace(start, camera=replace(start.camera, K=K), transl=start.transl * torch.tensor([1, 1, FOCAL_ERROR]))


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
    first = true.slice(0, 1)
    start: BodyMotion | None = first
    if variant == "_perturbed":
        start = perturbed(first, clip.noise_seed)
    if variant == "_blind":
        start = None
    if variant == "_betas":
        start = wrong_betas(body, first, clip.noise_seed)
    if variant == "_focal":
        start = wrong_focal(first)
    given = start or true
    begin, begin_cpu = time.perf_counter(), time.process_time()
    result = fit_motion_map(frames, body, start, camera=given.camera, betas=given.betas)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    joints, root = joint_errors(body, result.motion, true)
    return Measured(
        joints.tolist(), root.tolist(), normal_error(body, result.motion, true), [bool(f) for f in result.flags],
        seconds / len(frames), cpu / len(frames),
    )  # fmt: skip


def measure_clip(seed: int, index: int, variants: tuple[str, ...] = VARIANTS) -> tuple[str, dict[str, Measured]]:
    """Name of a held-out clip and its fits."""
    torch.set_num_threads(1)
    clip = make_clip("evaluation", seed, index, _body())
    drawn = draw_clip(clip, _body())
    clean = through_codec(drawn)
    out = {}
    for variant in variants:
        frames = clean
        if variant in ("_mild", "_medium"):
            frames = through_codec(disturb(drawn, MILD if variant == "_mild" else MEDIUM, clip.noise_seed))
        out[variant] = fit_variant(clip, frames, variant)
    return clip.name, out


def figures_of(clips: dict[str, dict[str, Measured]]) -> dict:
    """All figures; keys of `clips` are "number name"."""
    figures: dict = {}
    for variant in (*VARIANTS, *EXTRA_VARIANTS):
        fits = [measured[variant] for measured in clips.values() if variant in measured]
        if fits:
            figures[f"mpjpe_mm{variant}"] = float(np.mean([fit.mpjpe for fit in fits]))
            figures[f"root_mm{variant}"] = float(np.mean([np.mean(fit.root) for fit in fits]))
            figures[f"worst_mpjpe_mm{variant}"] = max(fit.mpjpe for fit in fits)
            figures[f"normal_deg{variant}"] = float(np.mean([fit.normal_deg for fit in fits]))
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


def _all_clips(seed: int, count: int, workers: int, variants: tuple[str, ...]) -> Iterator[tuple[int, str, dict]]:
    if workers == 1:
        for index in range(count):
            yield index, *measure_clip(seed, index, variants)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(measure_clip, seed, index, variants) for index in range(count)]
        for index, job in enumerate(jobs):
            yield index, *job.result()


def run(
    count: int, seed: int, json_path: str | Path | None, workers: int = 1, variants: tuple[str, ...] = VARIANTS
) -> dict:
    """What `comovi evaluate fit` does: one line per clip, then the table; the JSON file is renewed after every clip."""
    if count < 1:
        raise ComoviError(f"the number of clips must be at least 1, got {count}.")
    clips: dict[str, dict[str, Measured]] = {}
    figures: dict = {}
    for index, name, measured in _all_clips(seed, count, workers, variants):
        clips[f"{index} {name}"] = measured
        row = "  ".join(f"{variant or '_true'} {fit.mpjpe:5.1f}" for variant, fit in measured.items())
        print(f"{index:3d} {name:16s} mm:  {row}   {measured[variants[0]].cpu_seconds:.2f} CPU s/frame", flush=True)
        figures = {"count": len(clips), "seed": seed, **figures_of(clips)}
        with atomic_path(json_path) if json_path else nullcontext() as temporary:
            if temporary:
                temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print("\n".join(_table(figures)))
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
    names = [variant.removeprefix("_") or "true" for variant in (*VARIANTS, *EXTRA_VARIANTS)]
    usual = ",".join(names[: len(VARIANTS)])
    parser.add_argument("--variants", default=usual, help=f"which of {','.join(names)} ({usual})")
    arguments = parser.parse_args()
    chosen = arguments.variants.split(",")
    if not set(chosen) <= set(names):
        parser.error(f"--variants must be of {','.join(names)}")
    variants = tuple("" if name == "true" else f"_{name}" for name in chosen)
    run(arguments.count, arguments.seed, arguments.json, arguments.workers, variants)


if __name__ == "__main__":
    main()
