"""Measure how well SAM 3D Body's people come over to our body: `comovi evaluate mhr`.

There is no licence-free pair of an MHR person and the same person as SMPL, so pairs are built from the documented
structure: people with SMPL's vertices in known poses and shapes, lifted to records as MHR_POSE_DATA holds them. What
differs between the two kinds of people in truth is put in as noise of known size: a surface that undulates, hands that
are bent, joints that lie elsewhere.

Letters: N people, V = 6890 vertices of SMPL, M = 18439 of MHR.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..comovi_model.body.body_files import load_mannequin_body
from ..comovi_model.body.rotations import axis_angle_to_matrix
from ..comovi_model.body.smpl import BodyModel, pose_body, pose_joints
from ..comovi_model.files import atomic_path
from ..comovi_model.motion_io.mhr import MHR_JOINTS, motion_from_mhr
from ..comovi_model.motion_io.mhr_surface import MHR_VERTICES, table

JOINTS_COMPARED = 22  # SMPL's hands have no counterpart that moves alike
TWISTS = (12, 13, 14, 15, 20, 21)  # joints that positions alone leave open: neck, collars, head, wrists
ROUNDS = 60  # of conjugate gradients
HEIGHT, WIDTH, FOCAL = 1280, 704, 1500.0


@dataclass(frozen=True)
class Difference:
    """How MHR's people differ from SMPL's, metres: root mean squares of lengths, but `noise` is that of each axis."""

    name: str
    surface: float = 0.0  # undulation of the skin, smooth over a hand's breadth
    noise: float = 0.0  # of each vertex alone, along each axis: lengths are 1.7 times as large
    joints: float = 0.0  # of each joint of the rig


DIFFERENCES = (
    Difference("the same body"),
    Difference("noise: 5 mm per axis on vertices, 5 mm on joints", noise=0.005, joints=0.005),
    Difference("another body: skin off by 15 mm, joints by 10 mm", surface=0.015, joints=0.010),
)


@dataclass(frozen=True)
class Row:
    difference: str
    body: str  # "SMPL": surface, "mannequin": joints alone
    unit: str
    rotation_median_degrees: float
    rotation_p95_degrees: float
    joint_mean_mm: float
    joint_p95_mm: float
    surface_mean_mm: float


@lru_cache(maxsize=1)
def smpl_like() -> BodyModel:
    """The mannequin with its vertices in SMPL's order: vertex i lies where SMPL's vertex i lies, more or less."""
    body, order = load_mannequin_body(), table().mannequin_vertex
    places = body.v_template[order]
    back = torch.cat([torch.cdist(some, places).argmin(1) for some in body.v_template.split(1024)])
    regressor = torch.zeros_like(body.J_regressor).index_add(1, back, body.J_regressor)
    return replace(
        body,
        v_template=places,
        shapedirs=body.shapedirs[order],
        weights=body.weights[order],
        part_of_vertex=body.part_of_vertex[order],
        J_regressor=regressor,
        posedirs=None,
        name="smpl_neutral",
    )


def some_people(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """rotations (N, 24, 3, 3), betas (N, 10), transl (N, 3) in the camera's frame: turned and bent at random."""
    spread = torch.full((24, 1), 0.35)
    spread[[3, 6, 9, 12, 13, 14]] = 0.15  # the spine and the collars bend little each
    spread[[22, 23]] = 0.0
    bends = spread * torch.randn(count, 24, 3, generator=generator)
    lowered = torch.zeros(24, 3)
    lowered[16, 2], lowered[17, 2] = -1.0, 1.0  # arms hang on average
    rotations = axis_angle_to_matrix(bends + lowered)
    yaw = torch.zeros(count, 3)
    yaw[:, 1] = 2 * torch.pi * torch.rand(count, generator=generator)
    to_camera = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    rotations[:, 0] = to_camera @ axis_angle_to_matrix(yaw) @ rotations[:, 0]
    betas = torch.randn(count, 10, generator=generator).clamp(-2, 2)
    transl = torch.tensor([0.0, 0.0, 4.0]) + torch.rand(count, 3, generator=generator) - 0.5
    return rotations, betas, transl


def lifted(vertices: np.ndarray) -> np.ndarray:
    """SMPL's vertices (V, 3) -> the surface of MHR (M, 3) whose gathered vertices are nearest to these.

    Least squares from a first guess, in which every corner lies where the SMPL vertices of its triangles do. Where
    SMPL's mesh is the denser one (fingers, face) they cannot all be met. Corners without any stay at the origin.
    """
    corners, weights = table().corners.numpy(), table().weights.numpy()
    flat, share = corners.ravel(), np.bincount(corners.ravel(), minlength=MHR_VERTICES)

    def spread(values: np.ndarray) -> np.ndarray:  # the gather, transposed
        parts = (weights[:, :, None] * values[:, None]).reshape(-1, 3)
        return np.stack([np.bincount(flat, parts[:, axis], MHR_VERTICES) for axis in range(3)], 1)

    def gather(surface: np.ndarray) -> np.ndarray:
        return (weights[:, :, None] * surface[corners]).sum(1)

    around = np.repeat(vertices, 3, axis=0)
    sums = np.stack([np.bincount(flat, around[:, axis], MHR_VERTICES) for axis in range(3)], 1)
    surface = sums / np.maximum(share, 1)[:, None]
    left = vertices - gather(surface)
    slope = spread(left)
    direction, size = slope.copy(), float((slope**2).sum())
    for _ in range(ROUNDS):
        turned = gather(direction)
        step = size / max(float((turned**2).sum()), 1e-300)
        surface, left = surface + step * direction, left - step * turned
        slope = spread(left)
        size, before = float((slope**2).sum()), size
        if size < 1e-12:
            break
        direction = slope + size / before * direction
    return surface


