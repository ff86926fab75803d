"""People of whom too little is seen: left out where others remain, never made up, and counted where somebody counts."""

from __future__ import annotations

from dataclasses import replace

import estimate_parts as parts
import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.estimate.people import Person
from comfyui_comovi.comovi_model.estimate.photo import Sources, estimate_photo, with_camera_of
from comfyui_comovi.comovi_model.estimate.photo_camera import photo_camera
from comfyui_comovi.comovi_model.estimate.sources import with_keypoints
from comfyui_comovi.comovi_model.estimate.video import VideoSettings, assemble, estimate_video

RAW = VideoSettings(way="keypoints", smoothing="none", outliers=False, steady_depth=False)


def scene() -> tuple[np.ndarray, Person, Sources]:
    """An example, its person with every keypoint, and the lens."""
    picture, truth = parts.example("standing")
    camera = photo_camera(picture.shape[:2], focal_px=float(truth.camera.K[0, 0]))
    return picture, parts.true_people(truth)[0], Sources(camera=camera)


def beside(person: Person, x: float, keep: list[int] | None = None) -> Person:
    """The same person x pixels to the right, with these keypoints alone."""
    points = person.keypoints + np.array([x, 0, 0])
    if keep is not None:
        points[[number for number in range(18) if number not in keep]] = 0
    return Person(person.box + [x, 0, x, 0], keypoints=points)


def blank(count: int) -> list[np.ndarray]:
    """Pictures that stand for their size alone, as Fit Keypoints has them."""
    return [np.zeros((768, 512, 3), np.uint8)] * count


# --- no picture, no finder


def test_nobody_is_made_up_where_there_is_no_picture():
    """In this box our finder sees 13 keypoints of a black picture."""
    _, person, sources = scene()
    few = Person(np.array([100.0, 100, 400, 700]), keypoints=beside(person, 0, [2, 5, 8]).keypoints)
    sources = replace(sources, no_picture=True)
    with pytest.raises(ComoviError, match="3 keypoints of the person are seen, at least 5"):
        estimate_video(blank(1), parts.body(), sources, RAW, people=[[few]])
    with pytest.raises(ComoviError, match="in none of 2 frames with the person"):
        estimate_video(blank(2), parts.body(), sources, RAW, people=[[few]] * 2)
    found = estimate_video(blank(3), parts.body(), sources, replace(RAW, longest_gap_seconds=0),
                           people=[[person], [few], [person]])  # fmt: skip
    assert found.motion.valid.tolist() == [True, False, True] and found.people[1] is None
    assert not any("finder" in note for note in found.notes)


def test_what_a_detector_saw_is_kept_where_our_finder_helps():
    picture, person, sources = scene()
    few = beside(person, 0, [2, 5, 8])
    few.keypoints[8, :2] += 40
    (helped,), notes = with_keypoints(picture, [few], replace(sources, people=[few]))
    assert helped.seen() > 8 and np.array_equal(helped.keypoints[[2, 5, 8]], few.keypoints[[2, 5, 8]])
    assert any("our own finder" in note for note in notes)


# --- several people, one of them unusable


def test_whoever_cannot_be_read_is_left_out_of_all_with_a_note():
    picture, person, sources = scene()
    face_only = beside(person, -150, [0, 1, 14, 15, 16, 17])
    half = beside(person, 150, [0, 1, 2, 3, 4, 5, 6, 7, 8, 11])
    found = estimate_photo(picture, parts.body(), replace(sources, people=[half, face_only, person]), choice="all")
    assert [one.person.box[0] for one in found] == [person.box[0], half.box[0]]
    assert all(any("person 0 of 3, counted from 0, was left out: only 0 keypoints" in n for n in one.notes)
               for one in found)  # fmt: skip
    assert [any("legs cannot be seen" in note for note in one.notes) for one in found] == [False, True]
    with pytest.raises(ComoviError, match="only 0 keypoints of shoulders"):
        estimate_photo(picture, parts.body(), replace(sources, people=[face_only] * 2), choice="all")


