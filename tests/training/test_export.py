"""What a run leaves behind: files that comovi_model loads strictly, LoRAs, nano models (acceptance test 3, export)."""

import argparse
import json
from dataclasses import replace

import pytest
import torch
from comfyui_comovi.comovi_model.comovi.checkpoint import load_checkpoint
from comfyui_comovi.comovi_model.comovi.config import DualBranchConfig
from comfyui_comovi.comovi_model.comovi.names import official_name
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.nano.autoencoder import NanoAutoencoder
from comfyui_comovi.comovi_model.nano.model import load_nano, save_autoencoder
from comfyui_comovi.comovi_model.nano.presets import NANO
from comfyui_comovi.comovi_model.wan.weights import open_weights
from comfyui_comovi.training import export
from comfyui_comovi.training.checkpoint import consolidated_state, latest
from comfyui_comovi.training.config import (
    AdapterConfig,
    EngineConfig,
    ModelConfig,
    SmplConfig,
    SmplWeights,
    StageConfig,
    TrainConfig,
)
from comfyui_comovi.training.config_file import build_config, load_resolved, merge, parse_sets
from comfyui_comovi.training.lora import lora_tensors, merged
from comfyui_comovi.training.random_clips import SMALL, SMALL_CLIPS
from comfyui_comovi.training.recipe import build_recipe
from comfyui_comovi.training.trainer import train

SHAPE = {"dim": 24, "ffn_dim": 16, "num_heads": 2, "num_layers": 2, "in_channels": 4, "out_channels": 4, "text_dim": 8,
         "text_len": 6, "freq_dim": 8, "pose_layers": 1, "pose_ffn_dim": 16, "pose_tokens": 8}  # fmt: skip
POSE = SmplConfig(layers_per_step=2, weights=SmplWeights(1.0, 0.0, 0.0))
CONFIG = TrainConfig(
    model=ModelConfig(shape=SHAPE),
    stage=StageConfig(smpl=POSE),
    engine=EngineConfig(precision="fp32", checkpointing=False),
)
LORA = AdapterConfig(kind="lora", rank=2, alpha=4.0, targets=("rgb", "motion", "exchange"))


