"""Where an exported body goes: on the floor at the origin, where it was, or nowhere."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..body.frames import in_frame, on_floor, pelvis_at_rest
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel
from ..body.upright import levelled
from ..errors import ComoviError
from .formats import ROOTS


def placed(motion: BodyMotion, model: BodyModel, frame: str, root: str = "centred") -> BodyMotion:
    """The motion in the axes of "yup" or "zup"; what a camera saw is set upright, as far as its tilt is known.

    root "centred": the lowest point of the clip at height 0 and the first pelvis above the origin, path kept.
    "absolute": where it was. "off": no path at all, the pelvis stays above the origin at its first height.
    """
    if root not in ROOTS:
        raise ComoviError(f"root must be one of {', '.join(ROOTS)}, got {root!r}.")
    upright = in_frame(levelled(motion, model), model, frame)
    if root == "absolute":
        return upright
    standing = on_floor(upright, model)
    if root == "centred":
        return standing
    up = torch.zeros(3)
    up[1 if frame == "yup" else 2] = 1.0
    pelvis = pelvis_at_rest(model, motion).cpu()
    height = (pelvis + standing.transl[0]) @ up
    return replace(standing, transl=(height * up - pelvis).expand(len(motion), 3).clone())
