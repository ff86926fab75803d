"""Sample videos with weights in training: what becomes of the held-out clips' first pictures and sentences.

Per clip a video of two rows: picture and motion map as generated, and below them as they were; a strip of its frames as
a .jpg for the report, the latents where no autoencoder is at hand, and the generated poses as .npz.

B = 1 clip, C latent channels, F latent frames, h, w latent size, T = 4 (F - 1) poses after the first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..comovi_model.body.motion import BodyMotion
from ..comovi_model.body.rotations import matrix_from_6d_rows
from ..comovi_model.comovi.velocity import DualBranchVelocity
from ..comovi_model.errors import ComoviError
from ..comovi_model.files import atomic_path, require_file
from ..comovi_model.images import write_image
from ..comovi_model.nano.generate import NanoSettings, NanoVelocity, schedules
from ..comovi_model.nano.model import NanoModel, load_autoencoder
from ..comovi_model.nano.people import ASSETS
from ..comovi_model.nano.text_encoder import tokenise
from ..comovi_model.video import write_video
from ..comovi_model.wan.flow import flow_schedule
from ..comovi_model.wan.sampling import Samples, Stream, VelocityModel, classifier_free, sample
from .batch import ClipSource, Draw, TrainBatch
from .config import TrainConfig
from .recipe import Recipe, open_sources

FPS = 16.0
STRIP = 8  # pictures of a strip
PAPER_STEPS, PAPER_GUIDANCE = 50, 6.0  # supplementary table 1
NAMES = ("video", "motion")
Decode = Callable[[Tensor], np.ndarray]


def sample_now(
    recipe: Recipe,
    config: TrainConfig,
    folder: Path,
    step: int,
    rank: int,
    device: torch.device,
    source: ClipSource | None = None,
) -> list[dict[str, Any]]:
    """Generate `eval.sample_clips` clips into `folder`; all ranks compute, rank 0 writes. Returns what was written.

    Noise and clips are the same at every step of a run, so that the samples of a run can be compared.
    """
    source = source or _held_out(config)
    decode, lacking = open_decoder(config, source, device) if rank == 0 else (None, "")
    prompts = read_prompts(config.eval.sample_prompts)
    rows = []
    for number in range(min(config.eval.sample_clips, len(source))):
        draw = Draw(config.run.seed, 0, 0, number, 1, quantile=1.0)
        batch = source.read([number], draw).to(device)
        if prompts:
            batch = _with_sentence(batch, prompts[number % len(prompts)])
        made = generate_like(recipe, batch, config, draw, getattr(source, "empty_text", None))
        if rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            rows.append({"step": step, "clip": batch.names[0], "sentence": batch.sentences[0]}
                        | _write(folder, number, batch, made, decode, lacking))  # fmt: skip
    if rank == 0 and rows:
        with atomic_path(folder / "samples.json") as path:
            path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return rows


def generate_like(
    recipe: Recipe, batch: TrainBatch, config: TrainConfig, draw: Draw, empty_text: Tensor | None
) -> Samples:
    """Denoise what begins as one clip does, under its sentence. Latents "video" and "motion", extras "pose"."""
    from .recipes.nano import NanoRecipe

    nano, joint = isinstance(recipe, NanoRecipe), config.stage.kind == "joint"
    steps = config.eval.sample_steps or (1 if nano else PAPER_STEPS)
    scale = config.eval.sample_guidance or (1.0 if nano else PAPER_GUIDANCE)
    if empty_text is None and not nano:
        scale = 1.0  # nothing says what no sentence looks like
    shift = config.noise.shift
    schedule = schedules(NanoSettings(steps, shift=shift))[0] if nano else flow_schedule(steps, shift)
    noises = {name: torch.randn(batch.video.shape, generator=draw.generator(f"noise {name}")) for name in NAMES}
    firsts = {"video": batch.first_video, "motion": batch.first_motion}
    streams = {
        name: Stream(noises[name].to(batch.video.device), firsts[name], schedule)
        for name in NAMES
        if joint or nano or name == "motion"
    }
    guidance = classifier_free(scale)
    pose = None if batch.pose is None else batch.pose[:, 0].flatten(1)
    model: VelocityModel
    if isinstance(recipe, NanoRecipe):
        model = _nano_velocity(recipe, batch, firsts, [term.condition for term in guidance], pose)
    else:
        texts: dict[str, Tensor | list[Tensor]] = {"positive": _words(batch)}
        if empty_text is not None:
            texts["negative"] = [empty_text.to(batch.video.device)]
        head = recipe.network.pose_head is not None and joint and config.stage.smpl.enabled
        model = DualBranchVelocity(
            recipe.network, texts, init_pose=pose if head else None, keep_text=False, share_prefix=False
        )
    with recipe.products(batch.video.device):
        return sample(model, streams, schedule, guidance, sampler="euler" if nano else "unipc")


def _nano_velocity(
    recipe: Any, batch: TrainBatch, firsts: dict[str, Tensor], conditions: list[str], pose: Tensor | None
) -> NanoVelocity:
    if pose is None:
        raise ComoviError(f"clip {batch.names[0]} has no poses, and the nano model begins with one.")
    ids, _ = tokenise(list(batch.sentences))
    by_condition = {"positive": ids, "negative": torch.zeros_like(ids)}
    text = recipe.trainee.text_encoder(torch.cat([by_condition[name] for name in conditions]).to(batch.video.device))
    wraps = recipe.wrappers()
    model = NanoModel(None, recipe.trainee.text_encoder, recipe.network, *wraps)  # type: ignore[arg-type]
    texts = {"+".join(conditions): recipe.network.make_text_cache(text)}
    return NanoVelocity(model, recipe.network, firsts, texts, pose)


def _words(batch: TrainBatch) -> list[Tensor]:
    if batch.text is None or batch.text_length is None:
        raise ComoviError("the clips have no encoded sentences; cache them with `comovi-train cache`.")
    return [row[: int(length)] for row, length in zip(batch.text, batch.text_length, strict=True)]


def _with_sentence(batch: TrainBatch, prompt: str) -> TrainBatch:
    if batch.text is not None and batch.text.shape[-1] > 1024:
        raise ComoviError(
            "eval.sample_prompts needs the text encoder, which training does not load; leave it empty to sample the "
            "sentences of the held-out clips, or name them in the list of held-out clips and cache that."
        )
    if batch.text is None:
        return replace(batch, sentences=(prompt,))
    from .data.encoders import load_encoders

    row = load_encoders("nano").embed([prompt])[0].to(batch.text)
    return replace(batch, sentences=(prompt,), text=row[None], text_length=torch.tensor([len(row)]))


def read_prompts(path: str) -> list[str]:
    """One sentence per line; none for an empty path."""
    if not path:
        return []
    try:
        lines = require_file(path, "list of sentences").read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ComoviError(f"eval.sample_prompts: {path} is not text in UTF-8.") from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ComoviError(f"eval.sample_prompts: {path} has no sentence; write one per line.")
    return prompts


def open_decoder(config: TrainConfig, source: ClipSource, device: torch.device) -> tuple[Decode | None, str]:
    """The autoencoder that made the clips, or None and what is lacking."""
    from .data.cache_files import read_head
    from .data.encoders import load_encoders, to_uint8

    kind = "nano"
    if config.data.kind == "prepared":
        kind = config.data.encoders
    elif config.data.kind == "cache":
        kind = str(read_head(source.folders[0])["fingerprint"]["autoencoder"]).split()[0]  # type: ignore[attr-defined]
    if kind == "nano":
        autoencoder = load_autoencoder(ASSETS).to(device)
        return lambda latent: to_uint8(autoencoder.decode(latent[None].to(device).float())[0]), ""
    if not config.data.wan:
        return None, "latents only: set data.wan to the folder of Wan2.2-TI2V-5B to see pictures"
    return load_encoders("wan", config.data.wan, str(device)).decode, ""


def _held_out(config: TrainConfig) -> ClipSource:
    train, held_out = open_sources(config.data)
    return held_out or train


@torch.no_grad()
def _write(
    folder: Path, number: int, batch: TrainBatch, made: Samples, decode: Decode | None, lacking: str
) -> dict[str, Any]:
    """Files of one clip; their names and how far the generated pose is from the clip's."""
    name, out = f"{number:02d}", {}
    pose = made.extras["positive"].get("pose")
    if pose is not None and batch.pose is not None:
        rotations = matrix_from_6d_rows(torch.cat([batch.pose[0, :1].flatten(1), pose[0]]).unflatten(-1, (24, 6)))
        betas = batch.betas[0] if batch.betas is not None else torch.zeros(10)
        motion = BodyMotion(rotations.cpu().float(), betas.cpu().float(), torch.zeros(len(rotations), 3), fps=FPS)
        motion.save(folder / f"{name}.npz")
        out = {"pose": f"{name}.npz", "pose_degrees": rotation_error(rotations, matrix_from_6d_rows(batch.pose[0]))}
    if decode is None:
        from safetensors.torch import save_file

        with atomic_path(folder / f"{name}.safetensors") as path:
            save_file({k: v[0].cpu().contiguous() for k, v in made.latents.items()}, str(path))
        return {**out, "latents": f"{name}.safetensors", "note": lacking}
    rows = [made.latents, {"video": batch.video, "motion": batch.motion}]
    grid = np.concatenate(
        [np.concatenate([decode(row[part][0]) for part in NAMES if part in made.latents], 2) for row in rows], 1
    )
    write_video(folder / f"{name}.mp4", grid, FPS)
    picked = np.linspace(0, len(grid) - 1, min(STRIP, len(grid))).round().astype(int)
    write_image(folder / f"{name}.jpg", np.concatenate(list(grid[picked]), 1))
    return {**out, "video": f"{name}.mp4", "strip": f"{name}.jpg"}


