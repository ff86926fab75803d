"""Trim, mirror, hold, join and shape."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body
from comfyui_comovi.comovi_model.body.cameras import Camera, intrinsics, project
from comfyui_comovi.comovi_model.body.frames import pelvis_at_rest
from comfyui_comovi.comovi_model.body.rotations import axis_angle_to_matrix
from comfyui_comovi.comovi_model.body.smpl import pose_body
from comfyui_comovi.comovi_model.body.toy import random_rotations
from comfyui_comovi.comovi_model.body.upright import with_camera_up
from comfyui_comovi.comovi_model.clean.edit import MIRROR_JOINT, frame_at, hold, mirror, reverse, still, trim
from comfyui_comovi.comovi_model.clean.feet import skeleton
from comfyui_comovi.comovi_model.clean.join import join
from comfyui_comovi.comovi_model.clean.known_motion import synthetic_motion
from comfyui_comovi.comovi_model.clean.measures import joint_positions, mean_distance_mm
from comfyui_comovi.comovi_model.clean.shape import lock_shape, median_betas, with_betas
from comfyui_comovi.comovi_model.errors import ComoviError

FLIP = torch.tensor([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def body():
    return load_mannequin_body()


@pytest.fixture(scope="module")
def walk(body):
    return synthetic_motion(body, "walk", 1, 30.0)


@pytest.fixture(scope="module")
def wave(body):
    return synthetic_motion(body, "wave", 3, 24.0)


def vertices(motion, body):
    return pose_body(body, motion.rotations, motion.betas, motion.transl).vertices


def mirrored_vertex(body):
    """(V,) for each vertex of the T-pose the one on the other side."""
    exact = "donot_use_mm_for_euclid_dist"
    distance = torch.cdist(body.v_template * FLIP, body.v_template, compute_mode=exact)
    assert distance.min(1).values.max() < 1e-5  # the mannequin is symmetric
    return distance.argmin(1)


def test_a_mirrored_motion_has_the_mirrored_surface(body, walk):
    """Six vertices on the mannequin's midline lean to one collar by up to 0.03 of their weight; they are evened out."""
    other = mirrored_vertex(body)
    weights = (body.weights + body.weights[other][:, list(MIRROR_JOINT)]) / 2
    assert ((weights - body.weights).abs().amax(1) > 1e-3).sum() <= 6
    even = replace(body, weights=weights)
    wild = replace(walk.slice(0, 6), rotations=random_rotations(6, 24, seed=4))
    seen = vertices(mirror(wild, pelvis_at_rest(even, wild)), even)
    assert (seen - vertices(wild, even)[:, other] * FLIP).abs().max() < 1e-5


def test_mirroring_twice_changes_nothing(body, walk):
    twice = mirror(mirror(walk, pelvis_at_rest(body, walk)), pelvis_at_rest(body, walk))
    assert (twice.rotations - walk.rotations).abs().max() < 1e-6
    assert (twice.transl - walk.transl).abs().max() < 1e-6
    assert [MIRROR_JOINT[other] for other in MIRROR_JOINT] == list(range(24))


def test_a_mirrored_motion_fits_the_flipped_picture(body, walk):
    camera = Camera(intrinsics(500.0, 70.0, 90.0), 176, 192)
    motion = replace(walk.slice(0, 3).to_frame("camera", pelvis_at_rest(body, walk)), camera=camera)
    motion = replace(motion, transl=motion.transl + torch.tensor([0.3, 0.0, 5.0]))
    other = mirror(motion, pelvis_at_rest(body, motion))
    seen, flipped = (project(joint_positions(m, body).float(), m.camera.K) for m in (motion, other))
    assert (flipped[:, list(MIRROR_JOINT), 0] - (176 - seen[..., 0])).abs().max() < 1e-2
    assert (flipped[:, list(MIRROR_JOINT), 1] - seen[..., 1]).abs().max() < 1e-2


def test_trim_keeps_the_named_frames(walk):
    cut = trim(walk, 10, -5)
    assert len(cut) == len(walk) - 15
    assert torch.equal(cut.rotations, walk.rotations[10:-5])
    assert cut.source_index[0] == 10
    with pytest.raises(ComoviError, match="hold nothing"):
        trim(walk, 50, 40)
    assert frame_at(walk, 1.0) == 30
    assert frame_at(walk, 99.0) == len(walk) - 1


def test_hold_still_and_reverse(walk):
    held = hold(walk, 3, 5)
    assert len(held) == len(walk) + 8
    assert torch.equal(held.rotations[:4], walk.rotations[:1].expand(4, -1, -1, -1))
    assert torch.equal(held.transl[-6:], walk.transl[-1:].expand(6, -1))
    assert torch.equal(still(walk, -1, 4).rotations[2], walk.rotations[-1])
    assert torch.equal(reverse(walk).rotations[0], walk.rotations[-1])
    K = torch.stack([intrinsics(500.0 + k, 8, 8) for k in range(len(walk))])
    moving = replace(walk, frame="camera", camera=Camera(K, 16, 16))
    assert hold(moving, 2, 0).camera.K[3, 0, 0] == 501
    with pytest.raises(ComoviError, match="from 0"):
        hold(walk, -1, 0)
    with pytest.raises(ComoviError, match="cannot be held"):
        still(walk, 500, 3)


