"""Keypoints of other detectors become the 18 of OpenPose, or are refused in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.estimate.keypoints import ORDERS, openpose_18

# x of every named point: 10 for the nose, 20s for the person's right, 30s for the left
WANTED = {0: 10, 2: 21, 3: 22, 4: 23, 5: 31, 6: 32, 7: 33, 8: 24, 9: 25, 10: 26, 11: 34, 12: 35, 13: 36, 14: 27, 15: 37,
          16: 28, 17: 38}  # fmt: skip
FOREIGN = {
    "coco_17": [10, 37, 27, 38, 28, 31, 21, 32, 22, 33, 23, 34, 24, 35, 25, 36, 26],
    "body_25": [10, 26, 21, 22, 23, 31, 32, 33, 99, 24, 25, 26, 34, 35, 36, 27, 37, 28, 38, *[99] * 6],
    "mediapipe_33": [10, 99, 37, 99, 99, 27, 99, 38, 28, 99, 99, 31, 21, 32, 22, 33, 23, *[99] * 6, 34, 24, 35, 25, 36,
                     26, *[99] * 4],
}  # fmt: skip


@pytest.mark.parametrize("order", sorted(FOREIGN))
def test_every_point_gets_its_name(order):
    points = np.array([[x, 2.0 * x, 0.9] for x in FOREIGN[order]])
    size = None
    if ORDERS[order].shares:
        points[:, :2] /= 100
        size = (100, 100)
    ours = openpose_18(points, size=size)
    assert {number: round(float(ours[number, 0])) for number in WANTED} == WANTED
    assert ours[1] == pytest.approx([26, 52, 0.9])  # the middle of the shoulders, or BODY_25's own


def test_missing_shoulders_leave_no_neck_and_points_without_confidence_are_seen_unless_zero():
    points = np.full((17, 3), 5.0)
    points[:, 2] = 1
    points[6] = (np.nan, 3, 1)
    ours = openpose_18(points)
    assert (ours[[1, 2]] == 0).all()
    pairs = np.full((18, 2), 7.0)
    pairs[4] = 0
    assert openpose_18(pairs)[:, 2].tolist() == [1.0] * 4 + [0.0] + [1.0] * 13


def test_shares_of_the_picture_become_pixels():
    points = np.full((18, 3), 0.5)
    assert openpose_18(points, size=(200, 100))[0].tolist() == [50.0, 100.0, 0.5]
    assert openpose_18(points.ravel().tolist(), "openpose_18", (200, 100)).shape == (18, 3)


@pytest.mark.parametrize(
    ("points", "order", "size", "says"),
    [
        (np.zeros((133, 3)), None, None, "133 keypoints came"),
        (np.zeros((17, 3)), "body_25", None, "expected 25"),
        (np.zeros((18, 3)), "h36m", None, "orders are"),
        (np.full((33, 4), 0.5), None, None, "height and width are needed"),
        (np.full((18, 3), 1e9), None, None, "pixels"),
        ([["a"]], None, None, "must be numbers"),
        (np.zeros((18, 7)), None, None, "7 numbers"),
        (np.zeros((2, 18, 3)), None, None, "one person"),
    ],
)
def test_what_cannot_be_read_is_refused(points, order, size, says):
    with pytest.raises(ComoviError, match=says):
        openpose_18(points, order, size)
