"""A folder of nano weights whose parts are foreign or incomplete is refused in a sentence."""

from __future__ import annotations

import pytest
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.nano.model import AUTOENCODER_FILE, NETWORK_FILE, TEXT_FILE, load_nano
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_nano import make_tiny_nano


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        (NETWORK_FILE, {"spread_video": None}),
        (NETWORK_FILE, {"spread_motion": "[1,2"}),
        (TEXT_FILE, {"vocabulary": None}),
        (AUTOENCODER_FILE, {"sizes": '{"banana": 3}'}),
        (AUTOENCODER_FILE, {"sizes": '{"fine": 4, "coarse": 4}'}),
    ],
)
def test_parts_that_do_not_fit_together_are_one_sentence(tmp_path, name, changed):
    path = make_tiny_nano(tmp_path) / name
    with safe_open(str(path), "pt") as file:
        metadata = {**file.metadata(), **changed}
    save_file(load_file(path), str(path), {key: value for key, value in metadata.items() if value is not None})
    with pytest.raises(ComoviError, match="do not fit together"):
        load_nano(tmp_path)
