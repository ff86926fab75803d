"""A motion of one body on another: rotations are kept, the pelvis stays where it was, foreign betas are dropped."""

from __future__ import annotations

import re
from dataclasses import replace

import torch

from ..body.motion import BodyMotion
from ..body.smpl import BodyModel, rest_joints

# Where the pelvis of the mean body is at rest, metres; measured facts of the published models.
_PELVIS = {"smplx": (0.0031, -0.3514, 0.0120), "smpl": (-0.0018, -0.2233, 0.0282)}
_GENDERS = {"neutral": "neutral", "female": "female", "male": "male", "f": "female", "m": "male", "n": "neutral"}


def for_body(motion: BodyMotion, body: BodyModel) -> tuple[BodyMotion, list[str]]:
    """-> the motion as one of `body`, notes; unchanged where it already is one.

    Betas are kept between SMPL and SMPL+H of the same gender, which share their shapes, whatever the files are called.
    """
    if body.shape_space == motion.body_model.removesuffix("-nano"):
        return motion, []
    theirs, ours = _kind(motion.body_model), _kind(body.name)
    if theirs is not None and theirs == ours:
        return replace(motion, body_model=body.name), [
            f"betas of {motion.body_model!r} are taken as those of {body.name!r}"
        ]
    notes = []
    betas = motion.betas
    if bool((betas != 0).any()):
        betas = torch.zeros_like(betas)
        notes.append(f"betas of body {motion.body_model!r} mean nothing to {body.name!r}; its mean shape is used")
    transl = motion.transl
    if theirs is not None:
        transl = transl + torch.tensor(_PELVIS[theirs[0]]).to(transl) - rest_joints(body, betas)[0].to(transl)
        notes.append("the pelvis keeps its place; legs of another length may float or sink: ground the motion")
    return replace(motion, betas=betas, transl=transl, body_model=body.name), notes


def _kind(name: str) -> tuple[str, str] | None:
    """Family and gender: "SMPL+H female", "smpl_neutral" and "basicmodel_m_lbs_10_207_0_v1.1.0" are of SMPL's."""
    words = re.split(r"[^a-z]+", re.sub(r"smpl[-_ ]?x", "smplx", name.lower()))
    family = "smplx" if any(word.startswith("smplx") for word in words) else "smpl"
    if not any(word.startswith(("smpl", "basicmodel")) for word in words):
        return None
    return family, next((_GENDERS[word] for word in words if word in _GENDERS), "neutral")
