"""Train the nano dual-branch model on drawn clips, on one or two CPU processes.

    torchrun --nproc-per-node 2 -m comfyui_comovi.training.train_nano --clips runs/clips --out runs/nano

A plain loop: every step is visible. All randomness comes from (seed, step, rank), so a resumed run goes on as if it had
not stopped. The learning rate warms up, stays, and falls as a cosine over the last 70 % of `--samples`. Writes
`last.pt` (everything needed to resume), `ema.safetensors` (averaged weights) and `log.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from ..comovi_model.comovi.dual_branch import DualBranch
from ..comovi_model.files import atomic_path
from ..comovi_model.nano.first_frame import FirstFrameWrapper
from ..comovi_model.nano.presets import NANO
from ..comovi_model.nano.sentences import MAX_TOKENS, UNKNOWN, encode_words, write_sentence
from ..comovi_model.nano.text_encoder import NanoTextEncoder
from .nano_clips import ClipTensors, labels_to_request, load_clips
from .nano_objective import NanoBatch, NanoTrainee, NoiseLaw

POSE_WEIGHT, EARLY_POSE_WEIGHT = 8.0, 4.0
TEXT_DROPOUT, WORD_DROPOUT = 0.1, 0.02
EMA_EVERY, EMA_DECAY = 4, 0.996


def training_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Dense attention whose division comes last: the compiler does not recognise it and leaves it as two products.

    (Recognised, it becomes the fused CPU attention, whose backward pass took a third of a step.)
    """
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    scores = ((q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)).float()
    weights = torch.exp(scores - scores.detach().amax(-1, keepdim=True))
    return ((weights.to(v.dtype) @ v).float() / weights.sum(-1, keepdim=True)).to(v.dtype).transpose(1, 2)


def measure_spread(latents: Tensor) -> Tensor:
    """Standard deviation per channel of x0 minus its first frame, (48,)."""
    return (latents[:512, :, 1:].float() - latents[:512, :, :1].float()).square().mean((0, 2, 3, 4)).sqrt()


def sentence_ids(labels: Tensor, rng: np.random.Generator) -> Tensor:
    """Fresh sentences for rows of labels -> ids (B, 24); some are dropped whole, some words are unknown."""
    rows = []
    for row in labels:
        ids, _ = encode_words(write_sentence(*labels_to_request(row), rng))
        if rng.random() < TEXT_DROPOUT:
            ids = np.zeros(MAX_TOKENS, np.int64)
        ids = np.where((ids > 0) & (rng.random(MAX_TOKENS) < WORD_DROPOUT), UNKNOWN, ids)
        rows.append(torch.from_numpy(ids))
    return torch.stack(rows)


def make_batch(clips: ClipTensors, index: Tensor, law: NoiseLaw, key: tuple[int, ...]) -> NanoBatch:
    """The batch of one (seed, step, rank); deterministic."""
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
    video, motion = clips.video[index].float(), clips.motion[index].float()
    sigma_video, sigma_motion = law.sample(len(index), generator)
    return NanoBatch(
        video,
        motion,
        sentence_ids(clips.labels[index], np.random.default_rng(key)),
        clips.pose[index].float().flatten(2),
        sigma_video,
        sigma_motion,
        torch.randn(video.shape, generator=generator),
        torch.randn(video.shape, generator=generator),
    )


