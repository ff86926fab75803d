"""Depth that does not pump: how far a person is from the camera, steadied along the line of sight.

Letters: F frames. One camera sees well where a person is in the picture and badly how far away: estimators derive the
distance from the person's size (weak perspective: depth = 2 focal / (scale * box side)), so an error of 3 % in size
moves a person at 4 m by 12 cm, back and forth from frame to frame. Smoothing the path in x, y and z alike either leaves
that in or tears the body off its picture.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..body.frames import pelvis_at_rest
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel
from ..errors import ComoviError
from .gaps import valid_frames
from .history import noted
from .manifold import regression_coefficients, window_index

NEAREST = 0.1  # metres in front of the camera
ROUNDS = 3


def steady_depth(motion: BodyMotion, model: BodyModel, seconds: float = 0.25) -> BodyMotion:
    """The pelvis stays on its line of sight, so its place in the picture does not change; its depth becomes smooth.

    The logarithm of the depth is fitted by parabolas under a bell of `seconds` (standard deviation), which forget
    frames that do not fit. For motions in the camera frame only.
    """
    if motion.frame != "camera":
        raise ComoviError(f"depth is steadied in the camera frame, and this motion is in {motion.frame!r}.")
    if not 0 < seconds <= 10:
        raise ComoviError(f"the depth must be steadied over 0 to 10 seconds, got {seconds}.")
    pelvis = pelvis_at_rest(model, motion).double()
    place = motion.transl.double() + pelvis  # (F, 3)
    usable = valid_frames(motion) & (place[:, 2] > NEAREST)
    if int(usable.sum()) < 3:
        return motion
    depth = _steadied(place[:, 2].clamp_min(NEAREST).log(), usable, seconds * motion.fps).exp()
    moved = place * (depth / place[:, 2])[:, None] - pelvis
    transl = torch.where(usable[:, None], moved.float(), motion.transl)
    return noted(replace(motion, transl=transl), {"steady_depth": seconds})


def _steadied(values: Tensor, usable: Tensor, sigma: float) -> Tensor:
    """(F,) -> (F,) by weighted regression, with Tukey weights of the residuals."""
    index = window_index(len(values), max(2, round(3 * sigma)))
    offsets = (index - torch.arange(len(values))[:, None]).double()
    bell = torch.exp(-0.5 * (offsets / sigma) ** 2)
    trust = usable.double()
    fitted = values
    for _ in range(ROUNDS):
        coefficients = regression_coefficients(offsets, bell * trust[index], 2)
        fitted = (coefficients * values[index]).sum(1)
        away = (values - fitted).abs()
        limit = (6 * away[usable].median()).clamp_min(1e-4)
        trust = usable * (1 - (away / limit).clamp_max(1) ** 2) ** 2
    return fitted
