"""The stage, the cameras round it and the sheet of poses: who is seen where, and nobody is cut off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.rotations import axis_angle_to_matrix
from comfyui_comovi.comovi_model.body.toy import toy_body
from comfyui_comovi.comovi_model.body.upright import with_camera_up
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.show.painter import Painter
from comfyui_comovi.comovi_model.show.sheet import _stations, chosen_frames, draw_sheet
from comfyui_comovi.comovi_model.show.stage import cast_shadows, draw_floor, draw_scene, orbit_view
from comfyui_comovi.comovi_model.show.standing import stand
from comfyui_comovi.comovi_model.show.turntable import VIEWS, camera_targets, fitting_distance, iter_views

BODY = toy_body()
SIZE = 96


def walking(frames: int = 9, metres: float = 2.0, heading: float = 0.0) -> BodyMotion:
    """Glides `metres` straight ahead, looking there; heading in degrees about y."""
    turn = axis_angle_to_matrix(torch.tensor([0.0, np.radians(heading), 0.0]))
    rotations = torch.eye(3).repeat(frames, 24, 1, 1)
    rotations[:, 0] = turn
    path = torch.linspace(0, metres, frames)[:, None] * turn[:, 2]
    return BodyMotion(rotations, torch.zeros(10), path, "yup")


def whole(standing) -> torch.Tensor:
    """(F, V, 3)"""
    return standing.vertices(range(len(standing.motion)))


def body_pixels(picture: torch.Tensor) -> torch.Tensor:
    """(H, W) bool: the blue of the clay, which floor, shadow and backdrop do not have."""
    return picture[..., 2] - picture[..., 0] > 0.1


def test_a_camera_on_its_orbit_looks_at_the_target_from_where_it_was_asked():
    target = torch.tensor([0.3, 0.9, -0.2])
    for azimuth, axis in ((0, [0, 0, 1]), (90, [1, 0, 0]), (180, [0, 0, -1]), (270, [-1, 0, 0])):
        view = orbit_view(target, azimuth, 0, 4.0, 30, 60, 80)
        assert torch.allclose(view.position - target, 4.0 * torch.tensor(axis).float(), atol=1e-5)
        assert torch.allclose(view.project(target), torch.tensor([40.0, 30.0]), atol=1e-3)
        assert view.project(target + torch.tensor([0.0, 0.1, 0.0]))[1] < 30  # up is up
        assert torch.linalg.det(view.rotation) == pytest.approx(1, abs=1e-5)
    above = orbit_view(target, 0, 60, 4.0, 30, 60, 80)
    edge = target + 4.0 * torch.tan(torch.deg2rad(torch.tensor(15.0))) * above.rotation[1]
    assert above.project(edge)[1] == pytest.approx(60, abs=1e-2)  # the field of view ends at the lower border


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("heading", [0.0, 130.0])
def test_the_whole_body_stays_in_every_picture(view, heading):
    pictures = list(iter_views(walking(5, heading=heading), BODY, SIZE, SIZE, view=view, captions=False))
    assert len(pictures) == 5
    for picture in pictures:
        seen = body_pixels(picture)
        assert seen.any()
        assert not (seen[0].any() or seen[-1].any() or seen[:, 0].any() or seen[:, -1].any())
    height = max(int(body_pixels(p).any(1).sum()) for p in pictures)
    width = max(int(body_pixels(p).any(0).sum()) for p in pictures)
    assert max(height, width) > 0.6 * SIZE  # and is not lost in it


def test_sides_are_the_person_s_own():
    """The toy lifts its left arm: seen from the front it is at the right of the picture, from behind at the left."""
    motion = walking(1, heading=75.0)
    rotations = motion.rotations.clone()
    rotations[:, 17] = axis_angle_to_matrix(torch.tensor([0.0, 0.0, 1.2]))  # the right arm hangs
    motion = replace(motion, rotations=rotations)

    def widest_side(view: str) -> float:
        seen = body_pixels(next(iter_views(motion, BODY, SIZE, SIZE, view=view, captions=False)))
        columns = seen.nonzero()[:, 1].float()
        return float(columns.max() + columns.min()) / 2 - float(columns.median())

    assert widest_side("front") > 3
    assert widest_side("back") < -3


def test_the_turntable_goes_round_as_often_as_asked():
    still = walking(8, metres=0.0)
    once = list(iter_views(still, BODY, SIZE, SIZE, turns=1.0, captions=False))
    front, side, back = (
        next(iter_views(still, BODY, SIZE, SIZE, view=v, captions=False)) for v in ("front", "left side", "back")
    )

    def overlap(a, b):
        a, b = body_pixels(a), body_pixels(b)
        rows, columns = (a.any(1).sum() / b.any(1).sum(), a.any(0).sum() / b.any(0).sum())
        return max(abs(1 - rows), abs(1 - columns))

    assert overlap(once[0], front) < 0.2 and overlap(once[2], side) < 0.2 and overlap(once[4], back) < 0.2
    assert overlap(once[2], front) > 0.2
    backward = list(iter_views(still, BODY, SIZE, SIZE, turns=-1.0, captions=False))
    assert torch.allclose(backward[2], once[6], atol=0.02)


def test_the_camera_follows_who_walks_and_stands_for_who_does_not():
    standing = stand(walking(33, metres=4.0), BODY)
    followed, fixed = camera_targets(standing, True), camera_targets(standing, False)
    pelvis = standing.joints[:, 0]
    assert (followed - pelvis)[:, [0, 2]].norm(dim=1).max() < 1e-3
    assert torch.equal(fixed[0], fixed[-1])
    assert torch.equal(*(camera_targets(stand(walking(9, metres=0.4), BODY), f) for f in (True, False)))


def test_a_motion_stands_level_on_the_floor_and_faces_the_viewer():
    for heading in (0.0, 110.0):
        standing = stand(walking(9, heading=heading), BODY)
        assert standing.low[1] == pytest.approx(0, abs=1e-5)
        assert torch.equal(torch.stack(list(standing.each())), whole(standing))
        assert torch.allclose(standing.motion.rotations[0, 0], torch.eye(3), atol=1e-5)
        assert standing.joints[-1, 0, 2] - standing.joints[0, 0, 2] == pytest.approx(2.0, abs=1e-4)
        assert standing.joints[0, 0, [0, 2]].norm() < 1e-5
    # The same walk from a camera that looks down by 20 degrees, and says so.
    world = walking(9)
    look = axis_angle_to_matrix(torch.tensor([np.radians(160.0), 0, 0])).float()
    pelvis = stand(world, BODY).joints[0, 0] - stand(world, BODY).motion.transl[0]
    camera = replace(world.moved(look, torch.tensor([0, 0, 5.0]), pelvis), frame="camera",
                     camera=Camera.from_focal(100, 64, 64))  # fmt: skip
    told = stand(with_camera_up(camera, look[:, 1]), BODY)
    assert (whole(told) - whole(stand(world, BODY))).abs().max() < 1e-4
    assert (whole(stand(camera, BODY)) - whole(stand(world, BODY))).abs().max() > 0.3


def test_shadows_lie_under_the_body_and_fade_when_it_jumps():
    vertices = whole(stand(walking(1), BODY))
    shadows = cast_shadows(BODY, vertices)
    sole = vertices[0][vertices[0, :, 1] < 0.03][:, [0, 2]].mean(0)
    far = sole + torch.tensor([3.0, 3.0])
    under, beside = shadows.at(torch.stack([sole, far])[None])[0]
    assert 0.03 < under <= 1 and beside == 0  # the feet of the toy are small
    jumped = cast_shadows(BODY, vertices + torch.tensor([0.0, 0.6, 0.0])).at(sole[None, None])[0, 0]
    assert jumped < 0.5 * under
    ghost = cast_shadows(BODY, vertices, [0.3]).at(sole[None, None])[0, 0]
    assert ghost == pytest.approx(0.3 * float(under), rel=0.01)


def test_lines_on_the_floor_are_half_a_metre_apart():
    view = orbit_view(torch.zeros(3), 0, 89.9, 5.0, 30, 200, 200)
    floor = draw_floor(view, torch.zeros(3))
    row = floor[100 + 7].mean(-1)  # beside the line z = 0
    dark = (row < row.median() - 0.02).nonzero()[:, 0].float() + 0.5
    expected = view.project(torch.tensor([[n * 0.5, 0.0, 0.0] for n in range(-2, 3)]))[:, 0]
    assert all((dark - place).abs().min() < 1.5 for place in expected)
    assert all((expected - place).abs().min() < 2.5 for place in dark)


def test_ghosts_let_the_floor_through_and_the_nearer_body_hides_the_farther():
    one = whole(stand(walking(1, 0.0), BODY))
    view = orbit_view(torch.tensor([0.0, 0.8, 0.0]), 0, 0, 6.0, 30, SIZE, SIZE)
    painter = Painter(BODY)
    solid = draw_scene(painter, one, view, torch.zeros(3))
    ghost = draw_scene(painter, one, view, torch.zeros(3), [0.3])
    empty = draw_floor(view, torch.zeros(3))
    core = body_pixels(solid)
    assert torch.allclose(ghost[core], 0.3 * solid[core] + 0.7 * empty[core], atol=0.1)
    pair = torch.cat([one + torch.tensor([0.0, 0, 1.0]), one - torch.tensor([0.0, 0, 1.0])])
    both, swapped = (draw_scene(painter, p, view, torch.zeros(3)) for p in (pair, pair.flip(0)))
    assert torch.allclose(both, swapped, atol=1e-6)


def test_placeholders_are_grey():
    motion = replace(walking(2, 0.0), valid=torch.tensor([True, False]))
    first, second = iter_views(motion, BODY, SIZE, SIZE, view="front", captions=False)
    assert body_pixels(first).any() and not body_pixels(second).any()
    assert (second - draw_floor(orbit_view(torch.zeros(3), 0, 8, 5, 26, SIZE, SIZE), torch.zeros(3))).abs().max() > 0.1


def test_captions_are_in_the_lower_left_corner_only():
    plain, told = (next(iter_views(walking(2), BODY, SIZE, SIZE, captions=c)) for c in (False, True))
    changed = ((plain - told).abs() > 0.02).any(-1).nonzero()
    assert len(changed) and changed[:, 0].min() > 0.7 * SIZE and changed[:, 1].max() < 0.9 * SIZE


@pytest.mark.parametrize(
    ("change", "message"),
    [({"view": "below"}, "turntable, front"), ({"style": "glass"}, "solid"), ({"turns": float("nan")}, "turns"),
     ({"height": 8}, "32 to 8192"), ({"width": 100_000}, "32 to 8192")],
)  # fmt: skip
def test_impossible_views_are_refused(change, message):
    arguments = {"height": SIZE, "width": SIZE, **change}
    with pytest.raises(ComoviError, match=message):
        next(iter_views(walking(2), BODY, **arguments))


def test_fitting_distance_is_where_the_margin_just_holds():
    vertices = whole(stand(walking(3), BODY))
    targets = camera_targets(stand(walking(3), BODY))

    def cameras(distance):
        return [orbit_view(t, 30.0, 10, distance, 26, 100, 60) for t in targets]

    distance = fitting_distance(vertices, cameras(1.0), 1.0)
    seen = torch.stack([c.project(v) for c, v in zip(cameras(distance), vertices, strict=True)])
    share = (seen / torch.tensor([60.0, 100.0]) - 0.5).abs().max() * 2
    assert share == pytest.approx(1.0, abs=1e-3)


def test_the_sheet_shows_ghosts_of_who_walks_and_a_row_of_who_does_not():
    walk, place = stand(walking(41, 3.0), BODY), stand(walking(41, 0.2), BODY)
    frames = _stations(walk, 8)
    path = walk.joints[frames, 0, 2]
    assert frames[0] == 0 and frames[-1] == 40 and len(frames) == 8
    assert (path.diff() - path.diff().mean()).abs().max() < 0.08  # frames are 0.075 m apart
    assert _stations(place, 8) == []
    gaps = torch.ones(41, dtype=torch.bool)
    gaps[:5] = gaps[20] = False
    shown = chosen_frames(stand(replace(walking(41), valid=gaps), BODY), 8)
    assert shown[0] == 5 and shown[-1] == 40 and 20 not in shown and shown == sorted(shown)
    for motion in (walking(41, 3.0), walking(1), replace(walking(3), valid=torch.zeros(3, dtype=torch.bool))):
        page = draw_sheet(motion, BODY, title="a title", poses=3, width=480)
        assert page.dtype == np.uint8 and page.shape[1:] == (480, 3) and page.std() > 10
    with pytest.raises(ComoviError, match="2 to 24"):
        draw_sheet(walking(), BODY, poses=1)
    with pytest.raises(ComoviError, match="480 to 4096"):
        draw_sheet(walking(), BODY, width=100)
