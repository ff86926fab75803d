"""Linear blend skinning against smplx, and what posing a body must leave unchanged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.rotations import axis_angle_to_matrix
from comfyui_comovi.comovi_model.body.smpl import pose_body, pose_joints, rest_joints, shaped_vertices
from comfyui_comovi.comovi_model.body.toy import random_rotations, toy_body
from comfyui_comovi.comovi_model.errors import ComoviError


def in_smplx(model):
    """The same body in the reference implementation."""
    smplx = pytest.importorskip("smplx", reason="pip install smplx to compare with the reference implementation")
    num_vertices = len(model.v_template)
    data = smplx.utils.Struct(
        v_template=model.v_template.numpy(), f=model.faces.numpy(), shapedirs=model.shapedirs.numpy(),
        posedirs=model.posedirs.T.reshape(num_vertices, 3, 207).numpy(), J_regressor=model.J_regressor.numpy(),
        weights=model.weights.numpy(), kintree_table=np.array([model.parents, range(24)]),
    )  # fmt: skip
    ids = dict.fromkeys(smplx.vertex_ids.vertex_ids["smplh"], 0)
    return smplx.SMPL(model_path="", data_struct=data, vertex_ids=ids)


@pytest.mark.parametrize("seed", range(3))
def test_posing_agrees_with_smplx(seed):
    model = toy_body(seed, posedirs=True)
    generator = torch.Generator().manual_seed(seed)
    axis_angle = torch.randn(4, 24, 3, generator=generator)
    betas, transl = torch.randn(4, 10, generator=generator), torch.randn(4, 3, generator=generator)
    ours = pose_body(model, axis_angle_to_matrix(axis_angle), betas, transl)
    theirs = in_smplx(model)(
        betas=betas, global_orient=axis_angle[:, 0], body_pose=axis_angle[:, 1:].flatten(1), transl=transl
    )
    assert (ours.vertices - theirs.vertices).abs().max() < 1e-5  # worst 1.4e-6 m
    assert (ours.joints - theirs.joints[:, :24]).abs().max() < 1e-5


def test_no_rotation_gives_the_shaped_template():
    model = toy_body(posedirs=True)
    betas = torch.linspace(-1, 1, 10)
    output = pose_body(model, torch.eye(3).expand(2, 24, 3, 3), betas)
    assert torch.allclose(output.vertices, shaped_vertices(model, betas).expand(2, -1, -1), atol=1e-6)
    assert torch.allclose(output.joints, rest_joints(model, betas).expand(2, -1, -1), atol=1e-6)


def test_the_first_rotation_turns_the_body_about_the_pelvis_and_transl_adds_to_it():
    model = toy_body()
    rotations = random_rotations(3, 24)
    transl = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    pelvis = rest_joints(model)[0]
    output = pose_body(model, rotations, transl=transl)
    assert torch.allclose(output.joints[:, 0], pelvis + transl, atol=1e-6)

    turn = random_rotations(1, seed=5)[0]
    turned = rotations.clone()
    turned[:, 0] = turn @ rotations[:, 0]
    expected = (output.vertices - output.joints[:, :1]) @ turn.T + output.joints[:, :1]
    assert torch.allclose(pose_body(model, turned, transl=transl).vertices, expected, atol=1e-5)


def test_bones_keep_their_length():
    model = toy_body()
    rest, posed = rest_joints(model), pose_joints(model, random_rotations(5, 24, angle=2.0))
    parents = list(model.parents[1:])
    length = (rest[1:] - rest[parents]).norm(dim=-1)
    assert torch.allclose((posed[:, 1:] - posed[:, parents]).norm(dim=-1), length.expand(5, -1), atol=1e-5)


def test_one_shape_or_one_per_frame_and_joints_alone_agree():
    model = toy_body()
    rotations, betas = random_rotations(3, 24), torch.randn(10, generator=torch.Generator().manual_seed(2))
    once = pose_body(model, rotations, betas)
    each = pose_body(model, rotations, betas.expand(3, 10))
    assert torch.allclose(once.vertices, each.vertices, atol=1e-6)
    assert torch.allclose(pose_joints(model, rotations, betas), once.joints, atol=1e-6)
    assert torch.equal(once.joint_transforms[..., :3, 3], once.joints)


def test_surplus_betas_must_be_zero():
    model = replace(toy_body(), shapedirs=torch.zeros(len(toy_body().v_template), 3, 0))
    assert torch.equal(shaped_vertices(model, torch.zeros(10)), model.v_template)
    with pytest.raises(ComoviError, match="10 shape parameters"):
        shaped_vertices(model, torch.ones(10))


def test_wrong_rotation_shapes_are_refused():
    with pytest.raises(ComoviError, match=r"\(B, 24, 3, 3\)"):
        pose_body(toy_body(), torch.eye(3).expand(2, 23, 3, 3))


def test_gradients_reach_rotations_betas_and_transl():
    model = toy_body(posedirs=True)
    inputs = [random_rotations(2, 24), torch.zeros(10), torch.zeros(2, 3)]
    inputs = [value.requires_grad_() for value in inputs]
    pose_body(model, *inputs).vertices.square().sum().backward()
    assert all(torch.isfinite(value.grad).all() and value.grad.abs().sum() > 0 for value in inputs)


def test_a_body_moves_to_another_precision():
    model = toy_body(posedirs=True).to(torch.float64)
    output = pose_body(model, random_rotations(2, 24).double())
    assert output.vertices.dtype == torch.float64 and model.faces.dtype == torch.int64
