"""A body before a camera is where one asked for it, and a motion can begin where a pose stands."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from comfyui_comovi.comovi_model.body.before_camera import FILLED, Placement, stand_before_camera, stand_like
from comfyui_comovi.comovi_model.body.body_files import load_nano_body
from comfyui_comovi.comovi_model.body.cameras import Camera, project
from comfyui_comovi.comovi_model.body.frames import in_frame, pelvis_at_rest
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.named_poses import named_pose, turned
from comfyui_comovi.comovi_model.body.smpl import pose_body
from comfyui_comovi.comovi_model.body.upright import camera_up, levelled, with_camera_up
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.nano.start import nano_neutral

CAMERA = Camera.from_fov(40.0, 704, 1280)


@pytest.fixture(scope="module")
def body():
    return load_nano_body()


def walk(frames: int = 9, metres: float = 1.0, heading: float = 0.0, frame: str = "yup") -> BodyMotion:
    """A walking pose that glides; heading 0 is towards +z."""
    turn = turned((("y", heading),))
    rotations = named_pose("walking").repeat(frames, 1, 1, 1)
    rotations[:, 0] = turn @ rotations[:, 0]
    path = torch.linspace(0, metres, frames)[:, None] * (turn @ torch.tensor([0.0, 0.0, 1.0]))
    motion = BodyMotion(rotations, torch.zeros(10), path, "yup", body_model="mannequin-v1")
    return motion if frame == "yup" else in_frame(motion, load_nano_body(), frame)


def seen_box(body, motion: BodyMotion) -> torch.Tensor:
    """left, top, right, bottom as shares of the picture."""
    vertices = pose_body(body, motion.rotations, motion.betas, motion.transl).vertices
    assert float(vertices[..., 2].min()) > 0
    pixels = project(vertices, motion.camera.K) / torch.tensor([motion.camera.width, motion.camera.height])
    return torch.cat([pixels.amin((0, 1)), pixels.amax((0, 1))])


@pytest.mark.parametrize("place", [Placement(3.5), Placement(5.0, 90.0, 0.3, 0.6), Placement(0.0, -30.0)])
def test_the_middle_of_the_body_is_where_it_was_asked_for(body, place):
    one = stand_before_camera(body, walk(1), CAMERA, place)
    box = seen_box(body, one)
    assert torch.allclose((box[:2] + box[2:]) / 2, torch.tensor([place.across, place.down]), atol=2e-3)
    assert (one.frame, one.camera) == ("camera", CAMERA)
    if place.distance:
        pelvis = pose_body(body, one.rotations, one.betas, one.transl).joints[0, 0]
        assert float(pelvis[2]) == pytest.approx(place.distance, abs=1e-4)
    else:
        assert float((box[2:] - box[:2]).max()) == pytest.approx(FILLED, abs=0.01)


def test_a_positive_turn_is_to_the_persons_left(body):
    """Somebody who faces the camera and turns left looks to the right of the picture."""
    one = stand_before_camera(body, walk(1), CAMERA, Placement(3.5, 90.0))
    joints = pose_body(body, one.rotations, one.betas, one.transl).joints[0]
    toes = joints[10] - joints[7]
    assert float(toes[0]) > 0.8 * float(toes.norm())


@pytest.mark.parametrize("frame", ["yup", "zup"])
def test_the_path_is_kept_and_the_automatic_distance_shows_all_of_it(body, frame):
    motion = walk(9, 2.0, 90.0, frame)
    seen = stand_before_camera(body, motion, CAMERA, Placement())
    box = seen_box(body, seen)
    assert float(box.min()) > 0.05 and float(box.max()) < 0.95
    step = seen.transl[-1] - seen.transl[0]
    assert float(step.norm()) == pytest.approx(2.0, abs=1e-4)
    assert float(step[0]) == pytest.approx(2.0, abs=1e-3)  # heading 90 is the person's left: right in the picture


def test_a_motion_begins_where_a_pose_stands(body):
    start = stand_before_camera(body, walk(1), CAMERA, Placement(4.0, 20.0, 0.4, 0.55))
    seen = stand_like(body, walk(9, 1.0, 130.0, "zup"), start)
    assert torch.allclose(seen.transl[0], start.transl[0], atol=1e-4)
    assert torch.allclose(seen.rotations[0], start.rotations[0], atol=1e-5)
    assert seen.camera is CAMERA
    assert float((seen.transl[-1] - seen.transl[0]).norm()) == pytest.approx(1.0, abs=1e-4)


def test_the_camera_of_a_first_frame_is_that_of_all_frames(body):
    start = stand_before_camera(body, walk(1), CAMERA, Placement(4.0))
    moving = replace(start, camera=replace(CAMERA, K=CAMERA.K[None]))
    assert torch.equal(stand_like(body, walk(5), moving).camera.K, CAMERA.K)


def test_a_slightly_tilted_camera_tilts_the_motion_and_another_pose_does_not(body):
    start = stand_before_camera(body, walk(1), CAMERA, Placement(4.0))
    down = turned((("x", -3.0),))
    tilted = start.moved(down, torch.zeros(3), pelvis_at_rest(body, start))
    seen = stand_like(body, walk(5), tilted)
    assert torch.allclose(seen.rotations[0, 0], tilted.rotations[0, 0], atol=1e-5)
    lying = start.moved(turned((("x", 70.0),)), torch.zeros(3), pelvis_at_rest(body, start))
    upright = stand_like(body, walk(5), lying)
    assert float(upright.rotations[0, 0][1, 1]) < -0.9  # the body's up is the picture's up


def test_the_direction_of_up_is_used_and_handed_on(body):
    """A camera that looks down by 20 degrees, and says so: the motion stands upright in the room, not in the camera."""
    up = turned((("x", -20.0),)) @ torch.tensor([0.0, -1.0, 0.0])
    level = stand_before_camera(body, walk(1), CAMERA, Placement(4.0))
    start = with_camera_up(level.moved(turned((("x", -20.0),)), torch.zeros(3), pelvis_at_rest(body, level)), up)
    other = replace(walk(5), rotations=named_pose("arms raised").repeat(5, 1, 1, 1))
    seen = stand_like(body, other, start)
    assert torch.allclose(camera_up(seen), up, atol=1e-5)
    assert torch.allclose(seen.rotations[0, 0] @ torch.tensor([0.0, 1.0, 0.0]), up, atol=1e-5)
    step = seen.transl[-1] - seen.transl[0]
    assert abs(float(step @ up)) < 1e-4 and float(step.norm()) == pytest.approx(1.0, abs=1e-4)
    again = stand_before_camera(body, seen, CAMERA, Placement(4.0))  # a level camera; the old direction is forgotten
    assert camera_up(again).tolist() == [0.0, -1.0, 0.0]
    assert torch.allclose(again.rotations[0, 0] @ torch.tensor([0.0, 1.0, 0.0]), camera_up(again), atol=1e-5)


def test_the_nano_stance_can_be_turned_and_knows_its_camera(body):
    front, left = nano_neutral(), nano_neutral(90.0)
    for pose in (front, left):
        box = seen_box(body, pose)
        assert 0.4 < float((box[0] + box[2]) / 2) < 0.6 and 0.05 < float(box[1]) < float(box[3]) < 0.99
    up = camera_up(front)
    assert 0.01 < float(up[2].abs()) < 0.06  # it looks down two degrees
    toes = pose_body(body, left.rotations, left.betas, left.transl).joints[0]
    assert float(toes[10, 0] - toes[7, 0]) > 0.05  # left of the person is right in the picture
    stood = levelled(front, body)
    assert float((stood.rotations[0, 0] - torch.eye(3)).abs().max()) < 1e-4


def test_bad_wishes_are_sentences(body):
    with pytest.raises(ComoviError, match=r"0.3 to 100 metres, got 0.1"):
        stand_before_camera(body, walk(1), CAMERA, Placement(0.1))
    with pytest.raises(ComoviError, match="start pose must be in the camera frame"):
        stand_like(body, walk(3), walk(1))


def test_a_camera_that_looks_down_is_levelled(body):
    """The nano camera is 1.4 m high and looks at 1.07 m: without the direction of up a walk would climb."""
    motion = walk(5, 2.0)
    pitch = math.radians(8)
    tilt = turned((("x", -8.0),))
    seen = stand_before_camera(body, motion, CAMERA, Placement(4.0)).moved(
        tilt, torch.zeros(3), pelvis_at_rest(body, motion)
    )
    told = with_camera_up(seen, tilt @ torch.tensor([0.0, -1.0, 0.0]))
    for known, climb in ((told, 0.0), (seen, 2.0 * math.sin(pitch))):
        stood = levelled(known, body)
        assert (stood.frame, stood.camera) == ("yup", None)
        assert abs(float(stood.transl[-1, 1] - stood.transl[0, 1])) == pytest.approx(climb, abs=1e-3)
    assert levelled(motion, body) is motion


@pytest.mark.parametrize("value", ["up", [0, 0, 0], [1, 2], [float("nan"), 0, 1], None, [1, "x", 2], [10**400, 0, 0]])
def test_what_a_file_says_about_up_is_not_trusted(body, value):
    motion = replace(stand_before_camera(body, walk(1), CAMERA, Placement(4.0)), provenance={"camera_up": value})
    assert camera_up(motion).tolist() == [0.0, -1.0, 0.0]


@pytest.mark.parametrize("up", [(0.0, 1.0, 0.0), (0.001, 1.0, 0.0), (0.0, 0.9, 0.436)])
def test_a_camera_held_upside_down_is_levelled_too(body, up):
    up = torch.nn.functional.normalize(torch.tensor(up), dim=0)
    seen = with_camera_up(stand_before_camera(body, walk(2), CAMERA, Placement(4.0)), up)
    turn = levelled(seen, body).rotations[0, 0] @ seen.rotations[0, 0].T
    assert torch.allclose(turn @ camera_up(seen), torch.tensor([0.0, 1.0, 0.0]), atol=1e-3)
    assert float(torch.linalg.det(turn)) == pytest.approx(1, abs=1e-4)
