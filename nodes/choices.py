"""Checks of widget values that every ComfyUI makes with the same words.

An older ComfyUI does not look at the lists of V3 nodes: whatever a client of its API sends reaches `execute`. A node
therefore names its lists in `validate_inputs`, and a value that is not in the list is refused before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

SHOWN = 12  # options that an error lists


def listed(node: type[io.ComfyNode], values: Mapping[str, Any]) -> bool | str:
    """True, or a sentence about the first value that its list does not offer; None stands for a wired input."""
    inputs = {entry.id: entry for entry in node.define_schema().inputs}
    for name, value in values.items():
        options = inputs[name].options
        if value is not None and value not in options:
            return f"{name} {_short(value)} is not in the list; {_some_of(options)}."
    return True


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _some_of(options: list[str]) -> str:
    shown = ", ".join(options[:SHOWN])
    if not options:
        return "there are no files for it yet"
    return f"choose {shown}" if len(options) <= SHOWN else f"choose one of its {len(options)} entries ({shown}, …)"
