"""All steps together: any motion in, a sound motion out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.body_files import load_nano_body
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.rotations import rotation_error
from comfyui_comovi.comovi_model.body.toy import random_rotations
from comfyui_comovi.comovi_model.clean.known_motion import LEVELS, noisy, synthetic_motion
from comfyui_comovi.comovi_model.clean.pipeline import CleanSettings, clean_motion
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.nano.actions import ACTION_NAMES

SMOOTHINGS = ("none", "paper", "savgol", "gaussian", "one-euro")


@pytest.fixture(scope="module")
def body():
    return load_nano_body()


def wild_motion(rng: np.random.Generator) -> BodyMotion:
    """Random rotations or a random action, of 1 to 40 frames, with random gaps, in random axes."""
    fps, num_frames = float(rng.choice([4.0, 16.0, 29.97, 120.0])), int(rng.integers(1, 41))
    frame = str(rng.choice(["yup", "zup", "camera"]))
    if rng.random() < 0.5:
        rotations = random_rotations(
            num_frames, 24, seed=int(rng.integers(1000)), angle=float(rng.choice([0.0, 0.5, 3.0]))
        )
        transl = torch.from_numpy(rng.normal(0, rng.choice([0.0, 0.1, 30.0]), (num_frames, 3))).float()
    else:
        motion = synthetic_motion(load_nano_body(), str(rng.choice(ACTION_NAMES)), int(rng.integers(99)), fps, 3.0)
        motion = noisy(motion, LEVELS["strong"], 1).slice(0, num_frames)
        rotations, transl, num_frames = motion.rotations, motion.transl, len(motion)
    valid = torch.from_numpy(rng.random(num_frames) < rng.choice([1.0, 0.8, 0.2]))
    source = torch.from_numpy(np.cumsum(rng.choice([1, 1, 1, 3], num_frames)))
    camera = Camera.from_focal(500.0, 100, 200) if frame == "camera" else None
    return BodyMotion(rotations, torch.zeros(10), transl, frame, camera, fps, "mannequin-v1", {}, valid, source)


@pytest.mark.parametrize("seed", range(24))
def test_any_motion_comes_out_sound(body, seed):
    rng = np.random.default_rng(seed)
    motion = wild_motion(rng)
    switches = {name: bool(rng.random() < 0.6) for name in ("outliers", "fill", "ground", "foot_lock")}
    depth = motion.frame == "camera" and bool(rng.random() < 0.5)
    settings = CleanSettings(
        **switches, steady_depth=depth, smoothing=str(rng.choice(SMOOTHINGS)), strength=float(rng.choice([0, 0.4, 1]))
    )
    if settings.fill and not bool(motion.valid.any()):
        with pytest.raises(ComoviError, match="no frame of the motion is valid"):
            clean_motion(motion, body, settings)
        return
    result = clean_motion(motion, body, settings)
    cleaned = result.motion
    assert torch.isfinite(cleaned.transl).all()
    assert rotation_error(cleaned.rotations.double()).max() < 1e-4
    assert len(cleaned) >= len(motion)
    assert cleaned.valid.sum() >= motion.valid.sum()
    assert all(isinstance(line, str) and "nan" not in line for line in result.report)
    BodyMotion.from_arrays(cleaned.to_arrays())


def test_nothing_switched_on_changes_nothing(body):
    motion = synthetic_motion(body, "walk", 0, 16.0)
    result = clean_motion(motion, body, CleanSettings())
    assert result.motion is motion


def test_every_step_is_reported_and_counted(body):
    motion = noisy(synthetic_motion(body, "walk", 0, 16.0), LEVELS["mild"], 0)
    done: list[tuple[int, int]] = []
    settings = CleanSettings(True, True, smoothing="gaussian", shape_of=(motion,), ground=True, foot_lock=True)
    result = clean_motion(motion, body, settings, lambda step, of: done.append((step, of)))
    assert done == [(k, 6) for k in range(1, 7)]
    heads = [line.split(":")[0] for line in result.report]
    assert heads == ["outliers", "gaps", "smoothing", "shape", "ground", "feet", "jitter"]


def test_an_exception_from_the_progress_stops_the_work(body):
    def stop(step: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clean_motion(synthetic_motion(body, "walk", 0, 16.0), body, CleanSettings(outliers=True), stop)


def test_another_body_s_betas_are_refused(body):
    motion = replace(synthetic_motion(body, "walk", 0, 16.0), body_model="smpl")
    with pytest.raises(ComoviError, match="mean nothing to body"):
        clean_motion(motion, body, CleanSettings(fill=True))
    with pytest.raises(ComoviError, match="unknown smoothing"):
        CleanSettings(smoothing="kalman")
