"""The embedded nano model: its three weight files and what they make together.

`assets/nano_autoencoder.safetensors`, `assets/nano_text.safetensors` and `assets/nano.safetensors` (the dual-branch
network in the official key layout, with the first-frame wrapper's spreads in its metadata), float16 on disk, float32 in
memory. They were trained by the commands of training/ on drawn people; nothing in them comes from pictures of anybody.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..comovi.checkpoint import load_checkpoint, save_checkpoint
from ..comovi.dual_branch import DualBranch
from ..errors import ComoviError
from ..files import atomic_path, require_file
from .autoencoder import NanoAutoencoder
from .first_frame import PARAMETRIZATION, FirstFrameWrapper
from .people import ASSETS
from .sentences import VOCABULARY
from .text_encoder import NanoTextEncoder

NETWORK_FILE, TEXT_FILE, AUTOENCODER_FILE = "nano.safetensors", "nano_text.safetensors", "nano_autoencoder.safetensors"


@dataclass(frozen=True)
class NanoModel:
    """Everything that turns a first frame, its motion map, its pose and a sentence into latents and back."""

    autoencoder: NanoAutoencoder
    text_encoder: NanoTextEncoder
    network: DualBranch
    wrap_video: FirstFrameWrapper
    wrap_motion: FirstFrameWrapper


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    require_file(path, "nano weights")
    try:
        with safe_open(str(path), "pt") as file:
            return {key: file.get_tensor(key).float() for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ComoviError(f"nano weights {path} are damaged ({error}); install the package again.") from error


def load_autoencoder(folder: Path = ASSETS) -> NanoAutoencoder:
    """The autoencoder alone, in evaluation mode, float32."""
    weights, metadata = _read(folder / AUTOENCODER_FILE)
    model = NanoAutoencoder(**json.loads(metadata.get("sizes", "{}")))
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def load_text_encoder(folder: Path = ASSETS) -> NanoTextEncoder:
    """The text encoder alone; its vocabulary must be the one of sentences.py."""
    weights, metadata = _read(folder / TEXT_FILE)
    if json.loads(metadata["vocabulary"]) != list(VOCABULARY):
        raise ComoviError(f"{folder / TEXT_FILE} was made for another vocabulary; train the nano model again.")
    model = NanoTextEncoder()
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def load_nano(folder: Path = ASSETS) -> NanoModel:
    """The whole model from a folder with the three files (default: the embedded ones), on the CPU."""
    try:
        return _load_nano(folder)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # what a foreign or damaged part makes of metadata
        if isinstance(error, ComoviError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ComoviError(
            f"the nano weights in {folder} do not fit together ({type(error).__name__}: {reason}); "
            "use three files of one training run."
        ) from error


def _load_nano(folder: Path) -> NanoModel:
    path = folder / NETWORK_FILE
    require_file(path, "nano weights")
    network, _ = load_checkpoint(path, dtype=torch.float32)
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("parametrization") != PARAMETRIZATION:
        raise ComoviError(
            f"{path} is not a nano model: its metadata has parametrization {metadata.get('parametrization')!r}, "
            f"expected {PARAMETRIZATION!r}."
        )
    spreads = [FirstFrameWrapper(torch.tensor(json.loads(metadata[f"spread_{s}"]))) for s in ("video", "motion")]
    return NanoModel(
        load_autoencoder(folder), load_text_encoder(folder), network.eval().requires_grad_(False), *spreads
    )


def save_autoencoder(model_weights: dict[str, Tensor], folder: Path, sizes: dict[str, int], command: str) -> None:
    """Write the autoencoder as float16 with its sizes and the command that made it."""
    with atomic_path(folder / AUTOENCODER_FILE) as path:
        save_file(
            {k: v.half().contiguous() for k, v in model_weights.items()},
            str(path),
            {"sizes": json.dumps(sizes), "made_by": command, "licence": "Apache-2.0"},
        )


def save_text_encoder(model: NanoTextEncoder, folder: Path, command: str) -> None:
    """Write the text encoder as float16 with its vocabulary."""
    with atomic_path(folder / TEXT_FILE) as path:
        save_file(
            {k: v.half().contiguous() for k, v in model.state_dict().items()},
            str(path),
            {"vocabulary": json.dumps(list(VOCABULARY)), "made_by": command, "licence": "Apache-2.0"},
        )


def save_network(model: NanoModel, folder: Path, command: str) -> None:
    """Write the network as float16 in the official layout, with what the wrapper needs in its metadata."""
    metadata = {
        "parametrization": PARAMETRIZATION,
        "spread_video": json.dumps([round(float(s), 6) for s in model.wrap_video.spread]),
        "spread_motion": json.dumps([round(float(s), 6) for s in model.wrap_motion.spread]),
        "made_by": command,
        "licence": "Apache-2.0",
    }
    save_checkpoint(folder / NETWORK_FILE, model.network, dtype=torch.float16, metadata=metadata)
