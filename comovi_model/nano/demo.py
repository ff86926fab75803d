"""`comovi demo` and `comovi generate`: from a sentence to a folder with a video, its motion map and a moving body."""

from __future__ import annotations

import hashlib
import platform
import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from ... import __version__
from ..body.body_files import load_nano_body
from ..body.motion import BodyMotion
from ..body.smpl import load_body_model
from ..body.upright import with_camera_up
from ..comovi.checkpoint import inspect_checkpoint
from ..errors import ComoviError
from ..files import atomic_folder, require_file
from .first_frame import PARAMETRIZATION
from .generate import NanoInput, NanoOutput, NanoSettings, generate
from .model import AUTOENCODER_FILE, NETWORK_FILE, TEXT_FILE, NanoModel, load_nano
from .outputs import ENLARGED, Clip, write_clip
from .people import ASSETS
from .place import keep_on_floor, place_motion
from .prompts import Prompt, read_prompt, what_it_knows
from .scene import FPS
from .start import Start, make_start


@dataclass(frozen=True)
class DemoRun:
    """What a run left behind."""

    folder: Path
    files: tuple[str, ...]
    seconds_sampling: float
    seconds: float
    peak_megabytes: float | None  # resident memory of the process; None where the system does not tell


def run_demo(
    out: Path,
    *,
    prompt: str | None = None,
    seed: int = 0,
    first_frame: Path | None = None,
    first_pose: Path | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    exchange: bool = True,
    overwrite: bool = False,
    model: Path | None = None,
) -> DemoRun:
    """Make one clip and write its files into the folder `out`, all of them or none; prints what it did.

    `first_frame` is a picture, `first_pose` a motion file (frame 0 is used); what is missing is drawn. `model` is a
    folder with the nano weights (default: the embedded ones).
    """
    began = time.monotonic()
    wish = read_prompt(prompt)
    usual = NanoSettings()
    settings = NanoSettings(
        steps=usual.steps if steps is None else steps,
        guidance=usual.guidance if guidance is None else guidance,
        exchange=exchange,
    )
    with atomic_folder(out, overwrite=overwrite) as folder:
        weights = find_nano_weights(model)
        start = make_start(wish.text, seed, first_frame, first_pose)
        for notice in (*wish.notices, *start.notices):
            print(f"note: {notice}")
        if wish.unknown:
            print("\n".join(["The nano model knows:", *(f"  {line}" for line in what_it_knows())]))
        nano = load_nano(weights)
        began_sampling = time.monotonic()
        output = sample(nano, start, wish.text, settings, seed)
        sampled = time.monotonic() - began_sampling
        record = settings_record(wish, seed, settings, weights, {"first_frame": first_frame, "first_pose": first_pose})
        body = load_body_model()
        motion = recover_motion(output, start, {"made_by": f"comovi {__version__}", "prompt": wish.text, "seed": seed})
        clip = Clip(output.video[0].numpy(), output.motion_map[0].numpy(), motion, start, record)
        files = write_clip(folder, clip, body)
    run = DemoRun(Path(out), tuple(files), sampled, time.monotonic() - began, peak_memory())
    print("\n".join(summary(run)))
    return run


def sample(model: NanoModel, start: Start, prompt: str, settings: NanoSettings, seed: int) -> NanoOutput:
    """One clip, with a progress bar; Ctrl-C stops between two operations of a step."""
    first = NanoInput(
        torch.from_numpy(start.frame.copy())[None],
        torch.from_numpy(start.motion_map.copy())[None],
        start.pose.rotations,
        [prompt],
    )
    with tqdm(total=settings.steps, desc="sampling", unit="step", leave=False) as bar:
        return generate(model, first, settings, seed, on_step=lambda _: bar.update() and None)


def recover_motion(output: NanoOutput, start: Start, provenance: dict[str, Any]) -> BodyMotion:
    """The poses of the pose head, placed where the generated motion map shows the body and on the floor."""
    rotations = output.rotations[0]
    still = replace(start.pose, rotations=rotations, transl=start.pose.transl.expand(len(rotations), -1),
                    provenance=provenance, valid=None, source_index=None)  # fmt: skip
    body, up = load_nano_body(), torch.from_numpy(start.view.rotation[:, 1]).float()
    return with_camera_up(keep_on_floor(body, place_motion(body, still, output.motion_map[0]), up), up)


