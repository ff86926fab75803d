"""Videos whose frames say their number, and bodies that are elsewhere in every frame."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.nano.examples import example_motion
from comfyui_comovi.comovi_model.video import write_video
from comfyui_comovi.training.data.prepare_clip import PrepareSettings
from comfyui_comovi.training.data.video import write_lossless

BITS = 10
RATES = ("24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60")
SETTINGS = PrepareSettings(
    sizes=("33x64x64",), clips_per_video=1, smoothing="none", body="nano", samples=1, crf=0, least_in_picture=0.0
)


def numbered_pictures(count: int, size: int = 64) -> np.ndarray:
    """(F, size, size, 3) uint8: frame numbers as bands of black and white."""
    bits = (np.arange(count)[:, None] >> np.arange(BITS)) & 1
    bands = np.repeat(bits * 255, size // BITS, 1)
    bands = np.pad(bands, ((0, 0), (0, size - bands.shape[1])))
    return np.broadcast_to(bands[:, None, :, None], (count, size, size, 3)).astype(np.uint8)


def numbers_of(pictures: np.ndarray) -> list[int]:
    """The inverse of `numbered_pictures`, also after a lossy codec."""
    width = pictures.shape[2] // BITS
    rows = pictures[:, :, : width * BITS].reshape(len(pictures), pictures.shape[1], BITS, width, 3).mean((1, 3, 4))
    return ((rows > 127) << np.arange(BITS)).sum(1).tolist()


def moving_body(count: int, fps: Fraction, size: int = 64) -> BodyMotion:
    """A person who stands 6 m before the camera, waves and goes sideways: no two frames are alike."""
    pose = example_motion("wave").to_frame("camera", torch.zeros(3))
    frames = torch.arange(count) * 32 // max(count - 1, 1)
    x = torch.linspace(-0.6, 0.6, count)
    transl = torch.stack([x, torch.zeros(count), 6 + 0.1 * x], 1)
    camera = Camera.from_focal(2.2 * size, size, size)
    return replace(
        pose,
        rotations=pose.rotations[frames],
        transl=transl,
        camera=camera,
        fps=float(fps),
        valid=None,
        source_index=None,
    )


def numbered_video(folder: Path, name: str, fps: str | Fraction, seconds: float, lossless: bool = False) -> BodyMotion:
    """name.mp4 (or .mkv), name.npz and name.txt in a folder; returns the poses of every frame."""
    fps = Fraction(fps)
    count = int(seconds * fps) + 2
    pictures, motion = numbered_pictures(count), moving_body(count, fps)
    if lossless:
        write_lossless(folder / f"{name}.mkv", pictures, fps)
    else:
        write_video(folder / f"{name}.mp4", pictures, float(fps), crf=10)
    motion.save(folder / f"{name}.npz")
    (folder / f"{name}.txt").write_text("a person waves\na man is waving\n")
    return motion
