"""The start of a nano clip: what is drawn, what is cut, and that one body stands in both pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.cameras import Camera, frame_rotation, intrinsics
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.smpl import pose_body
from comfyui_comovi.comovi_model.body.upright import camera_up, levelling
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.nano import start
from comfyui_comovi.comovi_model.nano.actions import ACTION_NAMES, ActionRequest
from comfyui_comovi.comovi_model.nano.draw import draw_clip
from comfyui_comovi.comovi_model.nano.people import load_nano_body
from comfyui_comovi.comovi_model.nano.scene import CLOTHES, HEIGHT, WIDTH, sample_scene

RED_BLUE = "a woman in a red shirt and blue trousers jumps"


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def body_mask(motion_map: np.ndarray) -> np.ndarray:
    return motion_map.min(-1) < 230


def vertices_of(motion: BodyMotion) -> torch.Tensor:
    return pose_body(start._body_model(), motion.rotations, motion.betas, motion.transl).vertices[0]


def median_colour(drawn: start.Start, garment: str, seed: int) -> np.ndarray:
    tints = sample_scene(start.START_SEEDS + seed, load_nano_body(), start.NEUTRAL).look.vertex_tints
    assert garment in tints
    rows = np.flatnonzero(body_mask(drawn.motion_map).any(1))
    low, high = (0.20, 0.32) if garment == "shirt" else (0.55, 0.75)
    top, height = rows[0], rows[-1] - rows[0]
    band = slice(top + int(low * height), top + int(high * height))
    return np.median(drawn.frame[band][body_mask(drawn.motion_map)[band]], axis=0)


def test_a_drawn_start_has_the_size_of_the_model_and_its_body_in_view():
    drawn = start.draw_start(RED_BLUE, 0)
    assert drawn.frame.shape == drawn.motion_map.shape == (HEIGHT, WIDTH, 3)
    assert drawn.frame.dtype == drawn.motion_map.dtype == np.uint8
    assert len(drawn.pose) == 1
    assert drawn.pose.camera is not None
    assert drawn.notices == ()
    rows = np.flatnonzero(body_mask(drawn.motion_map).any(1))
    assert 130 < rows[-1] - rows[0] < 165


def test_the_same_seed_draws_the_same_start_and_another_seed_another():
    one, same, other = (start.draw_start(RED_BLUE, seed) for seed in (4, 4, 5))
    assert np.array_equal(one.frame, same.frame)
    assert torch.equal(one.pose.rotations, same.pose.rotations)
    assert not np.array_equal(one.frame, other.frame)


def test_the_action_of_the_sentence_does_not_show_in_the_start():
    starts = [start.draw_start(f"a man in a red shirt and blue trousers {act}", 1) for act in ("jumps", "kicks left")]
    assert np.array_equal(starts[0].frame, starts[1].frame)
    assert np.array_equal(starts[0].motion_map, starts[1].motion_map)


def test_the_clothes_have_the_colours_of_the_sentence():
    drawn = start.draw_start("a man in a green shirt and purple trousers bows", 3)
    for garment, colour in (("shirt", "green"), ("trousers", "purple")):
        seen = median_colour(drawn, garment, 3) / np.linalg.norm(median_colour(drawn, garment, 3))
        nearest = max(CLOTHES, key=lambda name: float(seen @ CLOTHES[name]) / np.linalg.norm(CLOTHES[name]))
        assert nearest == colour


def test_the_motion_map_is_the_one_that_training_clips_have():
    """Worst difference measured: one grey level, by rounding."""
    body = load_nano_body()
    scene = sample_scene(17, body, ActionRequest(0, "", ""))
    ours = start.draw_nano_map(start.scene_pose(scene))[0]
    theirs = draw_clip(scene, body, slice(0, 1), fast=False).motion_map[0]
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_the_pose_stands_upright_on_the_floor_of_the_world():
    drawn = start.draw_start(RED_BLUE, 2)
    points = vertices_of(drawn.upright(drawn.pose))
    assert abs(float(points[:, 1].min())) < 0.005
    assert 1.6 < float(points[:, 1].max()) < 2.0


@pytest.mark.parametrize("frame", ["camera", "yup", "zup"])
def test_a_given_pose_is_drawn_standing_whatever_its_axes(frame):
    body = load_nano_body()
    scene = sample_scene(9, body, ActionRequest(ACTION_NAMES.index("raise_arms"), "", ""))
    rotations = torch.from_numpy(scene.rotations[20:21]).float()
    turn = frame_rotation("yup", frame)
    rotations[:, 0] = turn @ rotations[:, 0]
    pose = BodyMotion(rotations, torch.zeros(10), torch.full((1, 3), 7.0), frame)
    drawn = start.draw_start(RED_BLUE, 0, pose)
    points = vertices_of(drawn.upright(drawn.pose))
    assert abs(float(points[:, 1].min())) < 1e-3
    assert float(points[:, 1].max()) > 1.95  # the hands are up
    assert body_mask(drawn.motion_map).sum() > 2000


def test_a_pose_that_is_handed_on_keeps_standing(tmp_path):
    """The drawn cameras look down by 1 to 4 degrees, and the file says so: nothing adds up over five runs."""
    pose = start.draw_start(RED_BLUE, 4).pose
    first = levelling(pose) @ pose.rotations[0, 0]
    for seed in range(5):
        pose.save(tmp_path / "pose.npz")
        pose = start.draw_start(RED_BLUE, seed, start.read_first_pose(tmp_path / "pose.npz")).pose
        assert not torch.allclose(camera_up(pose), torch.tensor([0.0, -1.0, 0.0]), atol=0.01)
    assert torch.allclose(levelling(pose) @ pose.rotations[0, 0], first, atol=1e-4)


def test_the_camera_of_a_picture_stands_as_its_pose_says():
    drawn = start.draw_start(RED_BLUE, 4)
    again = start.picture_start(drawn.frame, drawn.pose)
    assert torch.allclose(camera_up(again.pose), camera_up(drawn.pose), atol=1e-5)
    assert np.allclose(again.view.rotation[:, 1], drawn.view.rotation[:, 1], atol=1e-5)
    level = start.picture_start(drawn.frame, replace(drawn.pose, provenance={}))
    assert np.allclose(level.view.rotation[:, 1], [0, -1, 0], atol=1e-6)


def test_a_first_pose_may_have_a_camera_for_every_frame(tmp_path):
    drawn = start.draw_start(RED_BLUE, 6)
    every = replace(drawn.pose, camera=replace(drawn.pose.camera, K=drawn.pose.camera.K[None]))
    every.save(tmp_path / "pose.npz")
    again = start.picture_start(drawn.frame, start.read_first_pose(tmp_path / "pose.npz"))
    assert torch.equal(again.pose.camera.K, drawn.pose.camera.K)


def test_a_motion_of_many_frames_gives_its_first(tmp_path):
    drawn = start.draw_start(RED_BLUE, 0)
    longer = replace(drawn.pose, rotations=drawn.pose.rotations.expand(5, -1, -1, -1),
                     transl=drawn.pose.transl.expand(5, -1), valid=None, source_index=None)  # fmt: skip
    longer.save(tmp_path / "m.npz")
    assert len(start.read_first_pose(tmp_path / "m.npz")) == 1


def test_a_first_frame_and_pose_written_by_a_run_give_the_same_start_again():
    drawn = start.draw_start(RED_BLUE, 6)
    again = start.picture_start(drawn.frame, drawn.pose)
    assert np.array_equal(again.frame, drawn.frame)
    assert np.array_equal(again.motion_map, drawn.motion_map)
    assert torch.equal(again.pose.rotations, drawn.pose.rotations)
    assert again.notices == ()


def test_a_larger_picture_is_cut_to_the_middle_and_its_camera_with_it():
    drawn = start.draw_start(RED_BLUE, 0)
    camera = drawn.pose.camera
    wide = np.full((2 * HEIGHT, 3 * WIDTH, 3), 200, np.uint8)
    wide[:, WIDTH // 2 : WIDTH // 2 + 2 * WIDTH] = drawn.frame.repeat(2, 0).repeat(2, 1)
    doubled = camera.K * torch.tensor([[2.0], [2.0], [1.0]])
    doubled[0, 2] += WIDTH // 2
    pose = replace(drawn.pose, camera=Camera(doubled, 3 * WIDTH, 2 * HEIGHT))
    fitted = start.picture_start(wide, pose)
    assert np.abs(fitted.frame.astype(int) - drawn.frame).mean() < 3
    assert (body_mask(fitted.motion_map) == body_mask(drawn.motion_map)).mean() > 0.999
    assert len(fitted.notices) == 1
    assert "cut to its middle 256x384" in fitted.notices[0]


def test_a_picture_without_a_pose_gets_a_standing_person_and_says_so():
    assumed = start.picture_start(start.draw_start(RED_BLUE, 0).frame, None)
    assert "no first pose was given" in assumed.notices[0]
    columns = np.flatnonzero(body_mask(assumed.motion_map).any(0))
    assert abs((columns[0] + columns[-1]) / 2 - WIDTH / 2) < 3


def test_the_figure_of_the_pose_is_kept_where_it_means_something():
    pose = replace(start.draw_start(RED_BLUE, 0).pose, betas=torch.full((10,), 0.25))
    ours, theirs = (start.draw_start(RED_BLUE, 0, replace(pose, body_model=name)) for name in ("mannequin-v1", "smpl"))
    assert torch.equal(ours.pose.betas, pose.betas)
    assert ours.notices == ()
    assert not theirs.pose.betas.any()
    assert "smpl" in theirs.notices[0]


def test_a_body_outside_the_picture_is_refused():
    pose = replace(start.draw_start(RED_BLUE, 0).pose, transl=torch.tensor([[50.0, 0.0, 9.0]]))
    with pytest.raises(ComoviError, match="covers 0 pixels"):
        start.picture_start(np.zeros((HEIGHT, WIDTH, 3), np.uint8), pose)


def test_a_pose_seen_in_a_picture_of_another_shape_is_refused():
    pose = replace(start.draw_start(RED_BLUE, 0).pose, camera=Camera(intrinsics(700, 320, 240), 640, 480))
    with pytest.raises(ComoviError, match="640x480"):
        start.picture_start(np.zeros((HEIGHT, WIDTH, 3), np.uint8), pose)


@pytest.mark.parametrize("size", [(1, 1), (15, 300), (2000, 20)])
def test_pictures_too_small_or_thin_are_refused(size):
    with pytest.raises(ComoviError, match=f"{size[1]}x{size[0]}"):
        start.fit_picture(np.zeros((*size, 3), np.uint8))
