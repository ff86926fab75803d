"""The recovered body as a picture of its own: the mannequin in the colours of its parts, seen from the side.

Letters: F frames, V vertices, N faces, P covered samples, H x W pixels. World frame: y up, floor at y = 0.
The first two panels of a clip are what the model made; this one shows what a 3D program makes of motion.glb.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..body.cameras import intrinsics, pixel_rays
from ..body.map_colours import to_uint8
from ..body.map_render import vertex_normals, visible_body
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel, pose_body
from .draw import SUN, contact_shadows
from .draw_torch import SAMPLES, average
from .scene import HEIGHT, LOOK_AT_HEIGHT, PIXELS_PER_METRE, look_at
from .skeleton import L_ANKLE, PELVIS

VIEW_DEGREES = 35  # round the vertical axis, to the person's left of the clip's camera
DISTANCE, EYE_HEIGHT = 9.0, 2.2  # metres; a little higher than the clip's camera, so that the floor is seen
BACKDROP, FLOOR = (0.965, 0.965, 0.955), (0.88, 0.88, 0.87)


def draw_body_view(model: BodyModel, motion: BodyMotion, tints: Tensor, height: int, width: int) -> np.ndarray:
    """A motion in frame "yup" that stands on the floor -> (F, H, W, 3) uint8; tints (N, 3) of faces in 0..1."""
    assert motion.frame == "yup"
    turn = np.radians(VIEW_DEGREES)
    eye = np.array([DISTANCE * np.sin(turn), EYE_HEIGHT, DISTANCE * np.cos(turn)])
    view = look_at(eye, np.array([0.0, LOOK_AT_HEIGHT - 0.05, 0.0]), PIXELS_PER_METRE * DISTANCE * height / HEIGHT)
    rotation, position = torch.from_numpy(view.rotation).float(), torch.from_numpy(view.position).float()
    K = intrinsics(view.focal_px, width / 2, height / 2)
    floor = _floor_points(rotation, position, K, height, width)
    rest = pose_body(model, torch.eye(3).expand(1, 24, 3, 3), motion.betas)
    standing = rest.joints[0, :, 1] - rest.vertices[0, :, 1].min()
    pictures = []
    for frame in range(len(motion)):
        one = motion.slice(frame, frame + 1)
        body = pose_body(model, one.rotations, one.betas, one.transl)
        blobs = contact_shadows(body.joints.double().numpy(), float(standing[L_ANKLE]), float(standing[PELVIS]))[0]
        person = _lit_person(model, (body.vertices - position) @ rotation.T, K, (height, width), tints)
        picture = person[..., :3] + (1 - person[..., 3:]) * _shaded_floor(floor, torch.from_numpy(blobs))
        pictures.append(to_uint8(picture))
    return torch.stack(pictures).numpy()


def _lit_person(model: BodyModel, vertices: Tensor, K: Tensor, size: tuple[int, int], tints: Tensor) -> Tensor:
    """Vertices (1, V, 3) in the camera frame -> (H, W, 4): colour times coverage, and coverage."""
    pixels = visible_body(model, vertices, torch.diag(torch.tensor([SAMPLES, SAMPLES, 1.0])) @ K,
                          size[0] * SAMPLES, size[1] * SAMPLES)  # fmt: skip
    normals = pixels.interpolate(vertex_normals(vertices, model.faces), model.faces)  # (P, 3)
    light = 0.62 + 0.42 * (normalize(normals, dim=1) @ torch.from_numpy(SUN).float()).clamp_min(0)
    values = torch.cat([(tints[pixels.face] * light[:, None]).clamp_max(1), torch.ones_like(light)[:, None]], 1)
    return average(pixels, values)[0]


def _floor_points(rotation: Tensor, position: Tensor, K: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel's ray meets the floor: world x, z in metres, far away above the horizon; (H, W, 2)."""
    ray = pixel_rays(K, height, width) @ rotation
    reach = (-position[1] / ray[..., 1].clamp_max(-1e-6)).clamp_max(1e3)
    return position[[0, 2]] + reach[..., None] * ray[..., [0, 2]]


def _shaded_floor(place: Tensor, blobs: Tensor) -> Tensor:
    """The empty stage (H, W, 3): a round floor that fades out, with contact shadows (k, 4) as in draw.py."""
    share = ((2.2 - place.norm(dim=-1)) / 1.2).clamp(0, 1)[..., None]
    colour = share * torch.tensor(FLOOR) + (1 - share) * torch.tensor(BACKDROP)
    x, z, sharpness, strength = blobs[:, None, None].unbind(-1)  # (k, 1, 1) each
    distance = ((place[..., 0] - x) ** 2 + (place[..., 1] - z) ** 2) * sharpness
    return colour * (1 - strength * torch.exp(-distance)).prod(0)[..., None]
