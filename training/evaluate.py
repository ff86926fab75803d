"""Measure the nano model on clips that no training has seen.

    comovi evaluate nano --count 200 --seed 90001 --json nano.json

A case is a sentence, a start frame with its pose, and a noise seed, all made from (seed, index). Clip seeds lie above
2,000,000,000, beyond the ranges of every training, so any seed is held out. Each case is measured three times:
what the model makes (plain keys), the drawn clip through the autoencoder (`_truth`), the start frame standing still
(`_frozen`). T = 33 frames.

action_accuracy, side_accuracy   a classifier of joints names the action of the pose head's motion; the side (left or
                                 right) is asked of all cases whose action has one
pixel_action_accuracy,           the same from the generated motion map alone, by a classifier trained on drawn maps
pixel_side_accuracy
joint_error_mm                   distance of joints to the drawn motion's, pelvis-relative
motion_ratio                     pixels of the motion map whose silhouette differs from frame 0's, divided by the
                                 drawn clip's (sums over all cases); motion_ratio_video: the same of the video
change_iou                       overlap of these changed pixels in video and motion map (0 where neither changes);
                                 change_iou_share: divided by the truth's
video_map_iou                    overlap of the silhouettes of video and motion map, mean over frames 1..
motion_map_iou                   the pose head's motion drawn onto the map (place found per frame) against the map
colour_accuracy                  the shirt colour that the sentence names is nearest to the torso in frames 1..
autoencoder_psnr_rgb, _map       whole drawn clips through the autoencoder, dB, one value per clip

With `--given motion` the drawn motion map is given whole and the model makes the video for it; with `--given video` it
makes the motion map and the poses for a given video. The measures are the same; the given half has the truth's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..comovi_model.errors import ComoviError
from ..comovi_model.files import atomic_path
from ..comovi_model.nano.actions import ACTION_NAMES
from ..comovi_model.nano.draw import DrawnClip, draw_clip
from ..comovi_model.nano.generate import LATENT_FRAMES, NanoInput, NanoSettings, generate, to_pixels
from ..comovi_model.nano.model import NanoModel, load_nano
from ..comovi_model.nano.people import ASSETS, load_nano_body
from ..comovi_model.nano.scene import NanoBody, Scene, describe_request, sample_scene
from ..comovi_model.nano.sentences import mentioned_colours, write_sentence
from .nano_clips import pixels_to_unit
from .nano_judges import label, load_judge, map_features, pool_maps, relative_joints, right_answers
from .nano_metrics import (
    change,
    frame_overlap,
    garment_colour,
    joint_error,
    map_silhouette,
    overlap,
    psnr,
    video_silhouette,
)
from .nano_redraw import redraw_motion
from .nano_report import bars_met, contact_sheet, format_table

EVALUATION_SEEDS = 2_000_000_000
BATCH = 8
SUFFIXES = ("", "_truth", "_frozen")
GIVEN = ("", "video", "motion")


@dataclass(frozen=True)
class Case:
    """One held-out triple and what it should look like.

    rotations (T, 24, 3, 3) and transl (T, 3) are in the camera frame."""

    scene: Scene
    clip: DrawnClip
    sentence: str
    rotations: np.ndarray
    transl: np.ndarray


@dataclass(frozen=True)
class Take:
    """One rendition of a case: video and motion map (T, H, W, 3) uint8, rotations (T, 24, 3, 3)."""

    video: np.ndarray
    motion_map: np.ndarray
    rotations: np.ndarray


def held_out_seed(seed: int, index: int) -> int:
    """A clip seed that no training uses, the same for the same pair."""
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return EVALUATION_SEEDS + int.from_bytes(digest[:6], "big")


def make_case(seed: int, index: int, body: NanoBody) -> Case:
    """Case number `index` of a user's seed."""
    clip_seed = held_out_seed(seed, index)
    scene = sample_scene(clip_seed, body)
    sentence = write_sentence(
        scene.request, scene.look.shirt, scene.look.trousers, np.random.default_rng([clip_seed, 1])
    )
    return Case(scene, draw_clip(scene, body), sentence, *scene.camera_motion(body))


@torch.no_grad()
def start_of(cases: list[Case], model: NanoModel | None = None, given: str = "") -> NanoInput:
    """What the model is given of some cases; with `given` "video" or "motion" that whole half, too."""
    whole = {}
    if model is not None and given:
        frames = [case.clip.video if given == "video" else case.clip.motion_map for case in cases]
        whole[given] = model.autoencoder.encode(torch.cat([pixels_to_unit(clip) for clip in frames]))
    return NanoInput(
        torch.from_numpy(np.stack([c.clip.video[0] for c in cases])),
        torch.from_numpy(np.stack([c.clip.motion_map[0] for c in cases])),
        torch.from_numpy(np.stack([c.rotations[0] for c in cases])).float(),
        [c.sentence for c in cases],
        whole,
    )


