"""Draws the motion map of a moving body (Eq. 1-2).

Letters: F frames, H W picture, V vertices, N faces, P covered pixels. Vertices are in the camera frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ComoviError
from .cameras import Camera
from .map_colours import check_shading, colours_from, encode_semantic, lit
from .rasterise import NEAR, Pixels, one_thread, visible_pixels
from .smpl import BodyModel, pose_body

if TYPE_CHECKING:
    from .motion import BodyMotion

PIXELS_AT_ONCE = 2**22  # a group of frames needs about 150 bytes per pixel of it and 1 kB per vertex


Progress = Callable[[int, int], None]


def render_motion_map(
    model: BodyModel,
    motion: BodyMotion,
    height: int,
    width: int,
    shading: str = "phong_reference",
    progress: Progress | None = None,
) -> Tensor:
    """The whole map as RGB (F, H, W, 3) float32 in 0..1; see iter_motion_map, which needs less memory."""
    picture = model.v_template.new_empty(len(motion), height, width, 3)
    for _ in _draw_groups(model, motion, shading, picture, progress):
        pass
    return picture


def iter_motion_map(
    model: BodyModel,
    motion: BodyMotion,
    height: int,
    width: int,
    shading: str = "phong_reference",
    progress: Progress | None = None,
) -> Iterator[Tensor]:
    """Yields the map in groups of frames (f, H, W, 3), so that a long clip never lies in memory as floats.

    A group is overwritten by the next one. shading "phong_reference" is what the released weights know, "flat" the
    bare colours of the paper. The camera of the motion is scaled to the picture. progress(done, total) is called
    after every group; what it raises ends the drawing, and so does closing the iterator.
    """
    group = max(1, PIXELS_AT_ONCE // (max(1, height * width) + 8 * len(model.v_template)))
    picture = model.v_template.new_empty(min(group, len(motion)), height, width, 3)
    yield from _draw_groups(model, motion, shading, picture, progress)


def _draw_groups(
    model: BodyModel, motion: BodyMotion, shading: str, picture: Tensor, progress: Progress | None
) -> Iterator[Tensor]:
    check_shading(shading)
    frames, height, width = picture.shape[:3]
    camera, device = _camera_for(motion, height, width), model.v_template.device
    rotations, betas, transl = (value.to(device) for value in (motion.rotations, motion.betas, motion.transl))
    total, group = len(motion), max(1, PIXELS_AT_ONCE // (height * width + 8 * len(model.v_template)))
    for start in range(0, total, group):
        stop = min(start + group, total)
        out = picture[start:stop] if frames == total else picture[: stop - start]
        with one_thread():
            body = pose_body(model, rotations[start:stop], betas, transl[start:stop])
            draw_map(model, body.vertices, camera.frames(start, stop).K.to(device), height, width, shading, out)
        yield out
        if progress is not None:
            progress(stop, total)


def _camera_for(motion: BodyMotion, height: int, width: int) -> Camera:
    if height < 1 or width < 1:
        raise ComoviError(f"the motion map must have at least one pixel, got {width}x{height}.")
    if motion.frame != "camera":
        raise ComoviError(
            f"a motion map needs a motion in the camera frame, and this one is in frame {motion.frame!r}; "
            "convert it with to_frame first."
        )
    if motion.camera is None:
        raise ComoviError("a motion map needs a camera, and this motion has none; give it a focal length and size.")
    same_size = (motion.camera.width, motion.camera.height) == (width, height)
    return motion.camera if same_size else motion.camera.resized(width, height)


def draw_map(
    model: BodyModel,
    vertices: Tensor,
    K: Tensor,
    height: int,
    width: int,
    shading: str = "phong_reference",
    out: Tensor | None = None,
) -> Tensor:
    """Bodies given by their vertices (F, V, 3), K (3, 3) or (F, 3, 3) -> RGB (F, H, W, 3), in `out` if given."""
    pixels = visible_body(model, vertices, K, height, width)
    return pixels.image(map_colours_at(pixels, model, vertices, shading), 1.0, out)


def visible_body(model: BodyModel, vertices: Tensor, K: Tensor, height: int, width: int) -> Pixels:
    """The pixels of bodies (F, V, 3); back faces are skipped where that cannot change a pixel."""
    cull = model.closed and bool((vertices[..., 2] > NEAR).all())
    return visible_pixels(vertices, model.faces, K, height, width, cull)


def map_colours_at(
    pixels: Pixels, model: BodyModel, vertices: Tensor, shading: str = "phong_reference", normals: Tensor | None = None
) -> Tensor:
    """Map colours (P, 3) of pixels already found; normals (F, V, 3) as vertex_normals gives, if at hand.

    Vertex colours are interpolated, so the codes of neighbouring parts blend across the triangles between them.
    """
    check_shading(shading)
    normals = vertex_normals(vertices, model.faces) if normals is None else normals
    semantic = encode_semantic(normals, model.part_of_vertex)
    seen = pixels.interpolate(torch.cat([normals, semantic[..., None], vertices], -1), model.faces)  # (P, 7)
    colours = colours_from(seen[:, 3], seen[:, :3])  # n/2 + 1/2 is linear, so it may be taken after interpolation
    return colours if shading == "flat" else lit(colours, seen[:, :3], seen[:, 4:])


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Vertices (F, V, 3), faces (N, 3) -> unit normals (F, V, 3): means of the face normals weighted by area."""
    first, second, third = vertices[:, faces.T].unbind(1)  # (F, N, 3)
    doubled_area = torch.cross(second - first, third - first, dim=-1)
    corner = faces.flatten().argsort(stable=True)  # corners in the order of their vertex
    count = torch.bincount(faces.flatten(), minlength=vertices.shape[1])
    rows = doubled_area.transpose(0, 1).flatten(1).contiguous()  # (N, F*3)
    # A sum of rows per vertex: unlike index_add it is the same every time on CUDA, too.
    sums = F.embedding_bag(corner // 3, rows, count.cumsum(0) - count, mode="sum")  # (V, F*3)
    return F.normalize(sums.unflatten(1, (-1, 3)).transpose(0, 1), dim=-1, eps=1e-12)
