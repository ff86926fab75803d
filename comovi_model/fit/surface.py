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
from functools import cached_property

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
class Fans:
    """Faces around vertices, one vertex after the other."""

    face: Tensor  # (sum of counts,) int64
    first: Tensor  # (V,) int64, where each vertex begins
    count: Tensor  # (V,)

    def of(self, vertices: Tensor) -> Fans:
        """The fans of some vertices (P,)."""
        count = self.count[vertices]
        first = count.cumsum(0) - count
        within = torch.arange(int(count.sum()), device=count.device) - first.repeat_interleave(count)
        return Fans(self.face[self.first[vertices].repeat_interleave(count) + within], first, count)


@dataclass(frozen=True)
class Mesh:
    """A surface with skinning weights; faces counter-clockwise seen from outside."""

    rest: Tensor  # (V, 3)
    normals: Tensor  # (V, 3) unit, of the rest pose
    weights: Tensor  # (V, J)
    part: Tensor  # (V,) int64
    faces: Tensor  # (N, 3) int64
    posedirs: Tensor | None = None  # (207, V * 3)

    @cached_property
    def bones(self) -> Tensor:
        """(k,) int64, the joints that move this surface at all."""
        return self.weights.any(0).nonzero().squeeze(1)

    @cached_property
    def skin(self) -> Tensor:
        """(4 k, V): a posed vertex is linear in the rows of [A | shift] of its bones, and these are the factors."""
        placed = torch.cat([self.rest, torch.ones_like(self.rest[:, :1])], 1)
        return (self.weights[:, self.bones, None] * placed[:, None]).flatten(1).T.contiguous()

    @cached_property
    def fur(self) -> Tensor:
        """(3 k, V): the same for the normals, which turn along with the bones."""
        return (self.weights[:, self.bones, None] * self.normals[:, None]).flatten(1).T.contiguous()

    @cached_property
    def fans(self) -> Fans:
        """The faces around every vertex."""
        corners = self.faces.flatten()
        count = torch.bincount(corners, minlength=len(self.rest))
        return Fans(corners.argsort(stable=True) // 3, count.cumsum(0) - count, count)

    @cached_property
    def edges(self) -> Tensor:
        """(4, E) int64: the two ends of every edge and the two faces beside it (the same one twice on a border)."""
        ends = self.faces[:, [0, 1, 1, 2, 2, 0]].view(-1, 2).sort(1).values
        key, order = (ends[:, 0] * len(self.rest) + ends[:, 1]).sort(stable=True)
        first = torch.ones_like(key, dtype=torch.bool)
        first[1:] = key[1:] != key[:-1]
        begin = first.nonzero().squeeze(1)
        second = begin + (~torch.cat([first, first.new_ones(1)]))[begin + 1].long()
        return torch.stack([*ends[order[begin]].T, order[begin] // 3, order[second] // 3])


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

    @cached_property
    def sample_fans(self) -> Fans:
        return self.full.fans.of(self.samples)

    @cached_property
    def generations(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each depth of the tree below the pelvis: its joints, their parents, and the steps between, (n, 3, 1)."""
        depth = [0] * NUM_JOINTS
        for joint in range(1, NUM_JOINTS):
            depth[joint] = depth[PARENTS[joint]] + 1
        out = []
        for level in range(1, max(depth) + 1):
            joints = [joint for joint in range(NUM_JOINTS) if depth[joint] == level]
            parents = [PARENTS[joint] for joint in joints]
            index = torch.tensor([joints, parents], device=self.rest_joints.device)
            out.append((index[0], index[1], (self.rest_joints[joints] - self.rest_joints[parents])[..., None]))
        return out

    def skeleton(self, pose: Pose) -> Skeleton:
        turns = pose.rotations.clone()
        places = (self.rest_joints[0] + pose.transl)[:, None].repeat(1, NUM_JOINTS, 1)
        for joints, parents, offset in self.generations:
            turn = turns.index_select(1, parents)
            places.index_copy_(1, joints, places.index_select(1, parents) + (turn @ offset).squeeze(-1))
            turns.index_copy_(1, joints, turn @ pose.rotations.index_select(1, joints))
        return Skeleton(turns, places, places - (turns @ self.rest_joints[..., None]).squeeze(-1))

    def joints(self, pose: Pose) -> Tensor:
        """(B, J, 3)"""
        return self.skeleton(pose).place


def area_normals(mesh: Mesh, vertices: Tensor, fans: Fans | None = None) -> tuple[Tensor, Tensor]:
    """Posed vertices (B, V, 3) -> unit vertex normals (B, V, 3) as body.map_render draws them, face normals (B, N, 3).

    With `fans`, only of their vertices. Turning the rest normals along is cheaper, but degrees off beside the joints:
    errors of 17 mm instead of 12.
    """
    fans = fans or mesh.fans
    columns = vertices.transpose(0, 1)  # (V, B, 3)
    first, second, third = (columns.index_select(0, corner) for corner in mesh.faces.T)
    face = torch.linalg.cross(second - first, third - first)  # (N, B, 3)
    sums = F.embedding_bag(fans.face, face.flatten(1), fans.first, mode="sum")
    return unit(sums.unflatten(1, (-1, 3)).transpose(0, 1)), face.transpose(0, 1)


def rest_of(mesh: Mesh, pose: Pose) -> Tensor:
    """Rest vertices (V, 3), or (B, V, 3) with pose correctives."""
    if mesh.posedirs is None:
        return mesh.rest
    feature = (pose.rotations[:, 1:] - torch.eye(3).to(pose.rotations)).flatten(1)
    return mesh.rest + (feature @ mesh.posedirs).unflatten(1, (-1, 3))


def posed_vertices(mesh: Mesh, skeleton: Skeleton, pose: Pose, normals: bool = False) -> tuple[Tensor, Tensor | None]:
    """-> vertices (B, V, 3) and, if asked for, unit normals (B, V, 3), turned along with the bones."""
    bones = mesh.bones
    turn = skeleton.turn.index_select(1, bones).transpose(2, 3)  # (B, k, 3, 3), columns first
    if mesh.posedirs is None:
        shift = skeleton.shift.index_select(1, bones)[:, :, None]
        vertices = _linear(mesh.skin, torch.cat([turn, shift], 2))
    else:
        blended = (mesh.weights @ skeleton.blocks).unflatten(2, (3, 4))  # (B, V, 3, 4)
        vertices = (blended[..., :3] * rest_of(mesh, pose)[..., None, :]).sum(-1) + blended[..., 3]
    return vertices, unit(_linear(mesh.fur, turn)) if normals else None


def _linear(factors: Tensor, rows: Tensor) -> Tensor:
    """(r * k, V) times (B, k, r, 3) -> (B, V, 3), as one product."""
    columns = rows.permute(0, 3, 1, 2).flatten(2).flatten(0, 1)  # (3 B, r k)
    return (columns @ factors).view(len(rows), 3, -1).transpose(1, 2)


def unit(vectors: Tensor) -> Tensor:
    """(..., 3) of length 1; sums over three numbers are slow, so the squares are added one by one."""
    x, y, z = vectors.unbind(-1)
    return vectors * (x * x + y * y + z * z).clamp_min(1e-24).rsqrt()[..., None]


def dot(first: Tensor, second: Tensor) -> Tensor:
    """(..., 3) and (..., 3) -> (...)"""
    x, y, z = (first * second).unbind(-1)
    return x + y + z


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
    full = Mesh(rest, normals, body.weights, body.part_of_vertex, body.faces, body.posedirs)
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
    light = unit(points.new_tensor(LIGHT) - points)
    cosine = dot(normals, light)[..., None]
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
