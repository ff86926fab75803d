"""Training clips of the nano model: drawn from seeds, encoded once, kept as shards of latents.

Shapes: n clips of one shard, C = 48, F = 9 latent frames, h x w = 12 x 8 cells, T = 33 pixel frames. A shard is one
safetensors file; shards that exist are not made again, and a shard appears whole or not at all.

    python -m comfyui_comovi.training.nano_clips --out runs/clips --clips 12000 --workers 2
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from ..comovi_model.files import atomic_path
from ..comovi_model.nano.actions import ACTION_NAMES, SPEEDS, ActionRequest
from ..comovi_model.nano.autoencoder import NanoAutoencoder
from ..comovi_model.nano.draw import draw_clip
from ..comovi_model.nano.people import load_nano_body
from ..comovi_model.nano.scene import CLOTHES, sample_scene

SHARD = 256
TRAIN_SEEDS, VALIDATION_SEEDS = 0, 900_000_000  # first seeds; evaluation refuses seeds of the training range
SIDES, SPEED_NAMES, CLOTHES_NAMES = ("", "left", "right"), tuple(SPEEDS), tuple(CLOTHES)


@dataclass(frozen=True)
class ClipTensors:
    """Clips side by side: latents (n, C, F, h, w) float16, poses (n, T, 24, 6) float16, labels (n, 5) int64
    (action, side, speed, shirt, trousers)."""

    video: Tensor
    motion: Tensor
    pose: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def labels_to_request(labels: Tensor) -> tuple[ActionRequest, str, str]:
    """One row of labels -> the request and the two colours of clothes."""
    action, side, speed, shirt, trousers = (int(v) for v in labels)
    return ActionRequest(action, SIDES[side], SPEED_NAMES[speed]), CLOTHES_NAMES[shirt], CLOTHES_NAMES[trousers]


def pixels_to_unit(frames: np.ndarray) -> Tensor:
    """uint8 frames (T, H, W, 3) -> float32 in [-1, 1], (1, T, H, W, 3)."""
    return torch.from_numpy(frames).float().div_(127.5).sub_(1.0)[None]


def make_shard(path: Path, first_seed: int, count: int, autoencoder_file: str) -> str:
    """Draw, encode and store `count` clips; runs in a worker process."""
    torch.set_num_threads(1)
    body = load_nano_body()
    model = NanoAutoencoder()
    model.load_state_dict(torch_weights(autoencoder_file))
    model.eval()
    rows: dict[str, list[Tensor]] = {"video": [], "motion": [], "pose": [], "labels": []}
    for seed in range(first_seed, first_seed + count):
        scene = sample_scene(seed, body)
        clip = draw_clip(scene, body)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            latent = model.encode(torch.cat([pixels_to_unit(clip.video), pixels_to_unit(clip.motion_map)]))
        rotations, _ = scene.camera_motion(body)
        rows["video"].append(latent[0].half())
        rows["motion"].append(latent[1].half())
        rows["pose"].append(torch.from_numpy(rotations[:, :, :2].reshape(-1, 24, 6)).half())
        request, look = scene.request, scene.look
        rows["labels"].append(
            torch.tensor(
                [
                    request.action,
                    SIDES.index(request.side),
                    SPEED_NAMES.index(request.speed),
                    CLOTHES_NAMES.index(look.shirt),
                    CLOTHES_NAMES.index(look.trousers),
                ]
            )
        )
    with atomic_path(path) as temporary:
        save_file({k: torch.stack(v).contiguous() for k, v in rows.items()}, str(temporary))
    return path.name


def torch_weights(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file as float32."""
    with safe_open(str(path), "pt") as file:
        return {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118


def make_clips(folder: Path, clips: int, workers: int, autoencoder_file: str, first_seed: int = TRAIN_SEEDS) -> None:
    """Fill `folder` with shards until it holds `clips` clips."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [
        (folder / f"shard-{first_seed + start:09d}.safetensors", first_seed + start) for start in range(0, clips, SHARD)
    ]
    missing = [(path, seed) for path, seed in wanted if not path.exists()]
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(make_shard, path, seed, SHARD, autoencoder_file) for path, seed in missing]
        for job in tqdm(jobs, desc="drawing and encoding", unit="shard"):
            job.result()


def load_clips(folder: Path, limit: int | None = None) -> ClipTensors:
    """All shards of a folder, in seed order."""
    paths = sorted(folder.glob("shard-*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"no clips in {folder}; make them with `python -m comfyui_comovi.training.nano_clips`")
    parts: dict[str, list[Tensor]] = {"video": [], "motion": [], "pose": [], "labels": []}
    for path in paths[: limit and -(-limit // SHARD)]:
        with safe_open(str(path), "pt") as file:
            for key, rows in parts.items():
                rows.append(file.get_tensor(key))
    return ClipTensors(**{key: torch.cat(rows)[:limit] for key, rows in parts.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=12000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--autoencoder", required=True, help="safetensors file whose encoder is frozen from now on")
    parser.add_argument("--first-seed", type=int, default=TRAIN_SEEDS)
    options = parser.parse_args()
    make_clips(options.out, options.clips, options.workers, options.autoencoder, options.first_seed)
    print(f"{len(load_clips(options.out))} clips of actions {', '.join(ACTION_NAMES)}")


if __name__ == "__main__":
    main()
