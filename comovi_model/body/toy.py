"""A body of a few hundred vertices with SMPL's skeleton, made by formula: for tests and self-checks without assets.

It has fewer vertices than SMPL, so code that counts on 6890 fails on it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .parts import parts_from_weights
from .rotations import axis_angle_to_matrix
from .smpl import BodyModel

# Rough T-pose of a grown person: y up, +z forward, +x the person's left, metres.
JOINTS = torch.tensor([
    [0.00, -0.22, 0.02], [0.07, -0.31, 0.01], [-0.07, -0.31, 0.01], [0.00, -0.11, 0.00], [0.10, -0.69, 0.01],
    [-0.10, -0.69, 0.01], [0.00, 0.03, 0.02], [0.09, -1.09, -0.03], [-0.09, -1.09, -0.03], [0.00, 0.08, 0.03],
    [0.11, -1.15, 0.09], [-0.11, -1.15, 0.09], [0.00, 0.29, -0.01], [0.08, 0.20, 0.00], [-0.08, 0.20, 0.00],
    [0.00, 0.38, 0.04], [0.17, 0.23, -0.01], [-0.17, 0.23, -0.01], [0.43, 0.21, -0.04], [-0.43, 0.21, -0.04],
    [0.68, 0.22, -0.04], [-0.68, 0.22, -0.04], [0.77, 0.21, -0.06], [-0.77, 0.21, -0.06],
])  # fmt: skip


def uv_sphere(rings: int, segments: int) -> tuple[Tensor, Tensor]:
    """Unit sphere: vertices (V, 3) and faces (N, 3), counter-clockwise seen from outside."""
    latitude = torch.arange(1, rings) * torch.pi / rings
    longitude = torch.arange(segments) * 2 * torch.pi / segments
    ring = torch.stack([longitude.cos(), torch.zeros(segments), longitude.sin()], 1)
    body = latitude.sin()[:, None, None] * ring + latitude.cos()[:, None, None] * torch.tensor([0.0, 1.0, 0.0])
    vertices = torch.cat([torch.tensor([[0.0, 1, 0]]), body.reshape(-1, 3), torch.tensor([[0.0, -1, 0]])])
    here = torch.arange(segments)
    there = (here + 1) % segments
    last = len(vertices) - 1
    faces = [torch.stack([torch.zeros_like(here), 1 + there, 1 + here], 1)]
    for first in range(1, 1 + (rings - 2) * segments, segments):
        a, b, c, d = first + here, first + there, first + segments + here, first + segments + there
        faces += [torch.stack([a, b, c], 1), torch.stack([b, d, c], 1)]
    lowest = last - segments
    faces.append(torch.stack([torch.full_like(here, last), lowest + here, lowest + there], 1))
    return vertices, torch.cat(faces)


def toy_body(seed: int = 0, num_betas: int = 10, posedirs: bool = False, segments: int = 8) -> BodyModel:
    """One ellipsoid per joint (closed, disjoint), smooth random weights, random directions of shape."""
    generator = torch.Generator().manual_seed(seed)
    ball, ball_faces = uv_sphere(6, segments)
    radius = torch.full((24, 3), 0.06)
    radius[[0, 3, 6, 9], 0] = 0.12
    vertices = (JOINTS[:, None] + ball * radius[:, None]).reshape(-1, 3)
    faces = (ball_faces + torch.arange(24)[:, None, None] * len(ball)).reshape(-1, 3)
    distance = torch.cdist(vertices, JOINTS)
    weights = torch.softmax(-60 * distance, 1)
    owner = torch.arange(24).repeat_interleave(len(ball))
    regressor = torch.zeros(24, len(vertices))
    regressor[owner, torch.arange(len(vertices))] = 1 / len(ball)
    return BodyModel(
        v_template=vertices,
        shapedirs=0.01 * torch.randn(len(vertices), 3, num_betas, generator=generator),
        posedirs=0.01 * torch.randn(207, len(vertices) * 3, generator=generator) if posedirs else None,
        J_regressor=regressor,
        weights=weights,
        faces=faces,
        part_of_vertex=parts_from_weights(weights),
        name="toy",
        closed=True,
    )


def random_rotations(*shape: int, seed: int = 0, angle: float = 0.6) -> Tensor:
    """Rotations (*shape, 3, 3) by random axis-angle vectors of about `angle` radians."""
    generator = torch.Generator().manual_seed(seed)
    return axis_angle_to_matrix(angle * torch.randn(*shape, 3, generator=generator, dtype=torch.float64)).float()
