"""Train the keypoint lifter on people that are made up while it learns.

    python -m comfyui_comovi.training.lifter_train --out RUN --steps 9000
    python -m comfyui_comovi.training.lifter_train --out RUN --export comovi_model/assets/lifter.safetensors

A run goes on from its last checkpoint. Step number s of seed S always sees the same people, so a run that was
interrupted is the same run. Several processes, each with BATCH people a step:

    torchrun --nproc-per-node 2 -m comfyui_comovi.training.lifter_train --out RUN --steps 9000

Letters: B people, J = 24 joints.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ..comovi_model.body.mannequin import load_mannequin
from ..comovi_model.body.rotations import matrix_from_6d_columns, matrix_to_axis_angle
from ..comovi_model.body.smpl import rest_joints
from ..comovi_model.errors import ComoviError
from ..comovi_model.estimate.keypoint_camera import Square, crop_camera, pelvis_place
from ..comovi_model.estimate.lifter import network_input, read_lifter, save_lifter
from ..comovi_model.estimate.lifter_body import KeypointBody, keypoint_body
from ..comovi_model.estimate.lifter_net import Lifter, LifterConfig, Told
from ..comovi_model.files import atomic_path
from .lifter_balance import balanced_poses
from .lifter_moments import free_moments
from .lifter_people import TRAINING_NOISE, USUAL_NOISE, People, draw_people, together
from .lifter_poses import (
    TRAINING_ACTIONS,
    TRAINING_VARIETY,
    action_poses,
    everyday_poses,
    jittered,
    mirrored,
    named_poses,
    random_poses,
    recombined,
)
from .similarity import best_turn

BATCH = 256
RATE, WARM_UP, DECAY, CLIP = 1.2e-3, 300, 0.02, 1.0
AVERAGE = 0.998  # of the weights that are kept
SHARES = {"everyday": 0.34, "random": 0.15, "actions": 0.18, "free": 0.16, "balanced": 0.14, "named": 0.03}
ACTION_POOL, BALANCED_POOL = 40_000, 24_000
LOOSE = 10.0  # degrees, standard deviation about each axis
RECOMBINED = 0.15  # share of poses that get the arms, or the legs, of another
LESS_SURE = {10: 0.2, 11: 0.2, 20: 0.4, 21: 0.4, 22: 0.1, 23: 0.1, 7: 0.5, 8: 0.5}  # weights of unseen rotations
EARLIER = 0.5  # weight of the losses of the looks before the last
SAVE_EVERY, LOG_EVERY = 200, 50


def numbers(word: str, *counters: int) -> np.random.Generator:
    """A random stream that belongs to a purpose and counters alone."""
    digest = hashlib.sha256(":".join((word, *map(str, counters))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


class Source:
    """Training people by step."""

    def __init__(self, seed: int):
        self.seed = seed
        mannequin = load_mannequin()
        self.body = keypoint_body(mannequin)
        self.stand = rest_joints(mannequin).double().numpy(), float(mannequin.v_template[:, 1].min())
        self.actions = action_poses(TRAINING_ACTIONS, ACTION_POOL, numbers("lifter actions", seed), *self.stand)
        self.balanced = balanced_poses(BALANCED_POOL, numbers("lifter balance", seed), self.body)

    def poses(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(N, J, 3, 3)"""
        sizes = rng.multinomial(count, list(SHARES.values()))
        local = np.concatenate([
            everyday_poses("training", sizes[0], rng, *TRAINING_VARIETY),
            random_poses(sizes[1], rng),
            self._moments(sizes[2], rng),
            free_moments(sizes[3], rng, *self.stand),
            self.balanced[rng.integers(len(self.balanced), size=sizes[4])],
            named_poses(sizes[5], rng),
        ])  # fmt: skip
        local = recombined(local, rng, RECOMBINED)
        swap = rng.random(count) < 0.5
        local = np.where(swap[:, None, None, None], mirrored(local), local)
        return jittered(local, rng, 4.0)

    def _moments(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Moments of actions, half of them with every joint turned by LOOSE degrees: what no written action does."""
        moments = self.actions[rng.integers(len(self.actions), size=count)]
        loose = jittered(moments, rng, LOOSE)
        return np.where(rng.random(count)[:, None, None, None] < 0.5, loose, moments)

    def people(self, step: int, count: int, *stream: int) -> People:
        rng = numbers("lifter training", self.seed, step, *stream)
        local = torch.from_numpy(self.poses(count, rng)).float()
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        kinds = (TRAINING_NOISE, USUAL_NOISE)
        return together([draw_people(local[n::2], self.body, noise, generator) for n, noise in enumerate(kinds)])


def objective(lifter: Lifter, people: People, body: KeypointBody, rng: np.random.Generator) -> dict[str, Tensor]:
    """Losses of a batch. The focal length that the lifter is told is right, wrong by a third, or a guess.

    Those named are of the last look; "loss" has the others' too.
    """
    focal = people.focal * torch.from_numpy(np.exp(0.3 * rng.standard_normal(len(people)))).float()
    guess = 1.2 * people.size.amax(-1)
    kind = torch.from_numpy(rng.random(len(people)))
    told_focal = torch.where(kind < 0.5, people.focal, torch.where(kind < 0.75, focal, guess))
    points, condition, square = network_input(people.keypoints, told_focal, people.size)
    with torch.autocast("cpu", torch.bfloat16):
        answers = lifter.answers(points, condition)
    joints = body.posed(people.rotations).joints_at(people.betas)
    every = [_losses(told, people, joints, square, body) for told in answers]
    sums = [sum(losses.values(), start=torch.zeros(())) for losses in every]
    total = sums[-1] + EARLIER * sum(sums[:-1], start=torch.zeros(()))
    before = {f"aligned_{number}": losses["aligned"] for number, losses in enumerate(every[:-1])}
    return {**every[-1], **before, "loss": total}


def _losses(told: Told, people: People, joints: Tensor, square: Square, body: KeypointBody) -> dict[str, Tensor]:
    """Of one answer; joints (B, J, 3) are the true ones from the pelvis."""
    rotations = matrix_from_6d_columns(told.six)
    posed = body.posed(rotations)
    found = posed.joints_at(told.betas)
    weight = torch.tensor([LESS_SURE.get(joint, 1.0) for joint in range(24)])
    chord = (rotations - people.rotations).flatten(2).square().sum(-1).add(1e-6).sqrt()  # (B, J)
    wanted = crop_camera(people.pelvis, square, people.focal, people.size)
    pelvis = pelvis_place(told.camera, square, people.focal, people.size)
    points3d = posed.points_at(told.betas) + pelvis[:, None]
    depth = points3d[..., 2:].clamp_min(0.2)
    seen = points3d[..., :2] / depth * people.focal[:, None, None] + people.size.flip(-1)[:, None] / 2
    beside = 2 * (seen - people.clean) / square.side[:, None, None]
    with torch.no_grad():
        angle = matrix_to_axis_angle(rotations.transpose(-1, -2) @ people.rotations).norm(dim=-1)
    return {
        "joints": 5 * (found - joints).square().sum(-1).add(1e-6).sqrt().mean(),
        "aligned": 5 * _aligned(found, joints).mean(),
        "rotations": 0.6 * (chord * weight).mean(),
        "betas": 0.05 * (told.betas - people.betas).abs().mean(),
        "camera": (told.camera[:, 0] / wanted[:, 0].clamp_min(0.05)).log().abs().mean()
        + 0.5 * (told.camera[:, 1:] - wanted[:, 1:]).abs().mean(),
        "picture": beside.abs().clamp_max(2).mean(),
        "spread": 0.02 * (angle / told.log_spread.exp() + told.log_spread).mean(),
    }


def _aligned(found: Tensor, true: Tensor) -> Tensor:
    """Joints (B, J, 3) twice, metres -> distances (B, J) after the best similarity, which itself is taken as given."""
    x, y = (points - points.mean(1, keepdim=True) for points in (found, true))
    return (x @ best_turn(x, y).to(x) - y).square().sum(-1).add(1e-6).sqrt()


def rate_at(step: int, steps: int, highest: float = RATE) -> float:
    """Linear up, cosine down."""
    if step < WARM_UP:
        return highest * (step + 1) / WARM_UP
    done = (step - WARM_UP) / max(1, steps - WARM_UP)
    return highest * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def begin_with(lifter: Lifter, path: Path) -> None:
    """Takes the weights of another lifter, which may have fewer looks: its others are as they are."""
    try:
        lifter.load_state_dict(lifter.state_dict() | read_lifter(path).state_dict())
    except RuntimeError as error:
        raise ComoviError(f"{path}: this lifter is of another size, or has more looks ({str(error)[:200]}).") from None


def train(
    folder: Path, steps: int, seed: int, looks: int = LifterConfig.looks, begin: Path | None = None, rate: float = RATE
) -> None:
    """Up to `steps` steps; leaves `state.pt` and a line of log.jsonl every LOG_EVERY steps.

    looks: further looks of the lifter. begin: a lifter's file with which the run begins. rate: the highest.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        dist.init_process_group("gloo")
    streams = (rank,) if rank else ()  # the first process sees what a process alone would
    folder.mkdir(parents=True, exist_ok=True)
    source, lifter = Source(seed), Lifter(replace(LifterConfig(), looks=looks))
    known = (folder / "state.pt").exists()
    if begin and not known:
        begin_with(lifter, begin)
    decayed = [p for p in lifter.parameters() if p.dim() > 1]
    plain = [p for p in lifter.parameters() if p.dim() <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}], RATE, fused=True
    )
    average = {name: value.detach().clone() for name, value in lifter.state_dict().items()}
    step, begun = 0, begin is not None
    if known:
        state = torch.load(folder / "state.pt", weights_only=True)
        if state["looks"] != looks:
            raise ComoviError(f"{folder}: the run has {state['looks']} further looks, got {looks}.")
        lifter.load_state_dict(state["lifter"])
        optimiser.load_state_dict(state["optimiser"])
        average, step, begun = state["average"], state["step"], state["begun"]
    began, running = time.process_time(), dict[str, float]()
    while step < steps:
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, steps, rate)
        people, rng = source.people(step, BATCH, *streams), numbers("lifter focal", seed, step, *streams)
        losses = objective(lifter, people, source.body, rng)
        optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        if world > 1:
            _share_gradients(lifter, world)
        torch.nn.utils.clip_grad_norm_(lifter.parameters(), CLIP)
        optimiser.step()
        keep = min(AVERAGE, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in lifter.state_dict().items():
                average[name].lerp_(value, 1 - keep)
        step += 1
        for name, value in losses.items():
            running[name] = running.get(name, 0.0) + float(value.detach()) / LOG_EVERY
        if step % LOG_EVERY == 0 and rank == 0:
            line = {"step": step, "cpu": round(time.process_time() - began, 1)}
            line |= {name: round(value, 4) for name, value in running.items()}
            with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            running = {}
        if rank == 0 and (step % SAVE_EVERY == 0 or step == steps):
            state = {
                "lifter": lifter.state_dict(), "optimiser": optimiser.state_dict(), "average": average, "step": step,
                "steps": steps, "seed": seed, "looks": looks,
                "begun": begun, "rate": rate,
            }  # fmt: skip
            with atomic_path(folder / "state.pt") as temporary:
                torch.save(state, temporary)


def _share_gradients(lifter: Lifter, world: int) -> None:
    """Every process gets the mean of all."""
    gradients = [p.grad for p in lifter.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient) / world)


def export(folder: Path, path: Path) -> None:
    """The averaged weights of a run as the file that is shipped."""
    state = torch.load(folder / "state.pt", weights_only=True)
    lifter = Lifter(replace(LifterConfig(), looks=state["looks"]))
    lifter.load_state_dict(state["average"])
    options = " ".join(f"--{name} {state[name]}" for name in ("steps", "seed", "looks", "rate"))
    command = f"python -m comfyui_comovi.training.lifter_train {options}" + " --begin FILE" * state["begun"]
    save_lifter(lifter, path, f"{command} (step {state['step']})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--looks", type=int, default=LifterConfig.looks, help="further looks at the answer")
    parser.add_argument("--begin", type=Path, metavar="FILE", help="a lifter, of fewer looks perhaps, to begin with")
    parser.add_argument("--rate", type=float, default=RATE, help="highest learning rate")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write the weights of the run and stop")
    arguments = parser.parse_args()
    if arguments.export:
        export(arguments.out, arguments.export)
    else:
        train(arguments.out, arguments.steps, arguments.seed, arguments.looks, arguments.begin, arguments.rate)


if __name__ == "__main__":
    main()
