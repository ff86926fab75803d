"""Pictures of people that come with the program, for whoever has no photo at hand: drawn when asked for, never stored.

Letters: F frames, H x W = 768 x 512 pixels. The people are those of the synthetic clips, four times as large; who they
are and how they stand is known, so that an estimate can be held against it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..body import cameras
from ..body.motion import BodyMotion
from .actions import ACTION_NAMES, ActionRequest
from .draw import draw_clip
from .people import load_nano_body
from .scene import FPS, HEIGHT, WIDTH, sample_scene
from .start import BODY_NAME

SCALE = 4  # pixels per pixel of the clips
NUM_FRAMES = 33


@dataclass(frozen=True)
class Pose:
    """What a person is seen doing, and the frame of that movement that shows it."""

    action: str
    side: str
    frame: int


POSES = {
    "arms raised": Pose("raise_arms", "", 16),
    "waving": Pose("wave", "left", 14),
    "kicking": Pose("kick", "right", 16),
    "bowing": Pose("bow", "", 16),
    "squatting": Pose("squat", "", 16),
    "walking": Pose("walk", "", 12),
    "standing": Pose("bow", "", 0),
}


def example_picture(name: str, seed: int = 0) -> tuple[np.ndarray, BodyMotion]:
    """One of POSES: picture (H, W, 3) uint8, and the body in it with its camera. The seed chooses person and place."""
    frames, motion = example_clip(name, seed, slice(POSES[name].frame, POSES[name].frame + 1))
    return frames[0], motion


def example_clip(name: str, seed: int = 0, frames: slice = slice(0, NUM_FRAMES)) -> tuple[np.ndarray, BodyMotion]:
    """The whole movement: pictures (F, H, W, 3) uint8, and its motion in the camera's frame."""
    pose, body = POSES[name], load_nano_body()
    request = ActionRequest(ACTION_NAMES.index(pose.action), pose.side, "")
    scene = sample_scene(2**41 + seed, body, request)  # far from the seeds of training
    small = scene.camera
    large = replace(small, focal_px=SCALE * small.focal_px, width=SCALE * WIDTH, height=SCALE * HEIGHT)
    scene = replace(scene, camera=large)
    rotations, transl = (torch.from_numpy(array[frames]).float() for array in scene.camera_motion(body))
    camera = cameras.Camera(torch.from_numpy(large.K).float(), large.width, large.height)
    betas = torch.from_numpy(scene.betas).float()
    motion = BodyMotion(rotations, betas, transl, "camera", camera, FPS, BODY_NAME, {"made_by": f"example {name}"})
    return draw_clip(scene, body, frames, fast=False).video, motion
