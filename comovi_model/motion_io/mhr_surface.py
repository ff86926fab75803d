"""The surface that SAM 3D Body sees (18,439 vertices of MHR): as SMPL's vertices, and as a motion map.

Letters: F frames, M = 18439 vertices of MHR, V = 6890 of SMPL. Every vertex of SMPL lies on a known triangle of MHR
(a table of MHR's own converter), so one gather turns a surface of one kind into the other; units and axes stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ..body.body_files import load_mannequin_body
from ..body.cameras import Camera
from ..body.map_render import PIXELS_AT_ONCE, draw_map
from ..body.motion import BodyMotion
from ..body.rasterise import one_thread
from ..body.smpl import BodyModel
from ..errors import ComoviError
from .vertex_fit import Progress, Tolerance, motion_from_vertices, well_spread

MANNEQUIN = "mannequin-v1"
MHR_VERTICES, MHR_FACES, SMPL_VERTICES = 18439, 36874, 6890
SKIN_OF_A_JOINT, COPIES_OF_A_JOINT = 24, 24  # how much the mannequin follows skin and joints
LIMBS = (0, 1, 2, 4, 5, 7, 8, 16, 17, 18, 19, 20, 21)  # joints that both rigs have; they divide the trunk otherwise
FILE = Path(__file__).resolve().parent.parent / "assets" / "mhr_surface.safetensors"
# MHR's people are not SMPL's: some 15 mm are left over on real ones. Its fingers move, SMPL's hands do not.
OTHER_BODY = Tolerance(used=48, shape_ridge=1e-3, still=(22, 23), largest_misfit=0.06)


class Table(NamedTuple):
    corners: Tensor  # (V, 3) int64, vertices of MHR
    weights: Tensor  # (V, 3) float64, rows sum to 1
    part_of_vertex: Tensor  # (M,) int64, index into parts.PART_NAMES
    mannequin_vertex: Tensor  # (V,) int64, the vertex of our mannequin nearest to that of SMPL


@lru_cache(maxsize=1)
def table() -> Table:
    held = load_file(FILE)
    two = held["weights"].double()
    weights = torch.cat([two, 1 - two.sum(1, keepdim=True)], 1)
    return Table(held["corners"].long(), weights, held["part_of_vertex"].long(), held["mannequin_vertex"].long())


def fits_surface(body: BodyModel) -> bool:
    """Whether the vertices of the body can be those that the table knows: an SMPL file, not the mannequin."""
    return len(body.v_template) == SMPL_VERTICES and not body.name.startswith("mannequin")


def smpl_vertices(vertices: np.ndarray) -> np.ndarray:
    """Surfaces of MHR (F, M, 3) as vertices in SMPL's order (F, V, 3)."""
    if vertices.ndim != 3 or vertices.shape[1:] != (MHR_VERTICES, 3):
        raise ComoviError(f"surfaces of MHR must be (frames, {MHR_VERTICES}, 3), got {vertices.shape}.")
    corners, weights = table()[:2]
    placed = np.zeros((len(vertices), SMPL_VERTICES, 3))
    for corner in range(3):
        placed += weights[:, corner, None].numpy() * vertices[:, corners[:, corner].numpy()]
    return placed


def motion_from_surface(
    vertices: np.ndarray, body: BodyModel, *, fps: float, betas: Tensor | None = None, on_frame: Progress | None = None
) -> tuple[BodyMotion, list[str]]:
    """Surfaces of MHR (F, M, 3) in metres in the camera's frame -> motion of an SMPL body, notes.

    Rotations begin in closed form (each joint's own vertices, laid on those seen), the shape by linear least squares;
    both are then solved together.
    """
    motion, notes = motion_from_vertices(
        smpl_vertices(vertices), body, fps=fps, betas=betas, frame="camera", tolerance=OTHER_BODY, on_frame=on_frame
    )
    return motion, [f"{body.name} fitted to the surface of SAM 3D Body", *notes]


