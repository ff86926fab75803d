"""The verb `show`: a motion as a page with a 3D player, as a video or as a picture."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

SHOW_EXAMPLES = [
    "comovi show motion.npz",
    "comovi show motion.bvh --video dance.mp4 --out dance.html",
    "comovi show motion.npz --video dance.mp4 --out over.mp4",
    "comovi show motion.npz --out turn.mp4",
    "comovi show motion.npz --out side.mp4 --what left-side --size 640x640",
    "comovi show motion.npz --out sheet.png",
    "comovi show motion.npz --out path.png --what path",
    "comovi show before.npz --compare after.npz --out error.png",
]
WHATS = ("player", "overlay", "turntable", "front", "left-side", "back", "right-side", "three-quarter", "top", "sheet",
         "path", "compare")  # fmt: skip


def add_show(add_verb: Callable[[str, str], argparse.ArgumentParser], size: Callable[[str], tuple[int, int]]) -> None:
    """Adds the verb; `size` reads WIDTHxHEIGHT."""
    show = add_verb("show", "look at a motion: a page with a 3D player, a video or a picture")
    show.add_argument("file", type=Path, metavar="FILE", help="a motion in any format that convert reads")
    show.add_argument("--video", type=Path, metavar="VIDEO", help="the video that the motion was taken from")
    show.add_argument("--out", type=Path, metavar="PATH", help=".html, .mp4 or .png (default: FILE's name .html, here)")
    show.add_argument("--what", choices=WHATS, help="what is drawn (default: what fits the ending of --out)")
    show.add_argument("--compare", type=Path, metavar="FILE", help="a second motion, for a page of error curves")
    show.add_argument("--body", type=Path, metavar="FILE", help="SMPL body model (default: the built-in mannequin)")
    show.add_argument("--style", choices=["solid", "parts", "normals", "wireframe"], default="solid")
    show.add_argument("--opacity", type=_share, default=0.7, help="of the body over its video, 0 to 1 (0.7)")
    show.add_argument("--size", type=size, metavar="WxH", help="pixels of a turntable or view (640x640)")
    show.add_argument("--title", default="", help="heading of a page or sheet (default: the file's name)")
    show.add_argument("--overwrite", action="store_true", help="replace a file of that name")
    show.set_defaults(run=run_show)


def run_show(arguments: argparse.Namespace) -> int:
    from .comovi_model.show.command import show_file

    for line in show_file(
        arguments.file,
        arguments.out,
        what=arguments.what,
        video=arguments.video,
        compare=arguments.compare,
        body=arguments.body,
        style=arguments.style,
        opacity=arguments.opacity,
        size=arguments.size,
        title=arguments.title,
        overwrite=arguments.overwrite,
    ):
        print(line)
    return 0


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value
