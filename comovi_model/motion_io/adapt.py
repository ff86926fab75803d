"""A motion of one body on another: rotations are kept, the pelvis stays where it was, foreign betas are dropped."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..body.motion import BodyMotion
from ..body.smpl import BodyModel, rest_joints

# Where the pelvis of the mean body is at rest, metres; measured facts of the published models.
_PELVIS = {"smpl-x": (0.0031, -0.3514, 0.0120), "smpl": (-0.0018, -0.2233, 0.0282)}


def for_body(motion: BodyMotion, body: BodyModel) -> tuple[BodyMotion, list[str]]:
    """-> the motion as one of `body`, notes; unchanged where it already is one."""
    if body.shape_space == motion.body_model.removesuffix("-nano"):
        return motion, []
    notes = []
    betas = motion.betas
    if bool((betas != 0).any()):
        betas = torch.zeros_like(betas)
        notes.append(f"betas of body {motion.body_model!r} mean nothing to {body.name!r}; its mean shape is used")
    name = motion.body_model.lower().replace("_", "-")
    rest = _PELVIS["smpl-x"] if name.startswith(("smpl-x", "smplx")) else _PELVIS["smpl"] if "smpl" in name else None
    transl = motion.transl
    if rest is not None:
        transl = transl + torch.tensor(rest).to(transl) - rest_joints(body, betas)[0].to(transl)
        notes.append("the pelvis keeps its place; legs of another length may float or sink: ground the motion")
    return replace(motion, betas=betas, transl=transl, body_model=body.name), notes
