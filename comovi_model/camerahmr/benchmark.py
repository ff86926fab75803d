"""CameraHMR at full size with random weights: `python -m comfyui_comovi.comovi_model.camerahmr.benchmark`.

Prints seconds for one picture (both networks, crop and cameras) after one warm-up, and the peak of resident memory.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from ..body.benchmark import peak_memory_mb
from .estimator import BodyNet, CameraHMR
from .field_of_view import FieldOfViewNet


def random_camerahmr(device: str = "cpu", dtype: torch.dtype = torch.float32) -> CameraHMR:
    """Both networks at full size; numbers small enough that nothing overflows."""
    torch.manual_seed(0)
    body, view = BodyNet(), FieldOfViewNet()
    with torch.no_grad():
        body.smpl_head.init_body_pose.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(24)[None])
        body.smpl_head.init_cam.copy_(torch.tensor([[0.9, 0, 0]]))
        view.fc3.weight.mul_(0.01)
        view.fc3.bias.fill_(0.8)  # radians
    for network in (body, view):
        network.eval().requires_grad_(False)
    body.backbone.to(dtype)
    return CameraHMR(body.to(device), view.to(device))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--people", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    model = random_camerahmr(options.device, getattr(torch, options.dtype))
    picture = np.random.default_rng(0).integers(0, 256, (1280, 704, 3), np.uint8)
    boxes = [(100.0, 200.0, 600.0, 1200.0)] * options.people
    seconds = []
    for _ in range(options.repeats + 1):
        start = time.perf_counter()
        model.estimate(picture, boxes)
        seconds.append(time.perf_counter() - start)
    best = min(seconds[1:])
    print(
        f"{options.device} {options.dtype}, {torch.get_num_threads()} threads: {best:.2f} s for a picture of "
        f"704x1280 with {options.people} people (first run {seconds[0]:.2f} s); peak memory {peak_memory_mb():.0f} MB"
    )


if __name__ == "__main__":
    main()
