"""Puts a body before a camera: at a distance, turned, at a place of the picture. Picture space is what people think in.

Letters: F frames, V vertices. World frame "yup": the body of the T-pose faces +z, and the camera looks along -z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import ComoviError
from .cameras import Camera, project
from .frames import in_frame, pelvis_at_rest
from .motion import BodyMotion
from .named_poses import turned
from .rotations import matrix_to_axis_angle
from .smpl import BodyModel, pose_body
from .upright import levelled, levelling, with_camera_up

NEAREST, FARTHEST = 0.3, 100.0  # metres between camera and pelvis
FILLED = 0.85  # of the picture's height or width, when the distance is chosen automatically
FRAMES_LOOKED_AT = 24  # of a long clip, when its place in the picture is chosen
MOST_TILT = math.radians(12)  # a camera that looks down a little; more is another pose, and the body stays upright


@dataclass(frozen=True)
class Placement:
    """Where a body shall be seen."""

    distance: float = 0.0  # metres from the camera to the pelvis of frame 0; 0 chooses one that shows all of the clip
    turn: float = 0.0  # degrees round the vertical, to the person's left; 0 leaves the direction as it is
    across: float = 0.5  # where the middle of the body is, as a share of the picture's width, from the left
    down: float = 0.5  # the same of its height, from the top


def stand_before_camera(model: BodyModel, motion: BodyMotion, camera: Camera, place: Placement) -> BodyMotion:
    """A motion of any frame -> frame "camera", seen by `camera` as `place` says; its path is kept.

    The camera is level. The middle is that of the box round everything the clip shows.
    """
    if place.distance and not NEAREST <= place.distance <= FARTHEST:
        raise ComoviError(
            f"the distance must be 0 (automatic) or {NEAREST:g} to {FARTHEST:g} metres, got {place.distance:g}."
        )
    pelvis = pelvis_at_rest(model, motion)
    upright = replace(in_frame(levelled(motion, model), model, "yup"), camera=None)
    spun = upright.moved(turned((("y", place.turn),)), torch.zeros(3), pelvis)
    seen = spun.moved(torch.eye(3), -(pelvis + spun.transl[0]), pelvis).to_frame("camera", pelvis)  # pelvis at 0
    vertices = _some_vertices(model, seen)
    distance = place.distance or _distance_that_shows_all(vertices, camera)
    shift = _shift(vertices, camera, distance, place)
    return replace(seen.moved(torch.eye(3), shift, pelvis), camera=camera)


def stand_like(model: BodyModel, motion: BodyMotion, start: BodyMotion) -> BodyMotion:
    """A motion moved as a whole so that its frame 0 stands where `start` (camera frame) stands, facing the same way.

    The camera becomes that of `start`. The body is turned about the vertical; where the poses then still differ by a
    few degrees, the camera is taken to be tilted by so much more than is known.
    """
    if start.frame != "camera" or start.camera is None:
        raise ComoviError("the start pose must be in the camera frame and have a camera; make it with Start Pose.")
    pelvis, wanted_pelvis = pelvis_at_rest(model, motion), pelvis_at_rest(model, start)
    upright = replace(in_frame(levelled(motion, model), model, "yup"), camera=None)
    to_yup = levelling(start)
    turn = to_yup.T @ _facing(upright.rotations[0, 0], to_yup @ start.rotations[0, 0])
    tilt = start.rotations[0, 0] @ (turn @ upright.rotations[0, 0]).T
    turn = tilt @ turn if float(matrix_to_axis_angle(tilt).norm()) < MOST_TILT else turn
    shift = (wanted_pelvis + start.transl[0]) - turn @ (pelvis + upright.transl[0])
    camera = replace(start.camera, K=start.camera.K[0]) if start.camera.K.dim() == 3 else start.camera
    seen = replace(upright.moved(turn, shift, pelvis), frame="camera", camera=camera)
    return with_camera_up(seen, turn @ torch.tensor([0.0, 1.0, 0.0]))


def _facing(root: Tensor, wanted: Tensor) -> Tensor:
    """The turn (3, 3) about the y axis that brings one root rotation nearest to another."""
    # The trace of wanted^T R_y(a) root is greatest where tan a compares these two sums.
    across = wanted @ root.T
    angle = torch.atan2(across[0, 2] - across[2, 0], across[0, 0] + across[2, 2])
    cosine, sine, zero, one = angle.cos(), angle.sin(), torch.zeros(()), torch.ones(())
    return torch.stack([cosine, zero, sine, zero, one, zero, -sine, zero, cosine]).view(3, 3)


def _some_vertices(model: BodyModel, motion: BodyMotion) -> Tensor:
    """Vertices (f, V, 3) of some frames spread over the clip."""
    index = torch.linspace(0, len(motion) - 1, min(len(motion), FRAMES_LOOKED_AT)).round().long()
    return pose_body(model, motion.rotations[index], motion.betas, motion.transl[index]).vertices


def _box(vertices: Tensor, camera: Camera, shift: Tensor) -> Tensor:
    """(4,) pixels: left, top, right, bottom of everything, the body moved by `shift`."""
    points = vertices + shift
    near = points[..., 2:].clamp_min(0.05)  # what is behind the camera counts as beside it
    pixels = project(torch.cat([points[..., :2], near], -1), camera.K[0] if camera.K.dim() == 3 else camera.K)
    return torch.cat([pixels.amin((0, 1)), pixels.amax((0, 1))])


def _shift(vertices: Tensor, camera: Camera, distance: float, place: Placement) -> Tensor:
    """Where the pelvis of frame 0 has to be, (3,) metres, so that the box has its middle where `place` says."""
    K = camera.K[0] if camera.K.dim() == 3 else camera.K
    wanted = torch.tensor([place.across * camera.width, place.down * camera.height])
    shift = torch.tensor([0.0, 0.0, distance])
    for _ in range(8):  # the box changes with the view of it; two or three rounds are enough
        box = _box(vertices, camera, shift)
        shift[:2] += (wanted - (box[:2] + box[2:]) / 2) / K[[0, 1], [0, 1]] * distance
    return shift


def _distance_that_shows_all(vertices: Tensor, camera: Camera) -> float:
    """Metres at which the box of the clip fills FILLED of the picture in the direction that is tighter."""
    low, high = NEAREST, FARTHEST
    room = FILLED * torch.tensor([camera.width, camera.height])
    for _ in range(40):
        middle = math.sqrt(low * high)
        box = _box(vertices, camera, _shift(vertices, camera, middle, Placement()))
        fits = bool((box[2:] - box[:2] <= room).all()) and float(vertices[..., 2].min()) + middle > NEAREST / 2
        low, high = (low, middle) if fits else (middle, high)
    return high
