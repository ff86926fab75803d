"""The paper's ablations in miniature: seven nano models, the same clips, steps and seeds for each, and one table.

    comovi-train ablate --clips runs/clips --out runs/ablation --steps 2000 --cases 64

Can be stopped and started again: finished rows stay, and a row that was being trained goes on from its checkpoint.
To use two cores, wait for the first row and start it twice, with `--only` for other rows.
Writes OUT/<variant>/ (the runs), OUT/<variant>.json, OUT/ablation.json and OUT/ablation.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..comovi_model.errors import ComoviError
from ..comovi_model.files import atomic_path
from ..comovi_model.nano.generate import NanoInput, NanoSettings, generate
from ..comovi_model.nano.model import NanoModel, load_autoencoder
from ..comovi_model.nano.people import load_nano_body
from .ablation_table import VARIANTS, Variant, markdown
from .checkpoint import checkpoints, consolidated_state, latest, read_state
from .config_file import load_config, load_resolved
from .evaluate import BATCH, Case, held_out_seed, make_case, start_of
from .map_looks import change_look, restyle_clips
from .nano_judges import label, load_judge, relative_joints, right_answers
from .nano_metrics import change, frame_overlap, joint_error, overlap, video_silhouette
from .recipe import build_recipe
from .recipes.nano import NanoRecipe

SHARED = (  # the same for every row; branches always at the same sigma, because one branch for both has only one
    "engine.kind=single",
    "engine.zero=0",
    "noise.shared=1.0",
    "noise.clean=0.0",
    "eval.every=0",
    "log.tensorboard=false",
    "save.keep=2",
)


def settings_of(variant: Variant, options: argparse.Namespace, clips: Path) -> list[str]:
    """What `--set` would say."""
    return [
        *SHARED,
        *variant.settings,
        f"run.out={options.out.resolve()}",
        f"run.name={variant.name}",
        f"run.seed={options.seed}",
        f"run.max_steps={options.steps}",
        f"batch.micro={options.batch}",
        f"optim.warmup={max(1, options.steps // 20)}",
        f"save.every={max(1, min(250, options.steps // 2))}",
        f"log.every={max(1, options.steps // 50)}",
        f"data.train={json.dumps([str(clips.resolve())])}",
        f"engine.compile={'true' if options.compile else 'false'}",
        *options.set,
    ]


def train_variant(variant: Variant, options: argparse.Namespace, clips: Path) -> Path:
    """The run's folder, trained to the end; goes on where an earlier call stopped."""
    from .trainer import train

    config = load_config("nano", settings_of(variant, options, clips))
    folder = options.out / variant.name
    there = checkpoints(folder)
    if there:
        known = load_resolved(folder)
        if known != config:
            raise ComoviError(f"{folder} was trained with other settings; give another --out, or remove it.")
        if read_state(there[-1]).step >= options.steps:
            return folder
    status = train(config, start=there[-1] if there else None)
    if status:
        raise KeyboardInterrupt
    return folder


def trained_model(folder: Path, averaged: bool = True) -> tuple[NanoModel, int]:
    """The model of a finished run, and how many of its weights were trained."""
    recipe = build_recipe(load_resolved(folder))
    assert isinstance(recipe, NanoRecipe)
    recipe.load_state_dict(consolidated_state(latest(folder), averaged=averaged))
    trained = sum(weight.numel() for weight in recipe.parameters() if weight.requires_grad)
    recipe.eval().requires_grad_(False)
    text, network = recipe.trainee.text_encoder, recipe.network
    return NanoModel(load_autoencoder(), text, network, *recipe.wrappers()), trained


