"""What the autoencoder's training leaves."""

import torch
from comfyui_comovi.comovi_model.nano.autoencoder import NanoAutoencoder
from comfyui_comovi.comovi_model.nano.model import load_autoencoder
from comfyui_comovi.training.nano_clips import torch_weights
from comfyui_comovi.training.train_autoencoder import save


def test_the_weights_are_kept_to_go_on_with_and_as_the_nano_model_reads_them(tmp_path):
    made = NanoAutoencoder(fine=8, coarse=16).state_dict()
    save(made, tmp_path)
    kept = torch_weights(tmp_path / "autoencoder.safetensors")
    assert set(kept) == set(made) and all(torch.equal(kept[name], made[name]) for name in made)
    read = load_autoencoder(tmp_path).state_dict()
    assert all(torch.equal(read[name], made[name].half().float()) for name in made)
