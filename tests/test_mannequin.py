"""The built-in bodies: SMPL's shapes, a sound surface, joints and parts that can be relied on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.mannequin import MANNEQUIN_NAME, landmarks, load_mannequin, load_nano_body
from comfyui_comovi.comovi_model.body.parts import JOINT_NAMES, NUM_PARTS, PARENTS, PART_NAMES
from comfyui_comovi.comovi_model.body.smpl import BodyModel, load_body_model, pose_body, rest_joints, shaped_vertices
from safetensors import safe_open

BODIES = pytest.mark.parametrize("load", [load_mannequin, load_nano_body], ids=["full", "small"])
MIRROR_JOINT = [
    JOINT_NAMES.index(n.replace("left", "*").replace("right", "left").replace("*", "right")) for n in JOINT_NAMES
]
Load = Callable[[], BodyModel]


def mirror_vertices(vertices: torch.Tensor) -> torch.Tensor:
    """Vertex (V,) that lies at the mirror image of each vertex (V, 3); the files are symmetric to the last bit."""
    places = {tuple(point): index for index, point in enumerate(vertices.tolist())}
    return torch.tensor([places[(-x, y, z)] for x, y, z in vertices.tolist()])


def joint(name: str) -> int:
    return JOINT_NAMES.index(name)


def test_it_has_exactly_the_array_shapes_of_smpl() -> None:
    body = load_mannequin()
    assert body.v_template.shape == (6890, 3)
    assert body.faces.shape == (13776, 3)
    assert body.shapedirs.shape == (6890, 3, 10)
    assert body.J_regressor.shape == (24, 6890)
    assert body.weights.shape == (6890, 24)
    assert body.parents == PARENTS
    assert body.posedirs is None
    assert load_body_model(None).name == body.name == MANNEQUIN_NAME


def test_the_small_body_is_small_and_keeps_joints_and_shapes() -> None:
    small, full = load_nano_body(), load_mannequin()
    assert len(small.faces) <= 1500
    assert small.name == full.name
    for betas in (None, torch.eye(10)[0] * 2, torch.eye(10)[1] * -2):
        assert (rest_joints(small, betas) - rest_joints(full, betas)).abs().max() < 1e-2
    assert (rest_joints(small) - rest_joints(full)).abs().max() < 1e-4


@BODIES
def test_the_surface_is_closed_and_of_genus_zero(load: Load) -> None:
    body = load()
    faces, count = body.faces, len(body.v_template)
    assert body.closed
    assert len(faces.unique()) == count
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(1).values.unique(dim=0)
    assert count - len(edges) + len(faces) == 2
    reached = torch.zeros(count, dtype=torch.bool)
    reached[0] = True
    while True:  # one piece: the corner of an edge reaches the other
        grown = reached.clone()
        grown[edges[reached[edges].any(1)].flatten()] = True
        if torch.equal(grown, reached):
            break
        reached = grown
    assert reached.all()


@BODIES
def test_faces_look_outward_and_enclose_the_volume_of_a_person(load: Load) -> None:
    body = load()
    a, b, c = body.v_template.double()[body.faces].unbind(1)
    volume = (a * torch.linalg.cross(b, c)).sum() / 6
    assert 0.055 < volume < 0.085  # cubic metres
    area = torch.linalg.cross(b - a, c - a).norm(dim=1) / 2
    assert area.min() > 1e-9


@BODIES
def test_it_is_mirror_symmetric(load: Load) -> None:
    body = load()
    mirror = mirror_vertices(body.v_template)
    uneven = (body.weights[mirror][:, MIRROR_JOINT] - body.weights).abs().max(1).values
    on_plane = body.v_template[:, 0] == 0
    assert uneven[~on_plane].max() == 0
    assert uneven[on_plane].max() < 0.03  # where only one weight of a pair was among the four largest
    assert (rest_joints(body)[MIRROR_JOINT] * torch.tensor([-1.0, 1, 1]) - rest_joints(body)).abs().max() < 1e-4
    mirrored = body.shapedirs[mirror] * torch.tensor([-1.0, 1, 1])[:, None]
    assert (mirrored - body.shapedirs).abs().max() < 1e-3


@BODIES
def test_skinning_weights_are_sparse_and_sum_to_one(load: Load) -> None:
    weights = load().weights
    assert weights.min() >= 0
    assert (weights > 0).sum(1).max() <= 4
    assert (weights.sum(1) - 1).abs().max() < 1e-6


@BODIES
def test_joint_rows_are_averages_and_give_the_joints_of_a_person(load: Load) -> None:
    body = load()
    assert body.J_regressor.min() >= 0
    assert (body.J_regressor.sum(1) - 1).abs().max() < 1e-4
    joints = rest_joints(body)
    assert joints[0, 1] == pytest.approx(-0.22, abs=0.005)  # as in SMPL the origin lies near the chest
    for name in ("pelvis", "spine1", "spine2", "spine3", "neck", "head"):
        assert joints[joint(name), 0].abs() < 1e-4
    rise = (joints[:, 1] - joints[0, 1]) / (joints[joint("neck"), 1] - joints[0, 1])
    for name, height in (("spine1", 0.10), ("spine2", 0.23), ("spine3", 0.29)):
        assert rise[joint(name)] == pytest.approx(height / 0.51, abs=0.01)
    for left in ("hip", "knee", "shoulder", "elbow", "wrist"):
        assert joints[joint(f"left_{left}"), 0] > 0.05  # +x is the person's left
    assert joints[joint("left_foot"), 2] - joints[joint("left_ankle"), 2] > 0.08  # +z is forward
    arm = joints[[joint(f"left_{n}") for n in ("shoulder", "elbow", "wrist", "hand")]]
    assert np.ptp(arm[:, 1:].numpy(), axis=0).max() < 0.01  # T-pose


@BODIES
def test_every_part_has_vertices(load: Load) -> None:
    body = load()
    assert torch.bincount(body.part_of_vertex, minlength=NUM_PARTS).min() >= 8
    assert len(body.part_of_vertex) == len(body.v_template)
    assert body.part_of_vertex.max() < NUM_PARTS


def test_collars_and_trunk_parts_have_the_size_they_have_in_smpl() -> None:
    count = torch.bincount(load_mannequin().part_of_vertex, minlength=NUM_PARTS)
    for name, least in (
        ("leftShoulder", 130),
        ("rightShoulder", 130),
        ("spine", 150),
        ("spine1", 200),
        ("spine2", 200),
    ):
        assert count[PART_NAMES.index(name)] >= least


def test_the_border_between_hips_and_waist_is_level() -> None:
    body = load_mannequin()
    strongest = body.weights.argmax(1)
    hips, waist = body.v_template[strongest == 0], body.v_template[strongest == 3]
    assert hips[:, 1].max() < waist[:, 1].min() + 0.02


def test_betas_change_stature_first_and_stay_plausible() -> None:
    body = load_mannequin()

    def height(index: int, amount: float) -> float:
        betas = torch.zeros(10)
        betas[index] = amount
        return float(np.ptp(shaped_vertices(body, betas)[:, 1].numpy()))

    assert 1.70 < height(0, 0.0) < 1.85
    assert height(0, 1.0) - height(0, 0.0) == pytest.approx(0.08, abs=0.02)
    assert 1.45 < height(0, -3.0) < height(0, 3.0) < 2.1
    size = body.shapedirs.norm(dim=(0, 1))
    assert (size[:-1] >= size[1:] * 0.99).all()
    for index in range(1, 10):
        assert abs(height(index, 2.0) - height(0, 0.0)) < 0.06


def test_landmarks_lie_where_their_names_say() -> None:
    body, points = load_mannequin(), landmarks()
    assert len(points) == len(set(points.values())) == 21
    at = {name: body.v_template[vertex] for name, vertex in points.items()}
    assert at["nose"][2] > at["leye"][2] > at["lear"][2]
    assert at["leye"][0] > 0 > at["reye"][0]
    assert at["lmiddle"][0] == body.v_template[:, 0].max()
    assert at["LBigToe"][2] - at["LHeel"][2] > 0.2
    floor = body.v_template[:, 1].min()
    assert all(at[n][1] - floor < 0.05 for n in ("LHeel", "RHeel", "LBigToe", "RSmallToe"))


def test_bending_the_knees_keeps_the_volume_and_moves_only_the_legs() -> None:
    body = load_mannequin()
    rotations = torch.eye(3).repeat(1, 24, 1, 1)
    turn = torch.tensor(np.pi / 2)
    bend = torch.tensor([[1.0, 0, 0], [0, turn.cos(), -turn.sin()], [0, turn.sin(), turn.cos()]])
    rotations[0, joint("left_knee")] = rotations[0, joint("right_knee")] = bend
    vertices = pose_body(body, rotations).vertices[0]
    moved = (vertices - body.v_template).norm(dim=1)
    assert moved[body.v_template[:, 1] > 0].max() < 1e-5
    assert vertices[:, 2].min() < -0.35  # the shins point backward
    a, b, c = vertices.double()[body.faces].unbind(1)
    assert 0.05 < (a * torch.linalg.cross(b, c)).sum() / 6 < 0.09


def test_files_say_their_licence_and_how_they_were_made() -> None:
    from comfyui_comovi.comovi_model.body.body_files import ASSETS

    for name in ("mannequin", "nano_body"):
        path = ASSETS / f"{name}.safetensors"
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        assert metadata["licence"] == "CC0-1.0"
        assert "MakeHuman" in metadata["source"]
        assert metadata["command"] == "python tools/build_mannequin.py"
        assert path.stat().st_size < 1_400_000


def test_smplx_accepts_it_and_agrees() -> None:
    smplx = pytest.importorskip("smplx", reason="smplx is not installed")
    body = load_mannequin()
    data = smplx.utils.Struct(
        v_template=body.v_template.numpy(),
        shapedirs=body.shapedirs.numpy(),
        posedirs=np.zeros((6890, 3, 207), np.float32),
        J_regressor=body.J_regressor.numpy(),
        weights=body.weights.numpy(),
        f=body.faces.numpy(),
        kintree_table=np.array([PARENTS, range(24)]),
    )
    oracle = smplx.SMPL(model_path="", data_struct=data, vertex_ids=landmarks(), num_betas=10)
    draw = torch.Generator().manual_seed(3)
    betas = torch.randn(1, 10, generator=draw)
    pose = 0.4 * torch.randn(1, 72, generator=draw)
    theirs = oracle(betas=betas, global_orient=pose[:, :3], body_pose=pose[:, 3:])
    assert theirs.vertices.shape == (1, 6890, 3)
    assert theirs.joints.shape == (1, 45, 3)
    rotations = smplx.lbs.batch_rodrigues(pose.view(24, 3)).view(1, 24, 3, 3)
    ours = pose_body(body, rotations, betas)
    assert (ours.vertices - theirs.vertices).abs().max() < 1e-5
    assert (ours.joints - theirs.joints[:, :24]).abs().max() < 1e-5
