"""From 18 keypoints of one person to a body before the camera: `fit_keypoints`. An approximate answer, and labelled so.

The lifter answers first; then that answer and what it would be with limbs mirrored in depth are refined against the
keypoints, and the best in the sense of refine.py is taken. Where there is no lifter's answer wanted, poses from nowhere
are refined. Letters: K = 18 keypoints, J = 24 joints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..body.cameras import Camera
from ..body.mannequin import MANNEQUIN_NAME
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel
from ..errors import ComoviError
from .keypoint_camera import keypoint_square
from .lifter import Lifted, lift, load_lifter, without_wild
from .lifter_body import KeypointBody, keypoint_body
from .people import KEYPOINT_NAMES, clean_keypoints
from .photo_camera import default_focal
from .pose_prior import load_prior
from .refine import Answer, Bodies, Problem, Target, Weights, join, place_by_points
from .refine_starts import alternatives, blind_starts

LEAST_POINTS = 4  # below the head; with fewer there is nothing to fit
BODY_POINTS = tuple(range(2, 14))
ROUGH_STEPS, KEPT, STEPS = 8, 4, 8
BLIND_STEPS, BLIND_KEPT, BLIND_LAST = 12, 6, 14
WIDE = 12.0  # noise deviations, the robust width to begin with
WILD = 6.0  # noise deviations from the body at which a keypoint is named as wild
ANOTHER = 0.10  # metres; answers whose joints differ less on average are the same
CLOSE_CALL = 2.0
MODES = ("both", "lifter", "refinement")


@dataclass(frozen=True)
class KeypointFit:
    """One person."""

    motion: BodyMotion  # one frame, in the camera frame, with the camera
    residual_px: float  # median distance between the keypoints seen and the body's
    mirrored_margin: float  # how much worse the best clearly different answer is; half squared standard deviations
    notes: tuple[str, ...]
    energy: float = 0.0  # of the answer, half squared standard deviations; compares fits of the same keypoints


def fit_keypoints(
    keypoints: np.ndarray,
    size: tuple[int, int],
    body: BodyModel,
    *,
    focal_px: float | None = None,
    mode: str = "both",
    on_progress: Callable[[float], None] | None = None,
) -> KeypointFit:
    """keypoints (18, 3) as x px, y px, confidence (0 = missing) of a picture of `size` (height, width) -> a body.

    focal_px: focal length in pixels; None takes a usual one. mode: "lifter" and "refinement" do only the one.
    """
    points = _checked(keypoints, size)
    if mode not in MODES:
        raise ComoviError(f"the mode of the keypoint fit must be one of {', '.join(MODES)}, got {mode!r}.")
    if focal_px is not None and not (np.isfinite(focal_px) and 1 <= focal_px <= 1e6):
        raise ComoviError(f"the focal length must be 1 to 1000000 pixels, got {focal_px:g}.")
    notes = ["Approximate: found from 2D keypoints alone; depth is the likeliest, not seen."]
    if focal_px is None:
        focal_px = default_focal(size)
        notes.append(f"The focal length is not known; that of a normal lens, {focal_px:.0f} px, was taken.")
    tell = on_progress or (lambda share: None)
    camera = Camera.from_focal(float(focal_px), size[1], size[0])
    skeleton = keypoint_body(body)
    own = body.shape_space == MANNEQUIN_NAME
    lifted = None if mode == "refinement" else _lift(points, float(focal_px), size)
    tell(0.1)
    problem = _problem(points, camera, skeleton, lifted, own)
    if lifted is None:
        best, margin = _from_nowhere(problem, tell)
    elif mode == "lifter":
        best, margin = _bodies(lifted, lifted.rotations.double(), own), float("inf")
    else:
        best, margin = _from_answer(problem, lifted, own, tell)
    tell(1.0)
    errors, energy = problem.errors(best)[0], float(problem.energy(best)[0])
    if not (np.isfinite(energy) and bool(best.pelvis.isfinite().all()) and bool(best.rotations.isfinite().all())):
        raise ComoviError(
            f"no body was found that looks like these keypoints through a focal length of {focal_px:g} pixels; give "
            "the picture's own, and points in pixels of the picture."
        )
    return KeypointFit(
        motion=_motion(best, body, skeleton, camera, mode),
        residual_px=float(errors[problem.target.trust > 0].median()),
        mirrored_margin=margin,
        notes=(*notes, *_remarks(problem, errors, margin)),
        energy=energy,
    )


def _checked(keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(18, 3) float64, or a refusal."""
    height, width = size
    if min(height, width) < 1:
        raise ComoviError(f"the picture must have a size in pixels, got {width}x{height}.")
    points = clean_keypoints(keypoints)
    seen = int((points[list(BODY_POINTS), 2] > 0).sum())
    if seen < LEAST_POINTS:
        raise ComoviError(
            f"only {seen} keypoints of shoulders, arms, hips and legs are seen; at least {LEAST_POINTS} are needed for "
            "a pose. Give a picture that shows more of the person."
        )
    there = points[points[:, 2] > 0, :2]
    extent = float((there.max(0) - there.min(0)).max())
    if extent < 8:
        raise ComoviError(f"the keypoints span {extent:.1f} pixels; a person that small cannot be read.")
    if float(np.abs(there).max()) > 20 * max(size):
        raise ComoviError(f"keypoints lie far outside of the picture of {width}x{height}; are they of another picture?")
    return points


