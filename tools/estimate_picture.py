"""Draws docs/estimate_overlay.jpg: a photo, the people found in it, the motion map and the body over the photo.

python tools/estimate_picture.py [POSE [PERSON]]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body
from comfyui_comovi.comovi_model.body.map_render import render_motion_map
from comfyui_comovi.comovi_model.estimate.draw_people import draw_people
from comfyui_comovi.comovi_model.estimate.finder import find_people
from comfyui_comovi.comovi_model.estimate.photo import Sources, estimate_photo
from comfyui_comovi.comovi_model.estimate.photo_camera import photo_camera
from comfyui_comovi.comovi_model.images import to_uint8
from comfyui_comovi.comovi_model.nano.example_picture import example_picture
from comfyui_comovi.comovi_model.show.overlay import overlay_motion
from PIL import Image

TARGET = Path(__file__).resolve().parent.parent / "docs" / "estimate_overlay.jpg"
LARGEST = 150_000  # bytes


def main(pose: str = "arms raised", person: str = "4") -> None:
    body = load_mannequin_body()
    picture, truth = example_picture(pose, int(person))
    height, width = picture.shape[:2]
    people = find_people(picture)
    camera = photo_camera((height, width), focal_px=float(truth.camera.K[0, 0]))
    (found,) = estimate_photo(picture, body, Sources(people=people, camera=camera))
    drawn = to_uint8(render_motion_map(body, found.motion, height, width)[0])
    over = to_uint8(overlay_motion(torch.from_numpy(picture)[None].float() / 255, found.motion, body)[0])
    page = Image.fromarray(np.concatenate([picture, draw_people(picture, people[:1]), drawn, over], 1))
    page.save(TARGET, quality=84, optimize=True)
    print(TARGET, TARGET.stat().st_size, *found.report(), sep="\n")
    assert TARGET.stat().st_size <= LARGEST


if __name__ == "__main__":
    main(*sys.argv[1:])
