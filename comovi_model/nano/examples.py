"""Motions that come with the program, for whoever has no motion file yet: performed when asked for, never stored."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ..body.motion import BodyMotion
from .actions import ACTION_NAMES, ActionRequest, perform
from .people import load_nano_body
from .start import BODY_NAME, FPS

FRAMES = 33
SEED = 2
_REQUESTS: Mapping[str, tuple[str, str]] = {"wave": ("wave", "left"), "walk": ("walk", ""), "bow": ("bow", "")}
EXAMPLES = tuple(_REQUESTS)


def example_motion(name: str) -> BodyMotion:
    """One of EXAMPLES: 33 frames at 16 a second, y up, a person of mean figure who stands at the origin at first."""
    action, side = _REQUESTS[name]
    body = load_nano_body()
    request = ActionRequest(ACTION_NAMES.index(action), side, "")
    ground = float(body.v_template[:, 1].min())
    rotations, pelvis = perform(request, body.joints, ground, FRAMES, FPS, np.random.default_rng(SEED))
    return BodyMotion(
        torch.from_numpy(np.ascontiguousarray(rotations)).float(),
        torch.zeros(10),
        torch.from_numpy(pelvis - body.joints[0]).float(),
        "yup",
        fps=FPS,
        body_model=BODY_NAME,
        provenance={"made_by": f"example {name}"},
    )
