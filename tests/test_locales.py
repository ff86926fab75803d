"""The second language names every node, every input and every output, and nothing that is not there."""

from __future__ import annotations

import json
from pathlib import Path

import comfyui_comovi
import pytest

ROOT = Path(comfyui_comovi.__file__).resolve().parent
SNAPSHOT = ROOT / "tests" / "comfyui" / "schema_snapshot.json"
LANGUAGES = sorted(path.parent.name for path in (ROOT / "locales").glob("*/nodeDefs.json"))
pytestmark = pytest.mark.skipif(not SNAPSHOT.exists(), reason="runs in a checkout only")


def texts(language: str) -> dict:
    return json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


def test_there_is_a_second_language():
    assert LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_input_and_output_has_its_words(language):
    nodes, words = json.loads(SNAPSHOT.read_text(encoding="utf-8")), texts(language)
    assert sorted(words) == sorted(nodes)
    for name, node in nodes.items():
        inputs = {*node["required"], *node["optional"]}
        assert set(words[name].get("inputs", {})) == inputs, name
        assert sorted(words[name].get("outputs", {})) == sorted(str(k) for k in range(len(node["outputs"]))), name
        assert words[name]["display_name"] and words[name]["description"], name
        for entry in words[name].get("inputs", {}).values():
            assert entry["name"] and entry["tooltip"], name
