"""Arrays of SMPL parameters in the shapes that programs write them, as one BodyMotion.

Letters: F frames. Rotations come as axis-angle or matrices, with or without axes of length 1; shape parameters once or
per frame; SMPL has 23 joints below the root, SMPL-H and SMPL-X 21 of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..body.cameras import Camera, intrinsics
from ..body.motion import NUM_BETAS, BodyMotion
from ..body.parts import NUM_JOINTS
from ..body.rotations import axis_angle_to_matrix, rotation_error
from ..errors import ComoviError
from .limits import MOST_NUMBERS, check_frames

MOST_MENDED = 0.2  # of |R R^T - 1|: half floats and per-component smoothing reach 0.01; more is no rotation


def numbers(value: Any, name: str) -> np.ndarray:
    """float64 array of a field; lists of numbers (JSON) count."""
    try:
        array = np.asarray(value)
        if array.size > MOST_NUMBERS:
            raise ComoviError(f"{name} holds {array.size} numbers, more than any motion; cut it into shorter ones.")
        if array.dtype.kind not in "fiub":
            array = np.asarray(value, dtype=np.float64)
        array = array.astype(np.float64)
    except ComoviError:
        raise
    except (ValueError, TypeError, RecursionError):
        raise ComoviError(f"{name} must be numbers, got {str(value)[:60]}.") from None
    if not np.isfinite(array).all():
        raise ComoviError(f"{name} holds NaN or infinite numbers.")
    return array


def number(value: Any, name: str) -> float:
    array = numbers(value, name)
    if array.size != 1:
        raise ComoviError(f"{name} must be one number, got {array.shape}.")
    return float(array.reshape(()))


def body_matrices(value: Any) -> torch.Tensor:
    """Axis-angle or matrices of 23 or 21 joints per frame -> (F, 23 or 21, 3, 3) float64, exact rotations."""
    array = numbers(value, "body_pose")
    shape = array.shape
    if len(shape) >= 3 and shape[-2:] == (3, 3) and shape[-3] in (23, 21):
        lead, ending = shape[:-3], shape[-3:]
    elif len(shape) >= 2 and shape[-1] == 3 and shape[-2] in (23, 21):
        lead, ending = shape[:-2], shape[-2:]
    elif len(shape) >= 1 and shape[-1] in (69, 63):
        lead, ending = shape[:-1], (shape[-1] // 3, 3)
    else:
        raise ComoviError(f"body_pose must be axis-angle or matrices of 23 or 21 joints per frame, got {shape}.")
    if sum(side > 1 for side in lead) > 1:
        raise ComoviError(f"body_pose holds several people or clips {lead}; cut out one.")
    pieces = torch.from_numpy(np.ascontiguousarray(array)).reshape(-1, *ending)
    return _exact(pieces, "body_pose") if len(ending) == 3 else axis_angle_to_matrix(pieces)


def _exact(matrices: torch.Tensor, name: str) -> torch.Tensor:
    """The nearest rotations; what is far from one is refused."""
    error = float(rotation_error(matrices).max())
    if error > MOST_MENDED:
        raise ComoviError(f"{name} must be rotation matrices, but some are off by {error:.2g}.")
    if error <= 1e-6:
        return matrices
    left, _, right = torch.linalg.svd(matrices)
    return left @ right


def smpl_motion(
    root: Any,
    body_pose: Any,
    transl: Any = None,
    betas: Any = None,
    *,
    frame: str,
    fps: float,
    body_model: str,
    notes: list[str],
    camera: Camera | None = None,
    **more: Any,
) -> BodyMotion:
    """One motion from the pieces; what is missing or left out is said in `notes`."""
    body = body_matrices(body_pose)
    frames = len(body)
    check_frames(frames)
    turned = root_matrices(root, frames)
    rotations = torch.eye(3, dtype=torch.float64).repeat(frames, NUM_JOINTS, 1, 1)
    rotations[:, 0] = turned[:, 0]
    rotations[:, 1 : 1 + body.shape[1]] = body
    if body.shape[1] == 21:
        notes.append("the hands (joints 22, 23) keep their rest rotation")
    place = np.zeros((frames, 3))
    if transl is None:
        notes.append("the file holds no translation, so the body stays in place")
    else:
        place = numbers(transl, "the translation").reshape(-1, 3) if _fits(transl, frames) else place
    return BodyMotion(
        rotations=rotations,
        betas=one_shape(betas, notes),
        transl=torch.from_numpy(np.broadcast_to(place, (frames, 3)).copy()),
        frame=frame,
        camera=camera,
        fps=fps,
        body_model=body_model,
        **more,
    )


def _fits(transl: Any, frames: int) -> bool:
    size = numbers(transl, "the translation").size
    if size not in (3, 3 * frames):
        raise ComoviError(f"the translation must be ({frames}, 3) numbers, got {numbers(transl, 'it').shape}.")
    return True


def root_matrices(root: Any, frames: int) -> torch.Tensor:
    """(F, 1, 3, 3); the number of frames tells three axis-angles from one matrix."""
    array = numbers(root, "global_orient")
    if array.size == 3 * frames:
        return axis_angle_to_matrix(torch.from_numpy(np.ascontiguousarray(array)).reshape(frames, 1, 3))
    if array.size == 9 * frames and array.shape[-2:] == (3, 3):
        return _exact(torch.from_numpy(np.ascontiguousarray(array)).reshape(frames, 1, 3, 3), "global_orient")
    raise ComoviError(f"global_orient must be one rotation for each of {frames} frames, got {array.shape}.")


def one_shape(betas: Any, notes: list[str]) -> torch.Tensor:
    """betas (10) from one or many; per-frame ones become their median."""
    result = torch.zeros(NUM_BETAS)
    if betas is None:
        notes.append("the file holds no shape (betas); the mean shape is used")
        return result
    array = numbers(betas, "betas")
    array = array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
    if not array.size:
        return result
    if len(array) > 1 and np.ptp(array, axis=0).max() > 1e-6:
        notes.append("the shape (betas) differs from frame to frame; its median is used")
    shape = np.median(array, axis=0)
    if np.abs(shape[NUM_BETAS:]).max(initial=0) > 1e-6:
        notes.append(f"shape parameters beyond the first {NUM_BETAS} are left out")
    count = min(NUM_BETAS, len(shape))
    result[:count] = torch.from_numpy(shape[:count])
    return result


def camera_of(K: Any, width: float | None, height: float | None, frames: int, notes: list[str]) -> Camera | None:
    """From intrinsics (3, 3) or (F, 3, 3); without a picture size twice the principal point is taken."""
    matrices = numbers(K, "the intrinsics").astype(np.float32)
    if matrices.shape not in ((3, 3), (frames, 3, 3)) or not (matrices[..., (0, 1), (0, 1)] > 0).all():
        notes.append(f"the camera of the file is not usable (intrinsics {matrices.shape}) and was left out")
        return None
    first = matrices if matrices.ndim == 2 else matrices[0]
    size = [round(float(side)) if side else round(2 * float(first[row, 2])) for row, side in enumerate((width, height))]
    if not all(1 <= side <= 100_000 for side in size):
        notes.append("the picture size of the camera is not known, so the camera was left out")
        return None
    same = matrices.ndim == 2 or bool((matrices == first).all())
    return Camera(torch.from_numpy(np.ascontiguousarray(first if same else matrices)), *size)


def focal_camera(focal: Any, width: Any, height: Any) -> Camera | None:
    """From a focal length in pixels, principal point in the middle."""
    focal, width, height = (number(value, "the camera") for value in (focal, width, height))
    if not (0 < focal < 1e7 and 1 <= width <= 100_000 and 1 <= height <= 100_000):
        return None
    return Camera(intrinsics(focal, width / 2, height / 2), round(width), round(height))


def field(record: Mapping[Any, Any], *names: str) -> Any:
    """The first of the names that the record has."""
    return next((record[name] for name in names if record.get(name) is not None), None)
