"""Colours of the motion map: surface normals and body parts as RGB (Eq. 1-2), and back.

Letters: F frames, H W picture, V vertices, P pixels, R = 24 parts. Colours are RGB in 0..1.

A vertex of part r with unit normal n (camera frame, z away from the camera) has the colour
    (semantic, n_y / 2 + 1/2, n_x / 2 + 1/2),   semantic = (2r + 1) / 2R if n_z < 0 else (2r + 2) / 2R
and the background is white. The paper shows this flat colour; the maps that the released weights were trained
on are lit as well (shading "phong_reference"): a point light at (0, 1, 0), one metre *below* the camera, with
ambient 0.5, diffuse 0.3 and a specular term whose exponent 0 makes it the constant 0.2:
    pixel = (0.5 + 0.3 max(0, n . l)) * colour + 0.2
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ComoviError
from .cameras import pixel_rays
from .parts import NUM_PARTS

SHADINGS = ("phong_reference", "flat")
LIGHT = (0.0, 1.0, 0.0)  # metres, camera frame (y down)
AMBIENT, DIFFUSE, SPECULAR = 0.5, 0.3, 0.2
# The darkest channel of a body pixel is at most 0.8 * (1/2 + sqrt(1/2)/2) + 0.2 = 0.883: two normal components
# of a unit vector cannot both be large.
BACKGROUND_LEVEL = 0.9
CODES = 2 * NUM_PARTS


def check_shading(shading: str) -> None:
    if shading not in SHADINGS:
        raise ComoviError(f"unknown shading {shading!r}; choose {' or '.join(SHADINGS)}.")


def encode_semantic(normals: Tensor, part_of_vertex: Tensor) -> Tensor:
    """Normals (..., V, 3) and parts (V,) -> first colour channel (..., V)."""
    code = 2 * part_of_vertex + (normals[..., 2] >= 0)
    return (code + 1).to(normals.dtype) / CODES


def encode_colours(normals: Tensor, part_of_vertex: Tensor) -> Tensor:
    """Unit normals (..., V, 3) in the camera frame, parts (V,) -> RGB (..., V, 3)."""
    return colours_from(encode_semantic(normals, part_of_vertex), normals)


def colours_from(semantic: Tensor, normals: Tensor) -> Tensor:
    """Semantic channel (...) and normals (..., 3) -> RGB (..., 3)."""
    return torch.stack([semantic, normals[..., 1] / 2 + 0.5, normals[..., 0] / 2 + 0.5], -1)


def light_level(normals: Tensor, points: Tensor) -> Tensor:
    """Unit normals (..., 3) at camera-frame points (..., 3) -> the factor of the colour (...), 0.5 to 0.8."""
    to_light = F.normalize(normals.new_tensor(LIGHT) - points, dim=-1)
    return AMBIENT + DIFFUSE * (normals * to_light).sum(-1).clamp_min(0)


def lit(colours: Tensor, normals: Tensor, points: Tensor) -> Tensor:
    """The reference shading of colours (..., 3); normals of any length."""
    return light_level(F.normalize(normals, dim=-1, eps=1e-6), points)[..., None] * colours + SPECULAR


def to_uint8(picture: Tensor) -> Tensor:
    """0..1 -> 0..255, halves to even like OpenCV."""
    return (picture * 255).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class DecodedMap:
    """What a motion map says about each pixel."""

    mask: Tensor  # (F, H, W) bool, the silhouette
    normals: Tensor  # (F, H, W, 3) float32, unit, facing the camera; 0 outside the mask
    parts: Tensor  # (F, H, W) int64, index into parts.PART_NAMES; -1 outside and where it is not certain


def silhouette(frames: Tensor, level: float = BACKGROUND_LEVEL) -> Tensor:
    """RGB (..., H, W, 3) in 0..1 -> (..., H, W) bool: pixels whose darkest channel is below the level."""
    return torch.minimum(torch.minimum(frames[..., 0], frames[..., 1]), frames[..., 2]) < level


def decode_map(
    frames: Tensor, K: Tensor, depth: Tensor | float, shading: str = "phong_reference", robust: bool = True
) -> DecodedMap:
    """RGB (F, H, W, 3) in 0..1 -> silhouette, normals, parts.

    K (3, 3) or (F, 3, 3); depth of the body in metres, a number or (F,): only the direction to the light needs it.
    robust=False trusts every pixel (rendered maps); robust=True is for maps that went through a codec or a network:
    parts are smoothed, and kept only where they are near a code and agree with their neighbours.
    """
    check_shading(shading)
    if frames.dim() != 4 or frames.shape[-1] != 3:
        raise ComoviError(f"motion map must be (frames, height, width, 3), got {tuple(frames.shape)}.")
    mask = silhouette(frames)
    frame, row, column = mask.nonzero(as_tuple=True)
    colours = frames[frame, row, column].float()  # (P, 3)
    level = torch.ones_like(colours[:, 0])
    if shading == "phong_reference":
        rays = pixel_rays(K.float(), frames.shape[1], frames.shape[2]).expand(*frames.shape)
        metres = torch.as_tensor(depth, dtype=torch.float32, device=frames.device).expand(len(frames))
        colours = colours - SPECULAR
        level = _solve_light(colours, rays[frame, row, column] * metres[frame, None])
    normals = frames.new_zeros(frames.shape, dtype=torch.float32)
    normals[frame, row, column] = _normals(colours, level)
    semantic = torch.full(mask.shape, torch.nan, device=frames.device)
    semantic[frame, row, column] = colours[:, 0] / level
    return DecodedMap(mask, normals, _robust_parts(semantic) if robust else _parts(semantic))


def _normals(colours: Tensor, level: Tensor) -> Tensor:
    """Colours (P, 3) under light level (P,) -> unit normals (P, 3) with n_z <= 0."""
    in_plane = 2 * (colours[:, [2, 1]] / level[:, None] - 0.5)  # (P, 2): n_x, n_y
    in_plane = in_plane / in_plane.norm(dim=1, keepdim=True).clamp_min(1)
    return torch.cat([in_plane, -(1 - in_plane.square().sum(1, keepdim=True)).clamp_min(0).sqrt()], 1)


def _solve_light(colours: Tensor, points: Tensor, steps: int = 8, bisections: int = 6) -> Tensor:
    """The light level (P,) that the normal read with that level would receive.

    level(normal(s)) - s is >= 0 at the lowest s and <= 0 at the highest, so there is a solution; near rims there are
    up to three. The highest belongs to the most frontal normal and is the likeliest: taking it leaves 10 % of the
    normals of an 8-bit map off by more than 20 degrees, plain bisection 37 (and the obvious fixed-point iteration
    oscillates where the body faces the light).
    """
    low = torch.full_like(colours[:, 0], AMBIENT)
    width = DIFFUSE / steps
    for step in range(1, steps):
        level = torch.full_like(low, AMBIENT + step * width)
        low = torch.where(_brighter(colours, level, points), level, low)
    high = low + width
    for _ in range(bisections):
        middle = (low + high) / 2
        brighter = _brighter(colours, middle, points)
        low, high = torch.where(brighter, middle, low), torch.where(brighter, high, middle)
    return (low + high) / 2


def _brighter(colours: Tensor, level: Tensor, points: Tensor) -> Tensor:
    """(P,) bool: does the normal read with this level receive more light than it?"""
    return light_level(_normals(colours, level), points) > level


def _parts(semantic: Tensor) -> Tensor:
    """The part whose code 2r + 1, that of surfaces facing the camera, is nearest; NaN gives -1.

    The even codes lie half-way and go to either neighbour: they occur on rims only, and giving each code half a
    slot would double the errors everywhere else (0.81 against 0.77 of the pixels right on an 8-bit map).
    """
    nearest = ((CODES * semantic - 1) / 2).round().nan_to_num(0).clamp(0, NUM_PARTS - 1).long()
    return nearest.where(~semantic.isnan(), -1)


def _robust_parts(semantic: Tensor) -> Tensor:
    """5x5 median, near the code of a camera-facing surface, and 6 of 9 neighbours of the same opinion."""
    parts = torch.full(semantic.shape, -1, dtype=torch.int64, device=semantic.device)
    for frame, picture in enumerate(semantic):
        seen = (~picture.isnan()).nonzero()
        if not len(seen):
            continue
        (top, left), (bottom, right) = seen.amin(0).tolist(), (seen.amax(0) + 1).tolist()
        body = picture[top:bottom, left:right]
        smooth = _neighbourhood(body, 5, torch.nan).nanmedian(0).values
        part = _parts(smooth.where(~body.isnan(), torch.nan))
        agree = (_neighbourhood(part, 3, -1) == part).sum(0)
        certain = ((CODES * smooth - (2 * part + 1)).abs() < 0.8) & (agree >= 6)
        parts[frame, top:bottom, left:right] = part.where(certain, -1)
    return parts


def _neighbourhood(picture: Tensor, size: int, outside: float) -> Tensor:
    """(H, W) -> (size * size, H, W): the picture shifted to each neighbour."""
    padded = F.pad(picture, [size // 2] * 4, value=outside)
    return padded.unfold(0, size, 1).unfold(1, size, 1).permute(2, 3, 0, 1).flatten(0, 1)