def rotation_error(first: Tensor, other: Tensor) -> float:
    """Mean angle in degrees between two sets of rotations (T, 24, 3, 3), frame 0 left out."""
    count = min(len(first), len(other))
    turn = first[1:count].double().transpose(-1, -2) @ other[1:count].double()
    cosine = (turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return round(float(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))).mean()), 3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="folder of a run, or of one of its checkpoints")
    parser.add_argument("--step", type=int, help="checkpoint of this step (default: the last one)")
    parser.add_argument("--out", type=Path, help="folder to write (default: RUN/samples/step-N)")
    parser.add_argument("--count", type=int, help="clips to sample (default: eval.sample_clips)")
    parser.add_argument("--steps", type=int, help="sampling steps (default: eval.sample_steps)")
    parser.add_argument("--guidance", type=float, help="guidance scale (default: eval.sample_guidance)")
    parser.add_argument("--prompts", default="", help="a file of sentences, one per line, instead of the clips' own")
    parser.add_argument("--ema", action="store_true", help="the running mean of the weights")


def run(options: argparse.Namespace) -> int:
    from .checkpoint import consolidated_state, read_state
    from .config_file import load_resolved
    from .export import find_checkpoint
    from .recipe import build_recipe

    folder = find_checkpoint(options.run, options.step)
    home, step = folder.parent.parent, read_state(folder).step
    config = load_resolved(home)
    changes: dict[str, Any] = {
        "sample_clips": options.count,
        "sample_steps": options.steps,
        "sample_guidance": options.guidance,
    }
    changes |= {"sample_prompts": options.prompts or None}
    given = {name: value for name, value in changes.items() if value is not None}
    config = replace(config, eval=replace(config.eval, **given))
    source = _held_out(config)
    recipe = build_recipe(config, source)
    recipe.load_state_dict(consolidated_state(folder, averaged=options.ema))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out = options.out or home / "samples" / f"step-{step:06d}"
    rows = sample_now(recipe.to(device).eval(), config, out, step, 0, device, source)
    print(summary(rows, out))
    return 0


def summary(rows: Sequence[dict[str, Any]], folder: Path) -> str:
    lines = [f"{row.get('video') or row.get('latents')}: {row['sentence']}" for row in rows]
    return "\n".join([f"{len(rows)} samples in {folder}", *lines])
