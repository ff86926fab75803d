"""From drawn videos to the weights of both stages, by the very commands at the top of tiny_cpu.toml (acceptance 13)."""

from __future__ import annotations

import os
import shlex

import pytest
import torch
from comfyui_comovi.comovi_model.comovi.checkpoint import load_checkpoint
from comfyui_comovi.training.cli import main
from comfyui_comovi.training.config_file import PRESETS
from comfyui_comovi.training.metrics import read_log

pytestmark = pytest.mark.skipif(
    not os.environ.get("COMOVI_TRAINING_TESTS"), reason="takes a minute: make test-training"
)


def commands() -> list[list[str]]:
    lines = (PRESETS / "tiny_cpu.toml").read_text(encoding="utf-8").splitlines()
    typed = [line.lstrip("# ") for line in lines if line.startswith("#   comovi-train ")]
    return [shlex.split(line)[1:] for line in typed]


def test_the_commands_of_the_tiny_preset_make_a_model_of_both_stages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verbs = [command[0] for command in commands()]
    assert verbs == ["example", "prepare", "train", "export", "train", "sample", "export"]
    for command in commands():
        assert main(command) == 0, command
    log = read_log(tmp_path / "runs" / "tiny")
    assert [line["step"] for line in log] == list(range(1, 21))
    assert any((tmp_path / "runs" / "tiny" / "samples").rglob("*.*"))
    first, second = (load_checkpoint(tmp_path / f"tiny{stage}.safetensors")[0] for stage in (1, 2))
    assert second.config.pose_head
    assert not first.config.pose_head
    frozen = "blocks.0.self_attn.q.weight"
    assert torch.equal(first.state_dict()[frozen], second.state_dict()[frozen])
    moved = f"motion.{frozen}"
    assert not torch.equal(first.state_dict()[moved], second.state_dict()[moved])
