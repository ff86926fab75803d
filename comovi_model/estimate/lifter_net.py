"""The network of the keypoint lifter: a small transformer that looks at its own answer again.

One token per limb (head, trunk, two arms, two legs) and one for the camera; each limb's token tells the rotations of
its own joints. The first look reads keypoints only. Every further look poses the mannequin as the last answer says,
projects it into the picture, reads by how much it misses the keypoints there, and tells what to change: the geometry
of a camera is computed, not learned. Letters: B people, K = 18 keypoints, J = 24 joints, T = 7 tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..body.mannequin import load_mannequin
from ..body.parts import NUM_JOINTS
from ..body.rotations import matrix_from_6d_columns
from .keypoint_camera import LIMIT
from .lifter_body import NUM_BETAS, NUM_KEYPOINTS, KeypointBody, keypoint_body

# What each limb's token reads (keypoints) and tells (joints). Right limbs first, as in the keypoints.
LIMB_KEYPOINTS = ((0, 14, 15, 16, 17), (1, 2, 5, 8, 11), (2, 3, 4), (5, 6, 7), (8, 9, 10), (11, 12, 13))
LIMB_JOINTS = ((12, 15), (0, 3, 6, 9), (14, 17, 19, 21, 23), (13, 16, 18, 20, 22), (2, 5, 8, 11), (1, 4, 7, 10))
TOLD_ORDER = [joint for joints in LIMB_JOINTS for joint in joints]
JOINT_ORDER = [TOLD_ORDER.index(joint) for joint in range(NUM_JOINTS)]  # where each joint stands in what limbs tell
TOKENS = 1 + len(LIMB_KEYPOINTS)
USUAL_SCALE = 0.9  # of the crop camera
SMALLEST_SCALE = 0.05
USUAL_LOG_SPREAD = -1.5
MISSED = 10.0  # half sides of the square; what a look reads of its misses is that many times larger, up to LIMIT
NEAREST = 0.2  # metres, the least depth at which a point is projected


@dataclass(frozen=True)
class LifterConfig:
    width: int = 256
    layers: int = 4
    heads: int = 8
    hidden: int = 768
    looks: int = 2  # after the first
    look_layers: int = 2


class Told(NamedTuple):
    """What one look says of B people."""

    six: Tensor  # (B, J, 6) rotations by their first two columns; the root's in the camera frame
    betas: Tensor  # (B, 10), of the mannequin
    camera: Tensor  # (B, 3) scale and shift of the crop camera, see keypoint_camera.py
    log_spread: Tensor  # (B, J) log radians, how far each rotation is probably off


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


class OutputHead(nn.Module):
    """Tokens (B, T, width) -> 7 numbers of each joint (B, J, 7), and NUM_BETAS + 3 of the body (B, 13)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.tell = nn.ModuleList(nn.Linear(width, 7 * len(joints)) for joints in LIMB_JOINTS)  # 6D and log spread
        self.tell_body = nn.Linear(width, NUM_BETAS + 3)
        for layer in (*self.tell, self.tell_body):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(x)
        told = torch.cat([tell(x[:, n]).unflatten(1, (-1, 7)) for n, tell in enumerate(self.tell)], 1).float()
        return told[:, JOINT_ORDER], self.tell_body(x[:, -1]).float()


class Look(nn.Module):
    """A further look: the answer so far, and where it falls in the picture -> a better answer."""

    def __init__(self, config: LifterConfig):
        super().__init__()
        width = config.width
        # Of each keypoint what was read, where the answer has it, by how much that misses, and its depth; of each
        # joint its rotation, its place from the pelvis and its spread.
        self.read = nn.ModuleList(
            nn.Linear(9 * len(points) + 10 * len(joints), width)
            for points, joints in zip(LIMB_KEYPOINTS, LIMB_JOINTS, strict=True)
        )
        self.read_camera = nn.Linear(9 * NUM_KEYPOINTS + NUM_BETAS + 3 + 3, width)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.look_layers))
        self.out = OutputHead(width)
        for layer in (*self.out.tell, self.out.tell_body):
            nn.init.zeros_(layer.weight)  # nothing is changed before something is learned

    def forward(
        self, x: Tensor, told: Told, known: Tensor, condition: Tensor, body: KeypointBody
    ) -> tuple[Tensor, Told]:
        """Tokens (B, T, width), the last answer, keypoints (B, K, 4), condition (B, 3) -> tokens and answer."""
        with torch.autocast("cpu", enabled=False):
            points, joints, columns = seen_again(told, known, condition, body)
        tokens = [
            read(torch.cat([points[:, list(some)].flatten(1), joints[:, list(others)].flatten(1)], -1))
            for read, some, others in zip(self.read, LIMB_KEYPOINTS, LIMB_JOINTS, strict=True)
        ]
        scale = (told.camera[:, :1] / USUAL_SCALE).log()
        whole = torch.cat([points.flatten(1), told.betas, scale, told.camera[:, 1:], condition], -1)
        tokens.append(self.read_camera(whole))
        x = self.norm(x) + torch.stack(tokens, 1)
        for block in self.blocks:
            x = block(x)
        change, of_body = self.out(x)
        scale = told.camera[:, :1] * of_body[:, NUM_BETAS : NUM_BETAS + 1].clamp(-2, 2).exp()
        camera = torch.cat([scale.clamp_min(SMALLEST_SCALE), told.camera[:, 1:] + of_body[:, NUM_BETAS + 1 :]], -1)
        better = Told(
            columns + change[..., :6], told.betas + of_body[:, :NUM_BETAS], camera, told.log_spread + change[..., 6]
        )
        return x, better


