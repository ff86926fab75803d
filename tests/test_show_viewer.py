"""Our exports, opened in three.js in a browser: joints where we say they are at every frame, and somebody to see."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
import zipfile
from pathlib import Path

import comfyui_comovi
import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.mannequin import load_mannequin
from comfyui_comovi.comovi_model.body.parts import JOINT_NAMES
from comfyui_comovi.comovi_model.body.smpl import pose_joints
from comfyui_comovi.comovi_model.clean.known_motion import synthetic_motion
from comfyui_comovi.comovi_model.motion_io.names import preset_names
from comfyui_comovi.comovi_model.motion_io.place import placed
from comfyui_comovi.comovi_model.motion_io.writing import write_motion
from PIL import Image

SOURCES = Path(comfyui_comovi.__file__).parent / "tools" / "player"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
         "--ignore-gpu-blocklist"]  # fmt: skip
CLOSE = 1e-4  # metres


@pytest.fixture(scope="module")
def viewer(tmp_path_factory):
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None or shutil.which("node") is None:
        pytest.skip("no chromium or no node on this machine")
    if not (SOURCES / "node_modules" / "three").exists():
        pytest.skip("three.js is not here; run npm ci in tools/player")
    page_file = tmp_path_factory.mktemp("viewer") / "viewer.html"
    subprocess.run(["node", str(SOURCES / "viewer.mjs"), str(page_file)], check=True, capture_output=True, timeout=120)
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 480, "height": 640})
        page.problems = []
        page.on("console", lambda m: m.type in ("error", "warning") and page.problems.append(m.text))
        page.on("pageerror", lambda e: page.problems.append(str(e)))
        page.goto(page_file.as_uri())
        page.wait_for_selector("body[data-ready]", timeout=60_000)
        yield page
        browser.close()


def opened(page, kind: str, content: bytes, times: list[float], scale: float = 1.0):
    """-> (what the viewer says of the file, joints (times, joints, 3), the last picture)."""
    page.problems.clear()
    text = base64.b64encode(content).decode("ascii")
    facts = page.evaluate("([k, t, s]) => window.openFile(k, t, s)", [kind, text, scale])
    joints = page.evaluate("times => times.map(t => window.showTime(t))", times)
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    assert page.problems == []
    return facts, torch.tensor(joints), picture


def somebody(picture: np.ndarray) -> float:
    """Share of the picture that is neither backdrop nor grid: coloured or dark."""
    spread = picture.max(-1).astype(int) - picture.min(-1)
    return float(((spread > 24) | (picture.max(-1) < 120)).mean())


@pytest.fixture(scope="module")
def clip():
    body = load_mannequin()
    return body, synthetic_motion(body, "kick", 5, fps=16.0, seconds=1.5)


def expected_joints(clip) -> torch.Tensor:
    body, motion = clip
    there = placed(motion, body, "yup")
    return pose_joints(body, there.rotations, there.betas, there.transl)


def moments(motion) -> list[float]:
    """The time of every frame; a hair before the last, which mixers take for the start of the next round."""
    times = [frame / motion.fps for frame in range(len(motion))]
    return [*times[:-1], times[-1] - 1e-6]


@pytest.mark.parametrize("names", ["smpl", "mixamo", "unreal", "vrm"])
def test_a_glb_of_every_naming(viewer, clip, tmp_path, names):
    body, motion = clip
    path = write_motion(tmp_path / "kick.glb", motion, body, names=names)
    facts, joints, picture = opened(viewer, "glb", path.read_bytes(), moments(motion))
    assert len(facts["names"]) == 24 and facts["triangles"] == len(body.faces)
    bare = [name.replace(":", "") for name in preset_names(names)]  # three.js drops colons
    assert facts["names"] == bare
    assert (joints - expected_joints(clip)).abs().max() < CLOSE
    assert facts["seconds"] == pytest.approx((len(motion) - 1) / motion.fps, abs=1e-4)
    assert somebody(picture) > 0.03


def test_a_bvh(viewer, clip, tmp_path):
    body, motion = clip
    path = write_motion(tmp_path / "kick.bvh", motion, body)
    facts, joints, picture = opened(viewer, "bvh", path.read_bytes(), moments(motion), 0.01)  # centimetres
    order = [facts["names"].index(name) for name in JOINT_NAMES]
    assert (joints[:, order] - expected_joints(clip)).abs().max() < CLOSE
    assert somebody(picture) > 0.0005  # lines only


def test_a_usda(viewer, clip, tmp_path):
    body, motion = clip
    path = write_motion(tmp_path / "kick.usda", motion, body)
    facts, joints, picture = opened(viewer, "usda", path.read_bytes(), moments(motion))
    assert facts["triangles"] == len(body.faces) and len(facts["names"]) == 24
    assert (joints - expected_joints(clip)).abs().max() < CLOSE
    assert somebody(picture) > 0.03


def test_an_obj_of_the_sequence(viewer, clip, tmp_path):
    body, motion = clip
    path = write_motion(tmp_path / "kick.zip", motion.slice(0, 2), body, "obj")
    with zipfile.ZipFile(path) as archive:
        first = sorted(name for name in archive.namelist() if name.endswith(".obj"))[0]
        facts, _, picture = opened(viewer, "obj", archive.read(first), [0.0])
    assert facts["triangles"] == len(body.faces)
    assert somebody(picture) > 0.03