def test_a_person_outside_the_picture_does_not_cost_the_others():
    picture, person, sources = scene()
    outside = beside(person, 3000)
    (found,) = estimate_photo(picture, parts.body(), replace(sources, people=[outside, person]))
    assert found.person.box[0] == person.box[0]


@pytest.mark.parametrize("choice", ["index", "left to right"])
def test_the_asked_one_is_followed_and_not_the_next_readable(choice):
    _, person, sources = scene()
    weak, other = beside(person, -150, [2, 3, 4]), beside(person, 100)
    clip = [[weak, person, other]] * 2
    found = estimate_video(blank(2), parts.body(), replace(sources, no_picture=True),
                           replace(RAW, choice=choice, index=1), people=clip)  # fmt: skip
    assert found.people[0].box[0] == person.box[0]


def test_the_largest_is_somebody_who_can_be_read():
    _, person, sources = scene()
    stain = Person(np.array([0.0, 0, 512, 768]), keypoints=beside(person, 0, [2, 9, 13]).keypoints)
    found = estimate_video(blank(2), parts.body(), replace(sources, no_picture=True), RAW, people=[[stain, person]] * 2)
    assert found.people[0].box[0] == person.box[0] and bool(found.motion.valid.all())


# --- the lens


def test_the_given_lens_is_used_where_a_pose_came_without_one():
    picture, _, _ = scene()
    truth = replace(parts.example("standing")[1], camera=None)
    given = photo_camera((768, 512), focal_px=3000.0)
    (found,) = estimate_photo(picture, parts.body(), Sources(motion=truth, camera=given))
    assert float(found.motion.camera.K[0, 0]) == 3000 and any("one that was given" in note for note in found.notes)
    assert float(with_camera_of(truth, (768, 512))[0].camera.K[0, 0]) == pytest.approx(np.hypot(768, 512))


# --- what a video says of itself


def test_a_video_counts_the_frames_in_which_our_finder_saw_nobody():
    frames, truth = parts.walk()
    seen = iter([[person] if number != 2 else [] for number, person in enumerate(parts.true_people(truth))])
    steps: list[tuple[int, int]] = []
    sources = Sources(estimator=parts.small_camerahmr(), camera=scene()[2].camera, finder=lambda picture: next(seen))
    found = estimate_video(frames, parts.body(), sources, VideoSettings(smoothing="none"), fps=4.0,
                           on_progress=lambda *step: steps.append(step))  # fmt: skip
    assert "our finder saw nobody in 1 of 5 frames" in found.notes
    assert not any("whole picture" in note for note in found.notes)
    assert steps[-1] == (10, 10)


def test_a_clip_of_one_frame_is_read_as_a_photo():
    picture, _, sources = scene()
    sources = replace(sources, estimator=parts.small_camerahmr(), finder=lambda picture: [])
    found = estimate_video([picture], parts.body(), sources)
    assert any("the whole picture was taken for one person" in note for note in found.notes)
    assert found.people[0].box.tolist() == [0, 0, 512, 768]


def test_of_an_unsure_detector_photo_and_video_say_so():
    picture, person, sources = scene()
    faint = Person(person.box, keypoints=person.keypoints * [1, 1, 0.2])
    (found,) = estimate_photo(picture, parts.body(), replace(sources, people=[faint]))
    assert any("No keypoint is surer than 0.20" in note for note in found.notes)
    video = estimate_video([picture] * 2, parts.body(), sources, RAW, people=[[faint], [person]])
    assert any("no keypoint is surer than 0.3 in 1 frames" in note for note in video.notes)


def test_without_the_lock_a_clip_has_the_shape_of_its_first_frame():
    _, truth = parts.example("standing")
    singles = {number: replace(truth, betas=torch.eye(10)[0] * (3 - number)) for number in range(3)}
    shapes = [float(assemble(singles, 3, parts.body(), 16.0, lock=lock).betas[0]) for lock in (False, True)]
    assert shapes == [3.0, 2.0]
