"""The ways in which a clip is fitted: from which first pose, and how its map is disturbed before.

Names begin with an underscore, as they are appended to the names of figures; "" is the true first pose and the map as
drawn.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from ..comovi_model.body.motion import BodyMotion
from ..comovi_model.body.rotations import axis_angle_to_matrix
from ..comovi_model.body.smpl import BodyModel, rest_joints
from ..comovi_model.errors import ComoviError
from ..comovi_model.nano.skeleton import MIRROR_JOINT
from .fit_clips import MEDIUM, MILD, Disturbance, FitClip

TURN_DEGREES = 20.0
FOCAL_ERROR = 1.1
LIGHT = Disturbance(blur=1.0, drift=0.008, local=1.0, noise=1.2, warp=0.8)
HEAVY = Disturbance(blur=3.0, drift=0.06, local=8.0, noise=10.0, warp=5.0)
DISTURBANCES = {"_light": LIGHT, "_mild": MILD, "_medium": MEDIUM, "_heavy": HEAVY}
USUAL = ("", "_perturbed", "_blind", "_mild", "_medium")
GROUPS = {
    "usual": USUAL,
    "wrong": ("_betas", "_focal", "_mirrored"),
    "ladder": ("", *DISTURBANCES),
}
EVERY = tuple(dict.fromkeys(variant for group in GROUPS.values() for variant in group))


def parse_variants(text: str) -> tuple[str, ...]:
    """ "true,blind,ladder" -> variants; names of groups stand for what is in them."""
    names = {variant.removeprefix("_") or "true": (variant,) for variant in EVERY} | GROUPS
    wanted = [name.strip() for name in text.split(",")]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise ComoviError(f"unknown variant {unknown[0]!r}; choose from {', '.join(names)}.")
    return tuple(dict.fromkeys(variant for name in wanted for variant in names[name]))


def start_of(clip: FitClip, variant: str, body: BodyModel) -> BodyMotion | None:
    """The first pose that the fit is given; None where it has to find it."""
    first = clip.motion.slice(0, 1)
    if variant == "_blind":
        return None
    if variant == "_perturbed":
        return perturbed(first, clip.noise_seed)
    if variant == "_mirrored":
        return mirrored(first)
    if variant == "_betas":
        return wrong_betas(body, first, clip.noise_seed)
    return wrong_focal(first) if variant == "_focal" else first


def perturbed(start: BodyMotion, seed: int) -> BodyMotion:
    """Every joint of a first pose turned by 20 degrees about a random axis."""
    generator = torch.Generator().manual_seed(seed)
    axes = F.normalize(torch.randn(*start.rotations.shape[:2], 3, generator=generator), dim=-1)
    return replace(start, rotations=start.rotations @ axis_angle_to_matrix(axes * math.radians(TURN_DEGREES)))


def mirrored(start: BodyMotion) -> BodyMotion:
    """Left and right confused: limbs as in a mirror, and the person turned round, which leaves the outline alike."""
    flip = torch.tensor([-1.0, 1.0, 1.0])
    rotations = (flip[:, None] * start.rotations[:, list(MIRROR_JOINT)]) * flip
    half_turn = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    rotations[:, 0] = start.rotations[:, 0] @ half_turn
    return replace(start, rotations=rotations)


def wrong_betas(body: BodyModel, start: BodyMotion, seed: int) -> BodyMotion:
    """Every shape parameter off by a normal number of spread 1; the pelvis stays where it is."""
    betas = start.betas + torch.randn(10, generator=torch.Generator().manual_seed(seed))
    moved = rest_joints(body, start.betas)[0] - rest_joints(body, betas)[0]
    return replace(start, betas=betas, transl=start.transl + moved)


def wrong_focal(start: BodyMotion) -> BodyMotion:
    """A focal length 10 % too long, and the body as much further away."""
    assert start.camera is not None
    K = start.camera.K.clone()
    K[0, 0], K[1, 1] = FOCAL_ERROR * K[0, 0], FOCAL_ERROR * K[1, 1]
    return replace(start, camera=replace(start.camera, K=K), transl=start.transl * torch.tensor([1, 1, FOCAL_ERROR]))