def shaken(recipe):
    """The recipe with all trained weights moved, as after a training run."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in recipe.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
    return recipe


@pytest.fixture(scope="module")
def recipe():
    torch.set_num_threads(1)
    return shaken(build_recipe(CONFIG))


@pytest.mark.parametrize("largest", [1 << 40, 40_000])
def test_everything_goes_into_the_official_layout_and_comes_back_strictly(recipe, tmp_path, largest):
    paths = export.export_network(
        recipe, recipe.state_dict(), tmp_path, dtype=torch.float32, largest=largest, about={"comovi.training": "{}"}
    )
    assert (len(paths) > 2) == (largest < 1 << 40)
    assert paths[-1].name == "diffusion_pytorch_model.safetensors" + (".index.json" if largest < 1 << 40 else "")
    network, report = load_checkpoint(paths[-1])
    assert network.config == recipe.network.config
    assert report.missing == () and report.metadata["comovi.training"] == "{}"
    found = network.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in recipe.network.state_dict().items())


def test_files_are_in_the_dtype_that_was_asked_for(recipe, tmp_path):
    path = export.export_network(recipe, recipe.state_dict(), tmp_path / "a.safetensors")[0]
    assert {entry.dtype for entry in open_weights(path).entries.values()} == {torch.bfloat16}


def test_only_what_was_trained_is_enough_to_go_on(recipe, tmp_path):
    whole = export.export_network(recipe, recipe.state_dict(), tmp_path / "w.safetensors", dtype=torch.float32)[0]
    part = export.export_network(
        recipe, recipe.state_dict(), tmp_path / "p.safetensors", only=set(recipe.trainable()), dtype=torch.float32
    )[0]
    names = set(open_weights(part).entries)
    assert names == {official_name(name.removeprefix("network.")) for name in recipe.trainable()}
    assert "trained weights only" in open_weights(part).metadata["comovi.part"]
    with pytest.raises(ComoviError, match=r"trained weights only; name .* model\.base"):
        build_recipe(replace(CONFIG, model=ModelConfig(init=str(part))))
    model = ModelConfig(base=str(whole), init=str(part))
    again = build_recipe(replace(CONFIG, model=model)).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in recipe.state_dict().items())


def test_stage_one_exports_the_video_branch_that_it_did_not_hold(tmp_path):
    stage1 = shaken(build_recipe(replace(CONFIG, stage=StageConfig(kind="motion"))))
    path = export.export_network(stage1, stage1.state_dict(), tmp_path / "a.safetensors", dtype=torch.float32)[0]
    names = set(open_weights(path).entries)
    assert any(name.startswith("rgb_blocks.1.") for name in names)
    assert any(name.startswith("zero_linear_blocks.") for name in names)
    load_checkpoint(path)
    part = export.export_network(stage1, stage1.state_dict(), tmp_path / "p.safetensors", only=set(stage1.trainable()))
    assert all(name.startswith("motion_") for name in open_weights(part[0]).entries)


def test_a_merged_adapter_computes_what_the_adapter_did(tmp_path):
    config = replace(CONFIG, stage=StageConfig(smpl=SmplConfig(enabled=False)), adapter=LORA)
    recipe = shaken(build_recipe(config))
    state, path = recipe.state_dict(), tmp_path / "a.safetensors"
    export.export_network(recipe, state, path, alpha=4.0, dtype=torch.float32)
    network, _ = load_checkpoint(path)
    video, motion, text = torch.randn(1, 4, 3, 4, 4), torch.randn(1, 4, 3, 4, 4), torch.randn(1, 5, 8)
    with torch.no_grad():
        wanted = recipe.network(video, motion, torch.tensor([300.0]), text)
        found = network(video, motion, torch.tensor([300.0]), text)
    assert torch.allclose(found.video, wanted.video, atol=1e-5)
    assert torch.allclose(found.motion, wanted.motion, atol=1e-5)
    plain = build_recipe(replace(config, adapter=AdapterConfig()))
    assert not torch.allclose(network.blocks[0].ffn[0].weight, plain.network.blocks[0].ffn[0].weight)


def test_a_lora_file_names_what_it_changes(tmp_path):
    config = replace(CONFIG, stage=StageConfig(smpl=SmplConfig(enabled=False)), adapter=LORA)
    recipe = shaken(build_recipe(config))
    path = export.export_lora(recipe.state_dict(), tmp_path / "l.safetensors", 4.0, torch.float32)
    tensors = {name: tensor.clone() for name, tensor in open_weights(path).items()}
    layer = "diffusion_model.motion.blocks.1.self_attn.q"
    up, down, alpha = (tensors[f"{layer}.{part}"] for part in ("lora_B.weight", "lora_A.weight", "alpha"))
    assert down.shape == (2, 24) and float(alpha) == 4.0
    base = build_recipe(replace(config, adapter=AdapterConfig())).network.state_dict()
    changed = merged(export.network_state(recipe.state_dict()), 4.0)["motion.blocks.1.self_attn.q.weight"]
    assert torch.allclose(base["motion.blocks.1.self_attn.q.weight"] + up @ down * 2, changed, atol=1e-6)
    assert len(tensors) == 3 * len([name for name in recipe.trainable() if "lora_A" in name])


def test_a_lora_of_the_video_branch_says_that_the_motion_branch_stays():
    lora = replace(LORA, targets=("rgb",), alpha=0.0)
    recipe = shaken(build_recipe(replace(CONFIG, stage=StageConfig(smpl=SmplConfig(enabled=False)), adapter=lora)))
    tensors = lora_tensors(export.network_state(recipe.state_dict()), 0.0)
    motion = {name: tensor for name, tensor in tensors.items() if "motion." in name}
    assert len(motion) == 3 and not any(t.any() for n, t in motion.items() if "lora" in n)
    assert float(tensors["diffusion_model.blocks.0.self_attn.q.alpha"]) == 2.0
    with pytest.raises(ComoviError, match="no adapter"):
        lora_tensors({"blocks.0.ffn.0.weight": torch.zeros(2, 2)}, 0.0)


def test_a_nano_run_exports_a_model_with_its_weights_and_spreads(tmp_path):
    config = TrainConfig(model=ModelConfig(kind="nano"), engine=EngineConfig(precision="fp32", checkpointing=False))
    recipe = build_recipe(config)
    recipe.spread_video.uniform_(0.2, 0.5)
    with torch.no_grad():
        for weight in recipe.parameters():
            weight.uniform_(-1, 1)
    sizes = {"fine": 8, "coarse": 16}
    save_autoencoder(NanoAutoencoder(**sizes).state_dict(), tmp_path / "old", sizes, "x")
    export.export_nano(recipe.state_dict(), NANO, tmp_path / "new", "x", autoencoder=tmp_path / "old")
    nano = load_nano(tmp_path / "new")
    assert nano.network.config == NANO
    for ours, theirs in ((nano.network, recipe.network), (nano.text_encoder, recipe.trainee.text_encoder)):
        stored = ours.state_dict()
        for name, weight in theirs.state_dict().items():
            assert torch.allclose(stored[name].float(), weight, atol=1e-3), name  # float16 in the file
    assert torch.allclose(nano.wrap_video.spread, recipe.spread_video, atol=1e-3)
    assert torch.allclose(nano.wrap_motion.spread, recipe.spread_motion, atol=1e-3)
    old, new = (open_weights(tmp_path / where / "nano_autoencoder.safetensors") for where in ("old", "new"))
    assert set(old) == set(new) and all(torch.equal(old[name], new[name]) for name in old)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps with a running mean, as the trainer leaves it."""
    out = tmp_path_factory.mktemp("runs")
    sets = [f"run.out={out}", "run.name=tiny", "run.max_steps=2", "save.every=1", "ema.enabled=true", "ema.decay=0.5",
            "engine.kind=single", "log.tensorboard=false"]  # fmt: skip
    assert train(build_config(merge(SMALL, parse_sets(sets))), source=SMALL_CLIPS) == 0
    return out / "tiny"


