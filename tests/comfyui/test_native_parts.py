"""Nano CLIP and VAE, LoRA files, the model report, the core's loader and GGUF files, without a server.

native_parts.py runs in ComfyUI's own Python, once for the newest and once for the oldest; here stand the expectations.
GGUF files need the pack ComfyUI-GGUF: a folder of that name beside the ComfyUI, or COMFYUI_GGUF_PATH.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from comfyui_comovi.comovi_model.nano.sentences import VOCABULARY
from run_in_comfy import PACKAGE, figures, run_checks


@pytest.fixture(scope="module", params=["new", "old"])
def checks(request, comfyui_servers) -> dict:
    home = Path(comfyui_servers.install(request.param).home)
    pack = Path(os.environ.get("COMFYUI_GGUF_PATH") or home.parent / "ComfyUI-GGUF")
    return run_checks(comfyui_servers, request.param, "native_parts.py", *[str(pack)] * pack.is_dir())


def test_the_nano_vae_is_our_autoencoder(checks):
    found = figures(checks, "nano_vae")
    assert found["shape"] == [1, 48, 9, 12, 8]
    assert found["single"] == [1, 48, 1, 12, 8]
    assert found["encode"] == 0
    assert found["decode"] == 0
    assert found["psnr"] > 26  # a picture that grows brighter; measured 27.6


def test_the_nano_vae_works_in_tiles(checks):
    found = figures(checks, "nano_vae")
    assert found["one tile"] == 0
    assert found["tiles"] < 0.05
    assert found["encoded in tiles"] < 0.05


def test_the_nano_vae_tells_what_does_not_fit(checks):
    found = figures(checks, "nano_vae")
    assert found["cut"] == [1, 48, 9, 12, 8]
    assert found["cut said"] == [
        "the nano VAE takes 4 k + 1 frames: the first 33 of 35 are encoded, the rest is left out."
    ]
    assert "'Split CoMoVi Latent'" in found["96 channels"]


def test_the_nano_clip_is_our_text_encoder(checks):
    found = figures(checks, "nano_clip")
    assert found["shape"] == [1, 24, 128]
    assert found["plain"] == 0
    assert found["empty"] == 0, "an empty text is padding only, as in training"
    assert found["combined"] == 2
    assert found["averaged"] == [1, 24, 128]


def test_prompt_weights_move_one_word_only(checks):
    found = figures(checks, "nano_clip")
    assert found["weighted rows"] == [4]
    assert found["weight"] < 1e-5
    assert found["escaped"] == 0


def test_unknown_words_are_named_once_a_prompt(checks):
    unknown, long = figures(checks, "nano_clip")["said"]
    assert unknown.startswith("the nano model does not know 'zebra', 'hops';")
    assert "the last 12 of this prompt are left out" in long
    assert "another text encoder (l)" in figures(checks, "nano_clip")["foreign tokens"]


def test_the_help_page_lists_the_words():
    page = (PACKAGE / "nodes" / "web" / "docs" / "CoMoVi_LoadNanoClipVae.md").read_text(encoding="utf-8")
    assert " ".join(VOCABULARY[2:]) in " ".join(page.split())


@pytest.mark.parametrize("spelling", ["plain", "kohya", "wan fun", "diffusers", "peft"])
def test_a_file_for_one_branch_fits_both(checks, spelling):
    assert figures(checks, "lora")[spelling] == {"blocks.2.self_attn.q": 1.0, "motion.blocks.2.self_attn.q": 0.5}


@pytest.mark.parametrize("spelling", ["official", "ours"])
def test_a_file_for_both_branches_acts_where_it_says(checks, spelling):
    expected = {"blocks.2.self_attn.q": 1.0, "motion.blocks.2.ffn.0": 0.5, "zero_linear_blocks.1": 0.25}
    assert figures(checks, "lora")[spelling] == expected


def test_a_strength_of_zero_leaves_its_part_untouched(checks):
    found = figures(checks, "lora")
    assert found["left out"] == {"zero_linear_blocks.1": 0.25}
    assert found["untouched"] == 0, "the model that came in has no patches"
    assert found["lines"] == [
        "ours.safetensors: video: 1 layer at strength 1",
        "ours.safetensors: motion: 1 layer at strength 0 (left out)",
        "ours.safetensors: couplings: 1 layer at strength 0.25",
    ]


def test_the_cores_lora_node_patches_the_video_branch(checks):
    assert figures(checks, "lora")["as the core"]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("foreign.safetensors", "holds nothing for this model: its 1 layers (lora_unet_down_blocks_0, ...)"),
        ("large.safetensors", "blocks.2.self_attn.q.weight is 192 x 192 here and 5120 x 5120 there"),
        ("torn.safetensors", "is for a network of another size"),
        ("empty.safetensors", "is empty"),
        ("damaged.safetensors", "cannot be read"),
        ("numbers.pt", "does not hold tensors by name"),
    ],
)
def test_a_file_that_is_no_lora_for_this_model_is_a_sentence(checks, file, said):
    sentence = figures(checks, "lora")[file]
    assert file in sentence
    assert said in sentence
    assert "\n" not in sentence


def line(lines: list[str], start: str) -> str:
    [found] = [text for text in lines if text.startswith(start)]
    return found


def test_the_report_says_what_the_model_is(checks):
    found = figures(checks, "report")
    assert line(found["nano"], "model:").startswith("model: nano model from nano.safetensors, 6 layers of width 192")
    assert " from blind.safetensors, " in line(found["blind"], "model:")
    assert line(found["nano"], "branches:") == "branches: both; exchange: both ways in every layer"
    assert "motion only; exchange: none" in line(found["motion only"], "branches:")
    assert "for clips of 33 frames" in line(found["nano"], "pose head:")
    assert "cannot see the video" in line(found["blind"], "pose head:")
    assert "float8_e4m3fn" in line(found["fp8"], "weights:")


def test_the_report_says_how_it_runs(checks):
    found = figures(checks, "report")
    assert "attention_" in line(found["nano"], "attention:")
    assert line(found["nano"], "LoRA patches:") == "LoRA patches: none"
    assert line(found["changed"], "LoRA patches:") == "LoRA patches: 2 weights, up to 1 on one"
    assert not [text for text in found["nano"] if text.startswith("attention override")]
    assert "<lambda>" in line(found["changed"], "attention override:")
    assert line(found["nano"], "shift:").startswith("shift: 5.0")
    assert len([text for text in found["blind"] if text.startswith("memory for")]) == 2


def test_the_cores_loader_opens_our_files(checks):
    found = figures(checks, "the_cores_loader")
    assert found["registered once"]
    assert found["core default"] == 0
    assert found["below default"] == 0
    assert found["half"] < 0.01
    assert found["core fp8_e4m3fn"] < 0.1  # measured 0.05
    assert found["core fp8_e5m2"] < 0.2  # measured 0.08


def test_the_cores_loader_still_refuses_foreign_files(checks):
    found = figures(checks, "the_cores_loader")
    assert "Could not detect model type" in found["foreign"]
    assert "'Load CoMoVi Model'" in found["nano"]


def test_a_gguf_file_without_its_pack_is_a_sentence(checks):
    found = figures(checks, "gguf_without_the_pack")
    assert found["listed"] == [os.path.join("sub", "y.GGUF"), "x.gguf"]
    assert found["path"]
    assert found["outside"], "a path that leads out of the folder is taken inside it"
    assert "there is no file 'z.gguf'" in found["absent"]
    assert "x.gguf is a GGUF file, which needs the node pack ComfyUI-GGUF" in found["said"]


def test_gguf_files_run_through_the_packs_operations(checks):
    found = figures(checks, "gguf_with_the_pack")
    if "skipped" in found:
        pytest.skip(found["skipped"])
    assert "tiny.gguf" in found["listed"]
    assert found["q8"] < 0.02  # measured 0.007
    assert found["one branch"] < 0.02
    assert found["their loader"] == 0, "'Unet Loader (GGUF)' opens it too"
    assert found["lora"] > 0.01
    assert found["lora q8"] < 0.02
    assert "cannot be read as a GGUF file" in found["damaged"]
