"""Runs inside ComfyUI's own Python: files by name, people of a clip with gaps, transparency, sizes beyond the memory.

Called as `python input_checks.py COMFYUI PACKAGE FOLDER`; FOLDER is empty. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import in_comfy

# isort: split
import comfy.model_management
import folder_paths
import torch
from comovi_pack.comovi_model.body.body_files import load_nano_body
from comovi_pack.comovi_model.nano.examples import example_motion
from comovi_pack.comovi_model.nano.start import nano_neutral
from comovi_pack.nodes import motion_files
from comovi_pack.nodes.who import people_of_frames
from PIL import Image

NODES = in_comfy.pack_nodes()
base = Path(in_comfy.EXTRA[0])
inside, out = base / "input", base / "output"
for folder in (inside / "pasted", out / "motion"):
    folder.mkdir(parents=True)
folder_paths.set_input_directory(str(inside))
folder_paths.set_output_directory(str(out))
body = load_nano_body()


def node(name: str):
    return NODES[f"CoMoVi_{name}"]


def refusal(make) -> str:
    try:
        make()
    except ValueError as error:
        return str(error)
    return ""


motion = example_motion("walk")
motion.save(out / "motion" / "walk.npz")
(base / "outside.npz").write_bytes((out / "motion" / "walk.npz").read_bytes())
(out / "a.png").touch()
motion_files.MOST_FILES = 0  # as if the folders were very full: the list is cut short
hidden, load = "motion/walk.npz [output]", node("LoadMotion")
outside = ["../outside.npz", "../outside.npz [output]", str(base / "outside.npz"), "motion", "walk.png", 7]
info = load.execute(file=hidden, fps=0.0, up_axis="as in the file").args[1]
before = load.fingerprint_inputs(file=hidden, fps=0.0)
os.utime(out / "motion" / "walk.npz", ns=(1, 1))
Image.new("RGB", (64, 48)).save(inside / "pasted" / "a.png")
photo, _, _, size = node("LoadPhoto").execute(photo="pasted/a.png", person=0).args
WIRED = {
    "LoadMotion": ("file",),
    "LoadPhoto": ("photo", "person"),
    "LoadBody": ("body",),
    "LoadModel": ("model_name",),
    "ApplyLora": ("lora_name",),
    "LoadCameraHMR": ("checkpoint", "field_of_view_checkpoint"),
}

clip, box = torch.rand(3, 64, 64, 3), [5, 5, 40, 60]
masks = torch.zeros(3, 64, 64)
masks[:2, 5:60, 5:40] = 1
masks[2, 3, 3] = 1
find = node("FindPeople").execute
stretched = refusal(lambda: node("DrawMotionMap").execute(nano_neutral(0.0), body, 192, 192, "flat", smoothing=1))
comfy.model_management.get_free_memory = lambda device: 2**20  # a machine whose memory is full
print(
    json.dumps(
        {
            "listed": hidden in motion_files.motion_files(),
            "accepted": load.validate_inputs(file=hidden),
            "frames": int(info.split("\n")[1].split()[0]) - len(motion),
            "outside": [load.validate_inputs(file=name) is True for name in outside],
            "changed": before != load.fingerprint_inputs(file=hidden, fps=0.0),
            "photo": [node("LoadPhoto").validate_inputs(photo="pasted/a.png"), list(photo.shape), size[:7]],
            "wired": [str(node(name).fingerprint_inputs(**dict.fromkeys(keys))) for name, keys in WIRED.items()],
            "seen": [len(people) for people in people_of_frames(masks, (64, 64), 3)],
            "index": refusal(lambda: find(images=clip, who="index", index=5, people=[box])),
            "mask": refusal(lambda: find(images=clip, who="mask", index=0, people=[box], mask=torch.zeros(1, 32, 32))),
            "joined": list(node("JoinClips").execute(clip, torch.rand(2, 64, 64, 4), 1).args[0].shape),
            "turntable": refusal(
                lambda: node("MotionTurntable").execute(
                    motion, body, "front", 1.0, 640, 640, "solid", follow=True, captions=False
                )
            ),
            "stretched": stretched,
            "overlay": refusal(lambda: node("OverlayMotion").execute(clip[:1], motion, body, 0.5, "solid")),
        }
    )
)
