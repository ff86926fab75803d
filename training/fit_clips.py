"""Synthetic motion maps with known motion, to measure and to tune the fit of comovi_model/fit.

A clip is a pure function of (purpose, seed, index). Tuning and evaluation can never share one: their random streams
start from different words, and so do their actions: what the fit is tuned on moves in other
ways than what it is measured on.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..comovi_model.body.cameras import Camera
from ..comovi_model.body.map_colours import to_uint8
from ..comovi_model.body.map_render import iter_motion_map
from ..comovi_model.body.motion import BodyMotion
from ..comovi_model.body.rotations import axis_angle_to_matrix
from ..comovi_model.body.smpl import BodyModel, pose_body, rest_joints, shaped_vertices
from ..comovi_model.nano.actions import ACTION_NAMES, ACTIONS, SPEEDS, ActionRequest, Timing, perform
from ..comovi_model.nano.skeleton import mirror_motion, solve_tracks, standing_tracks
from ..comovi_model.video import read_video, write_video
from .fit_actions import OWN_ACTIONS, PRACTICE_ACTIONS

NUM_FRAMES, HEIGHT, WIDTH, FPS = 33, 640, 352, 16.0
CRF = 18
TUNING_ACTIONS = (*PRACTICE_ACTIONS, "walk", "turn", "wave", "squat", "sit", "punch", "jumping_jack", "step_aside")


HELD_OUT_ACTIONS = tuple(OWN_ACTIONS) + tuple(name for name in ACTION_NAMES if name not in TUNING_ACTIONS)


@dataclass(frozen=True)
class FitClip:
    """One clip: the true motion (camera frame, with camera) and its name."""

    name: str
    motion: BodyMotion
    noise_seed: int


def clip_rng(purpose: str, seed: int, index: int) -> np.random.Generator:
    """purpose "evaluation" or "tuning"."""
    digest = hashlib.sha256(f"fit {purpose}:{seed}:{index}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def make_clip(purpose: str, seed: int, index: int, body: BodyModel) -> FitClip:
    """Clip number `index`. Actions take turns, beginning at a random one, so that few clips differ already."""
    actions = {"tuning": TUNING_ACTIONS, "evaluation": HELD_OUT_ACTIONS}[purpose]
    first = int(clip_rng(purpose, seed, -1).integers(len(actions)))
    name = actions[(first + index) % len(actions)]
    rng = clip_rng(purpose, seed, index)
    betas = torch.from_numpy(rng.standard_normal(10).clip(-2, 2)).float()
    joints = rest_joints(body, betas).double().numpy()
    ground = float(shaped_vertices(body, betas)[:, 1].min())
    local, pelvis = _act(name, joints, ground, rng)
    local = local @ _sway(rng, len(local))
    heading = _about(rng.uniform(0, 2 * np.pi), 1)
    local[:, 0] = heading @ local[:, 0]
    pelvis = pelvis @ heading.T
    motion = BodyMotion(
        rotations=torch.from_numpy(local).float(), betas=betas, transl=torch.from_numpy(pelvis - joints[0]).float(),
        frame="yup", fps=FPS, body_model=body.name,
    )  # fmt: skip
    return FitClip(name, _filmed(motion, body, joints[0], rng), int(rng.integers(2**31)))


def _act(name: str, joints: np.ndarray, ground: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    speed, side = tuple(SPEEDS)[int(rng.integers(3))], ("left", "right")[int(rng.integers(2))]
    own = OWN_ACTIONS | PRACTICE_ACTIONS
    if name not in own:
        action = ACTION_NAMES.index(name)
        request = ActionRequest(action, side if ACTIONS[action].sided else "", speed)
        return perform(request, joints, ground, NUM_FRAMES, FPS, rng)
    tracks = standing_tracks(NUM_FRAMES, joints)
    own[name](tracks, Timing(np.arange(NUM_FRAMES) / FPS * SPEEDS[speed], rng))
    local, pelvis = solve_tracks(tracks, joints, ground)
    return mirror_motion(local, pelvis) if side == "right" else (local, pelvis)


def _sway(rng: np.random.Generator, frames: int, spread: float = 0.07) -> np.ndarray:
    """Small smooth rotations (F, 24, 3, 3): nobody moves like a formula."""
    time = np.arange(frames)[:, None, None] / FPS
    pace, phase = rng.uniform(0.2, 0.9, (2, 24, 3)), rng.uniform(0, 6.28, (2, 24, 3))
    size = rng.normal(0, spread, (2, 24, 3)) * np.where(np.isin(np.arange(24), [10, 11, 22, 23]), 0.4, 1.0)[:, None]
    vector = sum(size[k] * np.sin(2 * np.pi * pace[k] * time + phase[k]) for k in range(2))
    return axis_angle_to_matrix(torch.from_numpy(np.asarray(vector))).numpy()


def _about(angle: float, axis: int) -> np.ndarray:
    vector = torch.zeros(3, dtype=torch.float64)
    vector[axis] = angle
    return axis_angle_to_matrix(vector).numpy()


def _filmed(motion: BodyMotion, body: BodyModel, pelvis: np.ndarray, rng: np.random.Generator) -> BodyMotion:
    """A camera that sees the whole motion, 28 to 58 degrees high, the person 320 to 470 pixels tall if it fits."""
    camera = Camera.from_fov(rng.uniform(28, 58), WIDTH, HEIGHT)
    focal = float(camera.K[0, 0])
    shaped = shaped_vertices(body, motion.betas)
    tall = float(shaped[:, 1].max() - shaped[:, 1].min())
    distance = focal * tall / rng.uniform(320, 470)
    tilt = torch.from_numpy(_about(np.radians(rng.uniform(-8, 12)), 0)).float()
    motion = motion.to_frame("camera", torch.from_numpy(pelvis))
    middle = pose_body(body, motion.rotations, motion.betas, motion.transl).vertices.flatten(0, 1)
    centre = (middle.amin(0) + middle.amax(0)) / 2
    for _ in range(8):
        shift = torch.tensor([rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05), distance])
        placed = motion.moved(tilt, shift - tilt @ centre, torch.from_numpy(pelvis))
        vertices = pose_body(body, placed.rotations, placed.betas, placed.transl).vertices
        seen = vertices[..., :2] / vertices[..., 2:] * focal
        if bool((seen[..., 0].abs() < WIDTH / 2 - 6).all() and (seen[..., 1].abs() < HEIGHT / 2 - 6).all()):
            break
        distance *= 1.08
    return BodyMotion(placed.rotations, placed.betas, placed.transl, "camera", camera, FPS, body.name)


def draw_clip(clip: FitClip, body: BodyModel) -> np.ndarray:
    """The map as drawn, (F, H, W, 3) uint8."""
    return torch.cat([to_uint8(group) for group in iter_motion_map(body, clip.motion, HEIGHT, WIDTH)]).numpy()


def through_codec(frames: np.ndarray) -> np.ndarray:
    """H.264, crf 18, yuv420p, and back."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_video(Path(folder) / "map.mp4", frames, FPS, crf=CRF)
        return read_video(path)[0]


