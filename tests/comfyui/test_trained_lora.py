"""A LoRA from our trainer, loaded by CoMoVi Apply LoRA's own code in both ComfyUIs, equals the merged weights."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import comfyui_comovi
import pytest
import torch
from comfyui_comovi.training.config import AdapterConfig, EngineConfig, ModelConfig, TrainConfig
from comfyui_comovi.training.export import export_lora, export_nano
from comfyui_comovi.training.recipe import build_recipe

SCRIPT = Path(__file__).with_name("trained_lora.py")
PACKAGE = Path(comfyui_comovi.__file__).parent


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, Path]:
    """(LoRA file, nano network with the same adapter merged)."""
    adapter = AdapterConfig(kind="lora", rank=4, alpha=8.0, targets=("rgb", "motion", "exchange"))
    config = TrainConfig(
        model=ModelConfig(kind="nano"), adapter=adapter, engine=EngineConfig(precision="fp32", checkpointing=False)
    )
    recipe, folder = build_recipe(config), tmp_path_factory.mktemp("trained")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in recipe.named_parameters():
            if "lora_B" in name:
                weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))
    state = recipe.state_dict()
    export_nano(state, recipe.network.config, folder / "merged", "tests", alpha=8.0)
    return export_lora(state, folder / "lora.safetensors", 8.0, torch.float32), folder / "merged" / "nano.safetensors"


@pytest.mark.parametrize("role", ["new", "old"])
def test_the_file_acts_as_the_merged_weights_do(exported, comfyui_servers, role):
    install = comfyui_servers.install(role)
    done = subprocess.run(
        [str(install.python), "-W", "ignore", str(SCRIPT), str(install.home), str(PACKAGE), *map(str, exported)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=install.home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["lines"] == [
        "lora.safetensors: video: 60 layers at strength 1",
        "lora.safetensors: motion: 60 layers at strength 1",
        "lora.safetensors: couplings: 12 layers at strength 1",
    ]
    assert found["change"] > 1
    assert found["error"] < 0.02 * found["change"]  # files are rounded to float16
