"""Videos by VBench's five dimensions, through its own package in an environment of its own.

VBench pins old versions of numpy and transformers, so it must not share ComfyUI's or our environment:

    python -m venv vbench-env && vbench-env/bin/pip install vbench
    comovi-train eval video VIDEOS --python vbench-env/bin/python --out video.json
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...comovi_model.errors import ComoviError

DIMENSIONS = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "aesthetic_quality",
    "imaging_quality",
)
WEIGHTS = {  # below VBENCH_CACHE_DIR, or ~/.cache/vbench; VBench fetches what is missing
    "subject_consistency": ("dino_model/dino_vitbase16_pretrain.pth", "dino_model/facebookresearch_dino_main"),
    "background_consistency": ("clip_model/ViT-B-32.pt",),
    "motion_smoothness": ("amt_model/amt-s.pth",),
    "aesthetic_quality": ("clip_model/ViT-L-14.pt", "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth"),
    "imaging_quality": ("pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",),
}
ENDINGS = (".mp4", ".gif")
RUNNER = Path(__file__).with_name("vbench_runner.py")
LAST_LINES = 3


def cache_folder() -> Path:
    return Path(os.environ.get("VBENCH_CACHE_DIR") or Path.home() / ".cache" / "vbench")


def missing_weights(dimensions: Sequence[str] = DIMENSIONS) -> list[str]:
    """Files that VBench would have to fetch."""
    return [str(cache_folder() / name) for one in dimensions for name in WEIGHTS[one]
            if not (cache_folder() / name).exists()]  # fmt: skip


def evaluate_videos(
    folder: Path, python: Path, dimensions: Sequence[str] = DIMENSIONS, device: str = "cuda"
) -> dict[str, Any]:
    """Raw scores, mean and per video, by dimension; they are what Table 3 of the paper lists."""
    for name in dimensions:
        if name not in DIMENSIONS:
            raise ComoviError(f"dimension {name!r} is unknown; choose from {', '.join(DIMENSIONS)}.")
    videos = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS) if folder.is_dir() else []
    if not videos:
        raise ComoviError(f"{folder} holds no videos ({', '.join(ENDINGS)}) to measure.")
    program = os.path.abspath(shutil.which(python) or python)  # it is started in another folder; links stay links
    with tempfile.TemporaryDirectory() as temporary:
        wanted = {
            "videos": str(folder.resolve()), "out": temporary, "name": "comovi", "dimensions": list(dimensions),
            "device": device,
        }  # fmt: skip
        try:
            done = subprocess.run(
                [program, str(RUNNER), json.dumps(wanted)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace", cwd=temporary, env=_clean_environment(),
            )  # fmt: skip
        except OSError as error:
            raise ComoviError(f"{python} cannot be started ({error}); --python names VBench's interpreter.") from None
        result = Path(temporary) / "comovi_eval_results.json"
        if done.returncode or not result.exists():
            said = " / ".join(line for line in done.stdout.strip().splitlines()[-LAST_LINES:])
            lacking = missing_weights(dimensions)
            hint = f" Without a network these files must be there: {', '.join(lacking)}." if lacking else ""
            raise ComoviError(f"VBench stopped with status {done.returncode}: {said or 'no output'}.{hint}")
        raw = json.loads(result.read_text(encoding="utf-8"))
    return {"comparable": True, "embedder": "vbench", "clips": len(videos), "generated": _scores(raw, dimensions)}


def _clean_environment() -> dict[str, str]:
    """Ours without what would lead the other Python to our packages."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def _scores(raw: dict[str, Any], dimensions: Sequence[str]) -> dict[str, Any]:
    out = {}
    for name in dimensions:
        mean, rows = raw[name]
        out[name] = {
            "mean": float(mean),
            "videos": {Path(row["video_path"]).stem: float(row["video_results"]) for row in rows},
        }
    return out
