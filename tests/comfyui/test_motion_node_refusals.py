"""What the motion nodes answer to hostile names, bad values, broken pictures and the stop button."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from motion_graph import (
    MANNEQUIN,
    PROMPT,
    SAVING,
    VIEW,
    body,
    draw,
    load,
    refusal,
    save,
    upload,
)

HOSTILE = ["../../x", "/etc/passwd", "..\\..\\x", "a/../../../x", "", "nul\x00", "  ", "x" * 4000]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused_at_validation(comfyui, Graph, motion, name):
    g = Graph()
    g.add("CoMoVi_SaveMotion", motion=load(g, name), body=body(g, name), filename_prefix=name, format="glb", **SAVING)
    result = comfyui.run(g, check=False)
    for entry in ("file", "body", "filename_prefix"):
        assert refusal(result, entry)
    g = Graph()
    ok = load(g, upload(comfyui, motion, "ok.npz"))
    g.add("CoMoVi_MotionTo3D", motion=ok, body=body(g), root="centred", filename_prefix=name)
    assert refusal(comfyui.run(g, check=False), "filename_prefix")
    assert comfyui.alive()


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("CoMoVi_StartPose", {"pose": "flying"}),
        ("CoMoVi_DrawMotionMap", {"shading": "disco"}),
        ("CoMoVi_SaveMotion", {"format": "fbx"}),
        ("CoMoVi_SaveMotion", {"root": "moon"}),
        ("CoMoVi_MotionTo3D", {"root": "moon"}),
        ("CoMoVi_OverlayMotion", {"style": "disco"}),
        ("CoMoVi_LoadMotion", {"up_axis": "w"}),
        ("CoMoVi_LoadMotion", {"units": "parsec"}),
        ("CoMoVi_LoadMotion", {"space": "outer"}),
        ("CoMoVi_LoadMotion", {"fps": -1}),
        ("CoMoVi_StartPose", {"width": 0}),
        ("CoMoVi_StartPose", {"field_of_view": 180.0}),
        ("CoMoVi_DrawMotionMap", {"smoothing": 9}),
        ("CoMoVi_OverlayMotion", {"opacity": 2.0}),
        ("CoMoVi_NanoStart", {"seed": -1}),
    ],
)
def test_bad_values_are_refused_at_validation(comfyui, Graph, motion, node, inputs):
    """Also where the core does not look at the lists of V3 nodes."""
    file = upload(comfyui, motion, "ok.npz")
    g = Graph()
    usual: dict[str, dict[str, Any]] = {
        "CoMoVi_StartPose": {"body": body(g), "pose": "standing", **VIEW},
        "CoMoVi_DrawMotionMap": {"width": 0, "height": 0, "shading": "flat", "smoothing": 1},
        "CoMoVi_SaveMotion": {"filename_prefix": "x", "format": "glb", **SAVING},
        "CoMoVi_MotionTo3D": {"root": "centred", "filename_prefix": "x"},
        "CoMoVi_OverlayMotion": {"opacity": 1.0, "style": "solid", "images": g.add("EmptyImage", **EMPTY)},
        "CoMoVi_LoadMotion": {"file": file, "fps": 0.0, "up_axis": "y"},
        "CoMoVi_NanoStart": {"prompt": PROMPT, "seed": 0},
    }
    wired = {"motion": load(g, file), "body": body(g)} if node not in ("CoMoVi_LoadMotion", "CoMoVi_NanoStart") else {}
    if node == "CoMoVi_StartPose":
        wired = {}
    made = g.add(node, **{**wired, **usual[node], **inputs})
    if node in ("CoMoVi_OverlayMotion", "CoMoVi_DrawMotionMap", "CoMoVi_NanoStart"):
        g.save_images(made)
    elif node in ("CoMoVi_StartPose", "CoMoVi_LoadMotion"):
        save(g, made, body(g))
    (name,) = inputs
    assert refusal(comfyui.run(g, check=False), name)


EMPTY = {"width": 128, "height": 192, "batch_size": 1, "color": 0}


@pytest.mark.parametrize("kind", ["nan", "no frames", "one channel", "nothing wide"])
def test_broken_pictures_are_a_sentence(comfyui, Graph, motion, kind):
    g = Graph()
    loaded, who = load(g, upload(comfyui, motion, "ok.npz")), body(g)
    broken = g.add("Probe_MakeImage", kind=kind, width=128, height=192, frames=len(motion), seed=0)
    place = g.add("CoMoVi_PlaceMotion", motion=loaded, body=who, motion_map=broken, floor=True)
    save(g, place, who)
    result = comfyui.run(g, check=False)
    assert "motion_map" in result.error
    assert "\n" not in result.failure["exception_message"].strip()


def test_files_that_are_no_motions_are_a_sentence(comfyui, Graph):
    rubbish = {"text.npz": b"not a zip at all", "empty.bvh": b"", "half.bvh": b"HIERARCHY\nROOT", "bad.json": b"{"}
    for name, content in rubbish.items():
        path = comfyui.base / "input" / name
        path.write_bytes(content)
        g = Graph()
        save(g, load(g, name), body(g))
        result = comfyui.run(g, check=False)
        assert name in result.error, result.error
        assert len(result.failure["exception_message"].strip().splitlines()) == 1
        path.unlink()


def test_the_stop_button_works_while_a_map_is_drawn(comfyui, Graph, motion):
    long = BodyMotion(
        motion.rotations.repeat(30, 1, 1, 1),
        motion.betas,
        motion.transl.repeat(30, 1),
        camera=motion.camera,
        body_model=motion.body_model,
    )
    g = Graph()
    drawn = draw(g, load(g, upload(comfyui, long, "long.npz")), body(g, MANNEQUIN), width=512, height=768, smoothing=2)
    g.add("PreviewImage", images=drawn)
    pressed: list[float] = []

    def press(event) -> None:
        if event.type == "progress" and event.data.get("node") == drawn.id and event.data["value"] and not pressed:
            pressed.append(time.monotonic())
            threading.Thread(target=comfyui.client.post, args=("/interrupt", {})).start()

    result = comfyui.run(g, check=False, on_event=press)
    stopped = time.monotonic()
    assert pressed, "the node told no progress"
    assert result.error
    assert stopped - pressed[0] < 5
    again = Graph()
    shown = again.save_images(draw(again, load(again, upload(comfyui, motion, "map.npz")), body(again)))
    assert len(comfyui.run(again).files(shown)) == len(motion)
