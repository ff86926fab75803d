"""Measure the whole way from a picture to a body, with nothing but what is in the package: finder, lifter, refinement.

    python -m comfyui_comovi.training.photo_evaluation --people 4 --json photos.json

On the drawn people of *Load Photo*, who are of the kind that finder and lifter have learned from; the lens is told.

joints_mm   mean distance of the 24 joints, pelvis on pelvis
pa_mm       the same after the best similarity (scale, turn, shift)
overlap     of the outlines of the true and the found body in the picture, intersection over union
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from ..comovi_model.body.body_files import load_mannequin_body, load_nano_body
from ..comovi_model.body.map_colours import silhouette
from ..comovi_model.body.map_render import render_motion_map
from ..comovi_model.body.motion import BodyMotion
from ..comovi_model.body.smpl import pose_joints
from ..comovi_model.errors import ComoviError
from ..comovi_model.estimate.photo import Sources, estimate_photo
from ..comovi_model.estimate.photo_camera import photo_camera
from ..comovi_model.files import atomic_path
from ..comovi_model.nano.example_picture import POSES, example_picture
from .keypoint_evaluation import procrustes_errors


def measure_photo(pose: str, person: int) -> dict[str, float]:
    """One picture; where nobody is found, nothing overlaps and the joints are as far as they can be counted."""
    picture, truth = example_picture(pose, person)
    height, width = picture.shape[:2]
    assert truth.camera is not None
    camera = photo_camera((height, width), focal_px=float(truth.camera.K[0, 0]))
    try:
        (found,) = estimate_photo(picture, load_mannequin_body(), Sources(camera=camera), way="keypoints")
    except ComoviError:
        return {"joints_mm": 1e3, "pa_mm": 1e3, "overlap": 0.0}
    return {**_joints(found.motion, truth), "overlap": _overlap(found.motion, truth)}


def _joints(found: BodyMotion, truth: BodyMotion) -> dict[str, float]:
    ours = pose_joints(load_mannequin_body(), found.rotations, found.betas)
    true = pose_joints(load_nano_body(), truth.rotations, truth.betas)
    ours, true = ours - ours[:, :1], true - true[:, :1]
    away = 1e3 * float((ours - true).norm(dim=-1).mean())
    return {"joints_mm": away, "pa_mm": float(procrustes_errors(ours, true))}


def _overlap(found: BodyMotion, truth: BodyMotion) -> float:
    assert truth.camera is not None
    height, width = truth.camera.height, truth.camera.width
    drawn = [
        silhouette(render_motion_map(body, motion, height, width)[0])
        for body, motion in ((load_mannequin_body(), found), (load_nano_body(), truth))
    ]
    return float((drawn[0] & drawn[1]).sum() / (drawn[0] | drawn[1]).sum())


def run(people: list[int], json_path: Path | None) -> list[dict]:
    """A row for every pose and person, printed as it is done, and the medians."""
    rows = []
    print("| pose | person | joints, mm | PA, mm | overlap |\n|---|---|---|---|---|")
    for person in people:
        for pose in POSES:
            rows.append({"pose": pose, "person": person, **measure_photo(pose, person)})
            print(_line(rows[-1]), flush=True)
    middle = {name: float(np.median([row[name] for row in rows])) for name in ("joints_mm", "pa_mm", "overlap")}
    rows.append({"pose": "median", "person": "", **middle})
    print(_line(rows[-1]), flush=True)
    if json_path:
        with atomic_path(json_path) as temporary:
            temporary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return rows


def _line(row: dict) -> str:
    return f"| {row['pose']} | {row['person']} | {row['joints_mm']:.0f} | {row['pa_mm']:.0f} | {row['overlap']:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, nargs="+", default=[4], metavar="N", help="which of the drawn people")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    run(arguments.people, arguments.json)


if __name__ == "__main__":
    main()
