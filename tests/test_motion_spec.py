"""The twelve tests that any honest motion tool passes, by the letters (a) to (l) of its specification.

Each is the claim at its smallest; files named after the parts hold the rest.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess

import motion_files
import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body import parts
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body, read_body_model
from comfyui_comovi.comovi_model.body.cameras import intrinsics
from comfyui_comovi.comovi_model.body.files.amass import RATE_KEYS, amass_arrays
from comfyui_comovi.comovi_model.body.map_render import draw_map
from comfyui_comovi.comovi_model.body.rasterise import rasterise
from comfyui_comovi.comovi_model.body.rotations import (
    matrix_from_6d_columns,
    matrix_from_6d_rows,
    matrix_to_6d_columns,
    matrix_to_6d_rows,
)
from comfyui_comovi.comovi_model.body.smpl import pose_body, pose_joints, rest_joints
from comfyui_comovi.comovi_model.body.toy import random_rotations, toy_body
from comfyui_comovi.comovi_model.clean.smoothing import blender_smooth
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.motion_io import read_motion, write_motion
from comfyui_comovi.comovi_model.motion_io.humanml3d import features_of, joints_of
from comfyui_comovi.comovi_model.motion_io.place import placed
from test_glb import SCRIPT, Reader, validator_module
from test_map_colours import one_triangle
from test_rasterise import HEIGHT, WIDTH, brute_force, random_scene
from test_smpl import in_smplx


@pytest.fixture(scope="module")
def mannequin():
    return load_mannequin_body()


def test_a_posing_agrees_with_smplx_on_the_mannequin_with_random_correctives(mannequin):
    from dataclasses import replace

    generator = torch.Generator().manual_seed(0)
    correctives = 0.01 * torch.randn(207, 3 * len(mannequin.v_template), generator=generator)
    body = replace(mannequin, posedirs=correctives)
    angles, betas = 0.7 * torch.randn(3, 24, 3, generator=generator), torch.randn(3, 10, generator=generator)
    transl = torch.randn(3, 3, generator=generator)
    theirs = in_smplx(body)(betas=betas, global_orient=angles[:, 0], body_pose=angles[:, 1:].flatten(1), transl=transl)
    import smplx

    ours = pose_body(body, smplx.lbs.batch_rodrigues(angles.view(-1, 3)).view(3, 24, 3, 3), betas, transl)
    assert (ours.vertices - theirs.vertices).abs().max() < 1e-5
    assert (ours.joints - theirs.joints[:, :24]).abs().max() < 1e-5


def test_b_a_shaded_pixel_is_what_the_formula_says():
    """A triangle that faces the camera squarely at depth 2: the normal is (0, 0, -1) everywhere."""
    part = parts.PART_NAMES.index("leftArm")
    corners = torch.tensor([[-1.0, -1, 2], [0, 2, 2], [1, -1, 2]])
    picture = draw_map(one_triangle(corners, part), corners[None], intrinsics(20.0, 15, 15), 30, 30)[0]
    row, column = 14, 16
    point = torch.tensor([(column + 0.5 - 15) / 20 * 2, (row + 0.5 - 15) / 20 * 2, 2.0])
    light = torch.nn.functional.normalize(torch.tensor([0.0, 1, 0]) - point, dim=0)
    diffuse = max(0.0, float(light @ torch.tensor([0.0, 0, -1])))
    colour = torch.tensor([(2 * part + 1) / 48, 0.5, 0.5])
    assert torch.allclose(picture[row, column], (0.5 + 0.3 * diffuse) * colour + 0.2, atol=1e-6)


def test_c_the_rasteriser_agrees_with_an_exhaustive_search_in_every_pixel():
    vertices, faces, K = random_scene(11)
    found = rasterise(vertices, faces, K, HEIGHT, WIDTH, True).face
    wanted = brute_force(vertices, faces, K, HEIGHT, WIDTH, True)[0]
    assert int((found != wanted).sum()) == 0 and int((wanted >= 0).sum()) > 300


def test_d_rows_and_columns_of_6d_rotations_are_told_apart():
    rotations = random_rotations(50, seed=1, angle=1.5)
    assert torch.allclose(matrix_from_6d_rows(matrix_to_6d_rows(rotations)), rotations, atol=1e-5)
    assert torch.allclose(matrix_from_6d_columns(matrix_to_6d_columns(rotations)), rotations, atol=1e-5)
    mixed = matrix_from_6d_rows(matrix_to_6d_columns(rotations))
    assert torch.allclose(mixed, rotations.transpose(-1, -2), atol=1e-5)  # the inverse, which looks plausible
    assert (mixed - rotations).abs().amax((1, 2)).median() > 0.5  # half turns are their own inverse


@pytest.mark.parametrize("seed", range(5))
def test_e_moving_the_motion_moves_the_body_although_it_turns_about_the_pelvis(seed):
    body = toy_body(posedirs=True)
    motion = motion_files.smooth_motion(body, 6, seed=seed)
    turn, shift = random_rotations(1, seed=seed + 9, angle=2.0)[0], torch.tensor([0.4, -1.0, 2.0])
    pelvis = rest_joints(body, motion.betas)[0]
    moved = motion.moved(turn, shift, pelvis)
    before = pose_body(body, motion.rotations, motion.betas, motion.transl).vertices
    after = pose_body(body, moved.rotations, moved.betas, moved.transl).vertices
    assert (after - (before @ turn.T + shift)).abs().max() < 1e-5
    formula = (pelvis + motion.transl) @ turn.T + shift - pelvis  # A (J0 + transl) + b - J0
    assert torch.allclose(moved.transl, formula, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_f_the_skeletons_of_bvh_and_glb_files_move_as_smpl_does(tmp_path, mannequin, seed):
    motion = motion_files.smooth_motion(mannequin, 9, seed=seed)
    wanted = placed(motion, mannequin, "yup")
    joints = pose_joints(mannequin, wanted.rotations, wanted.betas, wanted.transl)
    for name in ("a.bvh", "a.glb"):
        found = read_motion(write_motion(tmp_path / name, motion, mannequin), body=mannequin).motion
        again = pose_joints(mannequin, found.rotations, found.betas, found.transl)
        assert (again - joints).abs().max() < 1e-4, name
    from_nodes = Reader((tmp_path / "a.glb").read_bytes()).joint_transforms()[..., :3, 3]
    assert (from_nodes - joints).abs().max() < 1e-4


def test_g_the_khronos_validator_has_nothing_to_say(tmp_path, mannequin):
    module = validator_module()
    if module is None or shutil.which("node") is None:
        pytest.skip("needs node and `npm i gltf-validator` (set GLTF_VALIDATOR to its folder)")
    path = write_motion(tmp_path / "a.glb", motion_files.smooth_motion(mannequin, 33), mannequin)
    result = subprocess.run(["node", "-e", SCRIPT, module, str(path)], capture_output=True, text=True, check=True)
    issues = json.loads(result.stdout)
    assert (issues["numErrors"], issues["numWarnings"], issues["numInfos"]) == (0, 0, 0), issues


@pytest.mark.parametrize("key", RATE_KEYS)
def test_h_amass_comes_back_whatever_the_frame_rate_is_called(tmp_path, mannequin, key):
    motion = motion_files.smooth_motion(mannequin, 7, fps=29.97)
    arrays = amass_arrays(motion, mannequin)
    assert {"mocap_framerate", "mocap_frame_rate"} <= arrays.keys() and arrays["poses"].shape == (7, 156)
    kept = {name: value for name, value in arrays.items() if name not in RATE_KEYS or name == key}
    np.savez(tmp_path / "a.npz", **kept)
    found = read_motion(tmp_path / "a.npz").motion
    assert found.fps == pytest.approx(29.97) and found.frame == "zup"
    wanted = placed(motion, mannequin, "zup")
    assert torch.allclose(found.rotations[:, :22], wanted.rotations[:, :22], atol=1e-5)
    assert torch.allclose(found.transl, wanted.transl, atol=1e-6) and torch.allclose(found.betas, wanted.betas)


def test_i_parts_have_their_order_and_the_last_name_of_a_shared_vertex_wins(tmp_path):
    names = parts.PART_NAMES
    assert [names.index(name) for name in ("rightHand", "head", "leftHandIndex1", "neck", "hips")] == [
        0,
        11,
        13,
        18,
        23,
    ]
    table = {name: [number, number + 24] for number, name in enumerate(names)}
    table["hips"] += [0, 1, 2]  # hips is last in the file and takes what rightHand, rightUpLeg and leftArm had
    (tmp_path / "s.json").write_text(json.dumps(table))
    found = parts.parts_from_segmentation(tmp_path / "s.json", 48).tolist()
    assert found == [23, 23, 23, *range(3, 24), *range(24)]


def test_j_a_pickle_that_wants_to_run_something_is_blocked(tmp_path):
    marker = tmp_path / "hacked"

    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"v_template": Attack(), "poses": Attack()}))
    with pytest.raises(ComoviError, match=r"(posix|nt)\.system, which no SMPL file needs"):
        read_body_model(tmp_path / "a.pkl")
    with pytest.raises(ComoviError, match=r"(posix|nt)\.system, which no motion needs; do not trust this file"):
        read_motion(tmp_path / "a.pkl")
    assert not marker.exists()


def test_k_the_smoothing_kernel_is_2_3_2_3_2_with_its_edge_rules():
    values = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = blender_smooth(values)
    n = len(values)
    for i in range(1, n - 1):
        before, after = values[i - 1], values[i + 1]
        second_before = values[i - 2] if i - 2 > 0 else before  # frame 0 is never looked at from frame 2
        second_after = values[i + 2] if i + 2 < n else after
        wanted = (2 * second_before + 3 * before + 2 * values[i] + 3 * after + 2 * second_after) / 12
        assert found[i] == pytest.approx(float(wanted), abs=1e-12), i
    assert found[0] == values[0] and found[-1] == values[-1]


def test_l_the_263_numbers_stand_where_they_should_and_give_the_joints_back(mannequin):
    motion = motion_files.smooth_motion(mannequin, 20, seed=2, angle=0.3)
    joints = pose_joints(mannequin, motion.rotations, motion.betas, motion.transl)[:, :22].double().numpy()
    features = features_of(joints)
    assert features.shape == (19, 263)
    found = joints_of(features)
    assert np.allclose(found[0, 0, [0, 2]], 0) and found[..., 1].min() == pytest.approx(0, abs=0.3)
    lengths = [
        np.linalg.norm(pose[:-1, 4] - pose[:-1, 1], axis=1) for pose in (np.append(found, found[-1:], 0), joints)
    ]
    assert np.allclose(*lengths)
    # each slice against what it says, worked out from the joints in the clip's own axes
    root = found[:, 0]
    assert np.allclose(features[:, 3], root[:, 1])
    angle = np.concatenate([[0], np.cumsum(features[:-1, 0])]) * 2  # half angles add up to the heading
    c, s = np.cos(angle), np.sin(angle)
    turn = np.zeros((19, 3, 3))
    turn[:, 0, 0], turn[:, 0, 2], turn[:, 1, 1], turn[:, 2, 0], turn[:, 2, 2] = c, s, 1, -s, c
    beside = np.einsum("fij,fkj->fki", turn, found - root[:, None] * [1, 0, 1])
    assert np.allclose(features[:, 4:67].reshape(19, 21, 3), beside[:, 1:], atol=1e-9)
    moves = found[1:] - found[:-1]
    assert np.allclose(
        features[:-1, 193:259].reshape(18, 22, 3), np.einsum("fij,fkj->fki", turn[:-1], moves), atol=1e-9
    )
    assert np.allclose(features[:-1, 1:3], np.einsum("fij,fj->fi", turn[1:], moves[:, 0])[:, [0, 2]], atol=1e-9)
    still = (moves[:, [7, 10, 8, 11]] ** 2).sum(-1) < 0.002
    assert np.array_equal(features[:-1, 259:], still.astype(float))
    columns = features[:, 67:193].reshape(19, 21, 2, 3)
    assert np.allclose(np.linalg.norm(columns, axis=-1), 1) and np.allclose(
        (columns[:, :, 0] * columns[:, :, 1]).sum(-1), 0
    )
    # the first bone of a leg: its 6D, turned back by the heading, takes the data set's rest direction to the bone
    matrix = np.stack([columns[:, 0, 0], columns[:, 0, 1], np.cross(columns[:, 0, 0], columns[:, 0, 1])], -1)
    bone = np.einsum("fij,fjk,k->fi", turn, matrix, [1.0, 0, 0])
    seen = found[:, 1] - found[:, 0]
    assert np.allclose(bone, seen / np.linalg.norm(seen, axis=1, keepdims=True), atol=1e-6)
