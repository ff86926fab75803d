"""Motions against captions and against real motions, by the protocol of HumanML3D (as MoMask runs it).

Each motion: our joints with y up, 20 frames per second, HumanML3D's 263 features, at most 196 frames and at least 40.
Each repetition draws one caption per clip and new pools of 32; results are means with 95 % intervals over repetitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...comovi_model.body.smpl import BodyModel, load_body_model, pose_joints
from ...comovi_model.clean.time_base import resample
from ...comovi_model.errors import ComoviError
from ...comovi_model.motion_io.humanml3d import JOINTS, RATE, features_of
from ...comovi_model.motion_io.place import placed
from ...comovi_model.motion_io.reading import read_motion
from .captions import Caption, pick
from .embedders import Embedder
from .matching_network import LONGEST
from .motion_metrics import POOL, diversity, estimate, frechet_distance, matching_distance, pools, r_precision

SHORTEST = 40
REPEATS, DIVERSITY_PAIRS = 20, 300
MOTION_FILES = (".npz", ".pkl", ".pt", ".bvh", ".glb", ".json", ".npy")
ABOUT = "y up by a half turn about x of the camera frame; root path as the files have it, none where they have none"


def find_motions(folder: Path) -> dict[str, Path]:
    """Motion files of a folder by their names without ending."""
    if not folder.is_dir():
        raise ComoviError(f"{folder} is no folder of motions; give a folder with one file per clip, named ID.npz.")
    found = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in MOTION_FILES}
    if not found:
        raise ComoviError(f"{folder} holds no motion files ({', '.join(MOTION_FILES)}).")
    return found


def features_of_file(path: Path, body: BodyModel, target: np.ndarray | None) -> np.ndarray:
    """HumanML3D features (F, 263) of a motion file of any format that we read; .npy files are features already."""
    if path.suffix.lower() == ".npy":
        try:
            features = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            raise ComoviError(f"{path} is no array of numbers; expected HumanML3D features (F, 263).") from None
        if features.ndim != 2 or features.shape[1] != 263:
            raise ComoviError(f"{path} has shape {features.shape}; expected HumanML3D features (F, 263).")
        return np.asarray(features, np.float64)
    motion = resample(read_motion(path, body=body).motion.to("cpu"), RATE, interpolation="slerp")
    upright = placed(motion, body, "yup", "absolute")
    joints = pose_joints(body, upright.rotations, upright.betas, upright.transl)[:, :JOINTS].double().numpy()
    return features_of(joints, target)


def evaluate_motions(
    generated: Mapping[str, np.ndarray],
    real: Mapping[str, np.ndarray],
    captions: Mapping[str, Sequence[Caption]],
    embedder: Embedder,
    *,
    repeats: int = REPEATS,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """FID, R-precision, MM-Dist and diversity of `generated`, and of `real` as the ceiling; features by clip id."""
    names = [name for name in sorted(generated) if name in captions and len(generated[name]) >= SHORTEST]
    truth = [name for name in sorted(real) if len(real[name]) >= SHORTEST]
    short = {name for motions in (generated, real) for name, rows in motions.items() if len(rows) < SHORTEST}
    if len(names) < 2 or len(truth) < 2:
        raise ComoviError(
            f"{len(names)} generated motions have captions and {SHORTEST} frames at 20 per second, and {len(truth)} "
            "real ones are as long; at least two of each are needed."
        )
    made = embedder.motions([generated[name][:LONGEST] for name in names])
    held = embedder.motions([real[name][:LONGEST] for name in truth])
    told = [name for name in truth if name in captions]
    rows = dict(zip(truth, held, strict=True))
    ceiling = np.stack([rows[name] for name in told]) if len(told) > 1 else None
    collected: dict[str, dict[str, list[float]]] = {"generated": {}, "real": {}}
    for turn in range(repeats):
        rng = np.random.default_rng([seed, turn])
        _measure(collected["generated"], made, embedder.texts(pick(captions, names, rng)), rng)
        if ceiling is not None:
            _measure(collected["real"], ceiling, embedder.texts(pick(captions, told, rng)), rng)
        if on_progress is not None:
            on_progress(turn + 1, repeats)
    figures = {
        who: {name: estimate(values)._asdict() for name, values in found.items()} for who, found in collected.items()
    }
    figures["generated"]["fid"] = {"mean": frechet_distance(made, held), "interval": 0.0}
    pool = min(POOL, len(names))
    return {
        "comparable": embedder.comparable and pool == POOL,
        "embedder": embedder.name,
        "clips": len(names),
        "real_clips": len(truth),
        "left_out": len(short),
        "pool": pool,
        "repeats": repeats,
        "seed": seed,
        "about": ABOUT,
        **figures,
    }


def _measure(into: dict[str, list[float]], motions: np.ndarray, texts: np.ndarray, rng: np.random.Generator) -> None:
    groups = pools(len(motions), rng)
    precision = np.mean([r_precision(texts[group], motions[group]) for group in groups], 0)
    values = {f"r{k}": float(value) for k, value in enumerate(precision, 1)}
    values["mm_dist"] = float(np.mean([matching_distance(texts[group], motions[group]) for group in groups]))
    values["diversity"] = diversity(motions, DIVERSITY_PAIRS, rng)
    for name, value in values.items():
        into.setdefault(name, []).append(value)


def features_of_folder(
    folder: Path,
    body: BodyModel | None = None,
    target: np.ndarray | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Features of all motions of a folder, by clip id."""
    body = body or load_body_model(None)
    files, out = find_motions(folder), {}
    for number, (name, path) in enumerate(files.items(), 1):
        out[name] = features_of_file(path, body.to("cpu"), target)
        if on_progress is not None:
            on_progress(number, len(files))
    return out
