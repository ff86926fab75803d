"""One shape for a person: robust betas of many frames or clips, and motions with other betas.

Letters: F frames, K shape parameters (betas).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..body.frames import check_same_body
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel, rest_joints
from ..errors import ComoviError
from .history import noted

WIDEST = 5.0  # standard deviations; estimators that lose the person answer with more


def median_betas(betas: Tensor, valid: Tensor | None = None) -> Tensor:
    """Betas of every frame (F, K) -> (K,): the median of each over the valid frames, within +-5.

    The median of a shape parameter does not move when a few frames show somebody else, the mean does.
    """
    if betas.dim() != 2 or not len(betas):
        raise ComoviError(f"betas of a clip must be (frames, parameters), got {tuple(betas.shape)}.")
    known = torch.isfinite(betas).all(1)
    if valid is not None and bool((known & valid).any()):
        known = known & valid
    if not bool(known.any()):
        raise ComoviError("no frame has finite betas, so there is no shape to lock.")
    values = betas[known].double().sort(0).values
    middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
    return middle.clamp(-WIDEST, WIDEST).float()


def with_betas(motion: BodyMotion, model: BodyModel, betas: Tensor) -> BodyMotion:
    """The same poses in another shape; the pelvis stays where it is, as far as the legs stay as long.

    In a frame with an up axis the body is lifted or lowered by the change of its legs, so that feet stay on the floor.
    """
    check_same_body(model, motion)
    old, new = rest_joints(model, motion.betas), rest_joints(model, betas)
    shift = old[0] - new[0]
    if motion.frame != "camera":
        up = 1 if motion.frame == "yup" else 2
        shift = shift.clone()
        longer = _leg_length(new) - _leg_length(old)
        shift[up] = shift[up] + longer
    return replace(motion, betas=betas.float(), transl=motion.transl + shift)


def lock_shape(motions: Sequence[BodyMotion], model: BodyModel) -> list[BodyMotion]:
    """Clips of one person with one shape: the median of their betas, each clip counted by its frames."""
    if not motions:
        return []
    names = {motion.body_model for motion in motions}
    if len(names) > 1:
        raise ComoviError(f"the clips were made for different bodies ({', '.join(sorted(names))}); convert them first.")
    betas = median_betas(torch.cat([motion.betas.expand(len(motion), -1) for motion in motions]))
    note = {"lock_shape": len(motions)}
    return [noted(with_betas(motion, model, betas), note) for motion in motions]


def _leg_length(joints: Tensor) -> Tensor:
    """Height of the pelvis above the ankles in the T-pose, metres."""
    return joints[0, 1] - (joints[7, 1] + joints[8, 1]) / 2
