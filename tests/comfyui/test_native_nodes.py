"""The LoRA node and the model report over HTTP: what they show, and how they refuse."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch


@pytest.fixture
def lora(comfyui) -> str:
    """A LoRA for one layer of the nano model's video branch."""
    folder = comfyui.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    start = "diffusion_model.blocks.1.self_attn.v"
    tensors = {f"{start}.lora_A.weight": torch.ones(1, 192) / 192, f"{start}.lora_B.weight": torch.ones(192, 1)}
    (folder / "one_layer.safetensors").write_bytes(safetensors.torch.save(tensors))
    foreign = {"unet.conv.lora_A.weight": torch.ones(1, 4), "unet.conv.lora_B.weight": torch.ones(4, 1)}
    (folder / "foreign.safetensors").write_bytes(safetensors.torch.save(foreign))
    return "one_layer.safetensors"


def model(g):
    return g.add("CoMoVi_LoadModel", model_name="nano (embedded)", weight_dtype="default", branches="both")


def apply(g, loaded, name, **strengths):
    usual = {"strength_video": 1.0, "strength_motion": 0.0, "strength_couplings": 1.0}
    return g.add("CoMoVi_ApplyLora", model=loaded, lora_name=name, **{**usual, **strengths})


def test_both_nodes_show_what_they_did(comfyui, Graph, lora):
    g = Graph()
    changed = apply(g, model(g), lora, strength_motion=0.5)
    report = g.add("CoMoVi_ModelReport", model=changed)
    after = g.add("PreviewAny", source=report)
    result = comfyui.run(g)
    assert result.text(changed).splitlines() == [
        "one_layer.safetensors: video: 1 layer at strength 1",
        "one_layer.safetensors: motion: 1 layer at strength 0.5",
    ]
    lines = result.text(report).splitlines()
    assert lines[0].startswith("model: nano model from nano.safetensors")
    assert "LoRA patches: 2 weights, up to 1 on one" in lines
    assert result.text(after) == result.text(report)
    assert report.id in comfyui.run(g).executed(), "where weights lie changes, so the report is made anew"


@pytest.mark.parametrize("name", ["../../x.safetensors", "/etc/passwd", "none.safetensors", "", "C:\\x.safetensors"])
def test_a_file_that_is_not_in_the_list_is_refused(comfyui, Graph, lora, name):
    g = Graph()
    changed = apply(g, model(g), name)
    g.add("CoMoVi_ModelReport", model=changed)
    result = comfyui.run(g, check=False)
    [error] = result.node_errors[changed.id]["errors"]
    assert "lora_name" in error["details"] + str(error["extra_info"])


def test_a_lora_for_another_model_stops_in_one_sentence(comfyui, Graph, lora):
    g = Graph()
    changed = apply(g, model(g), "foreign.safetensors")
    g.add("CoMoVi_ModelReport", model=changed)
    result = comfyui.run(g, check=False)
    assert result.failure["node_id"] == changed.id
    said = result.failure["exception_message"].strip()
    assert said.startswith("the LoRA file foreign.safetensors holds nothing for this model")
    assert "\n" not in said


def test_a_strength_out_of_range_is_refused(comfyui, Graph, lora):
    g = Graph()
    changed = apply(g, model(g), lora, strength_video=100.0)
    g.add("CoMoVi_ModelReport", model=changed)
    result = comfyui.run(g, check=False)
    [error] = result.node_errors[changed.id]["errors"]
    assert error["type"] == "value_bigger_than_max"


def test_a_gguf_file_is_listed_and_its_missing_pack_is_named(comfyui, Graph):
    folder = comfyui.base / "models" / "diffusion_models"
    folder.mkdir(exist_ok=True)
    path = folder / "listed.gguf"
    path.write_bytes(b"GGUF")
    try:
        g = Graph()
        loaded = g.add("CoMoVi_LoadModel", model_name=path.name, weight_dtype="default", branches="both")
        g.add("CoMoVi_ModelReport", model=loaded)
        result = comfyui.run(g, check=False)
    finally:
        path.unlink()
    assert result.failure["node_id"] == loaded.id
    assert "needs the node pack ComfyUI-GGUF" in result.failure["exception_message"]


def test_the_cores_loader_node_opens_a_comovi_file(comfyui, Graph):
    """The registration happened when the server loaded the pack."""
    from comfyui_comovi.comovi_model.comovi.checkpoint import save_checkpoint
    from comfyui_comovi.comovi_model.comovi.config import DualBranchConfig
    from comfyui_comovi.comovi_model.comovi.dual_branch import DualBranch

    sizes = {"dim": 128, "ffn_dim": 128, "num_heads": 1, "num_layers": 1, "freq_dim": 32, "text_dim": 64}
    folder = comfyui.base / "models" / "diffusion_models"
    folder.mkdir(exist_ok=True)
    save_checkpoint(folder / "small.safetensors", DualBranch(DualBranchConfig(**sizes)))
    g = Graph()
    report = g.add(
        "CoMoVi_ModelReport", model=g.add("UNETLoader", unet_name="small.safetensors", weight_dtype="default")
    )
    assert "1 layers of width 128" in comfyui.run(g).text(report)
