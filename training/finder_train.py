"""Train the person finder on drawn people: `python -m comfyui_comovi.training.finder_train --out runs/finder`

A small pool of cut-out people, places and frames of our clips is drawn; the network learns from ever new compositions
of them while the pool grows. The budget is in minutes of one core, because that is what it costs wherever it runs;
--wall-minutes ends it earlier. Started again with the same folder it goes on where it stopped, with a new pool.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from ..comovi_model.estimate.finder_net import FinderNet, Seen
from ..comovi_model.files import atomic_path
from .finder_people import Cutout, draw_person, sample_poses
from .finder_pictures import Picture, Sample, clip_picture, close_sample, compose, draw_place, whole_sample

PLACE = 260  # pixels of a side of a drawn place; pictures are cut from it
CLIP_SEEDS = 700_000_000  # of our clips, apart from those that other networks learn from and are judged by
BATCH, RATE, WARM_UP, CLOSE_SHARE = 24, 2e-3, 200, 0.6
START_POOL, MOST = (300, 150, 150), 8000  # people, places, clips at the start; of each at most
CENTRE_WEIGHT, SIDES_WEIGHT = 1.0, 8.0
LOG_EVERY, SAVE_EVERY = 50, 250  # steps


@dataclass
class Pool:
    """What pictures are made of; people are slowly replaced by new ones while training goes on."""

    people: list[Cutout]
    places: list[np.ndarray]
    clips: list[Picture]

    def picture(self, rng: np.random.Generator) -> Picture:
        if rng.random() < 0.2:
            return self.clips[int(rng.integers(len(self.clips)))]
        place = self.places[int(rng.integers(len(self.places)))]
        width, height = (int(v) for v in rng.integers(110, PLACE, 2))
        left, top = int(rng.integers(PLACE - width)), int(rng.integers(PLACE - height))
        part = place[top : top + height, left : left + width]
        if rng.random() < 0.5:
            part = part[:, ::-1]
        count = int(rng.choice(7, p=(0.06, 0.5, 0.2, 0.12, 0.06, 0.03, 0.03)))
        pick = lambda: self.people[int(rng.integers(len(self.people)))]  # noqa: E731
        return compose(pick, Image.fromarray(np.ascontiguousarray(part)), count, rng)

    def grow(self, step: int, seed: int, rng: np.random.Generator) -> None:
        """Two new people, and now and then a new place and a new clip; the oldest go when there are MOST."""
        self.people += [new_person(pose, rng) for pose in sample_poses("training", 2, rng)]
        if step % 4 == 0:
            self.places.append(np.asarray(draw_place(PLACE, PLACE, rng)))
            self.clips.append(clip_picture(CLIP_SEEDS + 1_000_000 * seed + step, rng))
        for shelf in (self.people, self.places, self.clips):
            del shelf[:-MOST]


def draw_pool(seed: int, people: int, places: int, clips: int, kind: str = "training") -> Pool:
    """A pool; the same numbers give the same pool."""
    rng = np.random.default_rng([seed, 0xF1])
    return Pool(
        [new_person(pose, rng) for pose in sample_poses(kind, people, rng)],
        [np.asarray(draw_place(PLACE, PLACE, rng)) for _ in range(places)],
        [clip_picture(CLIP_SEEDS + 1_000_000 * seed + 500_000 + number, rng) for number in range(clips)],
    )


def new_person(pose: np.ndarray, rng: np.random.Generator) -> Cutout:
    return draw_person(pose, rng, float(rng.uniform(70, 190)))


def make_batch(pool: Pool, count: int, rng: np.random.Generator) -> list[Sample]:
    """Samples of both kinds, close looks last."""
    close: list[Sample] = []
    whole: list[Sample] = []
    while len(whole) + len(close) < count:
        picture = pool.picture(rng)
        if picture.people and len(close) < CLOSE_SHARE * count:
            close.append(close_sample(picture, picture.people[int(rng.integers(len(picture.people)))], rng))
        if len(whole) < (1 - CLOSE_SHARE) * count and len(whole) + len(close) < count:
            whole.append(whole_sample(picture, rng))
    return whole + close


def losses(seen: Seen, samples: list[Sample]) -> dict[str, Tensor]:
    """Parts of the loss: middles (focal), sides (relative distance), keypoints (cross entropy above the target's)."""
    centre = torch.stack([s.centre for s in samples])
    chance = seen.centre.sigmoid().clamp(1e-4, 1 - 1e-4)
    hit = -((1 - chance) ** 2) * chance.log() * (centre == 1)
    miss = -(chance**2) * (1 - chance).log() * (1 - centre) ** 4
    middles = (hit + miss).sum() / (centre == 1).sum().clamp_min(1)
    weight = torch.stack([s.sides_weight for s in samples])[:, None]
    wrong = (seen.sides - torch.stack([s.sides for s in samples])).abs() * weight
    sides = wrong.sum() / (4 * (weight > 0).sum()).clamp_min(1)
    asked = [number for number, sample in enumerate(samples) if sample.keypoints is not None]
    target = torch.stack([samples[number].keypoints for number in asked])
    crossed = -(target * F.log_softmax(seen.keypoints[asked], -1)).sum(-1)
    keypoints = (crossed + torch.special.xlogy(target, target).sum(-1)).mean()
    return {"middles": middles, "sides": sides, "keypoints": keypoints}


def train(out: Path, core_minutes: float, wall_minutes: float, seed: int, most_steps: int = 10**9) -> None:
    """Runs to the end of the budget, or for `most_steps` in all, and leaves `finder.safetensors` in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = FinderNet().to(memory_format=torch.channels_last)
    average = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=1e-2)
    step, used, spent = 0, 0.0, 0.0
    resume = out / "state.pt"
    if resume.exists():
        state = torch.load(resume, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average, step, used, spent = state["average"], state["step"], state["used"], state["spent"]
    rng = np.random.default_rng([seed, step, 0xF2])
    pool = draw_pool(1000 * seed + step % 1000, *START_POOL)
    start, wall = time.process_time() - used, time.monotonic() - spent
    mean: dict[str, float] = {}

    def keep() -> None:
        save(average, out)
        state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
        with atomic_path(resume) as temporary:
            torch.save({**state, "step": step, "used": used, "spent": spent}, temporary)

    while True:
        used, spent = time.process_time() - start, time.monotonic() - wall
        done = max(used / (60 * core_minutes), spent / (60 * wall_minutes))
        if done >= 1 or step >= most_steps:
            break
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))
        samples = make_batch(pool, BATCH, rng)
        squares = torch.stack([sample.square for sample in samples]).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            seen = network(squares)
        parts = losses(Seen(seen.centre.float(), seen.sides.float(), seen.keypoints.float()), samples)
        loss = CENTRE_WEIGHT * parts["middles"] + SIDES_WEIGHT * parts["sides"] + parts["keypoints"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        with torch.no_grad():
            decay = min(0.998, step / (step + 10))
            for name, value in network.state_dict().items():
                if value.is_floating_point():
                    average[name].lerp_(value, 1 - decay)
        for name, part in parts.items():
            mean[name] = part.item() if name not in mean else 0.98 * mean[name] + 0.02 * part.item()
        step += 1
        pool.grow(step, seed, rng)
        if step % LOG_EVERY == 0:
            line = {"step": step, "done": done, "core_s": used, "wall_s": spent, **mean}
            with (out / "log.jsonl").open("a") as file:
                file.write(json.dumps({k: round(v, 4) for k, v in line.items()}) + "\n")
        if step % SAVE_EVERY == 0:
            keep()
    keep()


def save(average: dict[str, Tensor], out: Path) -> None:
    """The averaged weights in half precision, without the counters of the normalisation layers."""
    half = {n: v.half().contiguous() for n, v in average.items() if v.is_floating_point()}
    with atomic_path(out / "finder.safetensors") as temporary:
        save_file(half, temporary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the state and the weights")
    parser.add_argument("--core-minutes", type=float, default=35, help="of training")
    parser.add_argument("--wall-minutes", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train(options.out, options.core_minutes, options.wall_minutes, options.seed)


if __name__ == "__main__":
    main()