@torch.no_grad()
def reference_takes(model: NanoModel, case: Case) -> tuple[Take, Take]:
    """The truth through the autoencoder, and the start frame standing still through it."""
    both = torch.cat([pixels_to_unit(case.clip.video), pixels_to_unit(case.clip.motion_map)])
    latent = model.autoencoder.encode(both)
    still = to_pixels(model, latent[:, :, [0, 0]])  # every later group would be decoded like the second
    still = torch.cat([still[:, :1], still[:, 1:].repeat(1, LATENT_FRAMES - 1, 1, 1, 1)], 1)
    standing = np.repeat(case.rotations[:1], len(case.rotations), 0)
    video, motion_map = to_pixels(model, latent).numpy()
    frozen_video, frozen_map = still.numpy()
    return Take(video, motion_map, case.rotations), Take(frozen_video, frozen_map, standing)


def measure(case: Case, take: Take, body: NanoBody) -> dict[str, float]:
    """All measures of one take that need no judge."""
    seen, drawn = video_silhouette(take.video, case.clip.plate), map_silhouette(take.motion_map)
    redraw = redraw_motion(body, case.scene.betas, take.rotations, case.transl[0], case.scene.camera, drawn)
    moved, moved_video = change(drawn), change(seen)
    out = {
        "changed_map": float(moved.sum()),
        "changed_video": float(moved_video.sum()),
        "change_iou": overlap(moved_video, moved),
        "video_map_iou": frame_overlap(seen, drawn),
        "motion_map_iou": frame_overlap(redraw.silhouette, drawn),
        "joint_error_mm": joint_error(
            *(relative_joints(body, case.scene.betas, r) for r in (take.rotations, case.rotations))
        ),
    }
    shirt, _ = mentioned_colours(case.sentence)
    if shirt is not None:
        out["colour_accuracy"] = float(garment_colour(take.video, redraw.torso & seen & drawn) == shirt)
    return out


