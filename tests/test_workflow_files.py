"""The shipped workflows as files: in both formats, with notes and thumbnails, nothing of one machine."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import comfyui_comovi
import pytest
from PIL import Image

ROOT = Path(comfyui_comovi.__file__).resolve().parent
FOLDER = ROOT / "workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
SNAPSHOT = ROOT / "tests" / "comfyui" / "schema_snapshot.json"
DRAWN_BY_THE_PAGE = {"MarkdownNote"}
# Nodes of the core that both the oldest and the newest supported ComfyUI have.
CORE = {
    "CFGGuider", "CLIPLoader", "CLIPTextEncode", "CreateVideo", "EasyCache", "ImageBatch", "ImageFromBatch",
    "ImageScale", "KSampler", "LoadImage", "Preview3D", "PreviewAny", "PreviewImage", "PrimitiveStringMultiline",
    "RandomNoise", "SamplerCustomAdvanced", "SaveImage", "SaveVideo", "VAEDecode", "VAEDecodeTiled", "VAELoader",
}  # fmt: skip
EXPECTED = {
    "quick_start_nano", "image_to_video_and_motion", "drive_video_with_my_motion", "video_to_motion",
    "longer_than_81_frames", "image_to_video_low_vram", "motion_only", "mocap_to_motion_map", "map_to_bvh",
    "photo_to_pose",
}  # fmt: skip
TITLE_BAR = 30  # pixels above a node's position


@cache
def canvas(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@cache
def api(name: str) -> dict:
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


@cache
def our_nodes() -> dict:
    if not SNAPSHOT.exists():
        pytest.skip("runs in a checkout only")
    return json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def running(name: str) -> list[dict]:
    return [node for node in canvas(name)["nodes"] if node["type"] not in DRAWN_BY_THE_PAGE]


def test_every_mode_has_its_workflow():
    assert set(NAMES) == EXPECTED
    assert {path.stem for path in (FOLDER / "api").glob("*.json")} == EXPECTED


@pytest.mark.parametrize("name", NAMES)
def test_both_formats_hold_the_same_graph(name):
    assert {str(node["id"]): node["type"] for node in running(name)} == {
        number: step["class_type"] for number, step in api(name).items()
    }
    wires = {(str(link[3]), str(link[1]), link[2]) for link in canvas(name)["links"]}
    linked = {
        (number, value[0], value[1])
        for number, step in api(name).items()
        for value in step["inputs"].values()
        if isinstance(value, list)
    }
    assert wires == linked


@pytest.mark.parametrize("name", NAMES)
def test_only_known_nodes_and_inputs_are_used(name):
    types = {step["class_type"] for step in api(name).values()}
    assert types - CORE - set(our_nodes()) == set()
    for step in api(name).values():
        ours = our_nodes().get(step["class_type"])
        if ours is not None:
            known = {*ours["required"], *ours["optional"]}
            assert set(step["inputs"]) <= known, step["class_type"]
            assert set(ours["required"]) <= set(step["inputs"]), step["class_type"]


@pytest.mark.parametrize("name", NAMES)
def test_a_note_tells_what_it_is_for_and_what_to_change(name):
    notes = [node for node in canvas(name)["nodes"] if node["type"] == "MarkdownNote"]
    assert len(notes) == 1
    text = notes[0]["widgets_values"][0]
    assert text.startswith("# ")
    assert "{" not in text
    assert re.search(r"change first|Your own", text)
    for node in running(name):
        if node["type"] in ("VAELoader", "CLIPLoader"):
            assert node["widgets_values"][0] in text
            assert [model["name"] for model in node["properties"]["models"]] == [node["widgets_values"][0]]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_names_a_machine(name):
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8") + json.dumps(api(name))
    assert re.search(r'"(/|[A-Za-z]:[\\/]|~)|\\\\|127\.0\.0\.1|localhost', text) is None
    assert ".." not in "".join(re.findall(r'"filename_prefix": "([^"]*)"', text))


@pytest.mark.parametrize("name", NAMES)
def test_no_node_lies_on_another_and_each_stands_in_a_group(name):
    graph = canvas(name)
    boxes = {
        node["id"]: (x, y - TITLE_BAR, x + width, y + height)
        for node in graph["nodes"]
        for (x, y), (width, height) in [(node["pos"], node["size"])]
    }
    over = [
        (a, b)
        for a, (left, top, right, low) in boxes.items()
        for b, (other_left, other_top, other_right, other_low) in boxes.items()
        if a < b and left < other_right and other_left < right and top < other_low and other_top < low
    ]
    assert over == []
    frames = [(x, y, x + w, y + h) for x, y, w, h in (group["bounding"] for group in graph["groups"])]
    for node in running(name):
        left, top, right, low = boxes[node["id"]]
        assert any(x <= left and y <= top and right <= xx and low <= yy for x, y, xx, yy in frames), node["type"]


@pytest.mark.parametrize("name", NAMES)
def test_the_thumbnail_is_a_small_picture(name):
    path = FOLDER / f"{name}.jpg"
    assert path.stat().st_size < 80_000
    with Image.open(path) as picture:
        assert picture.format == "JPEG"
        assert min(picture.size) >= 256


def test_the_readme_names_every_workflow():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}" not in text] == []
