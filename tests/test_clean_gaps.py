"""Gaps and outliers: what is filled, what is left, and that good motion is not touched."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.rotations import axis_angle_to_matrix, rotation_angle
from comfyui_comovi.comovi_model.body.smpl import rest_joints
from comfyui_comovi.comovi_model.body.toy import random_rotations
from comfyui_comovi.comovi_model.clean.depth import steady_depth
from comfyui_comovi.comovi_model.clean.edit import take
from comfyui_comovi.comovi_model.clean.gaps import fill_gaps, insert_missing, neighbours, run_lengths, runs
from comfyui_comovi.comovi_model.clean.known_motion import synthetic_motion
from comfyui_comovi.comovi_model.clean.measures import mean_distance_mm
from comfyui_comovi.comovi_model.clean.outliers import OutlierSettings, find_outliers, reject_outliers
from comfyui_comovi.comovi_model.clean.time_base import resample
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.nano.actions import ACTION_NAMES


@pytest.fixture(scope="module")
def body():
    return load_mannequin_body()


def even_turn(num_frames: int = 20, fps: float = 16.0) -> BodyMotion:
    angle = torch.arange(num_frames)[:, None, None] * torch.tensor([0.0, 0.15, 0.05])
    path = torch.arange(num_frames)[:, None] * torch.tensor([0.1, 0.0, 0.02])
    return BodyMotion(axis_angle_to_matrix(angle.expand(-1, 24, -1)), torch.zeros(10), path, frame="yup", fps=fps)


def without(motion: BodyMotion, *frames: int) -> BodyMotion:
    valid = torch.ones(len(motion), dtype=torch.bool)
    rotations, transl = motion.rotations.clone(), motion.transl.clone()
    index = torch.tensor(frames)
    valid[index], rotations[index], transl[index] = False, torch.eye(3), 0.0
    return replace(motion, rotations=rotations, transl=transl, valid=valid)


def test_gaps_in_an_even_turn_are_filled_exactly():
    motion = even_turn()
    filled = fill_gaps(without(motion, 3, 4, 5, 11))
    assert filled.valid.all()
    assert (filled.rotations - motion.rotations).abs().max() < 1e-5
    assert (filled.transl - motion.transl).abs().max() < 1e-6


def test_longer_gaps_stay_empty():
    motion = without(even_turn(), 3, 8, 9, 10, 11)
    filled = fill_gaps(motion, max_gap_seconds=3 / 16)
    assert filled.valid.tolist() == [not 8 <= k <= 11 for k in range(20)]
    assert torch.equal(filled.rotations[8:12], motion.rotations[8:12])
    assert fill_gaps(motion, max_gap_seconds=4 / 16).valid.all()


def test_at_the_ends_the_nearest_frame_is_held():
    motion = even_turn()
    filled = fill_gaps(without(motion, 0, 1, 19))
    assert torch.allclose(filled.rotations[0], motion.rotations[2])
    assert torch.allclose(filled.transl[19], motion.transl[18])


def test_a_motion_without_gaps_is_returned_as_it_is():
    motion = even_turn()
    assert fill_gaps(motion) is motion


def test_a_motion_without_any_valid_frame_cannot_be_filled():
    with pytest.raises(ComoviError, match="no frame of the motion is valid"):
        fill_gaps(replace(even_turn(), valid=torch.zeros(20, dtype=torch.bool)))


def test_runs_and_neighbours():
    mask = torch.tensor([False, True, True, False, True])
    assert runs(mask) == [(1, 3), (4, 5)]
    assert run_lengths(mask).tolist() == [1, 0, 0, 1, 0]
    before, after, share = neighbours(mask)
    assert before.tolist() == [1, 1, 2, 2, 4]
    assert after.tolist() == [1, 1, 2, 4, 4]
    assert share.tolist() == [0, 0, 0, 0.5, 0]


@pytest.mark.parametrize("fps", [16.0, 30.0])
def test_a_jump_of_any_joint_is_found_and_mended(body, fps):
    truth = synthetic_motion(body, "walk", 0, fps)
    rotations, transl = truth.rotations.clone(), truth.transl.clone()
    rotations[8:10, 16] = random_rotations(1, 1, angle=1.5)[0, 0]
    rotations[15, 0] = -rotations[15, 0] * torch.tensor([[1.0], [-1.0], [1.0]])  # turned over
    transl[20, 2] += 0.6
    broken = replace(truth, rotations=rotations, transl=transl)
    found = find_outliers(broken)
    assert found.joints.nonzero().tolist() == [[8, 16], [9, 16], [15, 0]]
    assert found.path.nonzero().flatten().tolist() == [20]
    mended = reject_outliers(broken)
    assert rotation_angle(truth.rotations.mT.double() @ mended.rotations.double()).max() < 0.35
    assert (mended.transl - truth.transl).norm(dim=1).max() < 0.02
    untouched = ~found.joints
    assert torch.equal(mended.rotations[untouched], truth.rotations[untouched])


def test_a_jump_at_the_start_or_end_is_found():
    motion = even_turn(20)
    rotations = motion.rotations.clone()
    rotations[0, 4] = rotations[0, 4] @ axis_angle_to_matrix(torch.tensor([2.5, 0.0, 0.0]))
    rotations[18:, 7] = rotations[18:, 7] @ axis_angle_to_matrix(torch.tensor([2.5, 0.0, 0.0]))
    found = find_outliers(replace(motion, rotations=rotations))
    assert found.joints.nonzero().tolist() == [[0, 4], [18, 7], [19, 7]]


@pytest.mark.parametrize("fps", [16.0, 30.0])
def test_quick_movements_are_no_outliers(body, fps):
    """All sixteen actions; a punch of the elbow at twice the usual speed is the only one to be touched."""
    frames, found = 0, 0
    for seed, action in enumerate(ACTION_NAMES):
        motion = synthetic_motion(body, action, seed, fps)
        frames, found = frames + len(motion), found + find_outliers(motion).count
    assert found <= 0.01 * frames


def test_movement_that_lasts_is_no_outlier():
    motion = even_turn(20)
    rotations = motion.rotations.clone()
    rotations[6:14, 18] = rotations[6:14, 18] @ axis_angle_to_matrix(torch.tensor([1.4, 0.0, 0.0]))
    assert not find_outliers(replace(motion, rotations=rotations)).count


def test_gaps_stay_gaps_and_are_not_taken_for_outliers():
    motion = without(even_turn(20), 7)
    assert reject_outliers(motion) is motion


def test_limits_that_are_no_limits_are_refused():
    with pytest.raises(ComoviError, match="positive"):
        find_outliers(even_turn(), OutlierSettings(longest_seconds=0.0))


def test_frames_that_the_file_lacks_are_put_in_and_filled():
    """An estimator that saw nobody in frames 5, 6 and 12 wrote nothing for them."""
    motion = even_turn(20)
    kept = torch.tensor([k for k in range(20) if k not in (5, 6, 12)])
    gappy = replace(take(motion, kept), source_index=kept + 100)
    longer = insert_missing(gappy)
    assert len(longer) == 20
    assert longer.source_index.tolist() == list(range(100, 120))
    assert longer.valid.nonzero().flatten().tolist() == kept.tolist()
    filled = fill_gaps(gappy)
    assert filled.valid.all()
    assert (filled.rotations - motion.rotations).abs().max() < 1e-5


def test_frames_that_were_left_out_on_purpose_are_not_missing():
    """Resampled clips, every second frame, frames in another order, and a cut of a minute."""
    motion = even_turn(60, 30.0)
    resampled = resample(motion, 24)
    assert insert_missing(resampled) is resampled
    for index in (torch.arange(0, 60, 2), torch.arange(60).flip(0), torch.arange(30) + 2000 * (torch.arange(30) > 9)):
        clip = replace(motion.slice(0, len(index)), source_index=index)
        assert insert_missing(clip) is clip


def test_depth_stops_pumping_and_the_picture_stays(body):
    truth = synthetic_motion(body, "walk", 1, 30.0)
    pelvis = rest_joints(body, truth.betas)[0]
    truth = truth.to_frame("camera", pelvis).moved(torch.eye(3), torch.tensor([0.2, 1.0, 5.0]), pelvis)
    pumping = 1 + 0.03 * torch.randn(len(truth), 1, generator=torch.Generator().manual_seed(0))
    pumping[20] = 1.5  # one frame takes a child in the background for the person
    rough = replace(truth, transl=(truth.transl + pelvis) * pumping - pelvis)
    steady = steady_depth(rough, body)
    assert mean_distance_mm(truth, steady, body) < 0.3 * mean_distance_mm(truth, rough, body)  # measured 0.2
    seen, still = (m.transl + pelvis for m in (rough, steady))
    assert (seen[:, :2] / seen[:, 2:] - still[:, :2] / still[:, 2:]).abs().max() < 1e-6
    assert mean_distance_mm(truth, steady_depth(truth, body), body) < 12


def test_depth_is_a_matter_of_the_camera_frame(body):
    with pytest.raises(ComoviError, match="camera frame"):
        steady_depth(even_turn(), body)
    short = replace(even_turn(2), frame="camera")
    assert steady_depth(short, body) is short


def test_numbers_of_frames_cannot_ask_for_a_motion_of_hours():
    """A file of half a megabyte would unfold to billions of frames."""
    index = torch.arange(400) + 9000 * (torch.arange(400) // 3)
    with pytest.raises(ComoviError, match="at most 1000000 are made"):
        fill_gaps(replace(even_turn(400, 1000.0), source_index=index))
