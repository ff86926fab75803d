"""Turn a training run into the three files of the nano model.

    python -m comfyui_comovi.training.nano_export --run runs/nano \\
        --autoencoder runs/autoencoder/autoencoder.safetensors --out comovi_model/assets
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from safetensors import safe_open

from ..comovi_model.comovi.config import DualBranchConfig
from ..comovi_model.comovi.dual_branch import DualBranch
from ..comovi_model.files import require_file
from ..comovi_model.nano.autoencoder import NanoAutoencoder
from ..comovi_model.nano.first_frame import FirstFrameWrapper
from ..comovi_model.nano.model import NanoModel, save_autoencoder, save_network, save_text_encoder
from ..comovi_model.nano.text_encoder import NanoTextEncoder
from .nano_clips import torch_weights


def read_run(run: Path, autoencoder_file: Path) -> tuple[NanoModel, dict[str, int], int]:
    """The averaged model of a run folder, the autoencoder's sizes, and the number of training samples."""
    path = require_file(run / "ema.safetensors", "weights of a training run")
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata() or {}
    tensors = torch_weights(path)

    def part(prefix: str) -> dict:
        return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}

    network = DualBranch(DualBranchConfig(**json.loads(metadata["config"])))
    network.load_state_dict(part("network."))
    text_encoder = NanoTextEncoder()
    text_encoder.load_state_dict(part("text_encoder."))
    weights = torch_weights(require_file(autoencoder_file, "autoencoder weights"))
    sizes = {"fine": weights["encoder.0.weight"].shape[0], "coarse": weights["decoder_in.weight"].shape[0]}
    autoencoder = NanoAutoencoder(**sizes)
    autoencoder.load_state_dict(weights)
    spreads = [FirstFrameWrapper(tensors[f"spread.{branch}"]) for branch in ("video", "motion")]
    return NanoModel(autoencoder, text_encoder, network, *spreads), sizes, int(metadata["samples"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder that train_nano wrote")
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model, sizes, samples = read_run(options.run, options.autoencoder)
    save_autoencoder(model.autoencoder.state_dict(), options.out, sizes, "training.train_autoencoder")
    command = f"training.train_nano, {samples} samples"
    save_text_encoder(model.text_encoder, options.out, command)
    save_network(model, options.out, command)
    for path in sorted(options.out.glob("nano*.safetensors")):
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
