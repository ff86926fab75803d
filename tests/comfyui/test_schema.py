"""What ComfyUI users and services rely on: ids, input names, socket types never change; everything is explained.

The snapshot (schema_snapshot.json) is what has been published. `make node-snapshot` notes new nodes, new optional
inputs and new outputs at the end; it never rewrites an entry. Before a first release an entry may be deleted by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from comfy_server import FOLDER_NAME, PACKAGE

SNAPSHOT = Path(__file__).parent / "schema_snapshot.json"
DOCS = PACKAGE / "nodes" / "web" / "docs"
DYNAMIC = ("COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3")


def published(server: Any) -> dict[str, Any]:
    """Our nodes as the server describes them, without what may change: texts, defaults, limits."""
    info = server.object_info()
    return {name: describe(info[name]) for name in sorted(info) if name.startswith("CoMoVi_")}


def describe(node: dict[str, Any]) -> dict[str, Any]:
    inputs = {
        part: {name: socket(*spec) for name, spec in node["input"].get(part, {}).items()}
        for part in ("required", "optional")
    }
    return {**inputs, "outputs": [[n, t] for n, t in zip(node["output_name"], node["output"], strict=True)]}


def socket(kind: Any, options: dict[str, Any] | None = None) -> Any:
    """The type of an input; of a combo also its choices."""
    if isinstance(kind, list):
        return {"COMBO": kind}
    if kind == "COMBO":
        return {"COMBO": list((options or {}).get("options", []))}
    return kind


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Sentences about everything in `new` that breaks what `old` published."""
    found = [f"{name} is gone" for name in old if name not in new]
    for name in old.keys() & new.keys():
        was, now = old[name], new[name]
        both = {**now["required"], **now["optional"]}
        for part in ("required", "optional"):
            for key, kind in was[part].items():
                if key not in both:
                    found.append(f"{name}: input {key} is gone")
                elif not same(kind, both[key]):
                    found.append(f"{name}: input {key} was {kind} and is {both[key]}")
        for key in now["required"]:
            if key not in was["required"]:
                found.append(f"{name}: input {key} is newly required; old API files do not have it")
        if now["outputs"][: len(was["outputs"])] != was["outputs"]:
            found.append(f"{name}: outputs were {was['outputs']} and are {now['outputs']}")
    return sorted(found)