def exported(run, *words):
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    return export.export_run(parser.parse_args([str(run), *map(str, words)]))


def test_a_run_becomes_a_file_of_its_last_weights(trained, tmp_path):
    (path,) = exported(trained, "--out", tmp_path / "a.safetensors", "--dtype", "fp32")
    network, report = load_checkpoint(path)
    state = consolidated_state(latest(trained))
    assert all(torch.equal(t, state[f"network.{name}"]) for name, t in network.state_dict().items())
    about = json.loads(report.metadata["comovi.training"])
    assert (about["run"], about["step"], about["ema"]) == ("tiny", 2, False) and len(about["settings"]) == 16
    (first,) = exported(trained, "--out", tmp_path / "b.safetensors", "--dtype", "fp32", "--step", 1)
    (mean,) = exported(trained, "--out", tmp_path / "c.safetensors", "--dtype", "fp32", "--ema")
    name = "motion_head.head.weight"
    last, early, averaged = (open_weights(file)[name] for file in (path, first, mean))
    assert not torch.equal(last, early) and not torch.equal(last, averaged)


def test_a_run_becomes_a_folder_of_what_it_trained(trained):
    (path,) = exported(trained, "--trainable-only")
    assert path == trained / "export" / "diffusion_pytorch_model.safetensors"
    names = build_recipe(load_resolved(trained)).trainable()
    assert set(open_weights(path).entries) == {official_name(name.removeprefix("network.")) for name in names}


def test_what_a_run_does_not_have_is_a_sentence(trained, tmp_path):
    with pytest.raises(ComoviError, match="no adapter"):
        exported(trained, "--lora", tmp_path / "l.safetensors")
    with pytest.raises(ComoviError, match="no checkpoint of step 9"):
        exported(trained, "--step", 9)
    with pytest.raises(ComoviError, match="no complete checkpoint"):
        exported(tmp_path)
    assert export.find_checkpoint(latest(trained)) == latest(trained)


def test_wrong_targets_are_sentences(recipe, tmp_path):
    with pytest.raises(ComoviError, match="folder"):
        export.export_nano(recipe.state_dict(), NANO, tmp_path / "x.safetensors", "x")
    with pytest.raises(ComoviError, match="one file"):
        export.export_lora(recipe.state_dict(), tmp_path / "folder", 0.0, torch.bfloat16)
    with pytest.raises(ComoviError, match="no network"):
        export.network_state({"other.weight": torch.zeros(1)})


def test_the_command_takes_what_the_page_says():
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    options = parser.parse_args(["runs/lora_nano", "--lora", "my.safetensors", "--ema"])
    assert options.ema and options.lora.name == "my.safetensors" and options.dtype == "bf16"
    assert json.loads(export.network_metadata(DualBranchConfig(**SHAPE))["comovi.config"])["dim"] == 24