def measure(model: NanoModel, look: str, cases: int, seed: int) -> dict[str, Any]:
    """Figures that every variant has: of the motion that the pose head gives, and of the video."""
    body = load_nano_body()
    joints: list[np.ndarray] = []
    labels: list[Any] = []
    rows: dict[str, list[float]] = {"joint_error_mm": [], "video_change_iou": [], "video_iou": []}
    for first in tqdm(range(0, cases, BATCH), desc="measuring", unit="batch", leave=False):
        some = [make_case(seed, index, body) for index in range(first, min(first + BATCH, cases))]
        out = generate(model, look_at(start_of(some), look), NanoSettings(), seed=held_out_seed(seed, first) % 2**62)
        for case, video, rotations in zip(some, out.video, out.rotations, strict=True):
            found, true = (relative_joints(body, case.scene.betas, r) for r in (rotations.numpy(), case.rotations))
            rows["joint_error_mm"].append(joint_error(found, true))
            joints.append(found.astype(np.float32))
            labels.append(label(case.scene.request))
            add_video(rows, case, video.numpy())
    action, side = right_answers(load_judge("joints"), torch.from_numpy(np.stack(joints)), torch.tensor(labels))
    figures: dict[str, Any] = {name: float(np.mean(values)) for name, values in rows.items()}
    figures["action_accuracy"] = float(action.float().mean())
    figures["side_accuracy"] = float(side.float().mean()) if len(side) else None
    return figures


def add_video(rows: dict[str, list[float]], case: Case, video: np.ndarray) -> None:
    found, true = (video_silhouette(frames, case.clip.plate) for frames in (video, case.clip.video))
    rows["video_change_iou"].append(overlap(change(found), change(true)))
    rows["video_iou"].append(frame_overlap(found, true))


def look_at(start: NanoInput, look: str) -> NanoInput:
    """The same start with its motion map in another look."""
    maps: Tensor = torch.from_numpy(change_look(start.motion_map.numpy(), look))
    return NanoInput(start.video, maps, start.pose, start.sentences)


def settings_key(options: argparse.Namespace) -> dict[str, Any]:
    """What must be the same for a finished row to be kept."""
    return {"steps": options.steps, "batch": options.batch, "cases": options.cases, "seed": options.seed,
            "set": list(options.set)}  # fmt: skip


def finished_row(variant: Variant, options: argparse.Namespace) -> dict[str, Any] | None:
    """The row of an earlier call, or of one that runs beside this one."""
    file = options.out / f"{variant.name}.json"
    if not file.exists():
        return None
    row = json.loads(file.read_text(encoding="utf-8"))
    return dict(row) if row.get("settings") == settings_key(options) else None


def run_variant(variant: Variant, options: argparse.Namespace) -> dict[str, Any]:
    """One row, from its file if it is there."""
    known = finished_row(variant, options)
    if known is not None:
        return known
    clips = restyle_clips(options.clips, options.out / f"clips-{variant.look}", variant.look, load_autoencoder())
    folder = train_variant(variant, options, clips)
    model, trained = trained_model(folder)
    row = {
        "variant": variant.name,
        "trained": trained,
        "clips": options.steps * options.batch,
        "cases": options.cases,
        "seed": options.seed,
        **measure(model, variant.look, options.cases, options.seed),
        "settings": settings_key(options),
    }
    write_json(options.out / f"{variant.name}.json", row)
    return row


def write_json(path: Path, content: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--clips", type=Path, required=True, help="folder of nano clips (training.nano_clips)")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--steps", type=int, default=2000, help="optimiser steps of every row")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--cases", type=int, default=64, help="held-out cases of every row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these rows (the first is always made)")
    parser.add_argument("--compile", action="store_true", help="compile the blocks: worth it beyond 200 steps")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V", help="change a setting of every row")


def run(options: argparse.Namespace) -> int:
    if min(options.steps, options.batch, options.cases) < 1:
        raise ComoviError("--steps, --batch and --cases must be at least 1.")
    results = {}
    for variant in VARIANTS:
        wanted = variant.name in options.only or variant.name == "full"
        row = run_variant(variant, options) if wanted else finished_row(variant, options)
        if row is not None:
            results[variant.name] = row
    table = markdown(results)
    write_json(options.out / "ablation.json", results)
    with atomic_path(options.out / "ablation.md") as path:
        path.write_text(table, encoding="utf-8")
    print(table)
    return 0