class Tally:
    """Collects the measures of all takes of one kind."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = defaultdict(list)
        self.joints: list[np.ndarray] = []
        self.maps: list[np.ndarray] = []

    def add(self, case: Case, take: Take, body: NanoBody) -> None:
        for name, value in measure(case, take, body).items():
            self.values[name].append(value)
        self.joints.append(relative_joints(body, case.scene.betas, take.rotations).astype(np.float32))
        self.maps.append(pool_maps(take.motion_map))

    def figures(self, labels: Tensor, changed: tuple[float, float]) -> tuple[dict[str, float | None], Tensor, Tensor]:
        """Means over cases, and which actions each judge recognised; `changed`: pixels that truly change."""
        out: dict[str, float | None] = {
            name: float(np.mean(values)) for name, values in self.values.items() if not name.startswith("changed")
        }
        out.setdefault("colour_accuracy", None)  # no sentence named a shirt
        out["motion_ratio"] = sum(self.values["changed_map"]) / max(changed[0], 1)
        out["motion_ratio_video"] = sum(self.values["changed_video"]) / max(changed[1], 1)
        answers = []
        for prefix, kind, seen in (
            ("", "joints", torch.from_numpy(np.stack(self.joints))),
            ("pixel_", "map", map_features(np.stack(self.maps))),
        ):
            action, side = right_answers(load_judge(kind), seen, labels)
            out[f"{prefix}action_accuracy"] = float(action.float().mean())
            out[f"{prefix}side_accuracy"] = float(side.float().mean()) if len(side) else None
            answers.append(action)
        return out, answers[0], answers[1]


def evaluate_nano(model: NanoModel, count: int, seed: int, settings: NanoSettings,
                  keep: int = 0, given: str = "") -> tuple[dict, list[tuple[Case, Take]]]:  # fmt: skip
    """All figures of `count` cases, and the takes of the first `keep` cases with different actions."""
    if given not in GIVEN:
        raise ComoviError(f"given must be one of {', '.join(filter(None, GIVEN))}, or nothing; got {given!r}.")
    body = load_nano_body()
    tallies = {suffix: Tally() for suffix in SUFFIXES}
    labels: list = []
    kept: dict = {}
    spent = 0.0
    fidelity: dict[str, list[float]] = {"rgb": [], "map": []}
    changed = np.zeros(2)
    with tqdm(total=count, desc="evaluating", unit="clip") as bar:
        for start in range(0, count, BATCH):
            cases = [make_case(seed, index, body) for index in range(start, min(start + BATCH, count))]
            begin = time.perf_counter()
            out = generate(model, start_of(cases, model, given), settings, seed=held_out_seed(seed, start) % 2**62)
            spent += time.perf_counter() - begin
            for case, *pictures in zip(cases, out.video, out.motion_map, out.rotations, strict=True):
                takes = (Take(*(p.numpy() for p in pictures)), *reference_takes(model, case))
                for suffix, take in zip(SUFFIXES, takes, strict=True):
                    tallies[suffix].add(case, take, body)
                fidelity["rgb"].append(psnr(takes[1].video, case.clip.video))
                fidelity["map"].append(psnr(takes[1].motion_map, case.clip.motion_map))
                changed += (
                    change(map_silhouette(case.clip.motion_map)).sum(),
                    change(video_silhouette(case.clip.video, case.clip.plate)).sum(),
                )
                labels.append(label(case.scene.request))
                if len(kept) < keep:
                    kept.setdefault(case.scene.request.action, (case, takes[0]))
                bar.update()
    figures: dict = {}
    for suffix in SUFFIXES:
        row, *answers = tallies[suffix].figures(torch.tensor(labels), (float(changed[0]), float(changed[1])))
        figures |= {f"{name}{suffix}": value for name, value in sorted(row.items())}
        if not suffix:
            figures["per_action"] = _per_action(torch.tensor(labels)[:, 0], *answers)
    figures["change_iou_share"] = figures["change_iou"] / max(figures["change_iou_truth"], 1e-9)
    figures |= {f"autoencoder_psnr_{name}": float(np.mean(values)) for name, values in fidelity.items()}
    figures |= {"count": count, "seed": seed, "settings": asdict(settings), "seconds_per_clip": spent / count}
    figures |= {"given": given} if given else {}
    return figures | {"bars_met": bars_met(figures)}, list(kept.values())


def _per_action(actions: Tensor, joints: Tensor, pixels: Tensor) -> dict[str, dict[str, float]]:
    """Action name -> number of cases and shares recognised."""
    out = {}
    for number, name in enumerate(ACTION_NAMES):
        which = actions == number
        if which.any():
            out[name] = {
                "count": int(which.sum()),
                "action_accuracy": float(joints[which].float().mean()),
                "pixel_action_accuracy": float(pixels[which].float().mean()),
            }
    return out


def run(what: str, count: int, seed: int, json_path: str | Path | None, no_exchange: bool = False,
        model_folder: str | Path | None = None, sheet: str | Path | None = None, given: str = "",
        **options: Any) -> dict:  # fmt: skip
    """What `comovi evaluate` does: measure, print the table, write the JSON file. `options`: fields of NanoSettings."""
    if what != "nano":
        raise ComoviError(f"there is no evaluation of {what!r}; what exists: nano.")
    if count < 1:
        raise ComoviError(f"the number of clips must be at least 1, got {count}.")
    settings = replace(NanoSettings(), exchange=not no_exchange, **options)
    model = load_nano(Path(model_folder) if model_folder else ASSETS)
    with atomic_path(json_path) if json_path else nullcontext() as temporary:
        if temporary:
            temporary.touch()  # a place that cannot be written is found now, not after minutes
        figures, kept = evaluate_nano(model, count, seed, settings, len(ACTION_NAMES) if sheet else 0, given)
        if temporary:
            temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if sheet:
        rows = [(f"{describe_request(case.scene.request)}: {case.sentence}", [take.video, take.motion_map])
                for case, take in kept]  # fmt: skip
        with atomic_path(sheet) as path:
            contact_sheet(rows).save(path)
    print(format_table(figures))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--seed", type=int, default=90_001)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-exchange", action="store_true")
    parser.add_argument("--model", type=Path, help="folder with the three nano files (default: the embedded ones)")
    parser.add_argument("--sheet", type=Path, help="also save a contact sheet (.png)")
    parser.add_argument(
        "--given", choices=[*filter(None, GIVEN)], default="", help="this half is there; make the other"
    )
    for name, kind in (("steps", int), ("guidance", float), ("shift", float), ("motion-lead", float)):
        parser.add_argument(f"--{name}", type=kind)
    arguments = vars(parser.parse_args())
    settings = {k: arguments[k] for k in ("steps", "guidance", "shift", "motion_lead") if arguments[k] is not None}
    run("nano", arguments["count"], arguments["seed"], arguments["json"], arguments["no_exchange"], arguments["model"],
        arguments["sheet"], arguments["given"], **settings)  # fmt: skip


if __name__ == "__main__":
    main()
