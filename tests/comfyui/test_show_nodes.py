"""The nodes that show motions, on real servers: their pictures are what our own core draws, their page is whole."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.body_files import load_nano_body
from comfyui_comovi.comovi_model.body.files.glb import glb_bytes
from comfyui_comovi.comovi_model.body.frames import on_floor
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.rotations import axis_angle_to_matrix
from comfyui_comovi.comovi_model.show.compare import compare_motions, draw_comparison
from comfyui_comovi.comovi_model.show.path_plot import draw_path_plot
from comfyui_comovi.comovi_model.show.sheet import draw_sheet
from comfyui_comovi.comovi_model.show.turntable import iter_views

FILMED = {"view": "turntable", "turns": 0.5, "width": 96, "height": 128, "style": "parts", "follow": True,
          "captions": False}  # fmt: skip


def swinging(size: float) -> BodyMotion:
    """Nine frames: arms swing by `size` radians, the body moves ahead."""
    share = torch.linspace(0, 1, 9)
    turns = torch.zeros(9, 24, 3)
    turns[:, 16, 2], turns[:, 17, 2], turns[:, 18, 1] = -1.2 + size * share, 1.2 - size * share, -size * share
    path = torch.stack([0 * share, 0 * share, 0.8 * share], 1)
    return BodyMotion(axis_angle_to_matrix(turns), torch.zeros(10), path, "yup", body_model="mannequin-v1")


def load(server, g, motion: BodyMotion, name: str):
    path = server.base / "to_upload" / name
    path.parent.mkdir(exist_ok=True)
    motion.save(path)
    return g.add("CoMoVi_LoadMotion", **{"file": server.upload(path), "fps": 0.0, "up_axis": "as in the file"})


def test_every_picture_and_the_page(comfyui, Graph):
    body, before, after = load_nano_body(), swinging(0.6), swinging(0.9)
    g = Graph()
    first, second = load(comfyui, g, before, "before.npz"), load(comfyui, g, after, "after.npz")
    who = g.add("CoMoVi_LoadBody", body="nano (embedded)")
    film = g.add("CoMoVi_MotionTurntable", motion=first, body=who, **FILMED)
    sheet = g.add("CoMoVi_MotionSheet", motion=first, body=who, title="swing", poses=4, width=640, style="solid")
    plot = g.add("CoMoVi_MotionPlot", motion=first, body=who, title="")
    names = {"first_name": "before", "second_name": "after"}
    error = g.add("CoMoVi_CompareMotions", first=first, second=second, body=who, **names)
    page = g.add("CoMoVi_MotionPage", motion=first, body=who, images=film, title="<swing>", filename_prefix="p/swing")
    saved = {name: g.save_images(node) for name, node in (("film", film), ("sheet", sheet), ("plot", plot))}
    saved["error"] = g.save_images(error)
    result = comfyui.run(g)
    comparison = compare_motions(before, after, body)
    options = {name: value for name, value in FILMED.items() if name not in ("width", "height")}
    expected = {
        "film": torch.stack(list(iter_views(before, body, 128, 96, **options))).numpy(),
        "sheet": draw_sheet(before, body, title="swing", poses=4, width=640)[None] / 255,
        "plot": draw_path_plot(before, body)[None] / 255,
        "error": draw_comparison(comparison, ("before", "after"))[None] / 255,
    }
    for name, picture in expected.items():
        shown = np.asarray(result.images(saved[name]))
        assert shown.shape == picture.shape, name
        assert np.abs(shown - picture).mean() < 0.004, name  # 8 bits, and the servers' own Pillow and torch
    text = result.content(page).decode("utf-8")
    glb = base64.b64decode(re.search(r'id="glb">(.*?)</script>', text, re.DOTALL).group(1))
    assert glb[:4] == b"glTF"
    assert len(glb) == len(glb_bytes(on_floor(before, body), body, floor=False))
    assert "&lt;swing&gt;</h1>" in text and '"type":"video/mp4"' in text


def test_a_prefix_that_leads_out_of_the_output_folder_is_refused(comfyui, Graph):
    g = Graph()
    motion, who = load(comfyui, g, swinging(0.5), "one.npz"), g.add("CoMoVi_LoadBody", body="nano (embedded)")
    g.add("CoMoVi_MotionPage", motion=motion, body=who, title="", filename_prefix="../../evil")
    with pytest.raises(Exception, match="leads out of"):
        comfyui.run(g)
