"""The newcomer's path: three commands from a folder of eight videos to a LoRA, and the LoRA in a workflow."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from comfyui_comovi.comovi_model.images import read_image
from comfyui_comovi.training.batch import Draw
from comfyui_comovi.training.cli import main
from comfyui_comovi.training.data.cache import open_clips
from comfyui_comovi.training.data.dataset import CachedClips
from nano_graph import HEIGHT, LENGTH, WIDTH, NanoGraph
from safetensors.torch import load_file

pytestmark = pytest.mark.skipif(
    not os.environ.get("COMOVI_TRAINING_TESTS"), reason="trains for a minute: make test-training"
)
COMMANDS = (  # as docs/training.md has them
    "prepare my_videos --out my_data --preset nano --cache",
    "train --config lora_nano --set data.train=my_data/cache",
    "export runs/lora_nano --lora my_lora.safetensors",
)
SHORTER = "--set run.max_steps=30 --set log.progress=false"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder in which the commands were typed."""
    folder, here = tmp_path_factory.mktemp("newcomer"), os.getcwd()
    os.chdir(folder)
    try:
        assert main(["example", "my_videos", "--count", "8"]) == 0  # stands for the newcomer's own videos
        for command in COMMANDS:
            more = SHORTER.split() if command.startswith("train") else []
            assert main(command.split() + more) == 0
    finally:
        os.chdir(here)
    return folder


def generate(server, clip, lora: str | None, strength: float = 1.0) -> torch.Tensor:
    """The latent (1, 96, F, h, w) that a workflow makes of a clip's first frame, first map and sentence."""
    g = NanoGraph.begin(server, prompt=clip.text[0], first=False)
    pictures = {}
    for name, path in (("first_frame", clip.first_frame), ("first_map", clip.motion_first_frame)):
        file = server.upload_image(read_image(path) / 255, f"{clip.id} {name} {os.getpid()}.png")
        pictures[name] = g.add("LoadImage", image=file)
    made = g.add(
        "CoMoVi_Conditioning", positive=g.positive, negative=g.negative, vae=g.vae,
        width=WIDTH, height=HEIGHT, length=LENGTH, batch_size=1, **pictures,
    )  # fmt: skip
    g.positive, g.negative, g.latent = made[0], made[1], made[2]
    model = g.model
    if lora is not None:
        strengths = {f"strength_{part}": strength for part in ("video", "motion", "couplings")}
        model = g.add("CoMoVi_ApplyLora", model=model, lora_name=lora, **strengths)
    saved = g.save_latent(g.ksampler(model, steps=1))
    return server.run(g).latent(saved)


def test_three_commands_lead_from_videos_to_a_lora_that_comfyui_uses(trained, comfyui):
    loras = comfyui.base / "models" / "loras"
    loras.mkdir(exist_ok=True)
    shutil.copy(trained / "my_lora.safetensors", loras / "my_lora.safetensors")
    source = CachedClips(trained / "my_data" / "cache")
    clips = sorted(open_clips(trained / "my_data"), key=lambda clip: clip.id)
    truth = source.read(range(len(clips)), Draw(0, 0, 0, 0, 1, 0.5))
    errors = {"base": [], "lora": []}
    for index in (0, 3, 6):
        wanted = torch.cat([truth.video[index], truth.motion[index]])[:, 1:]
        for name, lora in (("base", None), ("lora", "my_lora.safetensors")):
            latent = generate(comfyui, clips[index], lora)[0, :, 1:]
            errors[name].append(float((latent - wanted).square().mean()))
    base, lora = (sum(errors[name]) / 3 for name in ("base", "lora"))
    assert lora < 0.92 * base, errors  # it has learned from these eight clips

    unchanged = generate(comfyui, clips[0], "my_lora.safetensors", strength=0.0)
    assert torch.equal(unchanged, generate(comfyui, clips[0], None))


def test_the_lora_file_names_the_layers_as_comfyui_expects(trained):
    tensors = load_file(str(trained / "my_lora.safetensors"))
    groups = {name.split(".")[1] for name in tensors}
    assert {"blocks", "motion"} <= groups or any("motion" in name for name in tensors)
    assert all(".lora_" in name or name.endswith(".alpha") for name in tensors)
