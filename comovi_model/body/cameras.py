"""Pinhole cameras and the three frames a motion can be written in.

Camera frame (OpenCV): x right, y down, z away from the camera, metres. Pixel i spans i..i+1 and its centre
is i + 0.5, so u = f_x * x / z + c_x is measured from the outer corner of the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import ComoviError

# What each frame's axes are; A takes coordinates of that frame to "yup".
FRAMES = ("camera", "yup", "zup")
_TO_YUP = {
    "camera": ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)),  # OpenCV: y down, z away
    "yup": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),  # glTF, SMPL
    "zup": ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)),  # AMASS, Blender: (x, y, z) -> (x, z, -y)
}


def frame_rotation(source: str, target: str) -> Tensor:
    """The rotation (3, 3) that takes coordinates of one frame to another: "camera", "yup", "zup"."""
    for frame in (source, target):
        if frame not in FRAMES:
            raise ComoviError(f"unknown frame {frame!r}; the frames are {', '.join(FRAMES)}.")
    return torch.tensor(_TO_YUP[target]).T @ torch.tensor(_TO_YUP[source])


@dataclass(frozen=True)
class Camera:
    """Intrinsics in pixels of a picture of a given size."""

    K: Tensor  # (3, 3) or one per frame (F, 3, 3), float32: [[f_x, 0, c_x], [0, f_y, c_y], [0, 0, 1]]
    width: int
    height: int

    def __post_init__(self) -> None:
        shape = tuple(self.K.shape)
        if shape[-2:] != (3, 3) or len(shape) not in (2, 3):
            raise ComoviError(f"camera K must be (3, 3) or (frames, 3, 3), got {shape}.")
        if self.width < 1 or self.height < 1:
            raise ComoviError(f"camera picture size must be at least 1x1, got {self.width}x{self.height}.")
        positive = (self.K[..., 0, 0] > 0) & (self.K[..., 1, 1] > 0)
        if not (torch.isfinite(self.K).all() and positive.all()):
            raise ComoviError("camera K must hold finite numbers and positive focal lengths in pixels.")

    @classmethod
    def from_focal(cls, focal_px: float, width: int, height: int) -> Camera:
        """Principal point (W // 2, H // 2), an integer: the convention of the reference motion maps."""
        return cls(intrinsics(focal_px, width // 2, height // 2), width, height)

    @classmethod
    def from_fov(cls, vertical_degrees: float, width: int, height: int) -> Camera:
        if not 0 < vertical_degrees < 180:
            raise ComoviError(f"field of view must lie between 0 and 180 degrees, got {vertical_degrees}.")
        return cls.from_focal(0.5 * height / math.tan(math.radians(vertical_degrees) / 2), width, height)

    def resized(self, width: int, height: int) -> Camera:
        """The same view in a picture of another size."""
        scale = torch.diag(torch.tensor([width / self.width, height / self.height, 1.0])).to(self.K)
        return replace(self, K=scale @ self.K, width=width, height=height)

    def stretched_by(self, width: int, height: int) -> str:
        """A sentence if a picture of that size has clearly (3 %) another shape than this camera's, else ""."""
        ratio = (width / height) / (self.width / self.height)
        if abs(math.log(ratio)) < 0.03:
            return ""
        return (
            f"the pictures are {width} x {height} and the camera of the motion is {self.width} x {self.height}, "
            "another shape: this is right if they were stretched to their size. If they were cropped or padded, take "
            "the pose from the cropped or padded picture."
        )

    def cropped(self, left: float, top: float, width: int, height: int) -> Camera:
        """The view through a window whose upper left corner is at pixel position (left, top)."""
        shift = torch.tensor([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]]).to(self.K)
        return replace(self, K=shift @ self.K, width=width, height=height)

    def frames(self, start: int, stop: int) -> Camera:
        """The camera of frames start..stop-1."""
        return self if self.K.dim() == 2 else replace(self, K=self.K[start:stop])


def intrinsics(focal_px: float, centre_x: float, centre_y: float) -> Tensor:
    """K (3, 3) float32 with square pixels."""
    return torch.tensor([[focal_px, 0.0, centre_x], [0.0, focal_px, centre_y], [0.0, 0.0, 1.0]])


def project(points: Tensor, K: Tensor) -> Tensor:
    """Camera-frame points (..., P, 3) and K (..., 3, 3) -> pixel positions (..., P, 2)."""
    homogeneous = points @ K.transpose(-1, -2)
    return homogeneous[..., :2] / homogeneous[..., 2:]


def pixel_rays(K: Tensor, height: int, width: int) -> Tensor:
    """K (..., 3, 3) -> the point at depth 1 that each pixel centre sees, (..., H, W, 3)."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=K.dtype, device=K.device) + 0.5,
        torch.arange(width, dtype=K.dtype, device=K.device) + 0.5,
        indexing="ij",
    )
    pixels = torch.stack([x, y, torch.ones_like(x)], -1)  # (H, W, 3)
    return torch.einsum("...ij,hwj->...hwi", torch.linalg.inv(K), pixels)
