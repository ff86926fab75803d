"""Writes the tour of the code in CONTRIBUTING.md from the first line of every file's docstring.

python tools/write_tour.py
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- tour: begin -->", "<!-- tour: end -->"
ROOMS = {
    ".": "the command and the package's door",
    "comovi_model": "the paper, in plain PyTorch; never imports ComfyUI or training",
    "comovi_model/wan": "one Wan2.2 diffusion branch, its weights and its samplers",
    "comovi_model/comovi": "the dual-branch network of the paper and its checkpoints",
    "comovi_model/body": "people in 3D: bodies, motions, motion maps",
    "comovi_model/body/files": "one file per format of other tools",
    "comovi_model/camerahmr": "one picture to an SMPL body: CameraHMR, from its published files",
    "comovi_model/clean": "gaps, smoothing, time base, floor, feet, cutting and joining of motions",
    "comovi_model/estimate": "who is in a picture, and the body of each: four ways, the best that is at hand",
    "comovi_model/fit": "from a motion map back to the motion that it shows",
    "comovi_model/motion_io": "motion files of other tools, in and out",
    "comovi_model/nano": "the embedded model and the synthetic people it learned from",
    "comovi_model/show": "looking at motions: overlay, turntable, sheets, curves, the page with the 3D player",
    "comovi_model/assets": "bodies and weights, as safetensors",
    "kernels": "named formulas, plain first; knows nothing of the model",
    "kernels/benchmark": "times every operation in every provider; `python -m comfyui_comovi.kernels.benchmark`",
    "kernels/triton_impl": "the fused kernels; imported only where Triton is",
    "training": "data, trainers, evaluation; nothing imports it but the command",
    "training/curation": "which parts of which videos to train on, on one machine or on many",
    "training/data": "from videos and estimated bodies to what a training step reads",
    "training/eval": "generated motions and videos measured as the paper does, beside its tables",
    "training/engines": "two ways to take an optimiser step",
    "training/recipes": "what is trained: the paper's two stages, and the nano model",
    "nodes": "what a person drags onto the ComfyUI canvas; the only room that imports ComfyUI",
    "nodes/native": "CoMoVi as an ordinary MODEL, CLIP and VAE of ComfyUI",
    "workflows": "ready graphs for ComfyUI, and a client for its HTTP API",
    "tools": "makes what is shipped; not part of the package",
}


def purpose(path: Path) -> str:
    """The docstring's first sentence, on one line, as a table cell."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = " ".join(docstring.split("\n\n")[0].split())
    sentence = re.split(r"(?<!Fig)(?<!Eq)\. ", first)[0].rstrip(".")
    return sentence.replace("|", "\\|")


def room_table(folder: str) -> list[str]:
    files = [path for path in sorted((ROOT / folder).glob("*.py")) if path.name != "__init__.py" or folder == "."]
    data = sorted((ROOT / folder).glob("*.safetensors"))
    title = "root" if folder == "." else f"{folder}/"
    lines = [f"**{title}**: {ROOMS[folder]}", ""]
    if files or data:
        lines += ["| file | what is in it |", "|---|---|"]
        lines += [f"| `{path.name}` | {purpose(path)} |" for path in files]
        lines += [f"| `{path.name}` | {path.stat().st_size / 1e6:.1f} MB |" for path in data]
        lines.append("")
    return lines


def main() -> None:
    target = ROOT / "CONTRIBUTING.md"
    text = target.read_text(encoding="utf-8")
    tour = "\n".join(line for folder in ROOMS if (ROOT / folder).is_dir() for line in room_table(folder))
    head, rest = text.split(BEGIN)
    target.write_text(f"{head}{BEGIN}\n{tour}{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
