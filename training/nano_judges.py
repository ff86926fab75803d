"""Two small classifiers that say which action, and on which side, a clip shows; the evaluation believes nobody else.

Shapes: n clips, T = 33 frames, J = 24 joints. The joint judge sees a motion as pelvis-relative joints.
The map judge sees a motion map alone: 8 x 8 pixels averaged, every second frame, minus frame 0. It was trained on drawn
maps that were made worse (noise, blur in space and time, paler movement, missing patches), never on generated ones, and
knows nothing of the autoencoder.

    python -m comfyui_comovi.training.nano_judges joints
    python -m comfyui_comovi.training.nano_judges map --cache runs/judge_maps.npz
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from ..comovi_model.files import atomic_path, require_file
from ..comovi_model.nano.actions import ACTION_NAMES, ACTIONS, ActionRequest
from ..comovi_model.nano.draw import draw_clip
from ..comovi_model.nano.people import load_nano_body
from ..comovi_model.nano.scene import NanoBody, forward_kinematics, sample_scene

JUDGE_SEEDS = 700_000_000  # apart from the seeds of training and of evaluation
HELD_OUT = 400
ASSETS = Path(__file__).parent / "assets"
SIDES = ("left", "right")
POOL, EVERY = 8, 2  # the map judge's pixels per cell, and its frames
JOINT_NOISE = 0.015  # metres


class TemporalClassifier(nn.Module):
    """Features (n, D, T) -> three convolutions over time, mean and maximum -> logits of action (n, 16), side (n, 2)."""

    def __init__(self, features: int, width: int = 128):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(size, width, 3, padding=step, dilation=step)
            for size, step in ((features, 1), (width, 2), (width, 4))
        )
        self.action, self.side = nn.Linear(2 * width, len(ACTIONS)), nn.Linear(2 * width, len(SIDES))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            x = F.silu(layer(x))
        x = F.dropout(torch.cat([x.mean(-1), x.amax(-1)], 1), 0.2, self.training)
        return self.action(x), self.side(x)


class JointJudge(nn.Module):
    """Pelvis-relative joints (n, T, 24, 3), metres, camera frame."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = TemporalClassifier(72)

    def forward(self, joints: Tensor) -> tuple[Tensor, Tensor]:
        return self.classifier(2 * joints.flatten(2).transpose(1, 2))

    def spoil(self, joints: Tensor) -> Tensor:
        """Training noise: 15 mm per joint and frame."""
        return joints + JOINT_NOISE * torch.randn_like(joints)


class MapJudge(nn.Module):
    """Pooled motion maps minus frame 0 (n, 16, 24, 16, 3), 1 = full scale."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.SiLU(), nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.SiLU(),
            nn.Flatten(), nn.Dropout(0.1), nn.Linear(64 * 6 * 4, 96), nn.SiLU(),
        )  # fmt: skip
        self.classifier = TemporalClassifier(96)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        n, t = maps.shape[:2]
        features = self.see(4 * maps.flatten(0, 1).permute(0, 3, 1, 2))
        return self.classifier(features.view(n, t, -1).transpose(1, 2))

    def spoil(self, maps: Tensor) -> Tensor:
        """Training damage, drawn per clip: movement at 60-100 %, blur in space or time, missing patches, noise."""
        n = len(maps)

        def some(share: float) -> Tensor:
            return (torch.rand(n, 1, 1, 1, 1) < share).float()

        maps = maps * (1 - 0.4 * torch.rand(n, 1, 1, 1, 1) * some(0.7))
        space = F.avg_pool2d(maps.permute(0, 1, 4, 2, 3).flatten(0, 1), 3, 1, 1, count_include_pad=False)
        space = space.view(n, -1, 3, *maps.shape[2:4]).permute(0, 1, 3, 4, 2)
        maps = torch.lerp(maps, space, some(0.4) * torch.rand(n, 1, 1, 1, 1))
        time = F.avg_pool3d(maps.permute(0, 4, 1, 2, 3), (3, 1, 1), 1, (1, 0, 0), count_include_pad=False)
        maps = torch.lerp(maps, time.permute(0, 2, 3, 4, 1), some(0.4) * torch.rand(n, 1, 1, 1, 1))
        patches = (torch.rand(n, 1, 4, 6, 4) > 0.15 * some(0.5)).float()  # a quarter of the time, 4 x 4 cells
        patches = F.interpolate(patches, tuple(maps.shape[1:4]), mode="nearest")[:, 0]
        return maps * patches[..., None] + 0.06 * torch.rand(n, 1, 1, 1, 1) * torch.randn_like(maps)


def relative_joints(body: NanoBody, betas: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Joints (T, 24, 3) minus the pelvis, of rotations (T, 24, 3, 3) in the camera frame."""
    rest = body.shaped(betas)[1]
    return forward_kinematics(rotations, np.zeros((len(rotations), 3)) - rest[0], rest)[1]


