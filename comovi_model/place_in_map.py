"""Where the body of a motion is, read from a motion map of any size.

The search itself (nano/place.py) looks at pictures of about 192 pixels, where a pixel is a centimetre of a standing
person; larger maps are reduced to that first. It searches a metre round a body that stays where it started. Where a
person may walk further than that, or stands so near that a metre is much, the silhouettes' centres and areas
(body/root.py) first say roughly where the body goes; they are the worse guide for smeared maps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .body.frames import check_same_body
from .body.map_colours import silhouette
from .body.motion import BodyMotion
from .body.root import recover_root
from .body.smpl import BodyModel, rest_joints
from .body.upright import camera_up
from .errors import ComoviError
from .nano.place import keep_on_floor, place_motion

LONGEST_SIDE = 192  # pixels
FAR, SHORT = 7.0, 48  # metres and frames: from this distance, in so few frames, nobody leaves the search


def place_in_map(
    model: BodyModel,
    motion: BodyMotion,
    frames: Tensor,
    floor: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> BodyMotion:
    """A motion (camera frame) whose path is not known -> the same where its map (F, H, W, 3) uint8 shows it.

    Frame 0 keeps its place. floor=True keeps the lowest point on the floor of frame 0 unless it clearly jumps.
    """
    camera = motion.camera
    if motion.frame != "camera" or camera is None:
        raise ComoviError("placing a motion needs its camera: start from a start pose that has one.")
    if len(frames) != len(motion):
        raise ComoviError(
            f"the motion has {len(motion)} frames and the motion map {len(frames)}; both must be of the same clip."
        )
    height, width = frames.shape[1:3]
    if abs(width * camera.height - height * camera.width) > 0.02 * width * camera.height:
        raise ComoviError(
            f"the motion map is {width} x {height} pixels, and the motion's camera sees {camera.width} x "
            f"{camera.height}, which is another shape; use the start pose that the map was made from."
        )
    check_same_body(model, motion)
    small = reduced(frames)
    seen = replace(motion, camera=camera.resized(small.shape[2], small.shape[1]))
    moving = camera.K.dim() == 3
    distance = float(rest_joints(model, motion.betas)[0, 2] + motion.transl[0, 2])
    placed = seen
    if moving or distance < FAR or len(motion) > SHORT:
        assert seen.camera is not None
        masks = silhouette(small.float() / 255)
        path = recover_root(model, seen.rotations, seen.betas, seen.camera, seen.transl[0], masks)
        placed = replace(seen, transl=path)
    if not moving:
        placed = place_motion(model, placed, small, progress)
    if floor:
        placed = keep_on_floor(model, placed, camera_up(motion))
    return replace(placed, camera=camera)


def reduced(frames: Tensor) -> Tensor:
    """(F, H, W, 3) uint8 -> the same with its longer side at most LONGEST_SIDE, by averaging areas."""
    height, width = frames.shape[1:3]
    share = LONGEST_SIDE / max(height, width)
    if share >= 1:
        return frames
    size = (max(1, round(height * share)), max(1, round(width * share)))
    small = [F.interpolate(part.permute(0, 3, 1, 2).float(), size, mode="area") for part in frames.split(8)]
    return torch.cat(small).permute(0, 2, 3, 1).round().to(torch.uint8)
