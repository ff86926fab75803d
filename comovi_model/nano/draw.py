"""Drawing the synthetic clips: a person on a plain floor, and the motion map of the same body.

Shapes: F frames, H x W pixels, V vertices. Both pictures have 2 x 2 samples per pixel, averaged; the motion map's
background is white. Light on the person: Lambert from the upper left; soft contact shadows are Gaussians on the floor
below feet and pelvis that widen and fade with height (the cue for a jump). The motion map is `phong_reference`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np

from .scene import NanoBody, Scene, skin, vertex_colours
from .skeleton import L_ANKLE, PELVIS, R_ANKLE

SUN = np.array([-0.45, -0.70, -0.55]) / np.linalg.norm([-0.45, -0.70, -0.55])  # towards the light, camera frame
WALL_Z = -2.6  # metres behind the person where floor meets wall
CHECKER_SIZE = 0.8


@dataclass(frozen=True)
class DrawnClip:
    """`video` and `motion_map` (F, H, W, 3) uint8; `plate` (H, W, 3) uint8, the place without person and shadow."""

    video: np.ndarray
    motion_map: np.ndarray
    plate: np.ndarray


def draw_place(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Empty place (H, W, 3) float32 and floor (H, W, 3): world x, world z, share of the pixel that is floor."""
    camera, look = scene.camera, scene.look
    height, width = camera.height, camera.width
    rows, columns = np.meshgrid(np.arange(height * 2), np.arange(width * 2), indexing="ij")
    ray = np.stack([(columns + 0.5) / 2 - width / 2, (rows + 0.5) / 2 - height / 2], -1) / camera.focal_px
    ray = np.concatenate([ray, np.ones_like(ray[..., :1])], -1) @ camera.rotation
    reach = camera.position[1] / np.maximum(-ray[..., 1], 1e-6)
    x, z = camera.position[0] + ray[..., 0] * reach, camera.position[2] + ray[..., 2] * reach
    on_floor = (ray[..., 1] < 0) & (z > WALL_Z)
    mix = ((rows + 0.5) / (2 * height))[..., None]
    colour = (1 - mix) * np.asarray(look.wall_top) + mix * np.asarray(look.wall_bottom)
    odd = (np.floor(x / CHECKER_SIZE) + np.floor(z / CHECKER_SIZE)) % 2
    floor_colour = np.asarray(look.floor) * (1 + look.checker * (odd[..., None] - 0.5) * 2)
    colour = np.where(on_floor[..., None], floor_colour, colour)

    def shrink(image: np.ndarray) -> np.ndarray:
        return image.reshape(height, 2, width, 2, -1).mean((1, 3)).astype(np.float32)

    share = shrink(on_floor[..., None].astype(np.float64))
    place = np.concatenate(
        [shrink(np.where(on_floor, x, 0)[..., None]), shrink(np.where(on_floor, z, 0)[..., None])], -1
    )
    return shrink(colour), np.concatenate([place / np.maximum(share, 1e-6), share], -1)


def contact_shadows(joints: np.ndarray, standing_ankle: float, standing_pelvis: float) -> np.ndarray:
    """Blobs (F, 3, 4) of feet and pelvis from joints (F, 24, 3): world x, z, 1 / (2 sigma^2) in 1/m^2, strength."""
    blobs = []
    for joint, rest, variance, strength in (
        (L_ANKLE, standing_ankle, 0.022, 0.34),
        (R_ANKLE, standing_ankle, 0.022, 0.34),
        (PELVIS, standing_pelvis, 0.10, 0.28),
    ):
        height = np.maximum(joints[:, joint, 1] - rest, 0.0)
        spread = variance * (1 + 2.5 * height)
        ahead = 0.05 if joint != PELVIS else 0.0
        blobs.append(
            np.stack(
                [joints[:, joint, 0], joints[:, joint, 2] + ahead, 0.5 / spread, strength / (1 + 5.0 * height)], -1
            )
        )
    return np.stack(blobs, 1).astype(np.float32)


def draw_clip(scene: Scene, body: NanoBody, frames: slice = slice(None), fast: bool | None = None) -> DrawnClip:
    """Draw (some frames of) a scene. `fast`: True = compiled loop, False = PyTorch, None = compiled when installed."""
    rotations, transl = scene.camera_motion(body)
    vertices, joints = skin(body, scene.betas, rotations[frames], transl[frames])
    world_joints = joints @ scene.camera.rotation + scene.camera.position
    rest_vertices, rest_joints = body.shaped(scene.betas)
    ground = rest_vertices[:, 1].min()
    blobs = contact_shadows(world_joints, rest_joints[L_ANKLE, 1] - ground, rest_joints[PELVIS, 1] - ground - 0.02)
    plate, floor = draw_place(scene)
    colours = vertex_colours(body, scene.look).astype(np.float32)
    if fast is None:
        fast = importlib.util.find_spec("numba") is not None
    if fast:
        from .draw_fast import draw_frames
    else:
        from .draw_torch import draw_frames
    height, width = scene.camera.height, scene.camera.width
    video = np.empty((len(vertices), height, width, 3), np.uint8)
    motion_map = np.empty_like(video)
    draw_frames(
        vertices.astype(np.float32),
        body.faces.astype(np.int64),
        colours,
        body.part_of_vertex.astype(np.int64),
        plate,
        floor,
        blobs,
        float(scene.camera.focal_px),
        width / 2,
        height / 2,
        SUN.astype(np.float32),
        video,
        motion_map,
    )
    return DrawnClip(video, motion_map, np.uint8(plate * 255 + 0.5))
