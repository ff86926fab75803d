"""Comparison of motions, the plot of path and contacts, and the charts below them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.frames import in_frame
from comfyui_comovi.comovi_model.body.mannequin import load_mannequin
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.parts import JOINT_NAMES
from comfyui_comovi.comovi_model.body.rotations import axis_angle_to_matrix
from comfyui_comovi.comovi_model.body.smpl import pose_joints, rest_joints
from comfyui_comovi.comovi_model.body.toy import toy_body
from comfyui_comovi.comovi_model.clean.known_motion import synthetic_motion
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.show.chart import Axes, Page, finite_pieces, padded, plain, runs, ticks
from comfyui_comovi.comovi_model.show.compare import compare_motions, draw_comparison
from comfyui_comovi.comovi_model.show.lettering import LEFT, RIGHT
from comfyui_comovi.comovi_model.show.path_plot import HEIGHT, WIDTH, draw_path_plot, observe_feet

BODY = toy_body()


def standing(frames: int = 6, **changes) -> BodyMotion:
    return replace(
        BodyMotion(torch.eye(3).repeat(frames, 24, 1, 1), torch.zeros(10), torch.zeros(frames, 3), "yup"), **changes
    )


def test_a_shift_is_absolute_error_only():
    moved = standing(transl=torch.tensor([0.03, 0.0, 0.04]).expand(6, 3))
    comparison = compare_motions(standing(), moved, BODY)
    assert comparison.absolute == pytest.approx(np.full(6, 50.0), abs=1e-3)
    assert comparison.aligned == pytest.approx(np.zeros(6), abs=1e-3)
    assert "MPJPE 50.0 mm absolute, 0.0 mm" in comparison.report()[1]


def test_a_turned_elbow_moves_what_hangs_on_it_by_the_right_amount():
    angle = 0.5
    rotations = torch.eye(3).repeat(6, 24, 1, 1)
    rotations[3, 18] = axis_angle_to_matrix(torch.tensor([0.0, angle, 0.0]))  # left elbow, in one frame
    comparison = compare_motions(standing(), standing(rotations=rotations), BODY)
    place = rest_joints(BODY)
    reach = (place[[20, 22]] - place[18])[:, [0, 2]].norm(dim=1) * 1000  # of wrist and hand from the axis
    expected = 2 * np.sin(angle / 2) * reach.numpy()
    moved = {name: value for name, value in zip(JOINT_NAMES, comparison.per_joint, strict=True) if value > 1e-3}
    assert moved == pytest.approx({"left_wrist": expected[0] / 6, "left_hand": expected[1] / 6}, rel=1e-3)
    assert comparison.aligned[3] == pytest.approx(expected.sum() / 24, rel=1e-3)
    assert comparison.degrees[3] == pytest.approx(np.degrees(angle) / 23, rel=1e-3)
    assert "left_hand" in comparison.report()[3]


def test_axes_do_not_matter_and_gaps_are_left_out():
    second = standing(transl=torch.tensor([0.0, 0.1, 0.0]).expand(6, 3), valid=torch.arange(6) != 2)
    comparison = compare_motions(standing(), in_frame(second, BODY, "zup"), BODY)
    assert np.isnan(comparison.absolute[2]) and np.isnan(comparison.aligned[2])
    assert np.nanmean(comparison.absolute) == pytest.approx(100, abs=1e-2)
    assert comparison.report()[0] == "5 of 6 frames compared."
    nothing = compare_motions(standing(valid=torch.zeros(6, dtype=torch.bool)), standing(), BODY)
    assert "no frame" in nothing.report()[0]
    assert draw_comparison(nothing).shape[2] == 3


def test_what_is_compared_is_said():
    with pytest.raises(ComoviError, match="16 and 30 frames"):
        compare_motions(standing(), standing(fps=30.0), BODY)
    notes = compare_motions(standing(), standing(4), BODY).notes
    assert "first 4" in notes[0]
    assert "camera" in compare_motions(standing(), in_frame(standing(), BODY, "camera"), BODY).notes[0]


def test_the_error_curve_is_drawn_where_the_numbers_are():
    """A step from 0 to 100 mm: the red line is low in the first half of the chart and high in the second."""
    path = torch.zeros(40, 3)
    path[20:, 0] = 0.1
    page = draw_comparison(compare_motions(standing(40), standing(40, transl=path), BODY))
    red = (np.abs(page[150:500, 92:900].astype(int) - [0xB3, 0x46, 0x2F]).max(-1) < 40).nonzero()
    early, late = red[0][red[1] < 380], red[0][red[1] > 430]
    solid = np.bincount(late, minlength=350).argmax()
    assert np.median(early) > 150 and solid < 60


def test_contacts_and_footprints_of_a_walk():
    """A synthetic walk: each foot stands for a part of the time, the bars and the soles have the feet's colours."""
    body = load_mannequin()
    motion = synthetic_motion(body, "walk", 3)
    feet = observe_feet(motion, body)
    for side in ("left", "right"):
        assert 0.3 < feet.contact[side].mean() < 0.9
        assert feet.height[side][feet.contact[side]].max() < 0.08
        assert feet.height[side].max() > 0.05
    assert feet.slide < 0.05
    page = draw_path_plot(motion, body, title="walk")
    assert page.shape == (HEIGHT, WIDTH, 3)
    for side, colour, row in (("left", LEFT, 0), ("right", RIGHT, 1)):
        level = 764 + 15 + 30 * row
        bars = np.abs(page[level, 760 : WIDTH - 40].astype(int) - _rgb(colour)).max(-1) < 30
        assert bars.mean() == pytest.approx(feet.contact[side].mean(), abs=0.04)


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_short_and_poseless_motions_are_plotted(frames):
    assert draw_path_plot(standing(frames), BODY).shape == (HEIGHT, WIDTH, 3)
    poseless = standing(frames, valid=torch.zeros(frames, dtype=torch.bool))
    assert draw_path_plot(poseless, BODY).shape == (HEIGHT, WIDTH, 3)


