"""What was measured to be fastest on this machine's GPU, kept in a small file by the benchmark.

`python -m comfyui_comovi.kernels.benchmark --keep` writes it; from then on the setting "auto" takes from it, for every
operation, the back end that won by 5 % or more, and for dense attention the library that won. A file of another GPU is
not used. COMOVI_KERNEL_CHOICES names another place for it.
"""

from __future__ import annotations

import json
import logging
import os
from functools import lru_cache
from pathlib import Path

import torch

VARIABLE = "COMOVI_KERNEL_CHOICES"


def choices_file() -> Path:
    """Where the file is, or would be."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(cache) if cache else Path.home() / ".cache") / "comovi" / "kernel_choices.json"


def gpu_name() -> str:
    """The GPU that the choices are for; empty without one."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""


@lru_cache(maxsize=1)
def measured() -> dict[str, str]:
    """Operation -> back end, and "attention" -> library, as measured on this GPU; empty when nothing was."""
    return read_choices(choices_file(), gpu_name())


def read_choices(path: Path, gpu: str) -> dict[str, str]:
    """The choices of a file, where it is of this GPU; of a damaged one none."""
    if not gpu or not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        choices = {str(name): str(value) for name, value in found["choices"].items()}
        return choices if found["gpu"] == gpu else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        text = "%s is not what --keep wrote (%s: %s), so nothing counts as timed; time the kernels again."
        logging.getLogger(__name__).warning(text, path, type(error).__name__, error)
        return {}


def keep_choices(path: Path, gpu: str, choices: dict[str, str], about: dict[str, str]) -> None:
    """Write the file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    half.write_text(json.dumps({"gpu": gpu, **about, "choices": choices}, indent=1) + "\n", encoding="utf-8")
    os.replace(half, path)
    measured.cache_clear()
