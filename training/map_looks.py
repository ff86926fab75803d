"""Nano clips whose motion map shows less: only the normals, or only the body parts (the paper's ablations of the map).

A pixel of the map is red for the part, green and blue for the normal. What is taken out becomes mid grey on the body;
the background stays white. T frames, H x W pixels, uint8.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..comovi_model.errors import ComoviError
from ..comovi_model.nano.autoencoder import NanoAutoencoder
from ..comovi_model.nano.draw import draw_clip
from ..comovi_model.nano.people import load_nano_body
from ..comovi_model.nano.scene import NanoBody, sample_scene
from ..comovi_model.wan.weights import open_weights, write_weights
from .nano_clips import pixels_to_unit

LOOKS = {"full": (), "normals": (0,), "parts": (1, 2)}  # which channels are taken out
GREY = 128
WHITE_REACH = 90  # a pixel whose darkest channel is this far below white is all body; nearer ones are edges


def change_look(frames: np.ndarray, look: str) -> np.ndarray:
    """Maps (..., H, W, 3) uint8 with what the look leaves out replaced."""
    if look not in LOOKS:
        raise ComoviError(f"there is no look {look!r} of a motion map; choose one of {', '.join(LOOKS)}.")
    out = frames.copy()
    body = np.clip((255.0 - frames.min(-1)) / WHITE_REACH, 0, 1)  # 0 background, 1 body, between them edges
    for channel in LOOKS[look]:
        out[..., channel] = np.round(255 - body * (255 - GREY)).astype(np.uint8)
    return out


def restyle_shard(source: Path, target: Path, look: str, autoencoder: NanoAutoencoder, body: NanoBody) -> None:
    """The same clips, video, poses and sentences as in `source`, with their maps drawn again and encoded in a look."""
    shard = open_weights(source)
    first, count = int(source.stem.removeprefix("shard-")), shard.entries["labels"].shape[0]
    motion = []
    for seed in tqdm(range(first, first + count), desc=f"{look}: {target.name}", unit="clip", leave=False):
        frames = change_look(draw_clip(sample_scene(seed, body), body).motion_map, look)
        motion.append(encode(frames, autoencoder))
    tensors = {name: tensor for name, tensor in shard.items() if name != "motion"}
    write_weights(target, {**tensors, "motion": torch.stack(motion)}, {})


@torch.no_grad()
def encode(frames: np.ndarray, autoencoder: NanoAutoencoder) -> Tensor:
    """(T, H, W, 3) uint8 -> latent (48, F, h, w) float16, as nano_clips makes them."""
    with torch.autocast("cpu", torch.bfloat16):
        return autoencoder.encode(pixels_to_unit(frames))[0].half()


def restyle_clips(source: Path, target: Path, look: str, autoencoder: NanoAutoencoder) -> Path:
    """All shards of a folder in a look; those that exist stay."""
    shards = sorted(source.glob("shard-*.safetensors"))
    if not shards:
        raise ComoviError(f"there are no nano clips in {source}.")
    if not LOOKS[look]:
        return source
    target.mkdir(parents=True, exist_ok=True)
    missing = [path for path in shards if not (target / path.name).exists()]
    body = load_nano_body() if missing else None
    for path in missing:
        assert body is not None
        restyle_shard(path, target / path.name, look, autoencoder, body)
    return target
