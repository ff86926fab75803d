"""Every workflow that we ship runs through the HTTP API on both ComfyUIs, and its result files are what they should be.

Workflows for the nano model run as they are. In those for big files the nano ones stand in, with the nano model's size,
its own guidance and steps, and few frames; every other node and wire stays.
"""

from __future__ import annotations

import copy
import io
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from comfy_server import PACKAGE, Result
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body
from comfyui_comovi.comovi_model.body.map_colours import silhouette
from comfyui_comovi.comovi_model.body.map_render import render_motion_map
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.motion_io import read_motion
from comfyui_comovi.comovi_model.nano.example_picture import example_picture
from nano_graph import HEIGHT, LENGTH, PROMPT, WIDTH, start

FOLDER = PACKAGE / "workflows"
NAMES = sorted(path.stem for path in (FOLDER / "api").glob("*.json"))
QUICK_START, QUICK_START_LIMIT = "quick_start_nano", 120  # seconds to all files, on two cores
FPS = 16
SITS = 0.7  # overlap of outlines; measured 0.82
SHORT = 9  # frames of the workflows for big files
ONLY_ON_THE_CANVAS = {"MarkdownNote", "Note", "Reroute", "PrimitiveNode"}
CORE_FOLDERS = {"CLIPLoader", "VAELoader"}
PHOTO = "photo_to_pose"
OF_ONE_PICTURE = {PHOTO}


def api_graph(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


def substituted(graph: dict[str, Any], server: Any) -> dict[str, Any]:
    """The graph with nano files, sizes and few steps, and with the pictures that it names uploaded."""
    graph = copy.deepcopy(graph)
    loaders = {key: node["class_type"] for key, node in graph.items() if node["class_type"] in CORE_FOLDERS}
    if loaders:
        graph["nano"] = {"class_type": "CoMoVi_LoadNanoClipVae", "inputs": {}}
    for key in loaders:
        del graph[key]
    for node in graph.values():
        inputs, kind = node["inputs"], node["class_type"]
        for name, value in inputs.items():
            if isinstance(value, list) and value[0] in loaders:
                inputs[name] = ["nano", 0 if loaders[value[0]] == "CLIPLoader" else 1]
        if kind == "CoMoVi_LoadModel":
            inputs["model_name"] = "nano (embedded)"
        if kind == "LoadImage":
            server.upload_image(start(PROMPT, 0).frame / 255, inputs["image"])
        if isinstance(inputs.get("width"), int) and inputs["width"] > WIDTH:
            inputs["width"], inputs["height"] = WIDTH, HEIGHT
        if isinstance(inputs.get("length"), int) and inputs["length"] > LENGTH:
            inputs["length"] = SHORT
        if kind == "CoMoVi_LoadBody":
            inputs["body"] = "nano (embedded)"
        if isinstance(inputs.get("steps"), int):
            inputs["steps"] = min(inputs["steps"], 2)
        if "cfg" in inputs:
            inputs["cfg"] = 1.0
        if kind == "EasyCache":
            inputs["reuse_threshold"] = 0.02
    return graph


def read_video(content: bytes) -> tuple[np.ndarray, float]:
    with av.open(io.BytesIO(content)) as file:
        stream = file.streams.video[0]
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(stream)])
        return frames, float(stream.average_rate)


def check_video(content: bytes) -> int:
    frames, fps = read_video(content)
    assert frames.shape[1:] == (HEIGHT, WIDTH, 3) and fps == FPS
    assert len(frames) % 4 == 1 and len(frames) >= SHORT
    assert frames[0].std() > 5 and np.abs(frames[-1].astype(int) - frames[0]).max() > 40, "nothing is seen to move"
    return len(frames)


def check_glb(content: bytes) -> int:
    """Frames of a skinned, animated body of 24 joints."""
    magic, version, total = struct.unpack("<4sII", content[:12])
    assert (magic, version, total) == (b"glTF", 2, len(content))
    size = struct.unpack("<I", content[12:16])[0]
    document = json.loads(content[20 : 20 + size])
    assert len(document["skins"][0]["joints"]) == 24
    [animation] = document["animations"]
    times = {document["accessors"][sampler["input"]]["count"] for sampler in animation["samplers"]}
    turned = {c["target"]["node"] for c in animation["channels"] if c["target"]["path"] == "rotation"}
    assert turned == set(document["skins"][0]["joints"])
    return max(times)


def check_motion(path: Path, still: bool) -> int:
    """Frames of a motion file, read back by our own reader; the body moves, unless it is of one picture."""
    motion: BodyMotion = read_motion(path).motion
    assert motion.fps == pytest.approx(FPS, rel=1e-3)
    turns = (motion.rotations[0] - motion.rotations[-1]).abs()
    assert len(motion) == 1 if still else float(turns.max()) > 0.05
    return len(motion)


