"""How our nodes describe themselves: one call that works on every ComfyUI that has V3 nodes.

Newer ComfyUIs know more fields of a schema (search words, the essentials tab); an older one raises a TypeError for a
field that it does not know, so those are left out there. What a node says is the same everywhere.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from comfy_api.latest import io

CATEGORY = "CoMoVi"
KNOWN_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}
# `io.Int.Input(..., **ADVANCED)`: folded away under "advanced" where this ComfyUI can do that.
ADVANCED = {"advanced": True} if "advanced" in inspect.signature(io.Int.Input.__init__).parameters else {}

Body = io.Custom("COMOVI_BODY")  # value: comovi_model.body.smpl.BodyModel
BodyMotion = io.Custom("COMOVI_BODY_MOTION")  # value: comovi_model.body.motion.BodyMotion


def make_schema(node_id: str, display_name: str, group: str, **fields: Any) -> io.Schema:
    """The schema of one node. `group` is its place below CoMoVi in the menu, e.g. "motion" or "sampling"."""
    category = f"{CATEGORY}/{group}" if group else CATEGORY
    known = {name: value for name, value in fields.items() if name in KNOWN_FIELDS}
    return io.Schema(node_id=node_id, display_name=display_name, category=category, **known)
