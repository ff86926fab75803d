"""What detectors write besides people: unsure points, empty entries, masks of every frame (estimate/people_from.py)."""

from __future__ import annotations

from dataclasses import replace

import estimate_parts as parts
import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.estimate.people import Person, all_within, choose_people, within_picture
from comfyui_comovi.comovi_model.estimate.people_from import (
    people_from_boxes,
    people_from_keypoints,
    people_from_masks,
    tracks_from_sam3,
)

NAN = float("nan")


def standing() -> tuple[Person, tuple[int, int]]:
    """The person of an example with every point seen for certain, and the picture's size."""
    picture, truth = parts.example("standing")
    return parts.true_people(truth)[0], picture.shape[:2]


def unsure(person: Person, points: list[int], confidence: float, place: tuple[float, float] = (3.0, 3.0)) -> Person:
    """The same person with some points elsewhere and of another confidence."""
    keypoints = person.keypoints.copy()
    keypoints[points] = (*place, confidence)
    return replace(person, keypoints=keypoints)


# --- keypoints that are not sure


@pytest.mark.parametrize("confidence", [0.02, 0.2, 0.29])
def test_points_that_sdpose_writes_for_hidden_joints_count_as_not_seen(confidence):
    """Knees and ankles in the corner of the picture: without them the box ends at the hips."""
    person, size = standing()
    hidden = [9, 10, 12, 13]
    (low,) = people_from_keypoints(parts.pose_keypoint([[unsure(person, hidden, confidence)]], size), size)
    (gone,) = people_from_keypoints(parts.pose_keypoint([[unsure(person, hidden, 0)]], size), size)
    assert low.seen() == 14 and np.array_equal(low.keypoints, gone.keypoints)
    assert low.box.tolist() == gone.box.tolist() and low.box[1] > 20
    (kept,) = people_from_keypoints(parts.pose_keypoint([[unsure(person, hidden, 0.3)]], size), size)
    assert kept.seen() == 18


def test_of_a_person_without_a_sure_point_the_surer_half_is_taken():
    person, size = standing()
    faint = person.keypoints.copy()
    faint[:, 2] = 0.2
    faint[[3, 4], 2] = 0.09
    people = people_from_keypoints(parts.pose_keypoint([[replace(person, keypoints=faint)]], size), size)
    assert people[0].seen() == 16 and not people[0].keypoints[[3, 4]].any()


# --- one bad entry among good ones


def test_an_unusable_entry_leaves_the_others():
    person, size = standing()
    good = [200, 100, 300, 700]
    for bad in ([0, 0, 0, 0], [NAN, 0, 9, 9], [900, 0, 950, 90]):
        assert [one.box.tolist() for one in people_from_boxes([bad, good], size)] == [good]
    for x in (2000, 2e6):
        away = person.keypoints + np.array([x, 0, 0])
        record = parts.pose_keypoint([[Person(person.box, keypoints=away), person]], size)
        assert len(people_from_keypoints(record, size)) == 1
    outside = Person(person.box + 2000)
    assert len(all_within([outside, person], size)) == 1
    with pytest.raises(ComoviError, match="outside the picture"):
        all_within([outside], size)


@pytest.mark.parametrize(
    ("boxes", "sentence"),
    [
        ([[0, 0, 0, 0], [900, 0, 950, 90]], "is empty"),
        ([[900, 0, 950, 90], [NAN, 0, 9, 9]], "outside the picture"),
        ([[NAN, 0, 9, 9]], "not finite"),
        ([[10, 10, 90, 90], [1, 2, 3]], "four numbers"),
    ],
)
def test_where_nobody_remains_the_first_entry_says_why_and_what_is_no_box_is_refused(boxes, sentence):
    with pytest.raises(ComoviError, match=sentence):
        people_from_boxes(boxes, (768, 512))


# --- masks


def track(frames: int, height: int = 36, width: int = 64) -> dict:
    """Two people of SAM3; the first in a rectangle that moves, the second on the diagonal of the whole."""
    masks = np.zeros((frames, 2, height, width), bool)
    for frame in range(frames):
        masks[frame, 0, 5:30, 10 + frame % 20 : 20 + frame % 20] = True
    masks[:, 1] = np.eye(height, width, dtype=bool)
    return {"packed_masks": torch.from_numpy(np.packbits(masks, axis=-1, bitorder="little")), "scores": [0.9, 0.8]}


def test_masks_of_a_track_stay_small_until_they_are_looked_at():
    """20 frames of 1920 x 1080 would be 83 MB of masks."""
    size, given = (1080, 1920), track(20)
    tracks = tracks_from_sam3(given, size)
    for person in (tracks[0][0], within_picture(tracks[0][0], size)):
        assert np.shares_memory(person.mask.packed, given["packed_masks"].numpy())
    whole = [np.asarray(row[3].mask) for row in tracks]
    for mask, row in zip(whole, tracks, strict=True):
        assert mask.shape == size and mask.dtype == bool
        (same,) = people_from_masks(mask, size)
        assert same.box.tolist() == row[3].box.tolist()
    assert whole[0].sum() == 25 * 10 * 30**2
    people = [row[3] for row in tracks]
    assert choose_people(people, "mask", mask=whole[0]) == [people[0]]
    assert choose_people(people, "mask", mask=whole[1]) == [people[1]]


def test_a_mask_of_a_person_is_not_copied():
    mask = np.zeros((40, 40), bool)
    mask[5:30, 10:20] = True
    (person,) = people_from_masks(mask, (40, 40))
    assert np.shares_memory(within_picture(person, (40, 40)).mask, person.mask)
