"""The files of one nano clip, in the order in which they are made.

Letters: F = 33 frames, H x W = 192 x 128 pixels. Pictures are uint8 RGB. Videos are enlarged for viewing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..body.files.amass import amass_arrays
from ..body.files.glb import save_glb
from ..body.frames import on_floor
from ..body.motion import BodyMotion, save_arrays
from ..body.parts import part_palette
from ..body.smpl import BodyModel
from ..files import atomic_path
from ..images import write_image
from ..video import write_video
from .body_view import draw_body_view
from .contact_sheet import EVERY, draw_contact_sheet, resized, side_by_side
from .start import Start

ENLARGED = 3  # times in each direction, by Lanczos' filter
SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class Clip:
    """What a run made."""

    video: np.ndarray  # (F, H, W, 3)
    motion_map: np.ndarray  # (F, H, W, 3)
    motion: BodyMotion  # F frames, camera frame
    start: Start
    settings: dict[str, Any]  # JSON: everything that reproduces the run


def write_clip(folder: Path, clip: Clip, body: BodyModel) -> list[str]:
    """Write every file of a clip into an empty folder; returns their names."""
    standing = on_floor(clip.start.upright(clip.motion), body)
    fps = clip.motion.fps
    panels: dict[str, np.ndarray] = {}

    def draw_panels() -> None:
        height, width = (ENLARGED * side for side in clip.video.shape[1:3])
        panels["video"] = enlarged(clip.video)
        panels["motion map"] = enlarged(clip.motion_map)
        panels["3D body"] = draw_body_view(body, standing, _part_tints(body), height, width)

    jobs: dict[str, Callable[[Path], object]] = {
        "first_frame.png": lambda path: write_image(path, clip.start.frame),
        "first_pose.npz": clip.start.pose.save,
        "motion.npz": lambda path: save_motion(path, clip.motion, standing, body),
        "motion.glb": lambda path: save_glb(path, standing, body, floor=False),
        "pictures": lambda path: draw_panels(),
        "video.mp4": lambda path: write_video(path, panels["video"], fps),
        "motion_map.mp4": lambda path: write_video(path, panels["motion map"], fps),
        "side_by_side.mp4": lambda path: write_video(path, side_by_side(panels), fps),
        "contact_sheet.png": lambda path: write_image(path, contact_sheet(panels, clip.settings, fps)),
        SETTINGS_FILE: lambda path: write_settings(path, clip.settings),
    }
    with tqdm(jobs.items(), desc="writing files", unit="file", leave=False, delay=1) as bar:
        for name, job in bar:
            bar.set_postfix_str(name)
            job(folder / name)
    return sorted(path.name for path in folder.iterdir())


def save_motion(path: Path, motion: BodyMotion, standing: BodyMotion, body: BodyModel) -> None:
    """One npz file that is both: `motion` in our form, in the camera frame, and `standing` under the keys of AMASS.

    They meet in `fps`, which is the same, and in `betas`, which has AMASS's length 16: our ten numbers and six zeros.
    """
    save_arrays(path, {**motion.to_arrays(), **amass_arrays(standing, body, floor=False)})


def enlarged(frames: np.ndarray) -> np.ndarray:
    """(F, H, W, 3) -> the same, ENLARGED times as high and wide."""
    height, width = (ENLARGED * side for side in frames.shape[1:3])
    return np.stack([np.asarray(resized(frame, width, height)) for frame in frames])


def contact_sheet(panels: dict[str, np.ndarray], settings: dict[str, Any], fps: float) -> np.ndarray:
    """The page of a run; see contact_sheet.py."""
    frames = len(panels["video"])
    steps = settings["steps"]
    facts = [f"seed {settings['seed']}", f"{steps} {'step' if steps == 1 else 'steps'}"]
    facts.append(f"guidance {settings['guidance']:g}")
    facts += [] if settings["exchange"] else ["branches cut apart"]
    facts.append(f"every {EVERY}th of {frames} frames at {fps:g} per second")
    return draw_contact_sheet(panels, f"“{settings['prompt']}”", "  ·  ".join(facts), fps)


def _part_tints(body: BodyModel) -> Tensor:
    """(N, 3) in 0..1: a colour per face, as in motion.glb."""
    part_of_face = body.part_of_vertex[body.faces].median(1).values
    return torch.tensor(part_palette())[part_of_face].float() / 255


def write_settings(path: Path, settings: dict[str, Any]) -> None:
    """Settings as readable JSON."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
