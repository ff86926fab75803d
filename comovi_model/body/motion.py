"""BodyMotion: one record for the motion of one person, checked when it is made, and its npz form.

Letters: F frames, J = 24 joints, K = 10 shape parameters (betas).
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ComoviError
from ..files import atomic_path, require_file
from .cameras import FRAMES, Camera, frame_rotation
from .parts import NUM_JOINTS
from .rotations import matrix_to_6d_rows, rotation_error

NUM_BETAS = 10
FORMAT = "comovi-motion-1"
LARGEST_ARCHIVE = 2 * 2**30  # bytes unpacked; a motion takes 1 kB a frame, an SMPL body 40 MB
LARGEST_ROTATION_ERROR = 1e-3  # of |R R^T - 1|; float32 rounding is 1e-6, float16 storage 1e-3


@dataclass(frozen=True)
class BodyMotion:
    """Joint rotations, shape and path of one person. The pelvis is at rest_joints(model, betas)[0] + transl."""

    rotations: Tensor  # (F, J, 3, 3) float32; joint 0 relative to `frame`, the others to their parent
    betas: Tensor  # (K,) float32, meaningful for `body_model` only
    transl: Tensor  # (F, 3) float32, metres in `frame`
    frame: str = "camera"  # "camera" (x right, y down, z away), "yup" or "zup"
    camera: Camera | None = None  # the view that belongs to frame "camera"
    fps: float = 16.0
    body_model: str = "mannequin-v1"
    provenance: dict[str, Any] = field(default_factory=dict)  # JSON: how this motion was made
    valid: Tensor | None = None  # (F,) bool, False where a pose is only a placeholder; None becomes all True
    source_index: Tensor | None = None  # (F,) int64, frame of the source video; None becomes 0..F-1

    def __post_init__(self) -> None:
        rotations, betas, transl = (_number_tensor(self, name) for name in ("rotations", "betas", "transl"))
        if rotations.dim() != 4 or rotations.shape[1:] != (NUM_JOINTS, 3, 3) or not len(rotations):
            raise ComoviError(
                f"motion rotations must be (frames, {NUM_JOINTS}, 3, 3) matrices, got {tuple(rotations.shape)}."
            )
        frames = len(rotations)
        _require_shape("betas", betas, (NUM_BETAS,))
        _require_shape("transl", transl, (frames, 3))
        error = rotation_error(rotations)
        if bool((error > LARGEST_ROTATION_ERROR).any()):
            frame, joint = divmod(int(error.argmax()), NUM_JOINTS)
            raise ComoviError(
                f"motion rotations must be rotation matrices; frame {frame}, joint {joint} is off by "
                f"{float(error.max()):.2g}. Were 6D or axis-angle numbers reshaped instead of converted?"
            )
        if self.frame not in FRAMES:
            raise ComoviError(f"motion frame must be one of {', '.join(FRAMES)}, got {self.frame!r}.")
        if not (math.isfinite(self.fps) and 0 < self.fps <= 1000):
            raise ComoviError(f"motion fps must be a positive number of frames per second, got {self.fps}.")
        if self.camera is not None and self.camera.K.dim() == 3:
            _require_shape("camera K", self.camera.K, (frames, 3, 3))
        valid = torch.ones(frames, dtype=torch.bool) if self.valid is None else torch.as_tensor(self.valid).bool()
        index = torch.arange(frames) if self.source_index is None else torch.as_tensor(self.source_index).long()
        _require_shape("valid", valid, (frames,))
        _require_shape("source_index", index, (frames,))
        checked = {"rotations": rotations, "betas": betas, "transl": transl, "valid": valid, "source_index": index}
        for name, value in {**checked, "fps": float(self.fps)}.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.rotations)

    def rotations_6d(self) -> Tensor:
        """(F, J, 6), the first two rows of each matrix: what the pose head reads and writes."""
        return matrix_to_6d_rows(self.rotations)

    def to(self, device: str | torch.device) -> BodyMotion:
        """The same motion with its tensors on another device."""
        names = ("rotations", "betas", "transl", "valid", "source_index")
        camera = self.camera and replace(self.camera, K=self.camera.K.to(device))
        return replace(self, **{name: getattr(self, name).to(device) for name in names}, camera=camera)

    def slice(self, start: int, stop: int) -> BodyMotion:
        """Frames start..stop-1."""
        frames = range(len(self))[start:stop]
        if not len(frames):
            raise ComoviError(f"frames {start}..{stop} hold nothing of a motion of {len(self)} frames.")
        start, stop = frames[0], frames[-1] + 1
        per_frame = ("rotations", "transl", "valid", "source_index")
        pieces = {name: getattr(self, name)[start:stop] for name in per_frame}
        return replace(self, **pieces, camera=self.camera and self.camera.frames(start, stop))

    def moved(self, turn: Tensor, shift: Tensor, pelvis: Tensor) -> BodyMotion:
        """Every point x of the body becomes turn @ x + shift.

        pelvis (3,) is rest_joints(model, betas)[0]: bodies turn about the pelvis, not about the origin, so transl'
        = turn @ (pelvis + transl) + shift - pelvis. Without that term the body drifts.
        """
        turn, shift, pelvis = (torch.as_tensor(value).to(self.transl) for value in (turn, shift, pelvis))
        rotations = self.rotations.clone()
        rotations[:, 0] = turn @ rotations[:, 0]
        return replace(self, rotations=rotations, transl=(pelvis + self.transl) @ turn.T + shift - pelvis)

    def to_frame(self, frame: str, pelvis: Tensor) -> BodyMotion:
        """The same motion in the axes of another frame, origin unchanged; pelvis as for `moved`."""
        turn = frame_rotation(self.frame, frame)
        return replace(self.moved(turn, torch.zeros(3), pelvis), frame=frame)

    def save(self, path: str | Path) -> None:
        """Writes the npz form (no pickles inside)."""
        save_arrays(path, self.to_arrays())

    @classmethod
    def load(cls, path: str | Path) -> BodyMotion:
        return cls.from_arrays(load_arrays(path), str(path))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Keys of the npz form."""
        frames = len(self)
        focal = np.full(frames, np.nan, np.float32)
        view: dict[str, np.ndarray] = {}
        if self.camera is not None:
            focal[:] = self.camera.K[..., 0, 0].cpu().numpy()
            size = np.array([self.camera.width, self.camera.height], np.int64)
            view = {"camera_K": self.camera.K.float().cpu().numpy(), "image_size": size}
        assert self.valid is not None
        assert self.source_index is not None
        return {
            "format": np.array(FORMAT),
            "global_orient": self.rotations[:, 0].cpu().numpy(),  # (F, 3, 3)
            "body_pose": self.rotations[:, 1:].cpu().numpy(),  # (F, 23, 3, 3)
            "betas": self.betas.cpu().numpy(),
            "transl": self.transl.cpu().numpy(),
            "focal": focal,  # (F,) pixels, NaN without a camera
            "valid": self.valid.cpu().numpy(),
            "fps": np.array(self.fps),
            "source_index": self.source_index.cpu().numpy(),
            "frame": np.array(self.frame),
            "body_model": np.array(self.body_model),
            "provenance": np.array(json.dumps(self.provenance)),
            **view,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], origin: str = "motion") -> BodyMotion:
        """From the keys of the npz form; files without frame, camera and body name get the defaults."""
        for name in ("global_orient", "body_pose", "betas", "transl"):
            if name not in arrays:
                raise ComoviError(f"{origin}: array {name!r} is missing, so this is no motion; found {sorted(arrays)}.")
        try:
            return cls._from_checked(arrays)
        except ComoviError as error:
            raise ComoviError(f"{origin}: {error}") from None
        except (ValueError, TypeError, RecursionError) as error:
            raise ComoviError(f"{origin}: a field of the motion cannot be read ({error}).") from None

    @classmethod
    def _from_checked(cls, arrays: Mapping[str, np.ndarray]) -> BodyMotion:
        root, body = arrays["global_orient"], arrays["body_pose"]
        if root.ndim == 4 and root.shape[1] == 1:  # the released code writes (F, 1, 3, 3)
            root = root[:, 0]
        if root.ndim != 3 or root.shape[1:] != (3, 3):
            raise ComoviError(f"global_orient must be (frames, 3, 3) matrices, got {root.shape}.")
        if body.shape != (len(root), NUM_JOINTS - 1, 3, 3):
            raise ComoviError(f"body_pose must be ({len(root)}, {NUM_JOINTS - 1}, 3, 3) matrices, got {body.shape}.")
        betas = arrays["betas"]
        if betas.ndim == 1 and len(betas) > NUM_BETAS and not betas[NUM_BETAS:].any():
            betas = betas[:NUM_BETAS]  # padded for AMASS readers
        camera = None
        if "camera_K" in arrays and "image_size" in arrays:
            width, height = (int(side) for side in arrays["image_size"])
            camera = Camera(torch.from_numpy(arrays["camera_K"].astype(np.float32)), width, height)
        provenance = json.loads(str(arrays["provenance"])) if "provenance" in arrays else {}
        valid, index = arrays.get("valid"), arrays.get("source_index")
        return cls(
            rotations=torch.from_numpy(np.concatenate([root[:, None], body], 1).astype(np.float32)),
            betas=torch.from_numpy(betas.astype(np.float32)),
            transl=torch.from_numpy(arrays["transl"].astype(np.float32)),
            frame=str(arrays.get("frame", "camera")),
            camera=camera,
            fps=float(arrays.get("fps", 16.0)),
            body_model=str(arrays.get("body_model", "unknown")),
            provenance=provenance if isinstance(provenance, dict) else {"note": provenance},
            valid=None if valid is None else torch.from_numpy(valid.astype(bool)),
            source_index=None if index is None else torch.from_numpy(index.astype(np.int64)),
        )