def mannequin_from_surface(
    vertices: np.ndarray,
    joints: np.ndarray,
    *,
    fps: float,
    betas: Tensor | None = None,
    on_frame: Progress | None = None,
) -> tuple[BodyMotion, list[str]]:
    """Surfaces (F, M, 3) and the rig's joints (F, 24, 3) in metres in the camera's frame -> motion of our mannequin.

    Its skin is only near to MHR's, so the joints say where the limbs are, and the skin how they are twisted.
    """
    body = load_mannequin_body()
    order = table().mannequin_vertex
    skin = well_spread(body.weights[order], SKIN_OF_A_JOINT)
    chosen, copies = order[skin], torch.cat([torch.arange(24), torch.tensor(LIMBS).repeat(COPIES_OF_A_JOINT)])
    seen = np.concatenate([smpl_vertices(vertices)[:, skin.numpy()], joints[:, copies.numpy()]], 1)
    rest, moved = body.J_regressor @ body.v_template, torch.einsum("jv,vck->jck", body.J_regressor, body.shapedirs)
    regressor = torch.zeros(24, len(skin) + len(copies))
    regressor[:, len(skin) : len(skin) + 24] = torch.eye(24)
    marked = replace(
        body,
        v_template=torch.cat([body.v_template[chosen], rest[copies]]),
        shapedirs=torch.cat([body.shapedirs[chosen], moved[copies]]),
        weights=torch.cat([body.weights[chosen], torch.eye(24)[copies]]),  # a joint goes where its own bone goes
        J_regressor=regressor,
        posedirs=None,
    )
    tolerance = replace(OTHER_BODY, used=seen.shape[1])
    motion, notes = motion_from_vertices(
        seen, marked, fps=fps, betas=betas, frame="camera", tolerance=tolerance, on_frame=on_frame
    )
    off = notes[0].split(", ")[-1]
    return motion, [f"the mannequin follows the joints and the skin of SAM 3D Body, {off}"]


def draw_surface_map(
    vertices: np.ndarray,
    faces: np.ndarray,
    camera: Camera,
    body: BodyModel | None = None,
    *,
    shading: str = "phong_reference",
    on_frame: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Surfaces of MHR (F, M, 3) in metres in the camera's frame -> motion map (F, H, W, 3) float32; no pose is fitted.

    With an SMPL body its own faces and parts are drawn, as the released weights know them. Without one MHR's own mesh
    is, in the nearest parts of our mannequin.
    """
    if body is not None and fits_surface(body):
        drawn, placed = body.to("cpu"), torch.from_numpy(smpl_vertices(vertices)).float()
    else:
        drawn, placed = _mesh(faces), torch.from_numpy(vertices).float()
    picture = torch.empty(len(placed), camera.height, camera.width, 3)
    group = max(1, PIXELS_AT_ONCE // (camera.height * camera.width + 8 * placed.shape[1]))
    for start in range(0, len(placed), group):
        part = slice(start, start + group)
        K = camera.frames(start, start + group).K.float()
        with one_thread():
            draw_map(drawn, placed[part], K, camera.height, camera.width, shading, picture[part])
        if on_frame is not None:
            on_frame(min(start + group, len(placed)), len(placed))
    return picture


def _mesh(faces: np.ndarray) -> BodyModel:
    """MHR's mesh with our parts, for drawing only: it has no joints."""
    faces = np.asarray(faces)
    if faces.shape != (MHR_FACES, 3) or faces.dtype.kind not in "iu" or faces.min() < 0 or faces.max() >= MHR_VERTICES:
        raise ComoviError(f"the faces of MHR's mesh must be ({MHR_FACES}, 3) vertex numbers, got {faces.shape}.")
    nothing = torch.zeros(MHR_VERTICES, 3)
    return BodyModel(
        v_template=nothing,
        shapedirs=torch.zeros(MHR_VERTICES, 3, 0),
        posedirs=None,
        J_regressor=torch.zeros(24, 0),
        weights=torch.zeros(MHR_VERTICES, 24),
        faces=torch.from_numpy(faces.astype(np.int64)),
        part_of_vertex=table().part_of_vertex,
        name="mhr",
        closed=True,
    )
