"""From a motion file to a motion-map file: a video, one picture, or a folder of numbered pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

import numpy as np

from .body.frames import check_same_body, in_frame
from .body.map_render import iter_motion_map
from .body.motion import BodyMotion
from .body.smpl import BodyModel, load_body_model
from .errors import ComoviError
from .files import atomic_folder
from .images import to_uint8, write_image
from .video import write_video


def draw_map_file(
    motion_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    body: str | os.PathLike[str] | None = None,
    size: tuple[int, int] | None = None,
    shading: str = "phong_reference",
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Draw the motion in `motion_path` to `out`: .mp4, .png (a motion of one frame) or a new folder of PNG files.

    `size` is (width, height) in pixels, by default that of the motion's camera; `body` a body model file, by default
    the mannequin. `overwrite` lets a folder that is not empty be written into. `say` is told of a size of another
    shape than the camera's. Returns `out`.
    """
    out = Path(out)
    motion = BodyMotion.load(os.fspath(motion_path))
    if motion.camera is None:
        raise ComoviError(f"{motion_path} has no camera, so its motion map has no viewpoint; save it with a camera.")
    width, height = size or (motion.camera.width, motion.camera.height)
    _check_target(out, len(motion), width, height)
    if note := motion.camera.stretched_by(width, height):
        say(f"note: {note}")
    model = load_body_model(None if body is None else os.fspath(body))
    check_same_body(model, motion)
    if motion.frame != "camera":
        motion = in_frame(motion, model, "camera")
    with closing(_frames(model, motion, height, width, shading)) as frames:
        if out.suffix.lower() == ".mp4":
            write_video(out, frames, motion.fps)
        elif out.suffix:
            write_image(out, next(frames))
        else:
            with atomic_folder(out, overwrite=overwrite) as folder:
                for number, frame in enumerate(frames):
                    write_image(folder / f"{number:05d}.png", frame)
    return out


def _check_target(out: Path, num_frames: int, width: int, height: int) -> None:
    """Refuse before drawing what could not be written after it."""
    kind = out.suffix.lower()
    if kind not in (".mp4", ".png", ""):
        raise ComoviError(f"cannot write {out}: a motion map is a .mp4 video, a .png picture or a folder of pictures.")
    if kind == ".png" and num_frames != 1:
        raise ComoviError(f"{num_frames} frames do not fit into the picture {out}; name a .mp4 video or a folder.")
    if kind == ".mp4" and (width % 2 or height % 2):
        raise ComoviError(f"a video's width and height must be even, {width}x{height} is not; choose with --size.")


def _frames(
    model: BodyModel, motion: BodyMotion, height: int, width: int, shading: str
) -> Generator[np.ndarray, None, None]:
    """Frames (H, W, 3) uint8, one by one, with a progress bar when it takes long."""
    from tqdm import tqdm

    with tqdm(total=len(motion), desc="motion map", unit="frame", leave=False, delay=1) as bar:
        for group in iter_motion_map(model, motion, height, width, shading):
            for frame in to_uint8(group):
                yield frame
                bar.update()