def record_of(
    body: BodyModel,
    rotations: Tensor,
    betas: Tensor,
    transl: Tensor,
    difference: Difference,
    random: np.random.Generator,
    unit: float = 1.0,
) -> dict[str, Any]:
    """One person as MHR_POSE_DATA has it; `unit` metres is 1 in its numbers."""
    shaped = replace(body, v_template=body.v_template + undulation(body, difference.surface, random))
    posed = pose_body(shaped, rotations[None], betas, transl[None]).vertices[0].double().numpy()
    posed = posed + difference.noise * random.standard_normal(posed.shape)
    joints = pose_joints(body, rotations[None], betas, transl[None])[0].double().numpy()
    joints = joints + difference.joints / np.sqrt(3) * random.standard_normal(joints.shape)
    place = joints[0].copy()
    rig = np.zeros((127, 3))
    rig[list(MHR_JOINTS)] = joints - place
    return {
        "pred_vertices": (lifted(posed - place) / unit).astype(np.float32),
        "pred_joint_coords": (rig / unit).astype(np.float32),
        "pred_cam_t": (place / unit).astype(np.float32),
        "focal_length": np.float32(FOCAL),
    }


def undulation(body: BodyModel, size: float, random: np.random.Generator) -> Tensor:
    """(V, 3) along the normals of a sphere of waves, a few per metre: `size` is its root mean square."""
    if size == 0:
        return torch.zeros_like(body.v_template)
    waves = random.uniform(-12, 12, (6, 3))  # radians per metre
    phase = body.v_template.double().numpy() @ waves.T + random.uniform(0, 2 * np.pi, 6)
    field = np.sin(phase) @ random.standard_normal((6, 3))
    field *= size / np.sqrt((field**2).sum(1).mean())
    return torch.from_numpy(field).float()


def measure(
    difference: Difference, body: BodyModel, people: int, seed: int, unit: str = "metres", *, surface: bool = True
) -> Row:
    """Figures over `people` people; surface=False: the mannequin, which only the joints speak to."""
    generator, random = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    metres = {"metres": 1.0, "centimetres": 0.01}[unit]
    rotations, betas, transl = some_people(people, generator)
    onto = body if surface else load_mannequin_body()
    angles, away, skin = [], [], []
    for number in range(people):
        one = (rotations[number], betas[number], transl[number])
        record = record_of(body, *one, difference, random, metres)
        data = {"frames": [[record]], "image_size": (HEIGHT, WIDTH)}
        found, notes = motion_from_mhr(data, onto, fps=16.0)
        assert any(unit in note for note in notes), notes
        truth = pose_body(body, rotations[number : number + 1], betas[number], transl[number : number + 1])
        ours = pose_body(onto, found.rotations, found.betas, found.transl)
        there = ours.vertices if surface else ours.vertices[:, table().mannequin_vertex]
        turn = rotations[number, :JOINTS_COMPARED].mT @ found.rotations[0, :JOINTS_COMPARED]
        cosine = (turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
        angles.append(torch.rad2deg(torch.acos(cosine.clamp(-1, 1))))
        away.append(1000 * (truth.joints - ours.joints)[0, :JOINTS_COMPARED].norm(dim=-1))
        skin.append(1000 * (truth.vertices - there)[0].norm(dim=-1).mean())
    turned, moved = torch.cat(angles), torch.cat(away)
    return Row(
        difference.name,
        "SMPL" if surface else "mannequin",
        unit,
        float(turned.median()),
        float(turned.quantile(0.95)),
        float(moved.mean()),
        float(moved.quantile(0.95)),
        float(torch.stack(skin).mean()),
    )


def run(count: int, seed: int, out: Path | None = None, say: Callable[[str], None] = print) -> list[Row]:
    """The table that docs/estimate.md shows."""
    body = smpl_like()
    say(f"{count} people a row; rotations over {JOINTS_COMPARED} joints in degrees, joints and skin in mm")
    say(f"{'what differs':52} {'onto':10} {'unit':12} {'median':>7} {'p95':>7} {'joints':>7} {'p95':>7} {'skin':>7}")
    rows = []
    for difference in DIFFERENCES:
        for surface, unit in ((True, "metres"), (True, "centimetres"), (False, "metres")):
            row = measure(difference, body, count, seed, unit, surface=surface)
            rows.append(row)
            figures = (row.rotation_median_degrees, row.rotation_p95_degrees, row.joint_mean_mm, row.joint_p95_mm)
            shown = " ".join(f"{figure:7.2f}" for figure in (*figures, row.surface_mean_mm))
            say(f"{row.difference:52} {row.body:10} {row.unit:12} {shown}")
    if out is not None:
        with atomic_path(out) as temporary:
            temporary.write_text(
                json.dumps({"count": count, "seed": seed, "rows": [asdict(row) for row in rows]}, indent=1)
            )
    return rows