def save_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an npz archive whole or not at all."""
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_arrays(
    path: str | Path, what: str = "motion file", names: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Every array of an npz archive (or those of `names`); pickles in it are refused, and so are zip bombs."""
    path = require_file(Path(path), what)
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ComoviError(f"{path}: expected an npz archive, got a single array; save it with numpy.savez.")
        with archive:
            assert archive.zip is not None  # numpy clears it on closing only
            wanted = [name for name in archive.files if names is None or name in names]
            size = sum(archive.zip.getinfo(_member(archive, name)).file_size for name in wanted)
            if size > LARGEST_ARCHIVE:
                raise ComoviError(
                    f"{path}: its arrays take {size / 2**30:.1f} GiB unpacked, at most {LARGEST_ARCHIVE / 2**30:.0f} "
                    "are read; this is a damaged or hostile file, or a motion to be cut into shorter ones."
                )
            arrays = {name: archive[name] for name in wanted}
        foreign = [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]
        if foreign:  # numpy hands out members that are no arrays as bytes
            raise ComoviError(f"{path}: member {foreign[0]!r} is no array, so this is a damaged or foreign file.")
        return arrays
    except ComoviError:
        raise
    except Exception as error:  # zip, zlib, header and memory errors of damaged files have no common base
        raise ComoviError(
            f"{path}: expected an npz archive of plain arrays, got a damaged or foreign file ({error})."
        ) from None


def _member(archive: np.lib.npyio.NpzFile, name: str) -> str:
    """The name inside the zip: numpy drops the ending .npy."""
    return name if archive.zip is not None and name in archive.zip.namelist() else f"{name}.npy"


def _number_tensor(motion: BodyMotion, name: str) -> Tensor:
    value = torch.as_tensor(getattr(motion, name))
    if value.is_complex() or not torch.isfinite(value.float()).all():
        raise ComoviError(f"motion {name} must be finite numbers, got NaN or infinite values.")
    return value.detach().float()


def _require_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape:
        raise ComoviError(f"motion {name} must have shape {shape}, got {tuple(value.shape)}.")
