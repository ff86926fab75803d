"""Fit the motion maps that the nano model generates, beside the answer of its own pose head.

    python -m comfyui_comovi.training.fit_nano --count 8 --seed 5

Cases are those of `comovi evaluate nano`: held-out sentences and start frames. Means over clips and frames 1.. :

iou          overlap of the silhouettes of the map and of the found body drawn with the map's camera. The head gives no
             path, so its body is placed on each silhouette first (nano_redraw); the fit has found its path itself.
             The silhouette of the map is where the luma has fallen by half (fit.observation.foreground)
iou_halo     the same with everything as the silhouette that is not white, soft halos included (nano_metrics)
joint_mm     joints, pelvis on pelvis, against the motion that the sentence was drawn with. The model may rightly show
             another one, so this compares the two, it does not judge them
apart_mm     the same between head and fit
flagged      share of the frames that the fit does not trust
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from ..comovi_model.body.cameras import Camera
from ..comovi_model.body.mannequin import load_nano_body
from ..comovi_model.body.map_render import visible_body
from ..comovi_model.body.motion import BodyMotion
from ..comovi_model.body.smpl import BodyModel, pose_body
from ..comovi_model.files import atomic_path
from ..comovi_model.fit import fit_motion_map
from ..comovi_model.fit.observation import foreground
from ..comovi_model.nano.generate import NanoSettings, generate
from ..comovi_model.nano.model import load_nano
from ..comovi_model.nano.people import ASSETS
from ..comovi_model.nano.people import load_nano_body as load_drawn_body
from .evaluate import Case, held_out_seed, make_case, start_of
from .nano_judges import relative_joints
from .nano_metrics import frame_overlap, joint_error, map_silhouette
from .nano_redraw import redraw_motion


def start_motion(case: Case, body: BodyModel) -> BodyMotion:
    """The pose of frame 0 with the camera of the clip."""
    view = case.scene.camera
    return BodyMotion(
        torch.from_numpy(case.rotations[:1]).float(), torch.from_numpy(case.scene.betas).float(),
        torch.from_numpy(case.transl[:1]).float(),
        camera=Camera(torch.from_numpy(view.K).float(), view.width, view.height), body_model=body.name,
    )  # fmt: skip


def silhouettes(body: BodyModel, motion: BodyMotion) -> np.ndarray:
    """(F, H, W) bool"""
    assert motion.camera is not None
    vertices = pose_body(body, motion.rotations, motion.betas, motion.transl).vertices
    return visible_body(body, vertices, motion.camera.K, motion.camera.height, motion.camera.width).mask().numpy()


def run(count: int, seed: int) -> dict:
    torch.set_num_threads(1)
    model, drawn_body, body = load_nano(ASSETS), load_drawn_body(), load_nano_body()
    rows = []
    for index in range(count):
        case = make_case(seed, index, drawn_body)
        out = generate(model, start_of([case]), NanoSettings(), seed=held_out_seed(seed, index) % 2**62)
        motion_map, head = out.motion_map[0].numpy(), out.rotations[0].numpy()
        shown = map_silhouette(motion_map)
        begin = time.process_time()
        result = fit_motion_map(motion_map, body, start_motion(case, body))
        seconds = (time.process_time() - begin) / len(motion_map)
        found, fitted = result.motion.rotations.numpy(), silhouettes(body, result.motion)
        solid = foreground(torch.from_numpy(motion_map).float() / 255).numpy()
        placed = redraw_motion(drawn_body, case.scene.betas, head, case.transl[0], case.scene.camera, shown)
        joints = {
            name: relative_joints(drawn_body, case.scene.betas, rotations)
            for name, rotations in (("head", head), ("fit", found), ("drawn", case.rotations))
        }
        row = {
            "iou_head": frame_overlap(placed.silhouette, solid),
            "iou_fit": frame_overlap(fitted, solid),
            "iou_halo_head": frame_overlap(placed.silhouette, shown),
            "iou_halo_fit": frame_overlap(fitted, shown),
            "joint_mm_head": joint_error(joints["head"], joints["drawn"]),
            "joint_mm_fit": joint_error(joints["fit"], joints["drawn"]),
            "apart_mm": joint_error(joints["head"], joints["fit"]),
            "flagged": float(np.mean([bool(flag) for flag in result.flags])),
            "cpu_seconds_per_frame": seconds,
        }
        rows.append(row)
        print(f"{index:3d} {case.sentence[:60]:60s} " + "  ".join(f"{k} {v:.2f}" for k, v in row.items()), flush=True)
    return {"count": count, "seed": seed} | {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = run(arguments.count, arguments.seed)
    for name, value in figures.items():
        print(f"{name:24s}{value:.3f}" if isinstance(value, float) else f"{name:24s}{value}")
    if arguments.json:
        with atomic_path(arguments.json) as temporary:
            temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
