"""The body that is fitted: posed points, their derivatives, and meshes of two densities.

Letters: B poses, V vertices, P points, J = 24 joints, N faces. Camera frame, metres.

With A_j the global rotation and t_j the position of joint j, a point with rest position x and weights w lies at
    X = sum_k w_k X_k,   X_k = A_k (x - rest_k) + t_k.
Turning joint j by A_j exp(delta) moves it by (A_j delta) x Y_j with Y_j = sum over k at or below j of w_k (X_k - t_j),
and turns its normal by (A_j delta) S_j with S_j = sum of these w_k. Pose correctives (posedirs) enter the forward pass
only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..body.map_colours import AMBIENT, CODES, DIFFUSE, LIGHT, SPECULAR
from ..body.map_render import vertex_normals
from ..body.parts import NUM_JOINTS, NUM_PARTS, PARENTS
from ..body.rotations import axis_angle_to_matrix, skew
from ..body.smpl import BodyModel, shaped_vertices

UNKNOWNS = 3 + 3 * NUM_JOINTS  # translation, then one rotation vector per joint
COARSE_CELL = 0.045  # metres; about 2,000 of the mannequin's 6,890 vertices are left
SAMPLES = 1800  # vertices whose colours are compared
SMALL_PART_BONUS = 1.6  # of the density of samples on hands, feet, forearms


@dataclass(frozen=True)
class Pose:
    """A batch of poses in the camera frame."""

    rotations: Tensor  # (B, J, 3, 3)
    transl: Tensor  # (B, 3), as in BodyMotion

    def __len__(self) -> int:
        return len(self.rotations)

    def __getitem__(self, index: slice | list[int] | Tensor) -> Pose:
        return Pose(self.rotations[index], self.transl[index])

    def moved(self, step: Tensor) -> Pose:
        """Step (B, 75): translation, then R_j <- R_j exp(delta_j)."""
        step = step.to(self.transl)
        turn = axis_angle_to_matrix(step[:, 3:].unflatten(1, (NUM_JOINTS, 3)))
        return Pose(self.rotations @ turn, self.transl + step[:, :3])

    def repeat(self, count: int) -> Pose:
        """One pose, `count` times."""
        return Pose(self.rotations.expand(count, -1, -1, -1).clone(), self.transl.expand(count, -1).clone())


def join_poses(poses: list[Pose]) -> Pose:
    return Pose(torch.cat([p.rotations for p in poses]), torch.cat([p.transl for p in poses]))


@dataclass(frozen=True)
class Mesh:
    """A surface with skinning weights; faces counter-clockwise seen from outside."""

    rest: Tensor  # (V, 3)
    normals: Tensor  # (V, 3) unit, of the rest pose
    weights: Tensor  # (V, J)
    part: Tensor  # (V,) int64
    faces: Tensor  # (N, 3) int64
    posedirs: Tensor | None = None  # (207, V * 3)
    corner_face: Tensor | None = None  # (3 N,) int64, faces in the order of their vertices, for `area_normals`
    first_corner: Tensor | None = None  # (V,) int64, where each vertex begins there
    degree: Tensor | None = None  # (V,) faces around each vertex


@dataclass(frozen=True)
class Skeleton:
    """Global placement of the joints of B poses."""

    turn: Tensor  # (B, J, 3, 3), A_j
    place: Tensor  # (B, J, 3), t_j
    shift: Tensor  # (B, J, 3), t_j - A_j rest_j

    @property
    def blocks(self) -> Tensor:
        """(B, J, 12): rows of [A | shift], for skinning by one product."""
        return torch.cat([self.turn, self.shift[..., None]], -1).flatten(2)


@dataclass(frozen=True)
class Subject:
    """One person: a body with its shape baked in."""

    rest_joints: Tensor  # (J, 3)
    full: Mesh
    coarse: Mesh
    samples: Tensor  # (P,) int64, vertices of `full` whose colours are compared
    below: Tensor  # (J, J) float, [k, j] = 1 where joint k is j or below it
    flat: bool  # maps without shading

    def skeleton(self, pose: Pose) -> Skeleton:
        turn, place = [pose.rotations[:, 0]], [self.rest_joints[0] + pose.transl]
        for joint in range(1, NUM_JOINTS):
            parent = PARENTS[joint]
            offset = self.rest_joints[joint] - self.rest_joints[parent]
            place.append(place[parent] + turn[parent] @ offset)
            turn.append(turn[parent] @ pose.rotations[:, joint])
        turns, places = torch.stack(turn, 1), torch.stack(place, 1)
        return Skeleton(turns, places, places - (turns @ self.rest_joints[..., None]).squeeze(-1))

    def joints(self, pose: Pose) -> Tensor:
        """(B, J, 3)"""
        return self.skeleton(pose).place


def area_normals(mesh: Mesh, vertices: Tensor) -> tuple[Tensor, Tensor]:
    """Posed vertices (B, V, 3) -> unit vertex normals (B, V, 3) as body.map_render draws them, face normals (B, N, 3).

    Turning the rest normals along is cheaper, but degrees off beside the joints: errors of 17 mm instead of 12.
    """
    assert mesh.corner_face is not None
    first, second, third = vertices[:, mesh.faces.T].unbind(1)
    face = torch.linalg.cross(second - first, third - first)  # (B, N, 3)
    rows = face.transpose(0, 1).flatten(1)  # (N, B*3)
    sums = F.embedding_bag(mesh.corner_face, rows, mesh.first_corner, mode="sum")
    return F.normalize(sums.unflatten(1, (-1, 3)).transpose(0, 1), dim=-1, eps=1e-12), face


def rest_of(mesh: Mesh, pose: Pose) -> Tensor:
    """Rest vertices (V, 3), or (B, V, 3) with pose correctives."""
    if mesh.posedirs is None:
        return mesh.rest
    feature = (pose.rotations[:, 1:] - torch.eye(3).to(pose.rotations)).flatten(1)
    return mesh.rest + (feature @ mesh.posedirs).unflatten(1, (-1, 3))


def posed_vertices(mesh: Mesh, skeleton: Skeleton, pose: Pose, normals: bool = False) -> tuple[Tensor, Tensor | None]:
    """-> vertices (B, V, 3) and, if asked for, unit normals (B, V, 3), turned along with the bones."""
    blended = (mesh.weights @ skeleton.blocks).unflatten(2, (3, 4))  # (B, V, 3, 4)
    vertices = (blended[..., :3] * rest_of(mesh, pose)[..., None, :]).sum(-1) + blended[..., 3]
    if not normals:
        return vertices, None
    turned = (blended[..., :3] * mesh.normals[:, None, :]).sum(-1)
    return vertices, F.normalize(turned, dim=-1)


@dataclass(frozen=True)
class Leverage:
    """How points move with each joint."""

    arm: Tensor  # (B, P, 3, J), Y_j by coordinate
    share: Tensor  # (B, P, J), S_j


def leverage(subject: Subject, skeleton: Skeleton, rest: Tensor, weights: Tensor) -> Leverage:
    """Points with rest positions (B, P, 3) and weights (B, P, J)."""
    each = torch.einsum("bjac,bpc->bpaj", skeleton.turn, rest) + skeleton.shift.transpose(1, 2)[:, None]  # X_k
    share = weights @ subject.below  # (B, P, J)
    arm = (weights[:, :, None] * each) @ subject.below  # (B, P, 3, J)
    return Leverage(arm - share[:, :, None] * skeleton.place.transpose(1, 2)[:, None], share)


def world_rows(lever: Leverage, gradient: Tensor, normals: Tensor | None = None, turn: Tensor | None = None) -> Tensor:
    """Residuals with gradient (B, P, r, 3) to the point and `turn` (B, P, r, 3) to its unit normal -> Jacobian rows.

    Rows (B, P, r, 75) are for world rotation vectors, coordinate by coordinate: translation x y z, then x of all
    joints, y of all joints, z of all joints. `local_system` takes the normal equations to the joints' own axes.
    """
    x, y, z = lever.arm[:, :, None].unbind(3)  # (B, P, 1, J)
    gx, gy, gz = gradient[..., None].unbind(3)  # (B, P, r, 1)
    rows = [y * gz - z * gy, z * gx - x * gz, x * gy - y * gx]
    if turn is not None and normals is not None:
        torque = torch.linalg.cross(normals[:, :, None].expand_as(turn), turn)  # n x h
        for axis in range(3):
            rows[axis] = rows[axis] + lever.share[:, :, None] * torque[..., axis, None]
    return torch.cat([gradient, *rows], -1)


def local_system(skeleton: Skeleton, information: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """J^T J (B, 75, 75) and J^T r (B, 75) of world rows -> the same for the unknowns of Pose.moved, float64."""
    batch = len(information)
    change = torch.zeros(batch, UNKNOWNS, UNKNOWNS, dtype=torch.float64, device=information.device)
    change[:, [0, 1, 2], [0, 1, 2]] = 1
    joint = torch.arange(NUM_JOINTS, device=information.device)
    for axis in range(3):
        for own in range(3):
            change[:, 3 + axis * NUM_JOINTS + joint, 3 + 3 * joint + own] = skeleton.turn[:, :, axis, own].double()
    back = change.transpose(1, 2)
    return back @ information.double() @ change, (back @ slope.double()[..., None]).squeeze(-1)


def make_subject(body: BodyModel, betas: Tensor | None, flat: bool = False, seed: int = 0) -> Subject:
    """A body with its shape, on the device of the body."""
    rest = shaped_vertices(body, None if betas is None else betas.to(body.v_template))
    joints = body.J_regressor @ rest
    normals = vertex_normals(rest[None], body.faces)[0]
    corners = body.faces.flatten()
    count = torch.bincount(corners, minlength=len(rest))
    full = Mesh(
        rest, normals, body.weights, body.part_of_vertex, body.faces, body.posedirs,
        corners.argsort(stable=True) // 3, count.cumsum(0) - count, count,
    )  # fmt: skip
    below = torch.eye(NUM_JOINTS)
    for joint in range(NUM_JOINTS - 1, 0, -1):
        below[:, PARENTS[joint]] += below[:, joint]
    samples = _sample(full, seed)
    return Subject(joints, full, coarse_mesh(full), samples, below.to(rest), flat)


def _sample(mesh: Mesh, seed: int) -> Tensor:
    """Vertices by the area around them, small parts more densely; all of a small body."""
    count = len(mesh.rest)
    if count <= SAMPLES:
        return torch.arange(count, device=mesh.rest.device)
    first, second, third = mesh.rest[mesh.faces.T]
    area = torch.cross(second - first, third - first, dim=-1).norm(dim=-1)
    weight = torch.zeros(count, device=area.device)
    for corner in range(3):
        weight.index_add_(0, mesh.faces[:, corner], area)
    per_part = torch.zeros(NUM_PARTS, device=area.device).index_add_(0, mesh.part, weight)
    weight = weight * torch.where(per_part < per_part.mean(), SMALL_PART_BONUS, 1.0)[mesh.part]
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.multinomial(weight.double().cpu() + 1e-12, SAMPLES, generator=generator)
    return chosen.sort().values.to(mesh.rest.device)


def coarse_mesh(mesh: Mesh, cell: float = COARSE_CELL) -> Mesh:
    """Vertices of the same part, cell and side of the surface become one; small faces vanish."""
    side = ((mesh.normals >= 0) * torch.tensor([1, 2, 4], device=mesh.rest.device)).sum(1)
    key = torch.cat([(mesh.rest / cell).floor().long(), mesh.part[:, None], side[:, None]], 1)
    _, cluster = key.unique(dim=0, return_inverse=True)
    groups = int(cluster.max()) + 1
    centre = mesh.rest.new_zeros(groups, 3).index_add_(0, cluster, mesh.rest)
    size = mesh.rest.new_zeros(groups).index_add_(0, cluster, torch.ones_like(mesh.rest[:, 0]))
    distance = (mesh.rest - (centre / size[:, None])[cluster]).norm(dim=1)
    # The member nearest to the centre stands for its group: sort by group, then by distance.
    order = torch.argsort(distance)
    order = order[torch.argsort(cluster[order], stable=True)]
    keeper = order[(size.cumsum(0) - size).long()]
    faces = cluster[mesh.faces]
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])]
    # The same triangle from several small ones: rotate the smallest corner to the front and keep one.
    first = faces.argmin(1, keepdim=True)
    faces = faces.gather(1, (first + torch.arange(3, device=faces.device)) % 3).unique(dim=0)
    posedirs = None
    if mesh.posedirs is not None:
        posedirs = mesh.posedirs.unflatten(1, (-1, 3))[:, keeper].flatten(1)
    rest = _inflated(mesh.rest[keeper], mesh.normals[keeper], faces, float(_volume(mesh.rest, mesh.faces)))
    return Mesh(rest, mesh.normals[keeper], mesh.weights[keeper], mesh.part[keeper], faces, posedirs)


def _volume(vertices: Tensor, faces: Tensor) -> Tensor:
    first, second, third = vertices[faces.T]
    return (torch.cross(first, second, dim=-1) * third).sum() / 6


def _inflated(vertices: Tensor, normals: Tensor, faces: Tensor, volume: float) -> Tensor:
    """Vertices moved along their normals until the surface holds `volume` again: chords cut corners off."""
    for _ in range(3):
        first, second, third = vertices[faces.T]
        area = torch.cross(second - first, third - first, dim=-1).norm(dim=-1).sum() / 2
        vertices = vertices + normals * (volume - _volume(vertices, faces)) / area.clamp_min(1e-6)
    return vertices


def predicted_colours(subject: Subject, part: Tensor, points: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
    """Map colours (..., 3) of camera-facing surface points and their derivatives (..., 3, 3) to the unit normal.

    The second index of the derivative is the colour channel, the last the coordinate of the normal.
    """
    semantic = (2 * part + 1).to(points.dtype) / CODES
    semantic = semantic.expand(points.shape[:-1])
    code = torch.stack([semantic, normals[..., 1] / 2 + 0.5, normals[..., 0] / 2 + 0.5], -1)
    slope = torch.zeros(*code.shape, 3, dtype=points.dtype, device=points.device)
    slope[..., 1, 1] = 0.5
    slope[..., 2, 0] = 0.5
    if subject.flat:
        return code, slope
    light = F.normalize(points.new_tensor(LIGHT) - points, dim=-1)
    cosine = (normals * light).sum(-1, keepdim=True)
    level = AMBIENT + DIFFUSE * cosine.clamp_min(0)
    lit_slope = DIFFUSE * torch.where(cosine > 0, light, 0.0)  # of the level
    return level * code + SPECULAR, level[..., None] * slope + code[..., None] * lit_slope[..., None, :]


def log_derivative(vector: Tensor, left: bool = False) -> Tensor:
    """Inverse right (or left) Jacobian of rotation vectors (..., 3): log(R exp(d)) = log R + this @ d."""
    angle2 = (vector * vector).sum(-1)[..., None, None]
    small = angle2 < 1e-6
    angle = torch.where(small, torch.ones_like(angle2), angle2).sqrt()
    half = angle / 2
    factor = torch.where(
        small, torch.full_like(angle, 1 / 12), (1 - half * half.cos() / half.sin().clamp_min(1e-6)) / angle**2
    )
    cross = skew(vector)
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return identity + (-0.5 if left else 0.5) * cross + factor * (cross @ cross)
