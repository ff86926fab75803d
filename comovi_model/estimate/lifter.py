"""The keypoint lifter: from 18 keypoints of one person to a body pose, its shape and its place.

The network is in lifter_net.py, its training in training/lifter_train.py. Letters: B people, K = 18 keypoints, J = 24
joints.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..body.rotations import matrix_from_6d_columns
from ..errors import ComoviError
from ..files import atomic_path
from .keypoint_camera import Square, camera_condition, keypoint_square, pelvis_place
from .lifter_net import NEAREST, Lifter, LifterConfig

ASSET = Path(__file__).resolve().parents[1] / "assets" / "lifter.safetensors"
MIRRORED_KEYPOINTS = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)
MIRRORED_JOINTS = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22)
WILD_TIMES, WILD_SHARE = 8.0, 0.1  # of the median distance, and of the side of the person's square
SPREADS = (0.02, 2.0)  # radians, the least and the largest that is believed of a joint's own spread


@dataclass(frozen=True)
class Lifted:
    """Answers for B people."""

    rotations: Tensor  # (B, J, 3, 3); the root's in the camera frame
    betas: Tensor  # (B, 10), of the mannequin
    pelvis: Tensor  # (B, 3) metres in the camera frame
    spread: Tensor  # (B, J) radians, how far each rotation is probably off


def mirror_keypoints(keypoints: Tensor, width: Tensor | float) -> Tensor:
    """(B, K, 3) pixels as they are in the mirrored picture: left and right change names."""
    mirrored = keypoints[:, list(MIRRORED_KEYPOINTS)].clone()
    mirrored[..., 0] = torch.as_tensor(width).to(mirrored).view(-1, 1) - mirrored[..., 0]
    return mirrored


def mirror_rotations(rotations: Tensor) -> Tensor:
    """Local rotations (B, J, 3, 3), the root's in the camera frame -> those of the body in the mirrored picture."""
    flip = torch.tensor([-1.0, 1.0, 1.0]).to(rotations)
    return rotations[:, list(MIRRORED_JOINTS)] * flip[:, None] * flip


def lift(lifter: Lifter, keypoints: Tensor, focal: Tensor, size: Tensor) -> Lifted:
    """Keypoints (B, K, 3) px, focal lengths (B,) px and picture sizes (B, 2) as (height, width) -> bodies.

    The mean of what the lifter says of the picture and of its mirror image.
    """
    keypoints, focal, size = (value.float() for value in (keypoints, focal, size))
    both = torch.cat([keypoints, mirror_keypoints(keypoints, size[:, 1])])
    with torch.no_grad():
        six, betas, camera, spread = lifter(*network_input(both, focal.repeat(2), size.repeat(2, 1))[:2])
    plain, mirrored = matrix_from_6d_columns(six).chunk(2)
    turns = _mean_rotation(plain, mirror_rotations(mirrored))
    log_spread = (spread.chunk(2)[0] + spread.chunk(2)[1][:, list(MIRRORED_JOINTS)]) / 2
    camera_plain, camera_mirrored = camera.chunk(2)
    camera = (camera_plain + camera_mirrored * torch.tensor([1.0, -1.0, 1.0])) / 2
    pelvis = pelvis_place(camera, keypoint_square(keypoints), focal, size)
    return Lifted(turns, (betas.chunk(2)[0] + betas.chunk(2)[1]) / 2, pelvis, log_spread.exp().clamp(*SPREADS))


def without_wild(lifter: Lifter, keypoints: Tensor, lifted: Lifted, focal: Tensor, size: Tensor) -> Tensor:
    """(B, K, 3) pixels without those that lie far from where the answer has them: such points pull at the others."""
    keypoints, focal, size = (value.float() for value in (keypoints, focal, size))
    points = lifter.body.posed(lifted.rotations).points_at(lifted.betas) + lifted.pelvis[:, None]
    pixels = focal[:, None, None] * points[..., :2] / points[..., 2:].clamp_min(NEAREST) + size.flip(-1)[:, None] / 2
    away = (pixels - keypoints[..., :2]).norm(dim=-1) / keypoint_square(keypoints).side[:, None]  # (B, K)
    seen = keypoints[..., 2] > 0
    usual = away.masked_fill(~seen, torch.nan).nanmedian(1, keepdim=True).values
    wild = seen & (away > WILD_TIMES * usual) & (away > WILD_SHARE)
    return keypoints.masked_fill(wild[..., None], 0)


def network_input(keypoints: Tensor, focal: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Square]:
    """Pixels -> what the network reads: positions in the square with confidence (B, K, 3), condition (B, 3)."""
    square = keypoint_square(keypoints)
    inside = torch.cat([square.inside(keypoints[..., :2]), keypoints[..., 2:].clamp(0, 1)], -1)
    return inside, camera_condition(square, focal, size), square


def _mean_rotation(first: Tensor, second: Tensor) -> Tensor:
    """The rotation nearest to both, (..., 3, 3)."""
    left, _, right = torch.linalg.svd(first + second)
    sign = torch.linalg.det(left @ right)
    return left @ torch.cat([right[..., :2, :], right[..., 2:, :] * sign[..., None, None]], -2)


def save_lifter(lifter: Lifter, path: Path, command: str) -> None:
    """Writes float16 weights; `command` says how they were made."""
    from safetensors.torch import save_file

    tensors = {name: value.detach().half().contiguous() for name, value in lifter.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"config": json.dumps(asdict(lifter.config)), "command": command})


def read_lifter(path: Path) -> Lifter:
    """A lifter from its file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            config = LifterConfig(**json.loads((file.metadata() or {})["config"]))
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ComoviError(f"{path}: expected the weights of a keypoint lifter ({error}).") from None
    lifter = Lifter(config)
    try:
        lifter.load_state_dict(weights)
    except RuntimeError as error:
        raise ComoviError(f"{path}: the weights do not fit the keypoint lifter ({str(error)[:200]}).") from None
    return lifter.eval().requires_grad_(False)


@lru_cache(maxsize=1)
def load_lifter() -> Lifter:
    """The lifter that is shipped."""
    if not ASSET.is_file():
        raise ComoviError(f"{ASSET}: the weights of the keypoint lifter are missing; install the package again.")
    return read_lifter(ASSET)