@pytest.mark.parametrize("manner", ["overlap", "bridge"])
def test_the_second_motion_goes_on_where_the_first_ends(body, walk, wave, manner):
    pelvis = pelvis_at_rest(body, wave)
    away = wave.moved(axis_angle_to_matrix(torch.tensor([0.0, 2.0, 0.0])), torch.tensor([5.0, 0.0, -3.0]), pelvis)
    both = join(walk, away, body, 0.4, manner)
    resampled = 1 + (len(wave) - 1) * 30 // 24
    assert len(both) == len(walk) + resampled + (12 if manner == "bridge" else -12)
    assert both.fps == 30
    steps = joint_positions(both, body).diff(dim=0).norm(dim=-1)
    usual = max(float(joint_positions(m, body).diff(dim=0).norm(dim=-1).max()) for m in (walk, wave))
    assert steps.max() < 1.1 * usual  # no jump anywhere
    assert torch.equal(both.rotations[: len(walk) - 12], walk.rotations[: len(walk) - 12])
    facing = skeleton(both, body).orientations[-1, 0][[0, 2], 2]
    assert facing[1] > 0.9  # still towards +z, as the walk
    assert torch.allclose(both.betas, walk.betas)


def test_heights_are_never_changed_by_a_join(body, walk, wave):
    both = join(walk, wave, body, 0.0)
    under = skeleton(both, body)
    assert abs(float((under.foot_points[-1, :, 1] - under.standing).min())) < 0.01


def test_without_align_both_stay_where_they_are(body, walk):
    away = replace(walk, transl=walk.transl + torch.tensor([2.0, 0.0, 0.0]))
    both = join(walk, away, body, 0.2, align=False)
    assert torch.equal(both.transl[-40:], away.transl[-40:])


@pytest.mark.parametrize("frame", ["zup", "camera"])
def test_joining_does_not_depend_on_the_axes(body, walk, frame):
    pelvis = pelvis_at_rest(body, walk)
    other = join(walk.to_frame(frame, pelvis), walk, body, 0.3).to_frame("yup", pelvis)
    assert mean_distance_mm(other, join(walk, walk, body, 0.3), body) < 0.01


def test_two_poses_and_a_bridge_are_an_in_between(body, walk, wave):
    between = join(walk.slice(0, 1), replace(wave, fps=30.0).slice(30, 31), body, 1.0, "bridge")
    assert len(between) == 32
    turned = joint_positions(between, body)
    assert (turned[1:] - turned[:-1]).norm(dim=-1).max() < 0.15
    assert torch.equal(between.rotations[0], walk.rotations[0])


def test_impossible_joins_are_refused(body, walk):
    with pytest.raises(ComoviError, match="overlap or bridge"):
        join(walk, walk, body, 0.3, "glue")
    with pytest.raises(ComoviError, match="0 to 60 seconds"):
        join(walk, walk, body, -1.0)
    with pytest.raises(ComoviError, match="mean nothing to body"):
        join(walk, replace(walk, body_model="smpl", betas=torch.ones(10)), body)


def test_the_median_shape_ignores_frames_that_show_somebody_else():
    betas = torch.zeros(21, 10)
    betas[:, 0] = torch.linspace(0.9, 1.1, 21)
    betas[3] = 9.0
    betas[7] = float("nan")
    found = median_betas(betas)
    assert abs(float(found[0]) - 1.0) < 0.02
    assert found[1:].abs().max() == 0
    valid = torch.zeros(21, dtype=torch.bool)
    valid[3] = True
    assert median_betas(betas, valid)[0] == 5.0  # never more than five standard deviations
    with pytest.raises(ComoviError, match="finite betas"):
        median_betas(torch.full((3, 10), float("nan")))


def test_other_betas_keep_the_feet_on_the_floor(body, walk):
    stand = synthetic_motion(body, "wave", 0, 30.0)
    tall = with_betas(stand, body, torch.tensor([2.0] + 9 * [0.0]))
    height = float(vertices(tall, body)[..., 1].amax() - vertices(stand, body)[..., 1].amax())
    assert height > 0.1
    assert vertices(tall, body)[0, :, 1].amin().abs() < 0.02


def test_a_locked_shape_is_the_same_for_all_clips(body, walk, wave):
    tall = replace(wave, betas=torch.tensor([1.0] + 9 * [0.0]))
    both = lock_shape([walk, tall], body)
    assert torch.equal(both[0].betas, both[1].betas)
    with pytest.raises(ComoviError, match="different bodies"):
        lock_shape([walk, replace(wave, body_model="smpl", betas=torch.zeros(10))], body)
    assert lock_shape([], body) == []


def test_up_stays_up_before_a_tilted_camera(body, walk, wave):
    """The first motion knows where up is in its camera frame; what is joined to it stands upright there too."""
    pelvis = pelvis_at_rest(body, walk)
    tilt = axis_angle_to_matrix(torch.tensor([0.3, 0.0, 0.1]))
    seen = walk.to_frame("camera", pelvis).moved(tilt, torch.tensor([0.0, 1.0, 5.0]), pelvis)
    seen = with_camera_up(seen, tilt @ torch.tensor([0.0, -1.0, 0.0]))
    both = join(seen, wave, body, 0.3)
    stood = skeleton(both, body)
    assert stood.orientations[-1, 0, 1, 1] > 0.999  # the pelvis of the wave points up
    wanted = skeleton(join(walk, wave, body, 0.3), body)
    first = slice(0, len(walk) - 12)
    heights = [s.positions[first, :, 1] - s.positions[0, 0, 1] for s in (stood, wanted)]
    assert (heights[0] - heights[1]).abs().max() < 1e-4
    seen_heights, mirrored_heights = (skeleton(m, body).positions[..., 1] for m in (seen, mirror(seen, pelvis)))
    assert (mirrored_heights[:, list(MIRROR_JOINT)] - seen_heights).abs().max() < 1e-4