def check_files(result: Result, graph: dict[str, Any], folder: Path) -> Counter:
    """Check every file that the workflow names by what is in it; how many of each kind there were."""
    kinds: Counter = Counter()
    lengths = set()
    still = any(node["class_type"] == "CoMoVi_EstimatePose" for node in graph.values())
    for _, file in result.outcome.files(temporary=True):
        content, suffix = result.server.client.read(file), Path(file["filename"]).suffix
        kinds[suffix] += 1
        if suffix == ".mp4":
            lengths.add(check_video(content))
        elif suffix == ".glb":
            lengths.add(check_glb(content))
        elif suffix in (".npz", ".bvh"):
            path = folder / file["filename"]
            path.write_bytes(content)
            lengths.add(check_motion(path, still))
        elif suffix == ".png":
            assert content.startswith(b"\x89PNG") and len(content) > 500
        else:
            raise AssertionError(f"a file of an unknown kind: {file}")
    wanted = {"SaveVideo": ".mp4", "CoMoVi_MotionTo3D": ".glb", "CoMoVi_SaveMotion": None}
    for key, node in graph.items():
        if node["class_type"] in wanted:
            names = [f["filename"] for f in result.files(key)]
            assert names and names[0].endswith(wanted[node["class_type"]] or ""), f"{node['class_type']} ({key})"
        if node["class_type"] == "Preview3D":
            assert result.outputs[key], "the viewer got no file"
    assert max(lengths) - min(lengths) == 0 or len(NAMES) > 7, f"files of different lengths: {sorted(lengths)}"
    return kinds


def test_there_is_a_workflow_for_every_promise():
    assert QUICK_START in NAMES and len(NAMES) >= 7
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == NAMES, "for the canvas and for the API"


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_runs(comfyui, name, tmp_path, record_property):
    graph = substituted(api_graph(name), comfyui)
    result = comfyui.run(graph)
    kinds = check_files(result, graph, tmp_path)
    record_property("seconds", round(result.seconds, 1))
    print(f"{name}: {result.seconds:.1f} s, {dict(kinds)}")
    pictures = ".png" if name in OF_ONE_PICTURE else ".mp4"
    assert kinds[pictures] >= 1 and kinds[".glb"] + kinds[".npz"] + kinds[".bvh"] >= 1


def test_the_body_from_the_photo_sits_on_the_person(comfyui, tmp_path):
    """As it is shipped: finder, lifter and refinement on a drawn person whose true pose is known."""
    graph = api_graph(PHOTO)
    result = comfyui.run(graph)
    [key] = [key for key, node in graph.items() if node["class_type"] == "CoMoVi_SaveMotion"]
    path = tmp_path / "pose.npz"
    path.write_bytes(result.content(key))
    found = BodyMotion.load(path)
    [asked] = [node["inputs"] for node in graph.values() if node["class_type"] == "CoMoVi_LoadPhoto"]
    _, truth = example_picture(asked["photo"].removesuffix(" (example)"), asked["person"])
    body = load_mannequin_body()
    masks = [silhouette(render_motion_map(body, motion, 192, 128))[0] for motion in (found, truth)]
    assert float((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()) > SITS
    assert found.provenance["approximate"] == "yes"


def test_the_quick_start_is_quick(new_comfyui, tmp_path, record_property):
    """From queueing to the last file fetched, with nothing loaded or cached before."""
    import time

    new_comfyui.forget()
    graph = api_graph(QUICK_START)  # as it is: it names no file and needs no substitute
    started = time.monotonic()
    result = new_comfyui.run(graph)
    files = new_comfyui.client.fetch(result.outcome, tmp_path, temporary=True)
    seconds = time.monotonic() - started
    assert "15" in result.executed(), "the sampler's result came out of a cache"
    record_property("quick_start_seconds", round(seconds, 1))
    print(f"quick start: {seconds:.1f} s to {len(files)} files")
    assert {path.suffix for path in files} >= {".mp4", ".glb", ".npz"}
    assert seconds <= QUICK_START_LIMIT


@pytest.mark.parametrize("name", NAMES)
def test_canvas_and_api_files_are_the_same_workflow(comfyui, name):
    canvas = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    drawn = {str(n["id"]): n["type"] for n in canvas["nodes"] if n["type"] not in ONLY_ON_THE_CANVAS}
    queued = {key: node["class_type"] for key, node in api_graph(name).items()}
    assert drawn == queued
    assert [kind for kind in queued.values() if not comfyui.has(kind)] == []
    for key, node in api_graph(name).items():
        described = comfyui.object_info()[node["class_type"]]["input"]
        required = [n for n, spec in described.get("required", {}).items() if spec[0] != "COMFY_DYNAMICCOMBO_V3"]
        assert [n for n in required if n not in node["inputs"]] == [], f"{node['class_type']} ({key})"
