"""Every command of docs/training.md is one that the program takes, with settings that exist."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path

import comfyui_comovi
import pytest
from comfyui_comovi.training.cli import VERBS
from comfyui_comovi.training.config_file import load_config

ROOT = Path(comfyui_comovi.__file__).parent
PAGE = ROOT / "docs" / "training.md"
MODULE = "-m comfyui_comovi.training "


def commands() -> list[str]:
    """The lines of the code blocks that start comovi-train, in any of its spellings."""
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    found = []
    for line in "".join(blocks).splitlines():
        line = line.split(" # ")[0].strip()
        if line.startswith("comovi-train "):
            found.append(line.removeprefix("comovi-train "))
        elif MODULE in line:
            found.append(line.split(MODULE)[1])
    return found


@pytest.mark.skipif(not PAGE.exists(), reason="runs in a checkout only")
def test_every_command_of_the_page_is_understood():
    seen = set()
    for command in commands():
        verb, *words = shlex.split(command)
        assert verb in VERBS, command
        module = importlib.import_module(f"comfyui_comovi.training{VERBS[verb][0]}")
        parser = argparse.ArgumentParser(prog=verb, exit_on_error=False)
        module.add_arguments(parser)
        options = parser.parse_args(words)
        if verb in ("train", "plan", "timesteps"):
            load_config(options.config, options.set)
        seen.add(verb)
    assert len(commands()) >= 25
    assert seen >= {"doctor", "example", "prepare", "curate", "cache", "data", "plan", "train", "resume", "export"} - {
        "example"
    }


@pytest.mark.skipif(not PAGE.exists(), reason="runs in a checkout only")
def test_the_three_commands_are_the_ones_that_the_long_test_types():
    test = (ROOT / "tests" / "comfyui" / "test_trained_lora.py").read_text(encoding="utf-8")
    typed = re.findall(r'^    "((?:prepare|train|export) .*)",$', test, re.MULTILINE)
    assert len(typed) == 3 and set(typed) <= set(commands())
