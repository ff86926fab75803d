"""Paints a posed body: lit, in one of four styles, with smooth edges, ready to be laid over any picture.

Letters: F frames, V vertices, N faces, P covered samples, H x W pixels. Vertices are in the camera frame (x right, y
down, z away). The result is premultiplied: colour times coverage in three channels, coverage in the fourth.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..body.map_render import vertex_normals, visible_body
from ..body.parts import part_palette
from ..body.rasterise import NEAR, Pixels, one_thread, visible_pixels
from ..body.smpl import BodyModel
from ..errors import ComoviError
from .coarse import coarse_faces

STYLES = ("solid", "parts", "normals", "wireframe")
SAMPLES = 2  # per pixel and direction, averaged
CLAY = (0.62, 0.75, 0.93)  # the colour of style "solid"
WIRE, WIRE_FILL = (0.10, 0.83, 0.93), 0.16  # colour of the lines; how much of it fills the faces between them
WIRE_WIDTH = 1.1  # pixels
KEY_LIGHT = (-0.46, -0.72, -0.52)  # towards the light: from the upper left, behind the camera's shoulder
FILL_LIGHT = (0.80, -0.10, -0.60)


class Painter:
    """How a body is painted; made once per clip, because some of it depends on the body's faces alone."""

    def __init__(
        self, model: BodyModel, style: str = "solid", colour: tuple[float, float, float] | None = None
    ) -> None:
        """`colour` (RGB in 0..1) replaces the usual one of "solid" and "wireframe"."""
        check_style(style)
        wire = style == "wireframe"
        self.model, self.style = model, style
        self.colour = torch.tensor(colour or (WIRE if wire else CLAY))
        self.wires = coarse_faces(model) if wire else model.faces

    def paint(
        self, vertices: Tensor, K: Tensor, height: int, width: int, light: tuple[float, float, float] = KEY_LIGHT
    ) -> Tensor:
        """One body (V, 3) seen through K (3, 3) -> (H, W, 4) float32, premultiplied; `light` is a direction towards
        the light in the camera frame."""
        fine = torch.diag(K.new_tensor([SAMPLES, SAMPLES, 1.0])) @ K
        body = vertices[None]
        with one_thread():
            pixels = visible_body(self.model, body, fine, height * SAMPLES, width * SAMPLES)
            if self.style == "wireframe":
                return self._wireframe(body, fine, pixels)
            normals = pixels.interpolate(vertex_normals(body, self.model.faces), self.model.faces)
            normals = F.normalize(normals, dim=1, eps=1e-12)
            colours = self._colours(pixels, normals, normals.new_tensor(light))
            return averaged(pixels, torch.cat([colours, torch.ones_like(colours[:, :1])], 1))[0]

    def _colours(self, pixels: Pixels, normals: Tensor, light: Tensor) -> Tensor:
        """(P, 3) in 0..1."""
        if self.style == "normals":  # as most tools colour them: x right, y up, z to the viewer
            return normals * normals.new_tensor([0.5, -0.5, -0.5]) + 0.5
        base = part_tints(self.model)[pixels.face] if self.style == "parts" else self.colour.to(normals)
        return lit(base.to(normals), normals, light)

    def _wireframe(self, body: Tensor, K: Tensor, pixels: Pixels) -> Tensor:
        """Lines of the coarse mesh over a faint fill of the whole body."""
        faces = self.wires
        cull = self.model.closed and bool((body[..., 2] > NEAR).all())
        wires = visible_pixels(body, faces, K, pixels.shape[1], pixels.shape[2], cull)
        line = (SAMPLES * WIRE_WIDTH / 2 + 0.5 - edge_distance(wires, body[0], faces, K)).clamp(0, 1)
        fill = averaged(pixels, torch.full_like(pixels.depth, WIRE_FILL)[:, None])
        lines = averaged(wires, line[:, None])
        cover = (lines + (1 - lines) * fill)[0]
        return torch.cat([cover * self.colour.to(cover), cover], -1)


def check_style(style: str) -> None:
    if style not in STYLES:
        raise ComoviError(f"unknown style {style!r}; choose one of {', '.join(STYLES)}.")


def lit(base: Tensor, normals: Tensor, light: Tensor) -> Tensor:
    """Matt clay: sky light from above, one key light, a weak fill, a soft highlight. Unit normals (P, 3) -> (P, 3)."""
    light = F.normalize(light, dim=0)
    sky = 0.5 - 0.5 * normals[:, 1]
    key = (normals @ light).clamp_min(0)
    fill = (normals @ F.normalize(normals.new_tensor(FILL_LIGHT), dim=0)).clamp_min(0)
    halfway = F.normalize(light + light.new_tensor([0.0, 0.0, -1.0]), dim=0)
    shine = (normals @ halfway).clamp_min(0) ** 28
    grazing = (1 + normals[:, 2].clamp(-1, 0)) ** 3  # darker rims separate limbs from the trunk behind them
    level = (0.46 + 0.18 * sky + 0.44 * key + 0.12 * fill) * (1 - 0.28 * grazing)
    return (base * level[:, None] + 0.10 * shine[:, None]).clamp(0, 1)


def part_tints(model: BodyModel) -> Tensor:
    """(N, 3) in 0..1: a colour per face, as in our GLB files."""
    part_of_face = model.part_of_vertex[model.faces].median(1).values
    return torch.tensor(part_palette(), device=part_of_face.device)[part_of_face].float() / 255


def edge_distance(pixels: Pixels, vertices: Tensor, faces: Tensor, K: Tensor) -> Tensor:
    """How far each covered sample is from the nearest edge of its face, (P,) in samples; vertices (V, 3)."""
    projected = vertices @ K.T
    corners = (projected[:, :2] / projected[:, 2:])[faces[pixels.face]]  # (P, 3, 2)
    width = pixels.shape[2]
    where = torch.stack([pixels.index % width, pixels.index // width % pixels.shape[1]], 1).to(corners) + 0.5
    along = corners.roll(-1, 1) - corners
    offset = where[:, None] - corners
    area = (along[..., 0] * offset[..., 1] - along[..., 1] * offset[..., 0]).abs()
    return (area / along.norm(dim=-1).clamp_min(1e-6)).amin(1)


def averaged(pixels: Pixels, values: Tensor) -> Tensor:
    """Values of covered samples (P, C) -> means over their pixels (F, H, W, C), 0 where nothing is covered."""
    frames, height, width = pixels.shape
    row, column = pixels.index // width, pixels.index % width  # `row` runs through all frames
    where = (row // SAMPLES) * (width // SAMPLES) + column // SAMPLES
    picture = values.new_zeros(frames * height * width // SAMPLES**2, values.shape[1])
    picture.index_add_(0, where, values / SAMPLES**2)
    return picture.view(frames, height // SAMPLES, width // SAMPLES, -1)
