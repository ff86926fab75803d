"""From a video to a motion: who is followed, one shape, gaps, and the camera that is handed on."""

from __future__ import annotations

import json
from dataclasses import replace

import estimate_parts as parts
import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.cameras import project
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.smpl import pose_joints
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.estimate.command import Wishes, estimate_file
from comfyui_comovi.comovi_model.estimate.people import Person
from comfyui_comovi.comovi_model.estimate.photo import Sources
from comfyui_comovi.comovi_model.estimate.photo_camera import photo_camera
from comfyui_comovi.comovi_model.estimate.tracking import follow_person
from comfyui_comovi.comovi_model.estimate.video import VideoSettings, assemble, estimate_video
from comfyui_comovi.comovi_model.video import read_video, write_video


def person_at(x: float, size: float = 100.0) -> Person:
    return Person(np.array([x, 50.0, x + size, 50 + 2 * size]))


def left_edges(found) -> list[float | None]:
    return [None if person is None else float(person.box[0]) for person in found]


def test_the_same_person_is_followed_where_two_pass_each_other():
    """One goes right by 20 pixels a frame, one left; the order of the boxes changes in every frame."""
    going, coming = [20.0 * frame for frame in range(12)], [230 - 20.0 * frame for frame in range(12)]
    frames = [
        [person_at(x), person_at(y)] if number % 2 else [person_at(y), person_at(x)]
        for number, (x, y) in enumerate(zip(going, coming, strict=True))
    ]
    assert left_edges(follow_person(frames, "left to right", index=0)) == going
    assert left_edges(follow_person(frames, "left to right", index=1)) == coming


def test_a_person_who_was_lost_is_found_again_and_others_are_not_taken_for_them():
    xs = [30.0 * frame for frame in range(10)]
    frames = [[person_at(x)] for x in xs]
    for frame in (4, 5, 6):
        frames[frame] = [person_at(900.0)]
    assert left_edges(follow_person(frames, "index")) == [*xs[:4], None, None, None, *xs[7:]]


def test_the_largest_is_the_largest_of_all_frames():
    frames = [[person_at(0), person_at(400, 60)] for _ in range(4)]
    frames[3][1] = person_at(400, 104)
    assert left_edges(follow_person(frames))[3] == 400
    with pytest.raises(ComoviError, match="no person was found in any frame"):
        follow_person([[], []])
    with pytest.raises(ComoviError, match="motion of one person"):
        follow_person(frames, "all")


def sources(motion, **others) -> Sources:
    size = (motion.camera.height, motion.camera.width)
    return Sources(camera=photo_camera(size, focal_px=float(motion.camera.K[0, 0])), **others)


def test_a_walk_is_read_from_its_keypoints_and_a_gap_is_filled():
    frames, truth = parts.walk()
    people = [[person] for person in parts.true_people(truth)]
    people[2] = []
    settings = VideoSettings(smoothing="none", longest_gap_seconds=0.6, outliers=False)
    steps: list[tuple[int, int]] = []
    found = estimate_video(
        frames, parts.body(), sources(truth), settings, fps=2.0, people=people,
        on_progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    motion = found.motion
    assert len(motion) == len(truth) == 5 and motion.fps == 2.0 and bool(motion.valid.all())
    assert steps[-1][1] == 10 and [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert motion.camera.K.shape == (3, 3) and motion.camera.width == 512
    assert any("4 of 5 frames" in note for note in found.notes)
    pixels = [project(pose_joints(parts.body(), m.rotations, m.betas, m.transl), m.camera.K) for m in (motion, truth)]
    away = (pixels[0] - pixels[1]).norm(dim=-1)
    assert float(away.median()) < 12  # pixels, of a person 590 tall


def test_the_locked_shape_leaves_every_body_as_large_in_the_picture():
    _, truth = parts.example("standing")
    tall, small = torch.zeros(10), torch.zeros(10)
    tall[0], small[0] = 1.5, -1.5
    singles = {number: replace(truth, betas=betas) for number, betas in enumerate((tall, small, torch.zeros(10)))}
    locked = assemble(singles, 4, parts.body(), 16.0)
    assert float(locked.betas.abs().max()) == 0 and locked.valid.tolist() == [True, True, True, False]
    for number, single in singles.items():
        one = locked.slice(number, number + 1)
        heights = []
        for motion in (single, one):
            joints = project(pose_joints(parts.body(), motion.rotations, motion.betas, motion.transl), truth.camera.K)
            heights.append(float(joints[0, :, 1].max() - joints[0, :, 1].min()))
        assert heights[1] == pytest.approx(heights[0], rel=0.03)


def test_crops_of_several_frames_go_through_camerahmr_together():
    frames, truth = parts.walk()
    people = [[person] for person in parts.true_people(truth)]
    estimator = parts.small_camerahmr()
    raw = VideoSettings(smoothing="none", outliers=False, steady_depth=False)
    found, alone = (
        estimate_video(frames, parts.body(), sources(truth, estimator=estimator, chunk=n), raw, fps=4.0, people=people)
        for n in (4, 1)
    )
    assert found.way == "camerahmr" and torch.allclose(found.motion.transl, alone.motion.transl, atol=1e-4)
    (single,) = estimator.estimate(frames[3], [found.people[3].box], float(truth.camera.K[0, 0]))
    assert torch.allclose(found.motion.rotations[3], single.rotations[0], atol=1e-4)


def test_videos_that_cannot_be_read_get_one_sentence():
    frames, truth = parts.walk()
    with pytest.raises(ComoviError, match="people of 2 frames came for a video of 5"):
        estimate_video(frames, parts.body(), people=[[], []])
    with pytest.raises(ComoviError, match="no person was found in any frame"):
        estimate_video(frames, parts.body(), people=[[]] * 5)
    with pytest.raises(ComoviError, match="make no motion here"):
        estimate_video(frames, parts.body(), Sources(motion=truth))


def test_a_stop_in_the_middle_ends_the_work():
    frames, truth = parts.walk()

    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        estimate_video(frames, parts.body(), people=[[p] for p in parts.true_people(truth)], on_progress=stop)


def test_the_command_writes_the_motion_its_maps_and_its_overlay(tmp_path):
    frames, truth = parts.walk()
    film = write_video(tmp_path / "walk.mp4", frames[:2], 2.0)
    detected = parts.pose_keypoint([[person] for person in parts.true_people(truth)[:2]], frames.shape[1:3])
    (tmp_path / "keypoints.json").write_text(json.dumps(detected))
    said: list[str] = []
    wishes = Wishes(
        out=tmp_path / "walk.npz", map=tmp_path / "map.mp4", overlay=tmp_path / "over.mp4",
        keypoints=tmp_path / "keypoints.json", field_of_view=20.0,
    )  # fmt: skip
    estimate_file(film, wishes, said.append)
    motion = BodyMotion.load(tmp_path / "walk.npz")
    assert len(motion) == 2 and motion.fps == pytest.approx(2.0)
    assert float(motion.camera.K[0, 0]) == pytest.approx(384 / np.tan(np.radians(10)), rel=1e-4)
    for name in ("map.mp4", "over.mp4"):
        drawn, fps = read_video(tmp_path / name)
        assert drawn.shape == (2, 768, 512, 3) and fps == pytest.approx(2.0)
    assert any("approximate" in line for line in said)
    with pytest.raises(ComoviError, match="keypoints of 2 frames and the video has 1"):
        estimate_file(film, replace(wishes, frames=1), said.append)
