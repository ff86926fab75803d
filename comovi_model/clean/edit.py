"""Cutting, mirroring and holding motions.

Letters: F frames, J = 24 joints.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..body.motion import BodyMotion
from ..body.upright import CAMERA_UP, camera_up, with_camera_up
from ..errors import ComoviError
from .history import noted

# The joint on the other side of each joint.
MIRROR_JOINT = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22)


def trim(motion: BodyMotion, start: int = 0, stop: int | None = None) -> BodyMotion:
    """Frames start..stop-1; negative numbers count from the end, as in Python."""
    cut = motion.slice(start, len(motion) if stop is None else stop)
    return noted(cut, {"trim": [start, stop], "of": len(motion)})


def frame_at(motion: BodyMotion, seconds: float) -> int:
    """The frame nearest to a time; times beyond the ends give the end frames."""
    return min(max(round(seconds * motion.fps), 0), len(motion) - 1)


def mirror(motion: BodyMotion, pelvis: Tensor) -> BodyMotion:
    """The motion as a mirror shows it: left and right change places, x becomes -x (in every frame's axes).

    pelvis (3,) is rest_joints(model, betas)[0]. On a body that is symmetric about x = 0 the mirrored motion has
    exactly the mirrored vertices. The picture of a camera is mirrored along, so overlays fit the flipped video.
    """
    flip = torch.tensor([-1.0, 1.0, 1.0])
    pelvis = pelvis.to(motion.transl)
    rotations = motion.rotations[:, list(MIRROR_JOINT)] * flip[:, None] * flip  # M R M
    transl = (pelvis + motion.transl) * flip - pelvis
    camera = motion.camera
    if camera is not None:
        K = camera.K.clone()
        K[..., 0, 2] = camera.width - K[..., 0, 2]
        camera = replace(camera, K=K)
    mirrored = replace(motion, rotations=rotations, transl=transl, camera=camera)
    if CAMERA_UP in motion.provenance:
        mirrored = with_camera_up(mirrored, camera_up(motion) * flip)
    return noted(mirrored, {"mirror": "x"})


def hold(motion: BodyMotion, before: int = 0, after: int = 0) -> BodyMotion:
    """The first frame `before` more times in front, the last one `after` more times behind."""
    if before < 0 or after < 0:
        raise ComoviError(f"a hold needs numbers of frames from 0, got {before} and {after}.")
    last = len(motion) - 1
    index = torch.cat([torch.zeros(before), torch.arange(len(motion)), torch.full((after,), float(last))]).long()
    return noted(take(motion, index), {"hold": [before, after]})


def still(motion: BodyMotion, frame: int, num_frames: int) -> BodyMotion:
    """One frame of the motion, held for num_frames."""
    if not -len(motion) <= frame < len(motion):
        raise ComoviError(f"the motion has frames 0..{len(motion) - 1}, so frame {frame} cannot be held.")
    if num_frames < 1:
        raise ComoviError(f"a pose must be held for at least 1 frame, got {num_frames}.")
    index = torch.full((num_frames,), frame % len(motion))
    return noted(take(motion, index), {"still": frame % len(motion)})


def reverse(motion: BodyMotion) -> BodyMotion:
    """The motion played backwards."""
    return noted(take(motion, torch.arange(len(motion)).flip(0)), {"reverse": True})


def take(motion: BodyMotion, index: Tensor) -> BodyMotion:
    """The frames of index (F',) int64, in that order."""
    camera = motion.camera
    if camera is not None and camera.K.dim() == 3:
        camera = replace(camera, K=camera.K[index])
    assert motion.valid is not None
    assert motion.source_index is not None
    return replace(
        motion,
        rotations=motion.rotations[index],
        transl=motion.transl[index],
        camera=camera,
        valid=motion.valid[index],
        source_index=motion.source_index[index],
    )
