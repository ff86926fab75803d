"""Smoothing: the paper's filter to the digit, and laws that every method obeys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.rotations import (
    axis_angle_to_matrix,
    matrix_to_quaternion,
    quaternion_to_matrix,
    rotation_angle,
)
from comfyui_comovi.comovi_model.body.toy import random_rotations
from comfyui_comovi.comovi_model.clean.known_motion import SHAKING, noisy, synthetic_motion
from comfyui_comovi.comovi_model.clean.manifold import regression_coefficients, window_index
from comfyui_comovi.comovi_model.clean.measures import jitter, mean_distance_mm
from comfyui_comovi.comovi_model.clean.smoothing import METHODS, blender_smooth, one_euro, savgol, smooth
from comfyui_comovi.comovi_model.errors import ComoviError

GOLDEN = np.load(Path(__file__).parent / "golden" / "smoothing.npz", allow_pickle=False)


@pytest.fixture(scope="module")
def body():
    return load_mannequin_body()


def turning(num_frames: int, degrees_per_frame: float, seed: int = 3) -> BodyMotion:
    """Every joint turns about its own axis at constant speed; the root moves straight."""
    axes = torch.nn.functional.normalize(torch.randn(24, 3, generator=torch.Generator().manual_seed(seed)), dim=1)
    angles = torch.arange(num_frames)[:, None, None] * np.radians(degrees_per_frame)
    start = random_rotations(1, 24, seed=seed)
    path = torch.arange(num_frames)[:, None] * torch.tensor([0.02, 0.0, -0.01])
    return BodyMotion(start @ axis_angle_to_matrix(angles * axes), torch.zeros(10), path, frame="yup", fps=30.0)


def test_every_channel_of_the_golden_file_is_reproduced_to_a_millionth():
    channels = [name.removesuffix("_pre") for name in GOLDEN.files if name.endswith("_pre")]
    assert len(channels) == 10
    for name in channels:
        found = blender_smooth(torch.from_numpy(GOLDEN[f"{name}_pre"]))
        assert np.abs(found.numpy() - GOLDEN[f"{name}_post"]).max() < 1e-6, name


def test_the_paper_s_smoothing_of_a_motion_is_the_golden_file_without_its_baked_frame():
    before, after = (
        torch.from_numpy(np.stack([GOLDEN[f"rotation_quaternion_{k}_{which}"] for k in range(4)], 1))
        for which in ("pre", "post")
    )
    rotations = quaternion_to_matrix(before[:-1])[:, None].expand(-1, 24, -1, -1).float()
    motion = BodyMotion(rotations, torch.zeros(10), torch.randn(30, 3))
    found = matrix_to_quaternion(smooth(motion, "paper").rotations[:, 5].double())
    wanted = torch.nn.functional.normalize(after[:-1], dim=1)
    wanted = wanted * wanted[:, :1].sign()
    assert (found - wanted).abs().max() < 1e-6
    assert torch.equal(smooth(motion, "paper").transl, motion.transl)  # the paper keeps the path


def test_the_worked_example_of_the_kernel():
    found = blender_smooth(torch.tensor([0.0, 1, 0, 2, 0, 3, 0, 0, 0, 1], dtype=torch.float64))
    wanted = [0, 0.5, 0.916667, 1, 1.25, 0.833333, 0.75, 0.666667, 0.416667, 1]
    assert np.allclose(found.numpy(), wanted, atol=1e-6)


def test_savgol_of_the_root_path_is_scipy_s():
    signal = pytest.importorskip("scipy.signal")
    motion = replace(turning(40, 0.0), transl=torch.randn(40, 3, generator=torch.Generator().manual_seed(1)))
    found = savgol(motion, 9 / 30, 3).transl
    wanted = signal.savgol_filter(motion.transl.double().numpy(), 9, 3, axis=0, mode="interp")
    assert np.abs(found.numpy() - wanted).max() < 1e-6


@pytest.mark.parametrize("method", ["savgol", "gaussian"])
def test_turns_of_constant_speed_pass_unchanged(method):
    """Also at the ends, also at 24 degrees a frame, where Euler angles and averaged matrices have gone wrong."""
    motion = turning(24, 24.0)
    away = rotation_angle(motion.rotations.transpose(-1, -2).double() @ smooth(motion, method).rotations.double())
    assert away.max() < 1e-3
    assert (smooth(motion, method).transl - motion.transl).abs().max() < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_smoothing_does_not_depend_on_the_axes(method):
    """Turning the world and then smoothing is smoothing and then turning the world."""
    motion = turning(20, 9.0)
    rough = replace(motion, rotations=motion.rotations @ random_rotations(20, 24, angle=0.2, seed=5))
    turn = random_rotations(1, 1, seed=9)[0, 0]
    pelvis = torch.tensor([0.0, -0.2, 0.03])
    one = smooth(rough.moved(turn, torch.ones(3), pelvis), method)
    other = smooth(rough, method).moved(turn, torch.ones(3), pelvis)
    assert (one.rotations - other.rotations).abs().max() < 2e-5
    assert (one.transl - other.transl).abs().max() < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_smoothing_brings_shaken_motion_nearer_to_the_truth(body, method):
    truth = synthetic_motion(body, "walk", 1, 30.0)
    rough = noisy(truth, SHAKING, 4)
    calm = smooth(rough, method)
    assert mean_distance_mm(truth, calm, body) < 0.8 * mean_distance_mm(truth, rough, body)  # measured 0.45 .. 0.7
    assert jitter(calm, body) < 0.45 * jitter(rough, body)


def test_more_strength_means_less_jitter(body):
    rough = noisy(synthetic_motion(body, "wave", 2, 30.0), SHAKING, 4)
    for method in ("savgol", "gaussian", "one-euro"):
        found = [jitter(smooth(rough, method, strength), body) for strength in (0.0, 0.3, 0.6, 1.0)]
        assert found == sorted(found, reverse=True), method
        assert smooth(rough, method, 0.0) is rough


def test_one_euro_has_no_lag_unless_it_is_asked_to_be_causal(body):
    motion = synthetic_motion(body, "walk", 3, 30.0)

    def best_shift(calm):
        path, truth = calm.rotations[10:-10, 1].double(), motion.rotations.double()
        return min(range(-5, 6), key=lambda k: rotation_angle(truth[10 - k : -10 - k or None, 1].mT @ path).mean())

    assert best_shift(one_euro(motion, 1.0)) == 0
    assert best_shift(one_euro(motion, 1.0, causal=True)) > 0


def test_frames_that_are_not_valid_neither_change_nor_count():
    motion = turning(30, 6.0)
    valid = torch.ones(30, dtype=torch.bool)
    valid[12:14] = False
    wild = motion.rotations.clone()
    wild[12:14] = random_rotations(2, 24, seed=8)
    for method in ("savgol", "gaussian"):
        calm = smooth(replace(motion, rotations=wild, valid=valid), method)
        assert torch.equal(calm.rotations[12:14], wild[12:14])
        away = rotation_angle(motion.rotations[valid].mT.double() @ calm.rotations[valid].double())
        assert away.max() < 1e-3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_the_shortest_motions_can_be_smoothed(method, num_frames):
    calm = smooth(turning(num_frames, 10.0), method)
    assert len(calm) == num_frames
    assert torch.isfinite(calm.rotations).all()


def test_coefficients_of_the_regression_keep_polynomials():
    index = window_index(15, 4)
    offsets = (index - torch.arange(15)[:, None]).double()
    coefficients = regression_coefficients(offsets, torch.exp(-0.1 * offsets**2), 2)
    time = torch.arange(15, dtype=torch.float64)
    curve = 2 + 3 * time - 0.5 * time**2
    assert torch.allclose((coefficients * curve[index]).sum(1), curve, atol=1e-9)


def test_what_was_done_is_written_down():
    motion = smooth(smooth(turning(20, 3.0), "paper"), "gaussian", 0.4)
    assert [edit["smooth"] for edit in motion.provenance["edits"]] == ["paper", "gaussian"]


def test_unknown_methods_and_strengths_are_refused():
    with pytest.raises(ComoviError, match="paper, savgol, gaussian, one-euro"):
        smooth(turning(5, 1.0), "kalman")
    with pytest.raises(ComoviError, match="between 0 and 1"):
        smooth(turning(5, 1.0), "savgol", 1.5)
