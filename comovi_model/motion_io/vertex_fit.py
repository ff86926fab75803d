"""Pose and shape of our body from its moving vertices, by Gauss-Newton: meshes have no joints, but their corners do.

Letters: F frames, V vertices, n of them used, J = 24 joints, K shape parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..body.motion import NUM_BETAS, BodyMotion
from ..body.parts import NUM_JOINTS, PARENTS
from ..body.rotations import axis_angle_to_matrix, skew
from ..body.smpl import BodyModel
from ..errors import ComoviError
from .limits import check_frames

USED = 16  # vertices of each joint; more do not make it better
SHAPE_FRAMES = 4  # frames from which the shape is found
CHUNK = 8  # frames at once
Progress = Callable[[int, int], None]
ROUNDS = 40  # seven are usual; poses far from the first guess need more
PATIENCE = 4  # rounds without getting better
DONE = 1e-7  # metres: no step moves the body by more
LARGEST_PLACE = 1e4  # metres
LARGEST_MISFIT = 0.03  # metres on average: more is another body


@dataclass(frozen=True)
class Tolerance:
    """How far the vertices may be from any shape of the body: not at all, unless they were made by another one."""

    used: int = USED  # vertices of each joint
    shape_ridge: float = 0.0  # metres² per squared beta, against figures that only explain the difference
    still: tuple[int, ...] = ()  # joints that keep the pose of rest
    largest_misfit: float = LARGEST_MISFIT


def motion_from_vertices(
    vertices: np.ndarray,
    body: BodyModel,
    *,
    fps: float,
    betas: Tensor | None = None,
    frame: str = "yup",
    tolerance: Tolerance | None = None,
    on_frame: Progress | None = None,
) -> tuple[BodyMotion, list[str]]:
    """vertices (F, V, 3) of `body` in metres -> its motion, notes.

    on_frame(done, F) is called after some frames; what it raises ends the work."""
    if vertices.ndim != 3 or vertices.shape[1:] != (len(body.v_template), 3):
        raise ComoviError(
            f"the meshes have {vertices.shape[1] if vertices.ndim == 3 else 0} vertices, body {body.name} has "
            f"{len(body.v_template)}; give the body that they were made from."
        )
    check_frames(len(vertices))
    if not np.abs(vertices).max() < LARGEST_PLACE:
        raise ComoviError("the meshes have vertices kilometres away, or NaN; metres are expected.")
    tolerance = tolerance or Tolerance()
    fit = _Fit(body, tolerance)
    target = torch.from_numpy(vertices[:, fit.used.numpy()].astype(np.float64))
    rotations, place = fit.start(target)
    shape = torch.zeros(fit.num_betas, dtype=torch.float64)
    if betas is None:
        some = torch.linspace(0, len(target) - 1, min(SHAPE_FRAMES, len(target))).long()
        turned, moved, shape = fit.solve(target[some], rotations[some], place[some], shape, with_shape=True)
        left = (fit.forward(turned, moved, shape)[0] - target[some]).norm(dim=-1).mean()
        _refuse_another(body, float(left), tolerance)
    else:
        shape = betas.double()[: fit.num_betas]
    misfit = 0.0
    for first in range(0, len(target), CHUNK):
        part = slice(first, first + CHUNK)
        rotations[part], place[part], _ = fit.solve(target[part], rotations[part], place[part], shape)
        found = fit.forward(rotations[part], place[part], shape)[0]
        misfit += float((found - target[part]).norm(dim=-1).mean(1).sum())
        if on_frame is not None:
            on_frame(min(first + CHUNK, len(target)), len(target))
    misfit /= len(target)
    _refuse_another(body, misfit, tolerance)
    full = torch.zeros(NUM_BETAS)
    full[: len(shape)] = shape.float()
    motion = BodyMotion(rotations, full, place, frame=frame, fps=fps, body_model=body.name)
    return motion, [f"pose and shape found from {len(body.v_template)} vertices, {1000 * misfit:.2f} mm off on average"]


def _refuse_another(body: BodyModel, misfit: float, tolerance: Tolerance) -> None:
    if not misfit <= tolerance.largest_misfit:
        raise ComoviError(
            f"the meshes cannot be explained by body {body.name} (vertices are {1000 * misfit:.0f} mm off on average); "
            "give the body that they were made from."
        )


class _Fit:
    def __init__(self, body: BodyModel, tolerance: Tolerance) -> None:
        body = body.to("cpu").to(torch.float64)
        self.used, self.ridge = well_spread(body.weights, tolerance.used), tolerance.shape_ridge
        self.strong = min(max(USED, tolerance.used // 2), 3 * USED)  # vertices that begin the rotation of a joint
        self.held = torch.zeros(3 * NUM_JOINTS + 3, dtype=torch.float64)
        self.held.view(-1, 3)[list(tolerance.still)] = 1e9  # as good as no freedom
        self.num_betas = min(NUM_BETAS, body.num_betas)
        dirs = body.shapedirs[..., : self.num_betas]
        self.template, self.dirs = body.v_template[self.used], dirs[self.used]
        self.joints = body.J_regressor @ body.v_template
        self.joint_dirs = torch.einsum("jv,vck->jck", body.J_regressor, dirs)
        self.weights = body.weights[self.used]
        self.posedirs = None if body.posedirs is None else body.posedirs.unflatten(1, (-1, 3))[:, self.used]
        below = torch.eye(NUM_JOINTS, dtype=torch.float64)  # [j, k]: k hangs on j
        for joint in range(NUM_JOINTS - 1, 0, -1):
            below[PARENTS[joint]] += below[joint]
        self.below = below

    def start(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Kabsch for each joint over the vertices that it moves most -> local rotations (F, J, 3, 3), transl (F, 3)."""
        world = torch.empty(len(target), NUM_JOINTS, 3, 3, dtype=torch.float64)
        for joint in range(NUM_JOINTS):
            strongest = self.weights[:, joint].topk(min(self.strong, len(self.weights))).indices
            rest, seen = self.template[strongest], target[:, strongest]
            outer = (seen - seen.mean(1, keepdim=True)).transpose(1, 2) @ (rest - rest.mean(0))
            left, _, right = torch.linalg.svd(outer)
            left = left.clone()
            left[..., 2] *= torch.linalg.det(left @ right).sign()[:, None]
            world[:, joint] = left @ right
        local = world.clone()
        for joint, parent in enumerate(PARENTS):
            if parent >= 0:
                local[:, joint] = world[:, parent].transpose(1, 2) @ world[:, joint]
        local[:, self.held.view(-1, 3)[:-1, 0] > 0] = torch.eye(3, dtype=torch.float64)
        zero = torch.zeros(len(target), 3, dtype=torch.float64)
        found = self.forward(local, zero, torch.zeros(self.num_betas, dtype=torch.float64))[0]
        return local, (target - found).mean(1)

    def forward(self, local: Tensor, place: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """-> vertices (F, n, 3), the same without skinning (F, n, 3), world turns, joints."""
        shaped, joints = self.template + self.dirs @ shape, self.joints + self.joint_dirs @ shape
        world, placed = _chain(local, joints, place)
        shaped = shaped.expand(len(local), -1, -1)
        if self.posedirs is not None:
            feature = (local[:, 1:] - torch.eye(3, dtype=torch.float64)).flatten(1)
            shaped = shaped + torch.einsum("fp,pnc->fnc", feature, self.posedirs)
        moved = placed - (world @ joints[..., None])[..., 0]  # where the origin of the T-pose goes
        blended = torch.einsum("nj,fjab->fnab", self.weights, world)
        return (blended @ shaped[..., None])[..., 0] + self.weights @ moved, shaped, world, placed

    def solve(
        self, target: Tensor, local: Tensor, place: Tensor, shape: Tensor, with_shape: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        frames = len(target)
        best, patience = float("inf"), PATIENCE
        for _ in range(ROUNDS):
            found, shaped, world, placed = self.forward(local, place, shape)
            error = (target - found).flatten(1)  # (F, 3n)
            now = float(error.square().mean())
            patience = PATIENCE if now < 0.98 * best else patience - 1
            best = min(best, now)
            if patience < 0 or not now < 1e12:
                break
            each = _each(world, placed, shaped, self.joints + self.joint_dirs @ shape)
            jacobian = self._jacobian(each, placed)
            normal, side = jacobian.transpose(1, 2) @ jacobian, (jacobian.transpose(1, 2) @ error[..., None])[..., 0]
            normal += torch.diag(1e-7 + self.held)
            if with_shape and self.num_betas:
                of_shape = self._of_shape(world)  # (F, 3n, K)
                inside = torch.linalg.solve(normal, jacobian.transpose(1, 2) @ of_shape)  # (F, size, K)
                alone = torch.linalg.solve(normal, side)
                left = torch.einsum("fnk,fnl->kl", of_shape, of_shape - jacobian @ inside)
                left += (1e-7 + self.ridge) * torch.eye(self.num_betas, dtype=torch.float64)
                right = torch.einsum("fnk,fn->k", of_shape, error - (jacobian @ alone[..., None])[..., 0])
                right = right - self.ridge * shape
                change = torch.linalg.solve(left, right).clamp(-3, 3)
                shape, step = shape + change, alone - inside @ change
            else:
                step = torch.linalg.solve(normal, side)
            place = place + step[:, -3:]
            turn = axis_angle_to_matrix(step[:, :-3].reshape(frames, NUM_JOINTS, 3).clamp(-1, 1))
            local = _turned(local, world, turn)
            if float(step.abs().max()) < DONE:
                break
        return local, place, shape

    def _jacobian(self, each: Tensor, placed: Tensor) -> Tensor:
        """(F, 3n, 3J + 3): turning joint j by w (in the world) moves a vertex by w x sum_k of what hangs on j."""
        weighted = each * self.weights.T[:, :, None]
        arms = torch.einsum("jk,fknc->fjnc", self.below, weighted)
        arms = arms - (self.below @ self.weights.T)[None, :, :, None] * placed[:, :, None]
        turning = -skew(arms).permute(0, 2, 3, 1, 4).flatten(3)  # (F, n, 3, 3J)
        moving = torch.eye(3, dtype=torch.float64).expand(*turning.shape[:2], 3, 3)
        return torch.cat([turning, moving], -1).flatten(1, 2)

    def _of_shape(self, world: Tensor) -> Tensor:
        """(F, 3n, K): the body is linear in its shape, so its derivative is posed like a body."""
        placed = [self.joint_dirs[0].expand(len(world), 3, self.num_betas)]
        for joint, parent in enumerate(PARENTS[1:], start=1):
            bone = self.joint_dirs[joint] - self.joint_dirs[parent]  # (3, K)
            placed.append(placed[parent] + world[:, parent] @ bone)
        moved = torch.stack(placed, 1) - world @ self.joint_dirs  # (F, J, 3, K)
        blended = torch.einsum("nj,fjab->fnab", self.weights, world)
        result = blended @ self.dirs + torch.einsum("nj,fjak->fnak", self.weights, moved)
        return result.flatten(1, 2)


def well_spread(weights: Tensor, count: int) -> Tensor:
    """Numbers of vertices: of each joint some that it moves most, so that no joint goes unseen."""
    chosen = []
    for joint, column in enumerate(weights.T):
        own = (weights.argmax(1) == joint).nonzero()[:, 0]
        if len(own) < count:
            own = column.topk(min(count, len(column))).indices
        chosen.append(own[torch.linspace(0, len(own) - 1, count).long()])
    return torch.cat(chosen).unique()


def _chain(local: Tensor, joints: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    world, placed = [local[:, 0]], [joints[0] + place]
    for joint, parent in enumerate(PARENTS[1:], start=1):
        placed.append(placed[parent] + (world[parent] @ (joints[joint] - joints[parent])[:, None])[..., 0])
        world.append(world[parent] @ local[:, joint])
    return torch.stack(world, 1), torch.stack(placed, 1)


def _each(world: Tensor, placed: Tensor, shaped: Tensor, joints: Tensor) -> Tensor:
    """(F, J, n, 3): every vertex as every joint would move it."""
    arms = shaped[:, None] - joints[:, None]
    return arms @ world.transpose(2, 3) + placed[:, :, None]


def _turned(local: Tensor, world: Tensor, turn: Tensor) -> Tensor:
    """Local rotations after each joint was turned by `turn` in world axes."""
    result = local.clone()
    for joint, parent in enumerate(PARENTS):
        if parent < 0:
            result[:, joint] = turn[:, joint] @ local[:, joint]
        else:
            result[:, joint] = world[:, parent].transpose(1, 2) @ turn[:, joint] @ world[:, parent] @ local[:, joint]
    return result
