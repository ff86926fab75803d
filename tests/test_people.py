"""Who is in the picture: the record, the choice, and what other nodes say (comovi_model/estimate/people*.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.estimate.people import (
    Person,
    box_overlap,
    check_picture,
    choose_people,
    crowd_note,
    cut_note,
    within_picture,
)
from comfyui_comovi.comovi_model.estimate.people_from import (
    in_every_frame,
    people_from_boxes,
    people_from_keypoints,
    people_from_masks,
    people_from_sam3,
    tracks_from_sam3,
)

SIZE = (100, 200)  # height, width
NAN = float("nan")


def box(x, y, width, height, **more):
    return {"x": x, "y": y, "width": width, "height": height, **more}


def row_of_people(count):
    """Side by side from the left, each wider than the one before; given in another order."""
    people = [Person(np.array([15.0 * i, 10, 15.0 * i + 5 + 0.5 * i, 90])) for i in range(count)]
    return people[count // 2 :] + people[: count // 2]


def rectangle(x0, y0, x1, y1, size=SIZE):
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def standing(x=100.0, top=10.0, height=80.0):
    """(18, 3) keypoints of a person who stands upright and faces the camera."""
    across = (0, 0, -11, -13, -14, 11, 13, 14, -6, -6, -6, 6, 6, 6, -2, 2, -4, 4)
    down = (9, 18, 18, 34, 48, 18, 34, 48, 52, 73, 93, 52, 73, 93, 7, 7, 8, 8)
    return np.stack([x + 0.01 * height * np.array(across), top + 0.01 * height * np.array(down), np.ones(18)], -1)


def pose_record(*people, width=SIZE[1], height=SIZE[0]):
    rows = [{"pose_keypoints_2d": person.flatten().tolist()} for person in people]
    return [{"people": rows, "canvas_width": width, "canvas_height": height}]


# --- the choice


def test_twelve_people_and_each_way_to_choose():
    people = row_of_people(12)
    widths = [person.box[2] - person.box[0] for person in people]
    assert choose_people(people) == [people[int(np.argmax(widths))]]
    assert choose_people(people, "index", index=3) == [people[3]]
    assert choose_people(people, "left to right", index=0)[0].box[0] == 0
    assert choose_people(people, "left to right", index=11)[0].box[0] == 165
    lefts = [person.box[0] for person in choose_people(people, "all")]
    assert lefts == sorted(lefts) and len(lefts) == 12
    assert choose_people(people, "mask", mask=rectangle(60, 10, 68, 90))[0].box[0] == 60
    assert "12 people" in crowd_note(people, people[:1]) and crowd_note(people, people) is None


def test_masks_of_people_count_for_more_than_their_boxes():
    """Two people whose boxes are the same: only their masks tell who is under the given one."""
    diagonal = np.zeros(SIZE, bool)
    rows, columns = np.mgrid[0:80, 0:80]
    upper, lower = diagonal.copy(), diagonal.copy()
    upper[10:90, 10:90], lower[10:90, 10:90] = rows < columns, rows > columns
    people = people_from_masks(np.stack([upper, lower]), SIZE)
    assert choose_people(people, "mask", mask=lower)[0] is people[1]
    assert choose_people(people, "mask", mask=upper)[0] is people[0]


@pytest.mark.parametrize(
    ("people", "how", "sentence"),
    [
        ([], {}, "no person was found"),
        (row_of_people(12), {"choice": "index", "index": 12}, "person 12 is asked for, but 12 people were found"),
        (row_of_people(1), {"choice": "left to right", "index": -1}, "1 person was found"),
        (row_of_people(3), {"choice": "tallest"}, "choose one of largest"),
        (row_of_people(3), {"choice": "mask"}, "needs a mask"),
        (row_of_people(3), {"choice": "mask", "mask": rectangle(190, 0, 200, 9)}, "nobody that was found lies under"),
        (row_of_people(3), {"choice": "mask", "mask": np.zeros(SIZE)}, "the mask is empty"),
    ],
)
def test_a_choice_that_cannot_be_made_is_one_sentence(people, how, sentence):
    with pytest.raises(ComoviError, match=sentence) as refusal:
        choose_people(people, **how)
    assert "\n" not in str(refusal.value)


def test_overlap_of_boxes():
    first = np.array([0, 0, 10, 10.0])
    assert box_overlap(first, first) == 1
    assert box_overlap(first, np.array([5, 0, 15, 10.0])) == pytest.approx(1 / 3)
    assert box_overlap(first, np.array([10, 0, 20, 10.0])) == 0


# --- boxes


@pytest.mark.parametrize(
    "boxes",
    [
        box(10, 20, 30, 40),
        [box(10, 20, 30, 40)],
        [[box(10, 20, 30, 40)]],
        [[], [box(10, 20, 30, 40, label="person", score=0.5), box(0, 0, 9, 9, label="dog")]],
        [10, 20, 40, 60],
        [(10, 20, 40, 60, 0.9)],
        np.array([[10, 20, 40, 60.0]]),
        torch.tensor([10, 20, 40, 60]),
    ],
)
def test_every_form_of_boxes(boxes):
    people = people_from_boxes(boxes, SIZE, frame=1)
    assert [person.box.tolist() for person in people] == [[10, 20, 40, 60]]


def test_a_box_over_the_edge_is_cut_there():
    (person,) = people_from_boxes(box(-10, 50, 60, 80), SIZE)
    assert person.box.tolist() == [0, 50, 50, 100]
    assert "left and lower edge" in cut_note(person, SIZE)


@pytest.mark.parametrize(
    ("boxes", "sentence"),
    [
        (box(NAN, 0, 10, 10), "not finite"),
        (box(0, 0, float("inf"), 10), "not finite"),
        (box(0, 0, 0, 10), "is empty"),
        (box(50, 50, -10, 10), "is empty"),
        (box(300, 10, 50, 50), "outside the picture of 200x100"),
        (box(-60, 10, 50, 50), "outside the picture"),
        ({"x": 1, "y": 2}, "must have x, y, width and height"),
        (box("1", 0, 5, 5), "must be a number"),
        (box([1, 2], 0, 5, 5), "must be a number"),
        ([1, 2, 3], "four numbers"),
        ([[["a"]]], "four numbers"),
        ("1,2,3,4", "must be a list"),
        (7, "must be a list"),
        ([[], []], "detect in all frames"),
        ([box(0, 0, 9, 9)] * 65, "65 boxes"),
        (box(0, 0, 9, 9, label="face"), "none of the 1 boxes is a person; they are labelled face"),
    ],
)
def test_bad_boxes_are_one_sentence(boxes, sentence):
    with pytest.raises(ComoviError, match=sentence) as refusal:
        people_from_boxes(boxes, SIZE, frame=5)
    assert "\n" not in str(refusal.value)


def test_no_boxes_are_nobody():
    assert (
        people_from_boxes([], SIZE) == []
        and people_from_boxes([[]], SIZE) == []
        and people_from_boxes(None, SIZE) == []
    )


# --- masks and tracks


def test_masks_give_boxes():
    masks = torch.zeros(3, *SIZE)
    masks[0, 10:60, 20:50] = 1.0
    masks[2, 0:100, 100:101] = 1.0  # a line
    (person,) = people_from_masks(masks, SIZE)
    assert person.box.tolist() == [20, 10, 50, 60]
    assert person.mask.sum() == 50 * 30


@pytest.mark.parametrize(
    ("masks", "sentence"),
    [
        (np.zeros(SIZE), "the mask is empty"),
        (np.full(SIZE, NAN), "the mask is empty"),
        (np.ones((50, 50)), "the mask is 50x50 pixels and the picture 200x100"),
        (np.ones(7), "masks must be numbers"),
        (np.full(SIZE, "a"), "masks must be numbers"),
        ([np.ones((3, 3)), np.ones((2, 2))], "differ in size"),
        (np.ones((65, *SIZE), bool), "65 masks"),
    ],
)
def test_bad_masks_are_one_sentence(masks, sentence):
    with pytest.raises(ComoviError, match=sentence):
        people_from_masks(masks, SIZE)


def packed(masks):
    """As SAM3 packs them: (..., H, W) bool -> (..., H, W / 8), lowest bit first."""
    return torch.from_numpy(np.packbits(masks, axis=-1, bitorder="little"))


def test_tracks_of_sam3():
    small = np.zeros((2, 2, 50, 80), bool)  # half the height; the width of the picture is not a multiple of it
    small[0, 0, 10:30, 8:40], small[1, 0, 10:30, 16:48] = True, True
    small[1, 1, 20:50, 60:80] = True
    track = {"packed_masks": packed(small), "n_frames": 2, "scores": [0.9, 0.7], "orig_size": SIZE}
    first, second = tracks_from_sam3(track)
    assert [person.box.tolist() for person in first] == [[20, 20, 100, 60], [40, 20, 120, 60]]
    assert second[0] is None and second[1].score == 0.7
    assert second[1].mask.shape == SIZE
    assert len(people_from_sam3(track, SIZE, 0)) == 1 and len(people_from_sam3(track, SIZE, 1)) == 2
    with pytest.raises(ComoviError, match="has 2 frames and frame 2"):
        people_from_sam3(track, SIZE, 2)


@pytest.mark.parametrize(
    ("track", "sentence"),
    [
        ({}, "must hold packed_masks"),
        (None, "must hold packed_masks"),
        ({"packed_masks": None, "n_frames": 4, "scores": []}, "tracked nobody"),
        ({"packed_masks": torch.zeros(3, 3)}, "must be uint8"),
        ({"packed_masks": torch.zeros(1, 65, 4, 4, dtype=torch.uint8)}, "65 objects"),
        ({"packed_masks": torch.zeros(1, 1, 4, 4, dtype=torch.uint8)}, "sees nobody in frame 0"),
    ],
)
def test_bad_tracks_are_one_sentence(track, sentence):
    with pytest.raises(ComoviError, match=sentence):
        people_from_sam3(track, SIZE, 0)


# --- keypoints


def test_keypoints_in_pixels_of_another_canvas_and_as_shares():
    points = standing()
    for scale, canvas in ((1.0, SIZE), (3.0, (300, 600)), (None, SIZE)):
        given = points.copy()
        given[:, :2] *= 1 / np.array([SIZE[1], SIZE[0]]) if scale is None else scale
        (person,) = people_from_keypoints(pose_record(given, width=canvas[1], height=canvas[0]), SIZE)
        assert person.keypoints == pytest.approx(points)
        assert person.box[1] < 10 + 9 and person.box[3] > 84


def test_what_detectors_write_for_points_they_did_not_see():
    points = standing()
    points[4] = (NAN, NAN, 0.9)
    points[7] = (-1, -1, 0)
    points[3, 2] = 1.7  # raw heatmap values may exceed 1
    points[6, 2] = NAN
    (person,) = people_from_keypoints(pose_record(points), SIZE)
    assert person.seen() == 15
    assert person.keypoints[[4, 6, 7]].tolist() == [[0, 0, 0]] * 3
    assert person.keypoints[3, 2] == 1


def test_body_25_loses_its_hip_and_feet():
    points = np.concatenate([standing()[:8], [[100, 52, 1.0]], standing()[8:], np.ones((6, 3))])
    (person,) = people_from_keypoints(pose_record(points), SIZE)
    assert person.keypoints == pytest.approx(standing())


def test_half_a_person_is_taken_with_a_note():
    points = standing(top=40, height=200)
    points[points[:, 1] > 100] = 0
    (person,) = people_from_keypoints(pose_record(points), SIZE)
    assert person.box[3] <= 100
    note = cut_note(person, SIZE)
    assert "arms and legs cannot be seen" in note
    assert cut_note(people_from_keypoints(pose_record(standing()), SIZE)[0], SIZE) is None


@pytest.mark.parametrize(
    ("pose", "sentence"),
    [
        (None, "must be a list of frames"),
        ([], "must be a list of frames"),
        ("x", "must be a list of frames"),
        ([{"animals": []}], 'must hold "people"'),
        ([{"people": 3}], "must be a list"),
        ([{"people": [{"pose_keypoints_2d": [1, 2]}]}], "x, y, confidence of each point"),
        ([{"people": [{"pose_keypoints_2d": "abc"}]}], "x, y, confidence of each point"),
        ([{"people": [{"pose_keypoints_2d": [1.0] * 57}]}], "got 19"),
        ([{"people": [{"pose_keypoints_2d": [0.0] * 54}]}], "two points"),
        ([{"people": [{}], "canvas_width": NAN}], "canvas_width"),
        ([{"people": [{}] * 65}], "65 people"),
        (pose_record(standing() + [1000, 0, 0]), "outside the picture"),
    ],
)
def test_bad_keypoints_are_one_sentence(pose, sentence):
    with pytest.raises(ComoviError, match=sentence) as refusal:
        people_from_keypoints(pose, SIZE)
    assert "\n" not in str(refusal.value)


def test_a_frame_of_a_clip_without_anybody_does_not_cost_the_others():
    """A single point, an empty box, a box outside, another thing than a person: nobody in that frame."""
    lonely = standing()
    lonely[1:] = 0
    clip = [pose_record(one)[0] for one in (standing(), lonely, standing())]
    assert [len(people) for people in in_every_frame(lambda n: people_from_keypoints(clip, SIZE, n), 3)] == [1, 0, 1]
    good, empty, outside = box(10, 10, 50, 80, label="person"), box(0, 0, 0, 0), box(900, 0, 50, 50)
    boxes = [[good], [empty], [outside], [{**good, "label": "dog"}], [], [good]]
    seen = in_every_frame(lambda n: people_from_boxes(boxes, SIZE, n), 6)
    assert [len(people) for people in seen] == [1, 0, 0, 0, 0, 1]
    with pytest.raises(ComoviError, match="two points"):
        in_every_frame(lambda n: people_from_keypoints([clip[1]] * 3, SIZE, n), 3)
    with pytest.raises(ComoviError, match="boxes came for 6 frames and frame 6 is asked for"):
        in_every_frame(lambda n: people_from_boxes(boxes, SIZE, n), 7)


# --- pictures and records


def test_pictures_of_every_kind_become_rgb():
    colour = np.array([10, 200, 90], np.uint8)
    plain = np.tile(colour, (20, 30, 1))
    assert (check_picture(plain) == plain).all()
    assert (check_picture(torch.from_numpy(plain)[None].float() / 255) == plain).all()
    see_through = np.concatenate([plain, np.zeros((20, 30, 1), np.uint8)], -1)
    assert (check_picture(see_through) == 255).all()
    see_through[..., 3] = 255
    assert (check_picture(see_through) == plain).all()
    assert check_picture(plain[..., 0]).shape == (20, 30, 3)


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        (np.zeros((1, 1, 3), np.uint8), "the picture is 1x1 pixels"),
        (np.zeros((0, 9, 3), np.uint8), "9x0 pixels"),
        (np.zeros((20, 20, 2), np.uint8), "3 channels"),
        (np.zeros((2, 20, 20, 3)), "give one picture"),
        (np.full((20, 20, 3), NAN), "not finite"),
    ],
)
def test_bad_pictures_are_one_sentence(picture, sentence):
    with pytest.raises(ComoviError, match=sentence):
        check_picture(picture)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"box": [1, 2, 3]}, "left, top, right, bottom"),
        ({"box": [1, 2, NAN, 3]}, "not finite"),
        ({"box": [0, 0, 9, 9], "mask": np.zeros(4)}, "the mask of a person"),
        ({"box": [0, 0, 9, 9], "keypoints": np.zeros((17, 3))}, "18 rows"),
    ],
)
def test_bad_records_are_refused(fields, sentence):
    with pytest.raises(ComoviError, match=sentence):
        Person(**fields)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ComoviError, match="resize the mask"):
        within_picture(Person(np.array([0, 0, 9, 9]), np.zeros((5, 5))), SIZE)
