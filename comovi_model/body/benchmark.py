"""Times the motion map: python -m comfyui_comovi.comovi_model.body.benchmark [--frames 81] [--body FILE].

Prints seconds and the peak resident memory of this process.
"""

from __future__ import annotations

import argparse
import time

import torch

from .cameras import Camera
from .map_render import iter_motion_map
from .motion import BodyMotion
from .rotations import axis_angle_to_matrix
from .smpl import BodyModel, load_body_model, rest_joints
from .toy import random_rotations


def swaying_motion(model: BodyModel, frames: int, height: int, width: int) -> BodyMotion:
    """A person who fills 0.9 of the picture's height and sways, 6 m away."""
    rotations = random_rotations(1, 24, angle=0.15).repeat(frames, 1, 1, 1)
    angle = 0.4 * torch.linspace(0, 6, frames).sin()
    sway = axis_angle_to_matrix(torch.stack([angle * 0, angle, angle * 0], -1))
    upright = axis_angle_to_matrix(torch.tensor([torch.pi, 0.0, 0.0]))
    rotations[:, 0] = upright @ sway
    low, high = float(model.v_template[:, 1].amin()), float(model.v_template[:, 1].amax())
    pelvis = float(rest_joints(model)[0, 1])  # about which the body is turned upright: y becomes 2 * pelvis - y
    focal = 0.9 * height * 6 / (high - low)
    transl = torch.tensor([0.0, (high + low) / 2 - 2 * pelvis, 6.0]).repeat(frames, 1)
    camera = Camera.from_focal(focal, width, height)
    return BodyMotion(rotations, torch.zeros(10), transl, camera=camera, body_model=model.name)


def peak_memory_mb() -> float:
    """Peak resident memory of this process; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the drawing of a motion map.")
    parser.add_argument("--frames", type=int, default=81)
    parser.add_argument("--height", type=int, default=704)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--body", default=None, help="body model file; default: the mannequin")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    model = load_body_model(options.body).to(options.device)
    motion = swaying_motion(model, options.frames, options.height, options.width)
    before = peak_memory_mb()
    for _ in range(options.repeats):
        start, cpu, covered = time.perf_counter(), time.process_time(), 0
        for group in iter_motion_map(model, motion, options.height, options.width):
            covered += int((group[..., 0] < 0.99).sum())
        print(
            f"{options.frames} frames of {options.height}x{options.width}, {len(model.faces)} faces, "
            f"{covered // options.frames} body pixels: {time.perf_counter() - start:.2f} s, "
            f"{time.process_time() - cpu:.2f} s of CPU, {torch.get_num_threads()} threads"
        )
    print(f"peak resident memory {peak_memory_mb():.0f} MB, of which {before:.0f} MB before drawing")


if __name__ == "__main__":
    main()
