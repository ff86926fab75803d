"""The keypoint lifter: a small transformer from 18 keypoints of one person to a body pose, its shape and its place.

One token per limb (head, trunk, two arms, two legs) and one for the camera; each limb's token tells the rotations of
its own joints. Trained by training/lifter_train.py. Letters: B people, K = 18 keypoints, J = 24 joints, T = 7 tokens.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from ..body.parts import NUM_JOINTS
from ..body.rotations import matrix_from_6d_columns
from ..errors import ComoviError
from ..files import atomic_path
from .keypoint_camera import LIMIT, Square, camera_condition, keypoint_square, pelvis_place

ASSET = Path(__file__).resolve().parents[1] / "assets" / "lifter.safetensors"
NUM_BETAS = 10
# What each limb's token reads (keypoints) and tells (joints). Right limbs first, as in the keypoints.
LIMB_KEYPOINTS = ((0, 14, 15, 16, 17), (1, 2, 5, 8, 11), (2, 3, 4), (5, 6, 7), (8, 9, 10), (11, 12, 13))
LIMB_JOINTS = ((12, 15), (0, 3, 6, 9), (14, 17, 19, 21, 23), (13, 16, 18, 20, 22), (2, 5, 8, 11), (1, 4, 7, 10))
MIRRORED_KEYPOINTS = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)
MIRRORED_JOINTS = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22)
USUAL_SCALE = 0.9  # of the crop camera
SMALLEST_SCALE = 0.05
SPREADS = (0.02, 2.0)  # radians, the least and the largest that is believed of a joint's own spread


@dataclass(frozen=True)
class LifterConfig:
    width: int = 256
    layers: int = 4
    heads: int = 8
    hidden: int = 768


@dataclass(frozen=True)
class Lifted:
    """Answers for B people."""

    rotations: Tensor  # (B, J, 3, 3); the root's in the camera frame
    betas: Tensor  # (B, 10), of the mannequin
    pelvis: Tensor  # (B, 3) metres in the camera frame
    spread: Tensor  # (B, J) radians, how far each rotation is probably off


class Block(nn.Module):
    """Self-attention and feed-forward, each normed before."""

    def __init__(self, config: LifterConfig):
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, config.hidden), nn.Linear(config.hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width)"""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v)  # (B, heads, T, width / heads)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Lifter(nn.Module):
    """Keypoints in their square (B, K, 3) and condition (B, 3) -> numbers of the body."""

    def __init__(self, config: LifterConfig | None = None):
        super().__init__()
        self.config = config = config or LifterConfig()
        width = config.width
        # x, y, confidence and "is there" of a limb's keypoints; all keypoints also go to the camera's token.
        self.read = nn.ModuleList(nn.Linear(4 * len(points), width) for points in LIMB_KEYPOINTS)
        self.read_camera = nn.Linear(4 * 18 + 3, width)
        self.place = nn.Parameter(torch.randn(1, 1 + len(LIMB_KEYPOINTS), width) * 0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.tell = nn.ModuleList(nn.Linear(width, 7 * len(joints)) for joints in LIMB_JOINTS)  # 6D and log spread
        self.tell_body = nn.Linear(width, NUM_BETAS + 3)
        for layer in (*self.tell, self.tell_body):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, points: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """-> 6D rotations (B, J, 6) in columns, betas (B, 10), crop camera (B, 3), log spreads (B, J)."""
        there = (points[..., 2:] > 0).to(points)
        known = torch.cat([points[..., :2].clamp(-LIMIT, LIMIT) * there, points[..., 2:], there], -1)  # (B, K, 4)
        tokens = [
            read(known[:, list(chosen)].flatten(1)) for read, chosen in zip(self.read, LIMB_KEYPOINTS, strict=True)
        ]
        tokens.append(self.read_camera(torch.cat([known.flatten(1), condition], -1)))
        x = torch.stack(tokens, 1) + self.place
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        told = torch.cat([tell(x[:, n]).unflatten(1, (-1, 7)) for n, tell in enumerate(self.tell)], 1).float()
        order = [joint for joints in LIMB_JOINTS for joint in joints]
        told = told[:, [order.index(joint) for joint in range(NUM_JOINTS)]]
        body = self.tell_body(x[:, -1]).float()
        start = torch.tensor([1.0, 0, 0, 0, 1.0, 0]).repeat(NUM_JOINTS, 1).to(told)
        start[0, 4] = -1  # in the camera's axes a person who stands is upside down: y points down
        scale = USUAL_SCALE * body[:, NUM_BETAS : NUM_BETAS + 1].clamp(-4, 4).exp()
        camera = torch.cat([scale.clamp_min(SMALLEST_SCALE), body[:, NUM_BETAS + 1 :]], -1)
        return told[..., :6] + start, body[:, :NUM_BETAS], camera, told[..., 6] - 1.5


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