def test_the_person_s_left_is_left_on_the_map():
    """Feet that stand: the left sole is drawn left of the right one, for any heading."""
    for heading in (0.0, 2.0):
        rotations = torch.eye(3).repeat(12, 24, 1, 1)
        rotations[:, 0] = axis_angle_to_matrix(torch.tensor([0.0, heading, 0.0]))
        page = draw_path_plot(standing(12, rotations=rotations), load_mannequin()).astype(int)
        area = page[150:824, 92:640]
        warm, cold = (area[..., 0] - area[..., 2] > 40), (area[..., 2] - area[..., 0] > 40)
        assert warm.nonzero()[1].mean() < cold.nonzero()[1].mean() - 20


def test_ticks_are_round_and_few():
    assert ticks(0, 4, 7) == [0, 1, 2, 3, 4]
    assert ticks(-0.2, 0.31, 3) == pytest.approx([-0.2, 0, 0.2])
    for low, high in ((0, 1e-3), (3, 3), (-5e4, 7e5), (0.0, 1e-12)):
        assert 0 < len(ticks(low, high, 6)) <= 8 or high - low < 1e-9
    assert [plain(v) for v in (-0.0, 0.30000000000000004, 2.0, 1500)] == ["0", "0.3", "2", "1500"]


def test_ranges_and_runs():
    assert padded(np.array([1.0, 3.0]), low=0) == (0, pytest.approx(3.24))
    assert padded(np.array([np.nan, np.nan])) == (pytest.approx(-0.08), pytest.approx(1.08))
    low, high = padded(np.array([5.0, 5.0]), least=2.0)
    assert low <= 4 and high >= 6
    assert finite_pieces(np.array([np.nan, 1, 2, np.nan, 3])) == [slice(1, 3), slice(4, 5)]
    assert runs(np.array([True, False, True, True])) == [(0, 1), (2, 4)]


def test_a_curve_goes_through_its_points_and_stops_at_gaps():
    page = Page(200, 100)
    axes = Axes(page, (0, 0, 200, 100), (0, 10), (0, 1))
    x = np.arange(11.0)
    y = np.where(x == 5, np.nan, 0.5)
    axes.curve(x, y, "#ff0000")
    picture = page.finished()
    red = (picture[..., 0] > 200) & (picture[..., 1] < 120)
    assert red[50, 20] and red[50, 160] and not red[:, 92:108].any()
    assert not red[:45].any() and not red[55:].any()


def test_joints_of_two_bodies_can_be_compared():
    other = replace(BODY, v_template=BODY.v_template * 1.1)
    comparison = compare_motions(standing(), standing(), BODY, other)
    place = rest_joints(BODY)
    expected = 100 * (place - place[0]).norm(dim=1)
    assert comparison.per_joint == pytest.approx(expected.numpy(), rel=1e-3, abs=1e-3)
    assert pose_joints(other, standing().rotations).shape == (6, 24, 3)
