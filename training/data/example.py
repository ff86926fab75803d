"""`comovi-train example DIR`: a folder of short synthetic videos with sentences and bodies, as a researcher has them.

The videos are drawn people (comovi_model/nano) at several frame rates and picture shapes, with the poses of every frame
as npz beside them: enough to try every command of this room, and the tests do.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from ...comovi_model.body.cameras import Camera
from ...comovi_model.body.motion import BodyMotion
from ...comovi_model.errors import ComoviError
from ...comovi_model.files import atomic_path
from ...comovi_model.nano.actions import ACTION_NAMES, perform
from ...comovi_model.nano.draw import draw_clip
from ...comovi_model.nano.people import load_nano_body
from ...comovi_model.nano.scene import Camera as SceneCamera
from ...comovi_model.nano.scene import NanoBody, Scene, sample_scene
from ...comovi_model.nano.sentences import write_sentence
from ...comovi_model.nano.skeleton import rotation
from ...comovi_model.nano.start import BODY_NAME
from ...comovi_model.video import write_video

FIRST_SEED = 2**41  # far from the seeds of training, validation and first frames
SHORTEST = 0.1  # seconds
SECONDS = 2.2  # of a video; a clip of the nano model is 2.0 s


@dataclass(frozen=True)
class Shot:
    """How a video is taken: frames per second, width and height in pixels."""

    fps: Fraction
    width: int
    height: int


SHOTS = (
    Shot(Fraction(30), 192, 288),
    Shot(Fraction(24), 256, 256),
    Shot(Fraction(30000, 1001), 320, 192),
    Shot(Fraction(25), 160, 240),
    Shot(Fraction(60), 128, 192),
    Shot(Fraction(24000, 1001), 288, 384),
    Shot(Fraction(50), 192, 192),
    Shot(Fraction(60000, 1001), 144, 256),
)


def make_example(folder: str | os.PathLike[str], count: int = 8, seed: int = 0, seconds: float = SECONDS) -> list[Path]:
    """Write `count` videos with their .txt and .npz into a folder; returns the videos."""
    folder = Path(folder)
    if count < 1:
        raise ComoviError(f"the number of videos must be at least 1, got {count}.")
    if not seconds >= SHORTEST:
        raise ComoviError(f"a video must last at least {SHORTEST} s, got {seconds}.")
    body = load_nano_body()
    videos = []
    for index in range(count):
        shot = SHOTS[index % len(SHOTS)]
        scene, text = film(body, FIRST_SEED + 1000 * seed + index, shot, seconds)
        name = f"{index:02d}_{ACTION_NAMES[scene.request.action]}"
        path = folder / f"{name}.mp4"
        write_video(path, draw_clip(scene, body).video, float(shot.fps), crf=14)
        poses(scene, body, shot).save(folder / f"{name}.npz")
        with atomic_path(folder / f"{name}.txt") as temporary:
            temporary.write_text("\n".join(text) + "\n", encoding="utf-8")
        videos.append(path)
    return videos


def film(body: NanoBody, seed: int, shot: Shot, seconds: float) -> tuple[Scene, tuple[str, ...]]:
    """The scene of one seed at the shot's rate and size, and two sentences about it."""
    scene = sample_scene(seed, body)
    rng = np.random.default_rng([seed, 1])
    vertices, joints = body.shaped(scene.betas)
    frames = int(seconds * shot.fps)
    local, pelvis = perform(scene.request, joints, float(vertices[:, 1].min()), frames, float(shot.fps), rng)
    spin = rotation("y", np.radians(rng.uniform(-20, 20)))
    local[:, 0] = spin @ local[:, 0]
    old = scene.camera
    camera = SceneCamera(old.rotation, old.position, old.focal_px * shot.height / old.height, shot.width, shot.height)
    scene = replace(scene, camera=camera, rotations=local, transl=pelvis @ spin.T - joints[0])
    sentences = (write_sentence(scene.request, scene.look.shirt, scene.look.trousers, rng) for _ in range(2))
    return scene, tuple(sentences)


def poses(scene: Scene, body: NanoBody, shot: Shot) -> BodyMotion:
    """The body of every frame of a scene, in the camera frame."""
    rotations, transl = scene.camera_motion(body)
    return BodyMotion(
        torch.from_numpy(rotations).float(),
        torch.from_numpy(scene.betas).float(),
        torch.from_numpy(transl).float(),
        "camera",
        Camera(torch.from_numpy(scene.camera.K).float(), shot.width, shot.height),
        float(shot.fps),
        BODY_NAME,
        {"made_by": "comovi-train example"},
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder for the videos")
    parser.add_argument("--count", type=int, default=8, help="how many videos")
    parser.add_argument("--seed", type=int, default=0, help="other numbers, other people")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of a video")


def run(options: argparse.Namespace) -> int:
    videos = make_example(options.folder, options.count, options.seed, options.seconds)
    print(f"{len(videos)} videos with sentences and poses in {options.folder}")
    return 0