def seen_again(told: Told, known: Tensor, condition: Tensor, body: KeypointBody) -> tuple[Tensor, Tensor, Tensor]:
    """What a look reads of an answer: of keypoints (B, K, 9), of joints (B, J, 10), and its rotations (B, J, 6).

    In the units of the square no focal length is needed: a point X falls at 2 (X / Z - c) / s, where c is the direction
    of the square's middle and s its side over the focal length, which is what the condition holds.
    """
    rotations = matrix_from_6d_columns(told.six)
    columns = torch.cat([rotations[..., 0], rotations[..., 1]], -1)
    posed = body.posed(rotations)
    direction, side = condition[:, None, :2], condition[:, None, 2:]
    scale, shift = told.camera[:, None, :1], told.camera[:, None, 1:]
    points, joints = posed.points_at(told.betas), posed.joints_at(told.betas)
    depth = points[..., 2:] + 2 / (side * scale)  # as in pelvis_place
    across = points[..., :2] + shift + 2 * direction / (scale * side)
    drawn = 2 * (across / depth.clamp_min(NEAREST) - direction) / side
    drawn = drawn.clamp(-LIMIT, LIMIT)
    missed = (MISSED * (known[..., :2] - drawn) * known[..., 3:]).clamp(-LIMIT, LIMIT)
    return (
        torch.cat([known, drawn, missed, points[..., 2:]], -1),
        torch.cat([columns, joints, told.log_spread[..., None]], -1),
        columns,
    )


class Lifter(nn.Module):
    """Keypoints in their square (B, K, 3) and condition (B, 3) -> numbers of the body."""

    def __init__(self, config: LifterConfig | None = None):
        super().__init__()
        self.config = config = config or LifterConfig()
        width = config.width
        self.body = keypoint_body(load_mannequin())
        # x, y, confidence and "is there" of a limb's keypoints; all keypoints also go to the camera's token.
        self.read = nn.ModuleList(nn.Linear(4 * len(points), width) for points in LIMB_KEYPOINTS)
        self.read_camera = nn.Linear(4 * NUM_KEYPOINTS + 3, width)
        self.place = nn.Parameter(torch.randn(1, TOKENS, width) * 0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.out = OutputHead(width)
        self.again = nn.ModuleList(Look(config) for _ in range(config.looks))

    def forward(self, points: Tensor, condition: Tensor) -> Told:
        """The last answer."""
        return self.answers(points, condition)[-1]

    def answers(self, points: Tensor, condition: Tensor) -> list[Told]:
        """That of each look. Gradients reach the look before through its tokens, not through its answer."""
        there = (points[..., 2:] > 0).to(points)
        known = torch.cat([points[..., :2].clamp(-LIMIT, LIMIT) * there, points[..., 2:], there], -1)  # (B, K, 4)
        x, told = self._first(known, condition)
        every = [told]
        for look in self.again:
            before = Told(*(value.detach() for value in told))
            x, told = look(x, before, known, condition, self.body)
            every.append(told)
        return every

    def _first(self, known: Tensor, condition: Tensor) -> tuple[Tensor, Told]:
        tokens = [
            read(known[:, list(chosen)].flatten(1)) for read, chosen in zip(self.read, LIMB_KEYPOINTS, strict=True)
        ]
        tokens.append(self.read_camera(torch.cat([known.flatten(1), condition], -1)))
        x = torch.stack(tokens, 1) + self.place
        for block in self.blocks:
            x = block(x)
        told, of_body = self.out(x)
        start = torch.tensor([1.0, 0, 0, 0, 1.0, 0]).repeat(NUM_JOINTS, 1).to(told)
        start[0, 4] = -1  # in the camera's axes a person who stands is upside down: y points down
        scale = USUAL_SCALE * of_body[:, NUM_BETAS : NUM_BETAS + 1].clamp(-4, 4).exp()
        camera = torch.cat([scale.clamp_min(SMALLEST_SCALE), of_body[:, NUM_BETAS + 1 :]], -1)
        return x, Told(told[..., :6] + start, of_body[:, :NUM_BETAS], camera, told[..., 6] + USUAL_LOG_SPREAD)
