"""The SMPL body: shape and joint rotations -> vertices and joints, by linear blend skinning.

Letters: B batch, V vertices, N faces, J = 24 joints, K shape components (betas).

Frame of the body: y up, +z the way the face looks, +x the person's LEFT, right-handed, metres, T-pose.
The origin lies near the chest, so transl is not the position of the pelvis:

    pelvis = rest_joint_0(betas) + transl, and the first rotation turns the body about the pelvis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import ComoviError
from .parts import NUM_JOINTS, PARENTS


@dataclass(frozen=True)
class BodyModel:
    """What a body file holds. Faces are counter-clockwise seen from outside."""

    v_template: Tensor  # (V, 3) float32, metres
    shapedirs: Tensor  # (V, 3, K) float32, metres per unit of beta; K may be 0
    posedirs: Tensor | None  # (207, V*3) float32, or None: no pose-dependent correction
    J_regressor: Tensor  # (J, V) float32, rows sum to 1
    weights: Tensor  # (V, J) float32, rows sum to 1
    faces: Tensor  # (N, 3) int64
    part_of_vertex: Tensor  # (V,) int64, index into parts.PART_NAMES
    name: str  # e.g. "smpl_neutral", "mannequin-v1"; betas of differently named bodies do not mix
    parents: tuple[int, ...] = PARENTS
    closed: bool = False  # the surface is watertight, so its back faces are never seen

    @property
    def num_betas(self) -> int:
        return self.shapedirs.shape[2]

    @property
    def shape_space(self) -> str:
        """Bodies of the same space understand each other's betas: "mannequin-v1-nano" is a smaller "mannequin-v1"."""
        return self.name.removesuffix("-nano")

    def to(self, *args: Any, **kwargs: Any) -> BodyModel:
        """As Tensor.to for every array; index arrays keep their type."""
        device = torch.empty(0).to(*args, **kwargs).device
        moved: dict[str, Tensor] = {}
        for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights"):
            tensor = getattr(self, name)
            moved[name] = None if tensor is None else tensor.to(*args, **kwargs)
        return replace(self, **moved, faces=self.faces.to(device), part_of_vertex=self.part_of_vertex.to(device))


@dataclass(frozen=True)
class BodyOutput:
    vertices: Tensor  # (B, V, 3)
    joints: Tensor  # (B, J, 3)
    joint_transforms: Tensor  # (B, J, 4, 4): takes a joint's own frame (axes of the T-pose) to the world


def shaped_vertices(model: BodyModel, betas: Tensor | None) -> Tensor:
    """betas (..., K') -> the T-pose of that shape (..., V, 3); None is the template."""
    if betas is None:
        return model.v_template
    known = _known(model, betas)
    return model.v_template + torch.einsum("vck,...k->...vc", model.shapedirs[..., : known.shape[-1]], known)


def rest_joints(model: BodyModel, betas: Tensor | None = None) -> Tensor:
    """betas (..., K') -> joints of the T-pose (..., J, 3)."""
    return torch.einsum("jv,...vc->...jc", model.J_regressor, shaped_vertices(model, betas))


def _known(model: BodyModel, betas: Tensor) -> Tensor:
    """The betas this body has directions for; surplus ones must be zero."""
    if betas.shape[-1] > model.num_betas and bool((betas[..., model.num_betas :] != 0).any()):
        raise ComoviError(
            f"the motion has {betas.shape[-1]} shape parameters (betas), but body {model.name} knows "
            f"{model.num_betas}; use the body it was made for, or set the betas to zero."
        )
    return betas[..., : model.num_betas]


def pose_body(
    model: BodyModel, rotations: Tensor, betas: Tensor | None = None, transl: Tensor | None = None
) -> BodyOutput:
    """Poses a batch of bodies.

    rotations (B, 24, 3, 3): joint 0 relative to the world, the others to their parent.
    betas (B, K), (1, K) or (K,); None is the mean shape. transl (B, 3) in metres; None is the origin.
    """
    shaped = shaped_vertices(model, betas)  # (V, 3) or (B, V, 3)
    joints = torch.einsum("jv,...vc->...jc", model.J_regressor, shaped)
    if model.posedirs is not None:
        identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        pose_feature = (rotations[:, 1:] - identity).flatten(1)  # (B, 207): 9*(joint-1) + 3*row + column
        shaped = shaped + (pose_feature @ model.posedirs).unflatten(1, (-1, 3))

    world = _joint_transforms(model, rotations, joints, transl)  # (B, J, 4, 4)
    # Skinning acts on T-pose coordinates, so each joint's transform first moves its rest position to 0.
    skinning = world[..., :3, :].clone()  # (B, J, 3, 4)
    skinning[..., 3] -= (world[..., :3, :3] @ joints[..., None]).squeeze(-1)
    blended = (model.weights @ skinning.flatten(2)).unflatten(2, (3, 4))  # (B, V, 3, 4)
    vertices = (blended[..., :3] @ shaped[..., None]).squeeze(-1) + blended[..., 3]
    return BodyOutput(vertices, world[..., :3, 3], world)


def pose_joints(
    model: BodyModel, rotations: Tensor, betas: Tensor | None = None, transl: Tensor | None = None
) -> Tensor:
    """As pose_body, but only the joints (B, 24, 3)."""
    return _joint_transforms(model, rotations, rest_joints(model, betas), transl)[..., :3, 3]


def _joint_transforms(model: BodyModel, rotations: Tensor, joints: Tensor, transl: Tensor | None) -> Tensor:
    return joint_transforms(rotations, joints, transl, model.parents)


def joint_transforms(
    rotations: Tensor, joints: Tensor, transl: Tensor | None = None, parents: tuple[int, ...] = PARENTS
) -> Tensor:
    """Chains local rotations (B, J, 3, 3) along the tree with rest joints (J, 3) or (B, J, 3) -> (B, J, 4, 4)."""
    if rotations.dim() != 4 or rotations.shape[1:] != (NUM_JOINTS, 3, 3):
        raise ComoviError(f"rotations must be (B, {NUM_JOINTS}, 3, 3) matrices, got {tuple(rotations.shape)}.")
    joints = joints.expand(rotations.shape[0], -1, -1)
    turned, placed = [rotations[:, 0]], [joints[:, 0] if transl is None else joints[:, 0] + transl]
    for joint, parent in enumerate(parents[1:], start=1):
        offset = joints[:, joint] - joints[:, parent]
        placed.append(placed[parent] + (turned[parent] @ offset[..., None]).squeeze(-1))
        turned.append(turned[parent] @ rotations[:, joint])
    world = torch.zeros(*rotations.shape[:2], 4, 4, dtype=rotations.dtype, device=rotations.device)
    world[..., :3, :3] = torch.stack(turned, 1)
    world[..., :3, 3] = torch.stack(placed, 1)
    world[..., 3, 3] = 1
    return world


def load_body_model(path: str | None = None) -> BodyModel:
    """A body from an SMPL `.pkl`, `.npz` or `.safetensors` file; None is our own CC0 mannequin."""
    from .body_files import load_mannequin_body, read_body_model

    return load_mannequin_body() if path is None else read_body_model(path)
