"""What was done to a motion, kept in its provenance so that a file can tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..body.motion import BodyMotion

KEY = "edits"


def noted(motion: BodyMotion, step: Mapping[str, Any]) -> BodyMotion:
    """The same motion with one more entry in its list of edits; `step` must be JSON."""
    before = motion.provenance.get(KEY, [])
    edits = [*before, dict(step)] if isinstance(before, list) else [before, dict(step)]
    return replace(motion, provenance={**motion.provenance, KEY: edits})
