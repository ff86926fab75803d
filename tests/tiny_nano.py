"""A nano model that was not trained: quick to make, and its pictures can still be recognised.

Its autoencoder keeps the mean colour of every 4 x 4 pixels over four frames (16 blocks of 3 colours = 48 channels); its
network answers zero, so the first-frame wrapper alone speaks: a clip that stays near its first frame.
"""

from __future__ import annotations

from pathlib import Path

import torch
from comfyui_comovi.comovi_model.comovi.dual_branch import DualBranch
from comfyui_comovi.comovi_model.nano.autoencoder import SPACE, TIME, NanoAutoencoder
from comfyui_comovi.comovi_model.nano.first_frame import FirstFrameWrapper
from comfyui_comovi.comovi_model.nano.model import NanoModel, save_autoencoder, save_network, save_text_encoder
from comfyui_comovi.comovi_model.nano.presets import NANO
from comfyui_comovi.comovi_model.nano.text_encoder import NanoTextEncoder

SIZES = {"fine": 8, "coarse": 16}


def block_means() -> torch.Tensor:
    """(48, 3072): channel (block, colour) of a patch whose numbers are ordered (frame, row, column, colour)."""
    block = torch.arange(SPACE) // 4
    owner = (block[:, None] * 4 + block).expand(TIME, SPACE, SPACE)  # (4, 16, 16)
    channel = owner[..., None] * 3 + torch.arange(3)
    return torch.nn.functional.one_hot(channel.flatten(), 48).T.float() / (TIME * 16)


def make_tiny_nano(folder: Path, seed: int = 0) -> Path:
    """Write the three weight files into `folder`."""
    from dataclasses import replace

    torch.manual_seed(seed)
    autoencoder = NanoAutoencoder(**SIZES)
    with torch.no_grad():
        means = block_means()
        autoencoder.to_latent.weight.copy_(means)
        autoencoder.to_pixels.weight.copy_((means > 0).T.float())
        autoencoder.to_latent.bias.zero_()
        autoencoder.to_pixels.bias.zero_()
    text = NanoTextEncoder()
    network = DualBranch(replace(NANO, dim=48, ffn_dim=64, num_layers=1, pose_layers=1, pose_ffn_dim=64))
    network.init_weights()
    spread = FirstFrameWrapper(torch.full((48,), 0.05))
    save_autoencoder(autoencoder.state_dict(), folder, SIZES, "tests/tiny_nano.py")
    save_text_encoder(text, folder, "tests/tiny_nano.py")
    save_network(NanoModel(autoencoder, text, network, spread, spread), folder, "tests/tiny_nano.py")
    return folder
