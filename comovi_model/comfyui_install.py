"""Where a ComfyUI is on this machine, and the Python that runs it. Reads folders only; imports nothing of ComfyUI."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

STANDARD_PLACE = Path("~/comfy/ComfyUI")  # where comfy-cli installs it
ENVIRONMENTS = (".venv/bin/python", "venv/bin/python", ".venv/Scripts/python.exe", "venv/Scripts/python.exe")
PORTABLE = "../python_embeded/python.exe"  # the Windows package keeps its Python beside the folder, spelled like this


@dataclass(frozen=True)
class Install:
    """One ComfyUI: its folder, the Python that runs it, its version ("" when it does not say)."""

    home: Path
    python: Path
    version: str


@dataclass(frozen=True)
class Search:
    """What a search found, and where it looked: one line a place, for people."""

    install: Install | None
    looked: tuple[str, ...]


def find_comfyui() -> Search:
    """The ComfyUI of COMFYUI_PATH when that is set, else the one in the standard place."""
    return _first([("COMFYUI_PATH", os.environ.get("COMFYUI_PATH")), ("", str(STANDARD_PLACE))])


def find_old_comfyui() -> Search:
    """The oldest ComfyUI that we support, for tests: COMFYUI_OLD_PATH, else the newest one's folder with ``-old``."""
    newest = Path(os.environ.get("COMFYUI_PATH") or STANDARD_PLACE)
    beside = str(newest.with_name(f"{newest.name}-old"))
    return _first([("COMFYUI_OLD_PATH", os.environ.get("COMFYUI_OLD_PATH")), ("", beside)])


def _first(places: list[tuple[str, str | None]]) -> Search:
    looked = []
    for variable, text in places:
        if not text:
            looked.append(f"{variable} is not set")
            continue
        home = Path(text).expanduser()
        name = f"{variable}={text}" if variable else text
        if not (home / "main.py").is_file():
            looked.append(f"{name}: no ComfyUI there (no main.py)")
        elif (python := find_python(home)) is None:
            looked.append(
                f"{name}: ComfyUI, but no Python that can run it (no .venv, no venv, and none in COMFYUI_PYTHON)"
            )
        else:
            looked.append(f"{name}: ComfyUI")
            return Search(Install(home, python, read_version(home)), tuple(looked))
        if variable:
            break  # a place that a person named is not quietly replaced by another
    return Search(None, tuple(looked))


def find_python(home: Path) -> Path | None:
    """The Python of a ComfyUI: COMFYUI_PYTHON, its own environment, or this one when it has ComfyUI's packages."""
    named = os.environ.get("COMFYUI_PYTHON")
    candidates = [Path(named)] if named else [home / place for place in (*ENVIRONMENTS, PORTABLE)]
    for python in candidates:
        if python.is_file():
            return python
    if not named and importlib.util.find_spec("aiohttp") and importlib.util.find_spec("torchsde"):
        return Path(sys.executable)
    return None


def read_version(home: Path) -> str:
    """ComfyUI's own version, e.g. "0.3.64"; "" when its folder does not say."""
    file = home / "comfyui_version.py"
    parts = file.read_text(encoding="utf-8", errors="replace").split('"') if file.is_file() else []
    return parts[1] if len(parts) >= 3 else ""