def find_nano_weights(model: Path | None) -> Path:
    """The folder of the nano weights that `--model` names; other models are recognised and refused in a sentence."""
    if model is None:
        return ASSETS
    model = Path(model)
    folder = model if model.is_dir() else model.parent
    if model.is_dir() and (folder / NETWORK_FILE).is_file():
        return folder
    if not model.is_dir() and _parametrization(require_file(model, "model")) == PARAMETRIZATION:
        if model.name != NETWORK_FILE:
            raise ComoviError(
                f"{model} is a nano network; name it {NETWORK_FILE}, beside {TEXT_FILE} and {AUTOENCODER_FILE}."
            )
        return folder
    report = inspect_checkpoint(model)
    kind = {"comovi": "a CoMoVi checkpoint", "wan2.2": "a plain Wan2.2 checkpoint"}[report.layout]
    raise ComoviError(
        f"{model} is {kind} of {report.parameters / 1e9:.2f} billion parameters; it needs Wan2.2's VAE and text "
        "encoder, which come from ComfyUI, so this command cannot run it: leave --model out for the nano model."
    )


def _parametrization(path: Path) -> str | None:
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(str(path), "pt") as file:
            return (file.metadata() or {}).get("parametrization")
    except SafetensorError:
        return None  # inspect_checkpoint says it better


def settings_record(
    wish: Prompt, seed: int, settings: NanoSettings, weights: Path, inputs: dict[str, Path | None]
) -> dict[str, Any]:
    """All that a run depends on, as JSON: `command` repeats it, the hashes tell whether the inputs are the same."""
    words = ["comovi", "generate", "--prompt", wish.text, "--seed", str(seed), "--steps", str(settings.steps),
             "--guidance", f"{settings.guidance:g}"]  # fmt: skip
    for name, path in inputs.items():
        words += [] if path is None else [f"--{name.replace('_', '-')}", str(path)]
    words += [] if settings.exchange else ["--no-exchange"]
    words += [] if weights == ASSETS else ["--model", str(weights)]
    return {
        "comovi": __version__,
        "command": shlex.join(words),
        "prompt": wish.text,
        "unknown_words": list(wish.unknown),
        "seed": seed,
        "steps": settings.steps,
        "guidance": settings.guidance,
        "shift": settings.shift,
        "motion_lead": settings.motion_lead,
        "exchange": settings.exchange,
        "inputs": {name: path and {"file": str(path), "sha256": file_hash(path)} for name, path in inputs.items()},
        "model": {
            "folder": "embedded" if weights == ASSETS else str(weights),
            "sha256": {name: file_hash(weights / name) for name in (NETWORK_FILE, TEXT_FILE, AUTOENCODER_FILE)},
        },
        "enlarged": {"times": ENLARGED, "filter": "lanczos"},
        "fps": FPS,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with require_file(path, "file").open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def peak_memory() -> float | None:
    """Largest resident memory of this process so far, in megabytes."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


CONTENTS = {
    "contact_sheet.png": "the whole clip on one page; look here first",
    "side_by_side.mp4": "video, motion map and body next to each other",
    "video.mp4": "what the sentence says",
    "motion_map.mp4": "the body's parts and their directions, as the model draws them",
    "motion.glb": "the moving body for any 3D viewer",
    "motion.npz": "the same motion as numbers: AMASS keys and ours",
    "first_frame.png": "what the clip starts from; --first-frame takes it again",
    "first_pose.npz": "the body in it; --first-pose takes it again",
    "settings.json": "everything that reproduces this clip",
}


def summary(run: DemoRun) -> list[str]:
    """What a person wants to know at the end."""
    width = max(map(len, run.files))
    lines = [f"wrote into {run.folder}:"]
    lines += [f"  {name:<{width}}  {text}" for name, text in CONTENTS.items() if name in run.files]
    memory = "" if run.peak_megabytes is None else f", at most {run.peak_megabytes:.0f} MB of memory"
    lines.append(f"{run.seconds:.1f} s in all, {run.seconds_sampling:.1f} s of it sampling{memory}")
    return lines
