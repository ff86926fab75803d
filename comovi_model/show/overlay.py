"""The body drawn over its video, frame by frame.

Letters: F frames, H x W pixels. Pictures are RGB float32 in 0..1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..body.frames import check_same_body, in_frame
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel, pose_body
from ..errors import ComoviError
from .painter import Painter, check_style

Progress = Callable[[int, int], None]


def overlay_motion(
    frames: Tensor,
    motion: BodyMotion,
    body: BodyModel,
    *,
    opacity: float = 0.7,
    style: str = "solid",
    on_frame: Progress | None = None,
) -> Tensor:
    """Video (F, H, W, 3) with the body over it, same shape; opacity 0 shows the video alone, 1 hides it.

    style "solid", "parts", "normals" or "wireframe". The camera of the motion is scaled to the pictures. Which pose
    belongs to which picture: the same number of both go together in order; one picture serves every pose; otherwise
    motion.source_index says it, and pictures that it does not name stay as they are. Poses marked as not valid are
    placeholders and are not drawn. on_frame(done, total) is called after every picture; what it raises ends the work.
    """
    if frames.dim() != 4 or frames.shape[-1] != 3 or not frames.numel():
        raise ComoviError(f"the video must be pictures (frames, height, width, 3), got {tuple(frames.shape)}.")
    total = len(poses_of_pictures(motion, len(frames)))
    result = frames.new_empty(total, *frames.shape[1:], dtype=torch.float32)
    drawn = iter_overlay(iter(frames), len(frames), motion, body, opacity=opacity, style=style)
    for number, picture in enumerate(drawn):
        result[number] = picture.to(result.device)
        if on_frame is not None:
            on_frame(number + 1, total)
    return result


def iter_overlay(
    frames: Iterator[Tensor],
    count: int,
    motion: BodyMotion,
    body: BodyModel,
    *,
    opacity: float = 0.7,
    style: str = "solid",
    fps: float | None = None,
) -> Iterator[Tensor]:
    """As overlay_motion for a video that is not in memory: takes and yields one picture (H, W, 3) after the other.
    `count` is the number of pictures, `fps` their rate where it is known; they may be uint8."""
    check_style(style)
    if not 0 <= opacity <= 1:
        raise ComoviError(f"opacity must lie between 0 (video alone) and 1 (body alone), got {opacity}.")
    pose_of = poses_of_pictures(motion, count, fps)
    motion = _seen(motion, body)
    assert motion.camera is not None
    device, painter = body.v_template.device, Painter(body, style)
    motion = motion.to(device)
    assert motion.valid is not None
    drawable = motion.valid.tolist()
    given = next(frames)
    for number, pose in enumerate(pose_of):
        given = next(frames) if 0 < number < count else given  # one picture serves every pose
        picture = given.to(device)
        picture = picture.float() / 255 if picture.dtype == torch.uint8 else picture.float()
        if pose >= 0 and drawable[pose]:
            one = motion.slice(pose, pose + 1)
            assert one.camera is not None
            vertices = pose_body(body, one.rotations, one.betas, one.transl).vertices[0]
            height, width = picture.shape[:2]
            K = one.camera.resized(width, height).K.reshape(3, 3)
            painted = painter.paint(vertices, K.to(vertices), height, width)
            picture = opacity * painted[..., :3] + (1 - opacity * painted[..., 3:]) * picture
        yield picture


def same_rate(one: float, other: float) -> bool:
    """Frames per second that are the same but for rounding."""
    return abs(one - other) <= 0.01 * max(one, other)


def poses_of_pictures(motion: BodyMotion, pictures: int, fps: float | None = None) -> list[int]:
    """For each picture of the result the number of its pose, or -1.

    A motion that is shorter and says nothing is the beginning of a video of the same rate, where that is known."""
    if pictures in (1, len(motion)):
        return list(range(len(motion)))
    assert motion.source_index is not None
    source = motion.source_index.tolist()
    plain = source == list(range(len(motion)))
    if plain and len(motion) < pictures and fps is not None and same_rate(fps, motion.fps):
        return source + [-1] * (pictures - len(motion))
    if plain or min(source) < 0 or max(source) >= pictures:
        raise ComoviError(
            f"the video has {pictures} frames and the motion {len(motion)}, and the motion does not say which frames "
            "it was taken from; trim or resample one of them, so that both have the same number."
        )
    pose_of = [-1] * pictures
    for pose, picture in enumerate(source):
        pose_of[picture] = pose
    return pose_of


def _seen(motion: BodyMotion, body: BodyModel) -> BodyMotion:
    """The motion in the camera frame."""
    check_same_body(body, motion)
    if motion.camera is None:
        raise ComoviError(
            f'the motion (in frame "{motion.frame}") has no camera, so its place in the picture is not known; '
            "use a motion that was recovered from this video."
        )
    return motion if motion.frame == "camera" else in_frame(motion, body.to(motion.rotations.device), "camera")