def pool_maps(maps: np.ndarray) -> np.ndarray:
    """Motion maps (..., T, H, W, 3) uint8 of an odd number of frames -> uint8 (..., 1 + T // 2, H / 8, W / 8, 3)."""
    x = maps[..., ::EVERY, :, :, :]
    *lead, height, width, _ = x.shape
    x = x.reshape(*lead, height // POOL, POOL, width // POOL, POOL, 3)
    return np.uint8(x.mean((-4, -2), dtype=np.float32) + 0.5)


def map_features(pooled: np.ndarray) -> Tensor:
    """Pooled maps (n, 17, h, w, 3) uint8 -> what the map judge sees, (n, 16, h, w, 3) float32."""
    x = torch.from_numpy(pooled).float() / 255
    return x[:, 1:] - x[:, :1]


def label(request: ActionRequest) -> tuple[int, int]:
    """Action index and side index (-1: no side)."""
    return request.action, SIDES.index(request.side) if request.side else -1


def right_answers(judge: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """For clips x with labels (n, 2): right action (n,) bool; right side (number of sided clips,) bool."""
    with torch.no_grad():
        rows = [judge(part) for part in x.split(64)]
    action, side = (torch.cat(parts).argmax(1) for parts in zip(*rows, strict=True))
    sided = labels[:, 1] >= 0
    return action == labels[:, 0], side[sided] == labels[sided, 1]


@lru_cache(maxsize=2)
def load_judge(kind: str) -> nn.Module:
    """ "joints" or "map": the trained judge from training/assets."""
    path = require_file(ASSETS / f"nano_judge_{kind}.safetensors", "judge weights")
    judge: nn.Module = {"joints": JointJudge, "map": MapJudge}[kind]()
    with safe_open(str(path), "pt") as file:
        judge.load_state_dict({key: file.get_tensor(key).float() for key in file.keys()})  # noqa: SIM118
    return judge.eval().requires_grad_(False)


def make_examples(kind: str, count: int) -> tuple[Tensor, Tensor]:
    """Inputs and labels (count, 2) of the clips after JUDGE_SEEDS; map inputs stay uint8 until they are used."""
    body = load_nano_body()
    inputs, labels = [], []
    for seed in tqdm(range(JUDGE_SEEDS, JUDGE_SEEDS + count), desc="examples", unit="clip"):
        scene = sample_scene(seed, body)
        if kind == "joints":
            inputs.append(relative_joints(body, scene.betas, scene.camera_motion(body)[0]).astype(np.float32))
        else:
            clip = draw_clip(scene, body, slice(0, None, EVERY))
            inputs.append(pool_maps(np.repeat(clip.motion_map, EVERY, 0)[:-1]))
        labels.append(label(scene.request))
    return torch.from_numpy(np.stack(inputs)), torch.tensor(labels)


def train(judge: nn.Module, x: Tensor, labels: Tensor, epochs: int, batch: int = 64, rate: float = 2e-3) -> None:
    """AdamW with a linear fall of the learning rate; the last HELD_OUT clips are left alone."""
    optimiser = torch.optim.AdamW(judge.parameters(), lr=rate, weight_decay=0.02)
    size = len(x) - HELD_OUT
    total = epochs * (size // batch)
    steps = tqdm(range(total), desc="training", unit="step")
    for step in steps:
        if step % (size // batch) == 0:
            order = torch.randperm(size)
        index = order[step % (size // batch) * batch :][:batch]
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / total)
        clean = map_features(x[index].numpy()) if x.dtype == torch.uint8 else x[index]
        action, side = judge(judge.spoil(clean))
        sided = labels[index, 1] >= 0
        loss = F.cross_entropy(action, labels[index, 0], label_smoothing=0.05)
        loss = loss + F.cross_entropy(side[sided], labels[index][sided, 1])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps.set_postfix(loss=f"{float(loss):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["joints", "map"])
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder for the weights")
    parser.add_argument("--count", type=int, default=6400)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--cache", type=Path, help="keep the drawn examples in this .npz")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if options.cache and options.cache.exists():
        saved = np.load(options.cache)
        x, labels = torch.from_numpy(saved["x"]), torch.from_numpy(saved["labels"])
    else:
        x, labels = make_examples(options.kind, options.count)
        if options.cache:
            with atomic_path(options.cache) as path:
                np.savez(path, x=x.numpy(), labels=labels.numpy())
    judge = JointJudge() if options.kind == "joints" else MapJudge()
    train(judge, x, labels, options.epochs)
    judge.eval()
    held_out = map_features(x[-HELD_OUT:].numpy()) if options.kind == "map" else x[-HELD_OUT:]
    scores = {}
    for name, seen in (("clean", held_out), ("spoilt", judge.spoil(held_out))):
        action, side = right_answers(judge, seen, labels[-HELD_OUT:])
        scores[name] = f"action {action.float().mean():.4f} side {side.float().mean():.4f}"
        print(f"held out, {name}: {scores[name]}")
    command = f"training.nano_judges {options.kind} --count {len(x)} --epochs {options.epochs}"
    with atomic_path(options.out / f"nano_judge_{options.kind}.safetensors") as path:
        save_file({key: value.half().contiguous() for key, value in judge.state_dict().items()}, str(path),
                  {"made_by": command, "actions": " ".join(ACTION_NAMES), "licence": "Apache-2.0",
                   **{f"held_out_{name}": score for name, score in scores.items()}})  # fmt: skip


if __name__ == "__main__":
    main()