def _lift(points: np.ndarray, focal: float, size: tuple[int, int]) -> Lifted:
    """Of all points, and if some of them are wild, of the others again."""
    given, lens = torch.from_numpy(points)[None], torch.tensor([focal])
    shape, lifter = torch.tensor([size], dtype=torch.float32), load_lifter()
    answer = lift(lifter, given, lens, shape)
    kept = without_wild(lifter, given, answer, lens, shape)
    fewer, enough = (kept[..., 2] > 0).sum() < (given[..., 2] > 0).sum(), (kept[0, list(BODY_POINTS), 2] > 0).sum()
    return lift(lifter, kept, lens, shape) if fewer and enough >= LEAST_POINTS else answer


def _problem(points: np.ndarray, camera: Camera, skeleton: KeypointBody, lifted: Lifted | None, own: bool) -> Problem:
    given = torch.from_numpy(points)
    middle = camera.K[:2, 2].double()
    side = float(keypoint_square(given[None]).side[0])
    target = Target(given[:, :2] - middle, given[:, 2], float(camera.K[0, 0]), side)
    answer = None
    if lifted is not None:
        betas = lifted.betas[0].double() if own else torch.zeros(10, dtype=torch.float64)
        joints = skeleton.posed(lifted.rotations).joints_at(betas[None].float())[0].double()
        answer = Answer(lifted.rotations[0].double(), lifted.spread[0].double(), betas, joints)
    return Problem(skeleton.to(torch.float64), target, load_prior(), answer, Weights())


def _bodies(lifted: Lifted, rotations: Tensor, own: bool) -> Bodies:
    """Rotations (B, J, 3, 3) where the lifter puts the person."""
    count = len(rotations)
    betas = lifted.betas.double() if own else torch.zeros(1, 10, dtype=torch.float64)
    return Bodies(rotations, lifted.pelvis.double().expand(count, 3), betas.expand(count, 10))


def _from_answer(problem: Problem, lifted: Lifted, own: bool, tell: Callable[[float], None]) -> tuple[Bodies, float]:
    start = _bodies(lifted, alternatives(lifted.rotations[0].double()), own)
    start = place_by_points(problem, start)
    final = problem.weights.robust
    rough = problem.refined(start, ROUGH_STEPS, (WIDE, final))
    tell(0.5)
    kept = rough[problem.energy(rough).argsort()[:KEPT]]
    refined = problem.refined(kept, STEPS, (final, final))
    tell(0.9)
    return _best(problem, refined)


def _from_nowhere(problem: Problem, tell: Callable[[float], None]) -> tuple[Bodies, float]:
    depth = 1.8 * problem.target.focal / problem.target.side
    start = place_by_points(problem, blind_starts(problem.prior, depth))
    rough = problem.refined(start, BLIND_STEPS, (3 * WIDE, WIDE))
    tell(0.5)
    kept = rough[problem.energy(rough, WIDE).argsort()[:BLIND_KEPT]]
    more = torch.cat([alternatives(rotations) for rotations in kept.rotations[:2]])
    index = torch.arange(2).repeat_interleave(len(more) // 2)
    every = join([kept, replace(kept[index], rotations=more)])
    refined = problem.refined(every, BLIND_LAST, (WIDE, problem.weights.robust))
    tell(0.9)
    return _best(problem, refined)


def _best(problem: Problem, bodies: Bodies) -> tuple[Bodies, float]:
    """The best body (1), and how much worse the best one is that is clearly another."""
    energy = problem.energy(bodies)
    order = energy.argsort()
    joints = problem.body.posed(bodies.rotations).joints_at(bodies.betas)
    away = (joints - joints[order[0]]).norm(dim=-1).mean(-1)
    others = energy[away > ANOTHER]
    margin = float(others.min() - energy[order[0]]) if len(others) else float("inf")
    return bodies[order[:1]], margin


def _motion(best: Bodies, body: BodyModel, skeleton: KeypointBody, camera: Camera, mode: str) -> BodyMotion:
    betas = best.betas[0].float()
    betas = torch.cat([betas[: body.num_betas], torch.zeros(10 - min(10, body.num_betas))])[:10]
    rest = skeleton.pelvis[:, 0] + skeleton.pelvis[:, 1:] @ betas
    rotations = best.rotations.float()
    return BodyMotion(
        rotations=rotations, betas=betas, transl=best.pelvis.float() - rest, frame="camera", camera=camera,
        body_model=body.name, provenance={"made_by": "keypoint fit", "stages": mode, "approximate": True},
    )  # fmt: skip


def _remarks(problem: Problem, errors: Tensor, margin: float) -> list[str]:
    notes = []
    wild = (errors > WILD * problem.weights.noise * problem.target.side) & (problem.target.trust > 0)
    if bool(wild.any()):
        names = ", ".join(KEYPOINT_NAMES[number] for number in wild.nonzero().flatten())
        notes.append(f"Keypoints that do not fit a body were left aside: {names}.")
    if margin < CLOSE_CALL:
        notes.append("Another pose, with a limb or the body turned the other way in depth, fits nearly as well.")
    return notes
