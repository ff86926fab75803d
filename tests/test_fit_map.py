"""The fit of a motion map, on small pictures of the small body."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.mannequin import load_nano_body
from comfyui_comovi.comovi_model.body.map_colours import to_uint8
from comfyui_comovi.comovi_model.body.map_render import render_motion_map
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.rotations import axis_angle_to_matrix
from comfyui_comovi.comovi_model.body.smpl import pose_joints
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.fit import FitSettings, fit_motion_map, flags
from comfyui_comovi.comovi_model.fit.limb_score import backdrop, score_limbs
from comfyui_comovi.comovi_model.fit.observation import Calibration, observe
from comfyui_comovi.comovi_model.fit.score import LIMBS, score_poses
from comfyui_comovi.comovi_model.fit.search import limb_candidates, search_limb
from comfyui_comovi.comovi_model.fit.solve import Pull, fit_poses
from comfyui_comovi.comovi_model.fit.start import measure_colours
from comfyui_comovi.comovi_model.fit.surface import Pose, make_subject
from comfyui_comovi.comovi_model.fit.terms import FINE
from comfyui_comovi.training.fit_variants import mirrored

BODY = load_nano_body()
HEIGHT, WIDTH, FRAMES = 192, 128, 4
CAMERA = Camera.from_focal(330.0, WIDTH, HEIGHT)
BETAS = torch.tensor([0.4, -0.3, *[0.0] * 8])
QUICK = FitSettings(sweeps=0, refine_steps=2)


def a_motion(frames: int = FRAMES, across: bool = False) -> BodyMotion:
    """A person who faces the camera a little to the side, lifts an arm and a knee; `across`: arms before the chest."""
    vector = torch.zeros(frames, 24, 3)
    time = torch.linspace(0, 1, frames)
    vector[:, 16, 2], vector[:, 17, 2] = -1.2 + 0.5 * time, 1.1
    vector[:, 18, 1], vector[:, 19, 1] = -0.5 - 0.3 * time, 0.4
    vector[:, 1, 0], vector[:, 4, 0] = -0.4 * time, 0.7 * time
    if across:
        vector[:, 16], vector[:, 17] = torch.tensor([0.0, -1.2, -0.6]), torch.tensor([0.0, 1.2, 0.9])
        vector[:, 18, 1], vector[:, 19, 1] = -1.6, 1.5
    vector[:, 3, 0] = 0.2 * time
    rotations = axis_angle_to_matrix(vector)
    turn = axis_angle_to_matrix(torch.tensor([0.0, 0.5, 0.0]))
    rotations[:, 0] = axis_angle_to_matrix(torch.tensor([math.pi, 0.0, 0.0])) @ turn
    transl = torch.tensor([0.02, -0.35, 3.9]) + time[:, None] * torch.tensor([0.06, 0.0, 0.08])
    return BodyMotion(rotations, BETAS, transl, camera=CAMERA, body_model=BODY.name)


def drawn(motion: BodyMotion) -> np.ndarray:
    return to_uint8(render_motion_map(BODY, motion, HEIGHT, WIDTH)).numpy()


@pytest.fixture(scope="module")
def motion() -> BodyMotion:
    return a_motion()


@pytest.fixture(scope="module")
def picture(motion) -> np.ndarray:
    return drawn(motion)


@pytest.fixture(scope="module")
def scene(motion, picture):
    subject = make_subject(BODY, BETAS)
    seen = observe(torch.from_numpy(picture), CAMERA.K.expand(FRAMES, 3, 3))
    return subject, seen, Pose(motion.rotations, motion.transl)


def error_mm(found: BodyMotion | Pose, true: BodyMotion) -> tuple[float, float]:
    """Joints with pelvis on pelvis, and pelvis; worst frame of each."""
    ours = pose_joints(BODY, found.rotations, BETAS, found.transl)
    theirs = pose_joints(BODY, true.rotations, BETAS, true.transl)
    apart = (ours - ours[:, :1]) - (theirs - theirs[:, :1])
    return float(1e3 * apart.norm(dim=-1).mean(1).max()), float(1e3 * (ours - theirs)[:, 0].norm(dim=-1).max())


def bent(motion: BodyMotion, degrees: float, seed: int = 0) -> BodyMotion:
    generator = torch.Generator().manual_seed(seed)
    axis = torch.nn.functional.normalize(torch.randn(1, 24, 3, generator=generator), dim=-1)
    turned = motion.rotations[:1] @ axis_angle_to_matrix(axis * math.radians(degrees))
    start = motion.slice(0, 1)
    return BodyMotion(turned, BETAS, start.transl, camera=CAMERA, body_model=BODY.name)


def test_a_clip_is_followed_from_its_first_pose(motion, picture):
    done = []
    result = fit_motion_map(picture, BODY, motion.slice(0, 1), fps=12.0, settings=QUICK,
                            on_progress=lambda now, total: done.append((now, total)))  # fmt: skip
    joints, root = error_mm(result.motion, motion)
    assert joints < 40 and root < 60  # measured 20 and 26; a pixel is 12 mm
    assert result.motion.fps == 12.0 and result.motion.camera.width == WIDTH
    assert result.flags == [""] * FRAMES and bool(result.motion.valid.all())
    assert result.overlap.min() > 0.9
    assert done[-1][0] == done[-1][1] and len(done) >= FRAMES
    assert "no frame is flagged" in result.report()


def test_a_wrong_first_pose_is_put_right(motion, picture):
    start = bent(motion, 20)
    assert error_mm(start, motion.slice(0, 1))[0] > 120
    result = fit_motion_map(picture[:1], BODY, start, settings=QUICK)
    assert error_mm(result.motion, motion.slice(0, 1))[0] < 60


def test_the_pose_is_found_blind(motion, picture):
    result = fit_motion_map(picture[-1:], BODY, camera=CAMERA, betas=BETAS, settings=QUICK)
    assert error_mm(result.motion, motion.slice(FRAMES - 1, FRAMES))[0] < 70
    assert result.motion.provenance["first pose"] == "found"


def test_the_same_map_gives_the_same_bytes(motion, picture):
    one, other = (fit_motion_map(picture[:2], BODY, motion.slice(0, 1), settings=QUICK) for _ in range(2))
    assert torch.equal(one.motion.rotations, other.motion.rotations)
    assert torch.equal(one.motion.transl, other.motion.transl)


def test_flat_maps_can_be_fitted(motion):
    flat = to_uint8(render_motion_map(BODY, motion.slice(0, 2), HEIGHT, WIDTH, "flat"))
    result = fit_motion_map(flat, BODY, motion.slice(0, 1), settings=FitSettings("flat", sweeps=0, refine_steps=1))
    assert error_mm(result.motion, motion.slice(0, 2))[0] < 40


def test_frames_without_a_person_are_refused_and_filled(motion, picture):
    gap = picture.copy()
    gap[2] = 255
    result = fit_motion_map(gap, BODY, motion.slice(0, 1), settings=QUICK)
    assert result.flags[2] == flags.NO_PERSON and result.motion.valid.tolist() == [True, True, False, True]
    assert error_mm(result.motion, motion)[0] < 80
    with pytest.raises(ComoviError, match="no frame of this motion map shows a person"):
        fit_motion_map(np.full_like(picture, 255), BODY, motion.slice(0, 1))


def test_two_persons_are_flagged(motion, picture):
    """The second one stands beside the first: half of what is seen cannot be explained."""
    double = np.full((3, HEIGHT, 2 * WIDTH, 3), 255, np.uint8)
    double[:, :, WIDTH // 2 : -WIDTH // 2] = picture[:3]
    double[1, :, :WIDTH], double[1, :, WIDTH:] = picture[1], picture[1]
    camera = CAMERA.cropped(-WIDTH // 2, 0, 2 * WIDTH, HEIGHT)
    result = fit_motion_map(double, BODY, motion.slice(0, 1), camera=camera, settings=QUICK)
    assert result.flags == ["", flags.LOST, ""]


def test_half_a_person_is_flagged(motion, picture):
    cut = picture[:2].copy()
    middle = int(np.nonzero((cut[1] < 200).any((1, 2)))[0].mean())
    cut[1, middle:] = 255
    assert fit_motion_map(cut, BODY, motion.slice(0, 1), settings=QUICK).flags[1] != ""


def test_a_video_is_not_a_motion_map(motion):
    noise = np.random.default_rng(0).integers(0, 255, (2, HEIGHT, WIDTH, 3), np.uint8)
    assert all(fit_motion_map(noise, BODY, motion.slice(0, 1), settings=QUICK).flags)


def test_true_poses_score_better_than_wrong_ones(motion, scene):
    subject, seen, true = scene
    frame = torch.zeros(21, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    noise = 0.16 * torch.randn(21, 24, 3, generator=generator)
    noise[0] = 0
    poses = Pose(true.rotations[:1] @ axis_angle_to_matrix(noise), true.transl[:1].expand(21, 3))
    score = score_poses(subject, seen, frame, poses).mean
    assert int((score[1:] > score[0]).sum()) >= 19


def test_limbs_are_scored_like_whole_bodies(scene):
    subject, seen, true = scene
    for limb in range(len(LIMBS)):
        candidates = limb_candidates(true[[0]], limb, [], seed=1)[:30]
        whole = score_poses(subject, seen, torch.zeros(30, dtype=torch.int64), candidates).mean
        quick = score_limbs(subject, backdrop(subject, seen, 0, true[[0]], limb), candidates)
        assert torch.allclose(whole, quick, atol=1e-4)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("limb", [0, 1, 3])
def test_a_lost_limb_is_found(limb, across):
    true = a_motion(1, across)
    subject = make_subject(BODY, BETAS)
    seen = observe(torch.from_numpy(drawn(true)), CAMERA.K[None])
    wrong = true.rotations.clone()
    for joint in LIMBS[limb][:2]:
        wrong[:, joint] = wrong[:, joint] @ axis_angle_to_matrix(torch.tensor([0.3, 1.0, 1.2]))
    pose, at = Pose(wrong, true.transl), torch.zeros(1, dtype=torch.int64)
    found, _, better = search_limb(subject, seen, 0, pose, score_poses(subject, seen, at, pose), limb, [])
    assert better and error_mm(found, true)[0] < 40 < error_mm(pose, true)[0]


def test_the_body_stands_at_the_right_depth(scene, motion):
    subject, seen, true = scene
    found = fit_poses(subject, seen, torch.arange(FRAMES), true, FINE, 6, Pull(0.3))
    assert abs(float((found.transl - motion.transl)[:, 2].mean())) < 0.025  # of 3.9 m


def test_gain_and_offset_of_the_colours_are_measured(scene, picture):
    subject, _, true = scene
    changed = Calibration((0.95, 1.0, 0.97), (0.02, -0.01, 0.03))
    shown = torch.from_numpy(picture[:1]).float() / 255 * torch.tensor(changed.gain) + torch.tensor(changed.offset)
    seen = observe((shown.clamp(0, 1) * 255).round().to(torch.uint8), CAMERA.K[None])
    plain = measure_colours(subject, observe(torch.from_numpy(picture[:1]), CAMERA.K[None]), 0, true[[0]])
    measured = measure_colours(subject, seen, 0, true[[0]])
    middle = 0.55  # the level where most of the colours are
    for channel in range(3):
        moved = (measured.gain[channel] - plain.gain[channel]) * middle + measured.offset[channel]
        moved -= plain.offset[channel]
        expected = (changed.gain[channel] - 1) * middle + changed.offset[channel]
        assert moved == pytest.approx(expected, abs=0.006)


def test_what_cannot_be_fitted_is_refused_in_a_sentence(motion, picture):
    for bad, message in (
        (picture[0], "must be \\(frames, height, width, 3\\)"),
        (picture[:, :20], "at least 32 pixels"),
        (picture.astype(np.float32) * np.nan, "finite"),
    ):
        with pytest.raises(ComoviError, match=message):
            fit_motion_map(bad, BODY, motion.slice(0, 1))
    with pytest.raises(ComoviError, match="needs the camera"):
        fit_motion_map(picture, BODY)
    with pytest.raises(ComoviError, match="betas must be 10"):
        fit_motion_map(picture, BODY, camera=CAMERA, betas=torch.zeros(3))
    with pytest.raises(ComoviError, match="camera frame"):
        fit_motion_map(picture, BODY, BodyMotion(motion.rotations[:1], BETAS, motion.transl[:1], frame="yup"))
    with pytest.raises(ComoviError, match="stopped"):
        fit_motion_map(picture, BODY, motion.slice(0, 1), interrupted=lambda: True)


def test_bodies_with_pose_correctives_are_fitted(motion):
    """SMPL bulges with its pose; the fit draws that, though its derivatives leave it out."""
    generator = torch.Generator().manual_seed(0)
    waves = torch.randn(207, 3, generator=generator) @ torch.randn(3, BODY.v_template.numel(), generator=generator)
    body = replace(BODY, posedirs=0.002 * waves)
    true = motion.slice(FRAMES - 2, FRAMES)
    picture = to_uint8(render_motion_map(body, true, HEIGHT, WIDTH))
    result = fit_motion_map(picture, body, true.slice(0, 1), settings=QUICK)
    assert error_mm(result.motion, true)[0] < 40


def test_a_limb_that_moved_out_of_sight_is_flagged(monkeypatch):
    """Only a long stretch with another pose after it than before it."""
    frames = 16
    rotations = torch.eye(3).expand(frames, 24, 3, 3).clone()
    rotations[8:, [18, 4]] = axis_angle_to_matrix(torch.tensor([0.0, -1.5, 0.0]))
    share = torch.ones(frames, 4)
    share[4:10, 0] = 0.0  # left elbow: turned meanwhile
    share[4:10, 1] = 0.0  # right arm: as before
    share[7:9, 2] = 0.0  # left knee: turned, but soon seen again
    share[10:, 3] = 0.0  # never seen again
    monkeypatch.setattr(flags, "visible_share", lambda track: share)
    track = SimpleNamespace(
        score=torch.zeros(frames),
        empty=torch.zeros(frames, dtype=torch.bool),
        pose=Pose(rotations, torch.zeros(frames, 3)),
    )
    assert flags.guessed_frames(track) == [4 <= frame < 10 for frame in range(frames)]


def test_an_arm_behind_the_body_is_out_of_sight(motion):
    subject = make_subject(BODY, BETAS)
    behind, before = (motion.rotations[:1].clone() for _ in range(2))
    for rotations, side in ((behind, -1.0), (before, 1.0)):
        rotations[:, 16] = axis_angle_to_matrix(torch.tensor([0.0, -0.9 * side, -1.3]))
        rotations[:, 18] = axis_angle_to_matrix(torch.tensor([0.0, -1.4 * side, 0.0]))
    pose = Pose(torch.cat([behind, before]), motion.transl[:2])
    seen = observe(torch.from_numpy(drawn(motion)[:2]), CAMERA.K.expand(2, 3, 3))
    share = flags.visible_share(SimpleNamespace(subject=subject, seen=seen, pose=pose, score=torch.zeros(2)))
    assert share[0, 0] < 0.75 * share[1, 0] and share[0, 0] < share[0, 1]


def test_left_and_right_confused_at_the_start_is_noticed(motion, picture):
    start = mirrored(motion.slice(0, 1))
    assert error_mm(start, motion.slice(0, 1))[0] > 100
    result = fit_motion_map(picture[:1], BODY, start, settings=QUICK)
    assert error_mm(result.motion, motion.slice(0, 1))[0] < 60


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_finds_the_same_motion(motion, picture):
    here, there = (fit_motion_map(picture, body, motion.slice(0, 1)) for body in (BODY, BODY.to("cuda")))
    assert there.motion.rotations.device.type == "cpu" and there.flags == here.flags
    assert error_mm(there.motion, here.motion)[0] < 5
