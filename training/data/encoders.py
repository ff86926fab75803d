"""What turns pictures and sentences into what the network reads, behind one small protocol.

    nano   our own autoencoder and text encoder (embedded in the package): 48 channels, 24 words x 128
    wan    the autoencoder of Wan2.2-TI2V-5B and umT5-xxl, from a folder that you have: 48 channels, words x 4096

T pixel frames = 1 + 4 (F - 1), H x W pixels, C channels, h = H / 16, w = W / 16, L words of width D.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...comovi_model.errors import ComoviError
from ...comovi_model.files import require_file
from ...comovi_model.nano.model import AUTOENCODER_FILE, TEXT_FILE, load_autoencoder, load_text_encoder
from ...comovi_model.nano.people import ASSETS
from ...comovi_model.nano.text_encoder import tokenise

KINDS = ("nano", "wan")


class Encoders(Protocol):
    """Both encoders of a network."""

    def fingerprint(self) -> dict[str, str]:
        """What the numbers depend on, by name: hashes of the weight files."""
        ...

    def encode(self, frames: np.ndarray) -> Tensor:
        """Frames (T, H, W, 3) uint8 -> latent (C, F, h, w) float32 on the CPU: the mean, normalised as in training."""
        ...

    def decode(self, latent: Tensor) -> np.ndarray:
        """The way back: (C, F, h, w) -> frames (T, H, W, 3) uint8."""
        ...

    def embed(self, sentences: Sequence[str]) -> list[Tensor]:
        """One (L, D) float32 per sentence, cut to its real length; "" has an embedding too."""
        ...


class NanoEncoders:
    """The embedded ones, on the CPU or a GPU."""

    def __init__(self, folder: Path = ASSETS, device: str = "cpu"):
        self.folder, self.device = Path(folder), torch.device(device)
        self.autoencoder = load_autoencoder(self.folder).to(self.device)
        self.text_encoder = load_text_encoder(self.folder).to(self.device)

    def fingerprint(self) -> dict[str, str]:
        return {
            "autoencoder": "nano " + file_hash(self.folder / AUTOENCODER_FILE),
            "text_encoder": "nano " + file_hash(self.folder / TEXT_FILE),
        }

    @torch.no_grad()
    def encode(self, frames: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)
        return self.autoencoder.encode(pixels.float()[None] / 127.5 - 1)[0].float().cpu()

    @torch.no_grad()
    def decode(self, latent: Tensor) -> np.ndarray:
        frames = self.autoencoder.decode(latent[None].to(self.device).float())[0]
        return to_uint8(frames)

    @torch.no_grad()
    def embed(self, sentences: Sequence[str]) -> list[Tensor]:
        if not sentences:
            return []
        ids, _ = tokenise(list(sentences))
        return list(self.text_encoder(ids.to(self.device)).float().cpu())


def to_uint8(frames: Tensor) -> np.ndarray:
    """Frames (T, H, W, 3) in -1..1 -> uint8."""
    return ((frames.float().clamp(-1, 1) + 1) * 127.5 + 0.5).to(torch.uint8).cpu().numpy()


def load_encoders(kind: str, folder: str = "", device: str = "cpu") -> Encoders:
    """One of KINDS; "wan" needs the folder of Wan2.2-TI2V-5B in the layout of diffusers."""
    if kind == "nano":
        return NanoEncoders(Path(folder) if folder else ASSETS, device)
    if kind == "wan":
        from .wan_encoders import WanEncoders

        return WanEncoders(folder, device)
    raise ComoviError(f"unknown encoders {kind!r}; choose one of {', '.join(KINDS)}.")


def file_hash(path: str | os.PathLike[str]) -> str:
    """The first 16 digits of the SHA-256 of a file, or of the files of a folder with their names."""
    path = Path(path)
    if path.is_dir():
        parts = {item.name: file_hash(item) for item in sorted(path.iterdir()) if item.is_file()}
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    digest = hashlib.sha256()
    with require_file(path, "weights").open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()[:16]


def add_encoder_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoders", choices=KINDS, help="nano (embedded) or wan")
    parser.add_argument("--wan", default="", help="folder of Wan2.2-TI2V-5B in the layout of diffusers")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")


def encoders_from(options: argparse.Namespace, default: str) -> Encoders:
    """What the command line asks for; `default` where it says nothing."""
    device = options.device
    if device == "auto":
        local = os.environ.get("LOCAL_RANK", "0")
        device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
    kind = options.encoders or ("wan" if options.wan else default)
    return load_encoders(kind, options.wan, device)