def same(was: Any, now: Any) -> bool:
    """Equal types; a combo may gain choices and lose none."""
    if isinstance(was, dict) and isinstance(now, dict):
        return set(was["COMBO"]) <= set(now["COMBO"])
    return was == now


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`old` with what `new` adds."""
    result = {name: dict(entry) for name, entry in old.items()}
    for name, now in new.items():
        was = result.setdefault(name, now)
        for key in set(now["optional"]) - set(was["optional"]) - set(was["required"]):
            was["optional"] = {**was["optional"], key: now["optional"][key]}
        was["outputs"] = was["outputs"] + now["outputs"][len(was["outputs"]) :]
        for part in ("required", "optional"):
            both = {**now["required"], **now["optional"]}
            was[part] = {
                k: both[k] if isinstance(v, dict) and same(v, both.get(k)) else v for k, v in was[part].items()
            }
    return dict(sorted(result.items()))


def test_snapshot_of_what_is_published(request, comfyui, start_comfyui):
    if request.config.getoption("--write-snapshot", default=False):
        with start_comfyui("new") as fresh:  # empty folders: no file names among the choices
            found = published(fresh)
        old = json.loads(SNAPSHOT.read_text(encoding="utf-8")) if SNAPSHOT.exists() else {}
        SNAPSHOT.write_text(json.dumps(merged(old, found), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    snapshot = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    now = published(comfyui)
    assert changes(snapshot, now) == []
    assert sorted(set(now) - set(snapshot)) == [], "new nodes: run make node-snapshot, and commit schema_snapshot.json"


def test_the_snapshot_notices_every_kind_of_change():
    entry = {
        "required": {"a": "INT", "c": {"COMBO": ["x", "y"]}},
        "optional": {"b": "IMAGE"},
        "outputs": [["o", "MODEL"]],
    }
    old = {"N": entry}
    assert changes(old, old) == []
    allowed = {**entry, "optional": {"b": "IMAGE", "d": "INT"}, "outputs": [["o", "MODEL"], ["p", "CLIP"]]}
    allowed["required"] = {"a": "INT", "c": {"COMBO": ["x", "y", "z"]}}
    assert changes(old, {"N": allowed, "M": entry}) == []
    assert merged(old, {"N": allowed})["N"] == allowed
    broken = [
        {},
        {"N": {**entry, "required": {"a": "FLOAT", "c": {"COMBO": ["x", "y"]}}}},
        {"N": {**entry, "required": {"a": "INT", "c": {"COMBO": ["x"]}}}},
        {"N": {**entry, "required": {"c": {"COMBO": ["x", "y"]}}}},
        {"N": {**entry, "required": {**entry["required"], "new": "INT"}}},
        {"N": {**entry, "optional": {}}},
        {"N": {**entry, "optional": {}, "required": {**entry["required"], "b": "IMAGE"}}},
        {"N": {**entry, "outputs": []}},
        {"N": {**entry, "outputs": [["renamed", "MODEL"]]}},
        {"N": {**entry, "outputs": [["p", "CLIP"], ["o", "MODEL"]]}},
    ]
    assert [len(changes(old, new)) for new in broken] == [1] * len(broken)
    assert merged(old, {"N": broken[1]["N"]}) == old  # the command never rewrites


def ours(server: Any) -> dict[str, Any]:
    return {name: node for name, node in server.object_info().items() if name.startswith("CoMoVi_")}


def test_every_node_describes_itself(comfyui):
    silent = []
    for name, node in ours(comfyui).items():
        if len(node.get("description") or "") < 30:
            silent.append(f"{name}: no description")
        if not node["category"].startswith("CoMoVi"):
            silent.append(f"{name}: category {node['category']}")
        if node["display_name"] in ("", name):
            silent.append(f"{name}: no display name")
        if "search_aliases" in node and len(node["search_aliases"] or ()) < 2:
            silent.append(f"{name}: no search words")
        for part in ("required", "optional"):
            for key, spec in node["input"].get(part, {}).items():
                options = spec[1] if len(spec) > 1 else {}
                if len(options.get("tooltip") or "") < 10:
                    silent.append(f"{name}.{key}: no tooltip")
                if spec[0] in ("INT", "FLOAT") and not {"min", "max", "default"} <= set(options):
                    silent.append(f"{name}.{key}: no limits or default")
    assert silent == []


def test_every_node_has_a_help_page_that_is_served(comfyui):
    lost = []
    for name, node in ours(comfyui).items():
        page = DOCS / f"{name}.md"
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        if len(text) < 200:
            lost.append(f"{name}: no help page of some substance in nodes/web/docs")
            continue
        keys = [key for part in ("required", "optional") for key in node["input"].get(part, {})]
        lost += [f"{name}: the help page does not name the input {key}" for key in keys if key not in text]
        path = f"/extensions/{FOLDER_NAME}/docs/{name}.md".replace(" ", "%20")
        status, served = comfyui.client.request("GET", path)
        if (status, served.decode()) != (200, text):
            lost.append(f"{name}: {path} is not served (status {status})")
    assert lost == []


def test_no_help_page_is_left_over(comfyui):
    assert [page.name for page in DOCS.glob("CoMoVi_*.md") if page.stem not in ours(comfyui)] == []


def test_both_comfyuis_see_the_same_nodes(new_comfyui, old_comfyui):
    new, old = published(new_comfyui), published(old_comfyui)
    assert set(new) == set(old) and new
    for name in new:
        for part in ("required", "optional"):
            assert list(new[name][part]) == list(old[name][part]), name
            kinds = [(new[name][part][key], old[name][part][key]) for key in new[name][part]]
            assert all(a == b or isinstance(a, dict) for a, b in kinds), name


@pytest.mark.parametrize("path", ["requirements.txt"])
def test_requirements_are_what_the_registry_reads(path):
    """ComfyUI-Manager installs requirements.txt; tests/test_house.py holds it equal to the project's dependencies."""
    if not (PACKAGE / "pyproject.toml").exists():
        pytest.skip("runs in a checkout only")
    lines = (PACKAGE / path).read_text(encoding="utf-8").split("\n")
    listed = sorted(line.split(">")[0] for line in lines if line and not line.startswith("#"))
    assert listed == sorted(["torch", "numpy", "pillow", "safetensors", "av", "tqdm"])  # all of them in ComfyUI's own
