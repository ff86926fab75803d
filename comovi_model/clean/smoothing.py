"""Four ways to smooth a motion; each takes a BodyMotion and returns one with as many frames.

    paper     the filter of the released data pipeline, exactly: quaternion components, rotations only
    gaussian  local mean with a bell of weights
    savgol    Savitzky-Golay: local polynomials, which keep peaks (of kicks, of claps) better than means do
    one-euro  a low-pass whose cutoff rises with speed: calm when still, quick when moving

Letters: F frames, J = 24 joints. Frames that are not valid neither count nor change. docs/clean.md has a table of
what each does to motion with known noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..body.motion import BodyMotion
from ..body.rotations import continuous_quaternions, matrix_to_quaternion, quaternion_to_matrix
from ..errors import ComoviError
from .gaps import valid_frames
from .history import noted
from .manifold import filter_path, filter_rotations, regression_coefficients, window_index
from .one_euro import filter_path as filter_place
from .one_euro import filter_turns

METHODS = ("paper", "savgol", "gaussian", "one-euro")
KERNEL = (2, 3, 2, 3, 2)  # twelfths
GAUSSIAN_SECONDS = 0.1  # sigma at strength 1
SAVGOL_SECONDS = 0.6  # whole window at strength 1
SAVGOL_DEGREE = 2
SLOW_CUTOFF, FAST_CUTOFF = 0.5, 8.0  # Hz of the one-euro filter at strength 1 and 0


def smooth(motion: BodyMotion, method: str = "savgol", strength: float = 0.5, root_path: bool = True) -> BodyMotion:
    """One of METHODS; strength 0 (none) .. 1 (strong) sets a time, so it means the same at every frame rate.

    "paper" has one strength only and never touches the root's path.
    """
    if method not in METHODS:
        raise ComoviError(f"unknown smoothing {method!r}; the methods are {', '.join(METHODS)}.")
    if not 0 <= strength <= 1:
        raise ComoviError(f"smoothing strength must lie between 0 and 1, got {strength}.")
    if method == "paper":
        return paper(motion)
    if strength == 0:
        return motion
    if method == "gaussian":
        return gaussian(motion, GAUSSIAN_SECONDS * strength, root_path)
    if method == "savgol":
        return savgol(motion, SAVGOL_SECONDS * strength, SAVGOL_DEGREE, root_path)
    return one_euro(motion, FAST_CUTOFF * (SLOW_CUTOFF / FAST_CUTOFF) ** strength, root_path=root_path)


def paper(motion: BodyMotion) -> BodyMotion:
    """One pass of Blender's "smooth" over baked quaternion keys, as in the released preparation of data.

    Baking adds one copy of the last frame, so the last real frame is smoothed against it. The quaternions are
    normalised afterwards; the released code does not, and its matrices are up to 2e-4 from orthogonal.
    """
    quaternions = continuous_quaternions(matrix_to_quaternion(motion.rotations.double()))
    baked = torch.cat([quaternions, quaternions[-1:]])
    return _smoothed(motion, quaternion_to_matrix(blender_smooth(baked)[:-1]), motion.transl, {"smooth": "paper"})


def blender_smooth(values: Tensor) -> Tensor:
    """(F, ...) keys -> (F, ...): the kernel (2, 3, 2, 3, 2) / 12 over time, first and last key unchanged.

    Where a second neighbour is missing the first one takes its place; the source tests "i - 2 > 0", so frame 2 has
    no second neighbour on the left although frame 0 is there.
    """
    num_frames = len(values)
    if num_frames < 3:
        return values.clone()
    here = torch.arange(1, num_frames - 1)
    before, after = here - 1, here + 1
    far_before = torch.where(here - 2 > 0, here - 2, before)
    far_after = torch.where(here + 2 < num_frames, here + 2, after)
    total = sum(k * values[i] for k, i in zip(KERNEL, (far_before, before, here, after, far_after), strict=True))
    assert isinstance(total, Tensor)
    return torch.cat([values[:1], total / sum(KERNEL), values[-1:]])


def gaussian(motion: BodyMotion, sigma_seconds: float, root_path: bool = True) -> BodyMotion:
    """Weights exp(-t^2 / 2 sigma^2); at the ends a line is fitted instead, so that they are not pulled inward."""
    sigma = sigma_seconds * motion.fps  # frames
    radius = max(1, math.ceil(3 * sigma))
    note = {"smooth": "gaussian", "sigma_seconds": sigma_seconds}
    return _regression(motion, radius, 1, lambda offset: torch.exp(-0.5 * (offset / sigma) ** 2), root_path, note)


def savgol(motion: BodyMotion, window_seconds: float, degree: int = 2, root_path: bool = True) -> BodyMotion:
    """Polynomials of `degree` over windows of about `window_seconds`, made an odd number of frames."""
    radius = max(round((window_seconds * motion.fps - 1) / 2), 1)
    while 2 * radius + 1 <= degree + 1:
        radius += 1  # as many frames as coefficients would change nothing
    note = {"smooth": "savgol", "frames": 2 * radius + 1, "degree": degree}
    return _regression(motion, radius, degree, torch.ones_like, root_path, note)


def one_euro(
    motion: BodyMotion, min_cutoff: float = 2.5, beta: float = 1.0, root_path: bool = True, causal: bool = False
) -> BodyMotion:
    """The filter of Casiez et al. 2012 on the manifold: cutoff = min_cutoff + beta * speed, in Hz.

    Speed is in radians (metres for the path) per second. Run forward it lags, so it is also run backward and the two
    answers meet half-way; `causal` leaves the lag in, as a live stream would have it.
    """
    valid, rate = valid_frames(motion), motion.fps
    turned = filter_turns(motion.rotations, valid, rate, min_cutoff, beta, causal)
    path = motion.transl
    if root_path:
        path = filter_place(motion.transl, valid, rate, min_cutoff, beta, causal)
    note = {"smooth": "one-euro", "min_cutoff": min_cutoff, "beta": beta, "causal": causal}
    return _smoothed(motion, turned, path, note)


def _regression(
    motion: BodyMotion,
    radius: int,
    degree: int,
    bell: Callable[[Tensor], Tensor],
    root_path: bool,
    note: dict[str, object],
) -> BodyMotion:
    index = window_index(len(motion), radius)
    offsets = (index - torch.arange(len(motion))[:, None]).double()
    weights = bell(offsets) * valid_frames(motion)[index]
    coefficients = regression_coefficients(offsets, weights, min(degree, index.shape[1] - 1))
    rotations = filter_rotations(motion.rotations, index, coefficients, weights)
    path = filter_path(motion.transl, index, coefficients) if root_path else motion.transl
    return _smoothed(motion, rotations, path, note)


def _smoothed(motion: BodyMotion, rotations: Tensor, path: Tensor, note: dict[str, object]) -> BodyMotion:
    """Takes the new values in valid frames only."""
    valid = valid_frames(motion)
    rotations = torch.where(valid[:, None, None, None], rotations.float(), motion.rotations)
    path = torch.where(valid[:, None], path.float(), motion.transl)
    return noted(replace(motion, rotations=rotations, transl=path), note)