def learning_rate(base: float, samples: int, total: int, warmup: int = 2500) -> float:
    """Warm-up, constant, cosine to a hundredth over the last 70 %."""
    if samples < warmup:
        return base * (samples + 1) / warmup
    done = min(max((samples / total - 0.3) / 0.7, 0.0), 1.0)
    return base * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def build_trainee(clips: ClipTensors | None = None) -> NanoTrainee:
    """A new model at the start of training; the spreads are measured on the clips."""
    network = DualBranch(NANO, attention=training_attention)
    network.init_weights()
    still = torch.ones(48)
    video = FirstFrameWrapper(measure_spread(clips.video) if clips else still)
    motion = FirstFrameWrapper(measure_spread(clips.motion) if clips else still)
    layers = (NANO.num_layers // 2, NANO.num_layers - 1)
    assert network.pose_head is not None
    for number, layer in enumerate(network.pose_head.fusion_layers):
        layer.requires_grad_(number in layers)  # layers that never feed the head stay at zero
    return NanoTrainee(NanoTextEncoder(), network, video, motion, layers)


@torch.no_grad()
def validate(
    trainee: NanoTrainee, clips: ClipTensors, sigmas: tuple[float, ...] = (0.3, 0.7, 0.95, 1.0)
) -> dict[str, float]:
    """Losses on held-out clips at fixed sigmas, both branches alike."""
    out = {}
    for sigma in sigmas:
        batch = make_batch(clips, torch.arange(len(clips)), NoiseLaw(), (1, 2, 3))
        fixed = torch.full((len(clips),), sigma)
        batch = NanoBatch(**{**batch.__dict__, "sigma_video": fixed, "sigma_motion": fixed})
        with torch.autocast("cpu", torch.bfloat16):
            losses = trainee(batch)
        out.update(
            {f"{name}@{sigma}": round(float(value), 5) for name, value in losses.items() if name != "pose_early"}
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--validation", type=Path, help="folder of held-out clips")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=120_000)
    parser.add_argument("--batch", type=int, default=12, help="per process")
    parser.add_argument("--lr", type=float, default=1.4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(options.seed)
    clips = load_clips(options.clips)
    held_out = load_clips(options.validation, 64) if options.validation else None
    trainee = build_trainee(clips)
    if not options.no_compile:
        for block in (*trainee.network.blocks, *trainee.network.motion.blocks):
            block.compile(dynamic=False)
    parameters = [p for p in trainee.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=options.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    average = {k: v.detach().clone() for k, v in trainee.state_dict().items()}
    options.out.mkdir(parents=True, exist_ok=True)
    last, step = options.out / "last.pt", 0
    if last.exists():
        state = torch.load(last, weights_only=True)
        trainee.load_state_dict(state["weights"])
        optimiser.load_state_dict(state["optimiser"])
        average, step = state["average"], state["step"]
    law, per_step = NoiseLaw(), options.batch * world
    total_steps = options.samples // per_step
    begin = saved = time.time()
    running: dict[str, float] = {}
    flat = torch.empty(sum(p.numel() for p in parameters))
    while step < total_steps:
        rate = learning_rate(options.lr, step * per_step, options.samples)
        for group in optimiser.param_groups:
            group["lr"] = rate
        order = np.random.default_rng([options.seed, step * per_step // len(clips)]).permutation(len(clips))
        start = step * per_step % len(clips) + rank * options.batch
        index = torch.from_numpy(order[np.arange(start, start + options.batch) % len(clips)])
        batch = make_batch(clips, index, law, (options.seed, step, rank))
        with torch.autocast("cpu", torch.bfloat16):
            losses = trainee(batch)
        loss = (
            losses["video"] + losses["motion"] + POSE_WEIGHT * losses["pose"] + EARLY_POSE_WEIGHT * losses["pose_early"]
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if world > 1:  # one sum over all gradients
            torch.cat([p.grad.flatten() for p in parameters], out=flat)
            dist.all_reduce(flat)
            for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                p.grad.copy_(part.view_as(p)).div_(world)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step += 1
        if step % EMA_EVERY == 0:
            decay = min(EMA_DECAY, (step / EMA_EVERY) / (step / EMA_EVERY + 10))
            with torch.no_grad():
                live = trainee.state_dict()
                torch._foreach_lerp_(list(average.values()), [live[k] for k in average], 1 - decay)
        if rank:
            continue
        for name, value in losses.items():
            value = float(value.detach())
            running[name] = 0.98 * running.get(name, value) + 0.02 * value
        if step % 50 == 0:
            line = {
                "step": step,
                "samples": step * per_step,
                "minutes": round((time.time() - begin) / 60, 2),
                "lr": rate,
                **{k: round(v, 5) for k, v in running.items()},
            }
            if held_out is not None and step % 500 == 0:
                live = {k: v.detach().clone() for k, v in trainee.state_dict().items()}
                trainee.load_state_dict(average)
                line["validation"] = validate(trainee, held_out)
                trainee.load_state_dict(live)
            print(json.dumps(line), flush=True)
            with (options.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
        if time.time() - saved > 240 or step == total_steps:
            saved = time.time()
            with atomic_path(last) as path:
                torch.save(
                    {
                        "weights": trainee.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "average": average,
                        "step": step,
                    },
                    path,
                )
            export(average, trainee, options.out / "ema.safetensors", step * per_step)
    if world > 1:
        dist.destroy_process_group()


def export(average: dict[str, Tensor], trainee: NanoTrainee, path: Path, samples: int) -> None:
    """Averaged weights with everything needed to run them."""
    tensors = {k: v.contiguous() for k, v in average.items()}
    tensors["spread.video"], tensors["spread.motion"] = trainee.wrap_video.spread, trainee.wrap_motion.spread
    with atomic_path(path) as temporary:
        save_file(tensors, str(temporary), {"config": json.dumps(asdict(NANO)), "samples": str(samples)})


if __name__ == "__main__":
    main()
