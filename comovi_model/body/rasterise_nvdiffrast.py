"""The optional CUDA rasteriser nvdiffrast, with the conventions of rasterise.py.

To install: pip install git+https://github.com/NVlabs/nvdiffrast --no-build-isolation (needs nvcc; its licence
is for non-commercial use). Its corners snap to 1/16 pixel, so pixels on outlines may differ from the z-buffer.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ..errors import ComoviError
from .rasterise import Pixels

NEAR, FAR = 0.02, 1e3  # metres; between them float32 depths are good to 40 micrometres at 5 m


@lru_cache(maxsize=1)
def installed() -> bool:
    return find_spec("nvdiffrast") is not None


@lru_cache(maxsize=4)
def _context(device: str) -> Any:
    import nvdiffrast.torch as dr

    return dr.RasterizeCudaContext(device=device)


def visible_pixels(vertices: Tensor, faces: Tensor, K: Tensor, height: int, width: int, cull: bool) -> Pixels:
    """As rasterise.visible_pixels; vertices must be on CUDA."""
    if not installed():
        raise ComoviError(
            "nvdiffrast is not installed; use backend torch, or run "
            "pip install git+https://github.com/NVlabs/nvdiffrast --no-build-isolation."
        )
    if not vertices.is_cuda:
        raise ComoviError("nvdiffrast draws on CUDA only, and the vertices are on the CPU; use backend torch.")
    import nvdiffrast.torch as dr

    clip = _clip_space(vertices.float(), K.float(), height, width)
    rast, _ = dr.rasterize(_context(str(vertices.device)), clip, faces.int(), (height, width))  # (F, H, W, 4)
    face = rast[..., 3].long().view(-1) - 1  # ids are float32, exact below 2^24
    index = (face >= 0).nonzero().squeeze(1)
    face = face[index]
    first, second = rast.view(-1, 4)[index, :2].unbind(-1)
    pixels = Pixels(
        index, face, torch.stack([first, second, 1 - first - second], 1), first, (len(vertices), height, width)
    )
    depth = pixels.interpolate(vertices[..., 2:], faces).squeeze(-1)
    front = _faces_camera(vertices, faces)[pixels.frame, face] if cull else torch.ones_like(face, dtype=torch.bool)
    return Pixels(index[front], face[front], pixels.bary[front], depth[front], pixels.shape)


def _clip_space(vertices: Tensor, K: Tensor, height: int, width: int) -> Tensor:
    """Camera-frame (F, V, 3) -> clip space (F, V, 4). Row 0 of the result is our top row, so y is not flipped."""
    points = vertices @ K.transpose(-1, -2)  # u*z, v*z, z
    u, v, z = points.unbind(-1)
    depth = (FAR + NEAR) / (FAR - NEAR) * z - 2 * FAR * NEAR / (FAR - NEAR)
    return torch.stack([2 * u / width - z, 2 * v / height - z, depth, z], -1).contiguous()


def _faces_camera(vertices: Tensor, faces: Tensor) -> Tensor:
    a, b, c = vertices[:, faces].unbind(2)  # (F, N, 3)
    return (torch.cross(b - a, c - a, dim=-1) * a).sum(-1) < 0