@dataclass(frozen=True)
class Disturbance:
    """What generators do to a map. Lengths in pixels, levels of 255."""

    blur: float  # standard deviation
    drift: float  # spread of gain and offset per channel, share of the range
    local: float  # levels of a colour field that varies over the picture
    noise: float  # levels, correlated over 2 pixels, in the background too
    warp: float  # rms, over 30 pixels and 4 frames


MILD = Disturbance(blur=1.5, drift=0.015, local=2.0, noise=2.4, warp=1.5)
MEDIUM = Disturbance(blur=2.0, drift=0.03, local=4.0, noise=5.0, warp=3.0)


def disturb(frames: np.ndarray, kind: Disturbance, seed: int) -> np.ndarray:
    """Map (F, H, W, 3) uint8 -> disturbed (F, H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    gain = torch.from_numpy(1 + kind.drift * rng.standard_normal(3)).float().view(3, 1, 1)
    offset = torch.from_numpy(kind.drift * rng.standard_normal(3)).float().view(3, 1, 1)
    field = _smooth_field((3,), 80.0, generator) * kind.local / 255
    warps = _warps(len(frames), kind.warp, generator)
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    out = np.empty_like(frames)
    for number, frame in enumerate(frames):
        picture = torch.from_numpy(frame).permute(2, 0, 1).float() / 255
        grid = torch.stack([(x + warps[number, 0]) / WIDTH, (y + warps[number, 1]) / HEIGHT], -1) * 2 - 1
        picture = F.grid_sample(picture[None], grid[None], padding_mode="border", align_corners=False)
        picture = blur(picture, kind.blur)[0]
        picture = picture * gain + offset + field + _smooth_field((3,), 2.0, generator) * kind.noise / 255
        out[number] = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return out


def blur(picture: Tensor, sigma: float) -> Tensor:
    """(1, C, H, W)"""
    radius = int(np.ceil(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(picture.shape[1], 1, 1, -1)
    padded = F.pad(picture, [radius] * 4, mode="replicate")
    rows = F.conv2d(padded, kernel, groups=picture.shape[1])
    return F.conv2d(rows, kernel.transpose(2, 3), groups=picture.shape[1])


def _smooth_field(shape: tuple[int, ...], scale: float, generator: torch.Generator) -> Tensor:
    """Unit-variance noise (*shape, H, W) that varies over `scale` pixels."""
    small = torch.randn(1, int(np.prod(shape)), int(HEIGHT / scale) + 3, int(WIDTH / scale) + 3, generator=generator)
    large = F.interpolate(small, size=(HEIGHT, WIDTH), mode="bicubic", align_corners=False)[0]
    return (large / large.std()).view(*shape, HEIGHT, WIDTH)


def _warps(frames: int, rms: float, generator: torch.Generator) -> Tensor:
    """Displacements (F, 2, H, W), new every 4 frames with a smooth passage."""
    keys = torch.stack([_smooth_field((2,), 30.0, generator) for _ in range(frames // 4 + 2)])
    out = []
    for frame in range(frames):
        key, part = divmod(frame, 4)
        angle = part / 4 * np.pi / 2
        out.append(keys[key] * np.cos(angle) + keys[key + 1] * np.sin(angle))  # keeps the variance
    return torch.stack(out) * rms / 2**0.5  # rms of the length
