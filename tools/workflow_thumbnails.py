"""Draws the pictures by which the template browser shows our workflows, from what they made.

python tools/workflow_thumbnails.py --results ComfyUI/output/comovi

The nano workflows are shown by their own results. Those for the released weights, which no test can run, are shown by
what goes in and out of them: motion maps and bodies of an example motion.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from comfyui_comovi.comovi_model.body.before_camera import Placement, stand_before_camera
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.files.amass import load_motion
from comfyui_comovi.comovi_model.body.map_render import iter_motion_map
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.smpl import BodyModel
from comfyui_comovi.comovi_model.nano.example_picture import example_picture
from comfyui_comovi.comovi_model.nano.examples import example_motion
from comfyui_comovi.comovi_model.show.overlay import overlay_motion
from comfyui_comovi.comovi_model.video import read_video
from PIL import Image

FOLDER = Path(__file__).resolve().parent.parent / "workflows"
WIDTH, HEIGHT, GAP = 640, 400, 8
TILE_WIDTH, TILE_HEIGHT = 240, 360  # of a drawn tile, 2 : 3 as the nano clips are
BACKGROUND = (24, 26, 32)


def newest(results: Path, name: str, suffix: str) -> Path:
    return max(results.glob(f"{name}_*.{suffix}"))


def moment(results: Path, name: str, share: float) -> Image.Image:
    """One frame of the newest video of that name, at a share of its length."""
    frames, _ = read_video(newest(results, name, "mp4"))
    return Image.fromarray(frames[round(share * (len(frames) - 1))])


class Stage:
    """A motion before its camera, drawn as a motion map or as a body; `share` says when, from 0 to 1."""

    def __init__(self, body: BodyModel, motion: BodyMotion) -> None:
        self.body, self.motion = body, motion

    @classmethod
    def of_example(cls, name: str, turn: float) -> Stage:
        body, camera = load_mannequin_body(), Camera.from_fov(30.0, TILE_WIDTH, TILE_HEIGHT)
        return cls(body, stand_before_camera(body, example_motion(name), camera, Placement(turn=turn)))

    def motion_map(self, share: float) -> Image.Image:
        return _picture(next(iter(iter_motion_map(self.body, self._at(share), TILE_HEIGHT * 2, TILE_WIDTH * 2)))[0])

    def body_view(self, share: float, style: str = "solid") -> Image.Image:
        fade = torch.linspace(0.32, 0.16, TILE_HEIGHT * 2)[:, None, None] * torch.tensor([0.9, 1.0, 1.15])
        backdrop = fade.expand(-1, TILE_WIDTH * 2, -1)[None].contiguous()
        return _picture(overlay_motion(backdrop, self._at(share), self.body, opacity=1.0, style=style)[0])

    def _at(self, share: float) -> BodyMotion:
        index = round(share * (len(self.motion) - 1))
        return replace(self.motion.slice(index, index + 1), source_index=None)


def _picture(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray((pixels.float().clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def side_by_side(tiles: list[Image.Image]) -> Image.Image:
    height = HEIGHT - 2 * GAP
    tiles = [
        tile.resize((round(tile.width * height / tile.height), height), Image.Resampling.LANCZOS) for tile in tiles
    ]
    page = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    left = (WIDTH - sum(tile.width for tile in tiles) - GAP * (len(tiles) - 1)) // 2
    for tile in tiles:
        page.paste(tile, (left, GAP))
        left += tile.width + GAP
    return page


def third(tile: Image.Image) -> Image.Image:
    """The middle of a tile, so that three of them fill the page."""
    wide = round(tile.height * (WIDTH - 4 * GAP) / 3 / (HEIGHT - 2 * GAP))
    left = (tile.width - wide) // 2
    return tile.crop((left, 0, left + wide, tile.height))


def pages(results: Path) -> dict[str, Callable[[], list[Image.Image]]]:
    walk, wave = Stage.of_example("walk", 25), Stage.of_example("wave", -20)

    def seen(name: str, share: float = 0.5) -> Image.Image:
        return moment(results, name, share)

    def still(name: str) -> Image.Image:
        return Image.open(newest(results, name, "png")).convert("RGB")

    own = Stage(load_mannequin_body(), load_motion(newest(results, "quick_start_motion", "npz")))
    return {
        "quick_start_nano": lambda: [seen("quick_start_video"), seen("quick_start_map"), own.body_view(0.5)],
        "drive_video_with_my_motion": lambda: [
            wave.body_view(0.35),
            seen("driven_map", 0.35),
            seen("driven_video", 0.35),
        ],
        "video_to_motion": lambda: [
            seen("clip_to_read", 0.6),
            seen("map_of_video", 0.6),
            seen("motion_over_video", 0.6),
        ],
        "photo_to_pose": lambda: [
            Image.fromarray(example_picture("arms raised", 4)[0]),
            still("photo_map"),
            still("photo_overlay"),
        ],
        "map_to_bvh": lambda: [
            seen("generated_map", 0.4),
            seen("body_over_map", 0.4),
            walk.body_view(0.4, "wireframe"),
        ],
        "longer_than_81_frames": lambda: [seen("longer_video", share) for share in (0.0, 0.17, 0.95)],
        "mocap_to_motion_map": lambda: [walk.body_view(0.25), walk.body_view(0.55), walk.motion_map(0.55)],
        "image_to_video_and_motion": lambda: [wave.body_view(0.0), wave.motion_map(0.5), wave.body_view(0.5, "parts")],
        "image_to_video_low_vram": lambda: [wave.motion_map(0.0), wave.motion_map(0.35), wave.motion_map(0.6)],
        "motion_only": lambda: [walk.motion_map(0.1), walk.motion_map(0.4), walk.body_view(0.4)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="the folder of what the nano workflows made")
    parser.add_argument("names", nargs="*", metavar="NAME", help="workflows to draw; without names, all of them")
    options = parser.parse_args()
    for name, tiles in pages(options.results).items():
        if not options.names or name in options.names:
            page = side_by_side([third(tile) for tile in tiles()])
            page.save(FOLDER / f"{name}.jpg", quality=86, optimize=True)
            print(name, (FOLDER / f"{name}.jpg").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
