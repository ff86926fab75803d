"""The motion map of a whole body: normals, streaming, cameras, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.map_colours import decode_map, silhouette
from comfyui_comovi.comovi_model.body.map_render import (
    draw_map,
    iter_motion_map,
    map_colours_at,
    render_motion_map,
    vertex_normals,
    visible_body,
)
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.parts import PART_NAMES
from comfyui_comovi.comovi_model.body.rotations import axis_angle_to_matrix
from comfyui_comovi.comovi_model.body.smpl import pose_body
from comfyui_comovi.comovi_model.body.toy import random_rotations, toy_body, uv_sphere
from comfyui_comovi.comovi_model.errors import ComoviError

HEIGHT, WIDTH = 96, 64


def standing(frames: int = 5) -> BodyMotion:
    """A toy person in front of the camera, upright in the picture."""
    rotations = random_rotations(frames, 24, angle=0.2)
    rotations[:, 0] = axis_angle_to_matrix(torch.tensor([torch.pi, 0.0, 0.0]))
    transl = torch.tensor([0.0, -0.3, 4.0]) + 0.05 * torch.arange(frames)[:, None]
    return BodyMotion(rotations, torch.zeros(10), transl, camera=Camera.from_focal(170.0, WIDTH, HEIGHT))


def test_normals_of_a_sphere_point_outward_from_its_centre():
    vertices, faces = uv_sphere(40, 80)
    normals = vertex_normals(vertices.expand(3, -1, -1), faces)
    assert (normals - vertices).abs().max() < 2e-2  # largest at the poles, where triangles are slivers
    assert torch.allclose(normals.norm(dim=-1), torch.ones(3, len(vertices)))


def test_normals_turn_with_the_body():
    vertices, faces = uv_sphere(8, 9)
    turn = random_rotations(1)[0]
    assert torch.allclose(
        vertex_normals((vertices @ turn.T)[None], faces), vertex_normals(vertices[None], faces) @ turn.T, atol=1e-5
    )


def test_the_map_decodes_to_the_silhouette_and_parts_that_were_drawn():
    model, motion = toy_body(segments=16), standing(2)
    picture = render_motion_map(model, motion, HEIGHT, WIDTH)
    pixels = visible_body(
        model, pose_body(model, motion.rotations, None, motion.transl).vertices, motion.camera.K, HEIGHT, WIDTH
    )
    assert torch.equal(silhouette(picture), pixels.mask())
    decoded = decode_map(picture, motion.camera.K, motion.transl[:, 2], robust=False)
    corner_parts = model.part_of_vertex[model.faces]  # (N, 3)
    pure = (corner_parts == corner_parts[:, :1]).all(1)[pixels.face]
    agree = decoded.parts.view(-1)[pixels.index][pure] == corner_parts[pixels.face[pure], 0]
    assert agree.float().mean() > 0.7  # many pixels of these small balls are rims, where codes blend


def test_an_upright_person_has_the_head_above_the_feet_and_the_left_hand_on_the_right():
    model, motion = toy_body(), replace(standing(1), rotations=torch.eye(3).repeat(1, 24, 1, 1))
    upright = motion.rotations.clone()
    upright[:, 0] = axis_angle_to_matrix(torch.tensor([torch.pi, 0.0, 0.0]))
    motion = replace(motion, rotations=upright)
    decoded = decode_map(render_motion_map(model, motion, HEIGHT, WIDTH), motion.camera.K, 4.0, robust=False)

    def place(name):
        return (decoded.parts[0] == PART_NAMES.index(name)).nonzero().float().mean(0)

    assert place("head")[0] < place("leftFoot")[0]
    assert place("leftHand")[1] > WIDTH / 2 > place("rightHand")[1]  # facing the camera


@pytest.mark.parametrize("shading", ["phong_reference", "flat"])
def test_groups_of_frames_give_the_same_map_and_report_progress(monkeypatch, shading):
    from comfyui_comovi.comovi_model.body import map_render

    model, motion = toy_body(), standing(5)
    whole = render_motion_map(model, motion, HEIGHT, WIDTH, shading)
    monkeypatch.setattr(map_render, "PIXELS_AT_ONCE", 2 * (HEIGHT * WIDTH + 8 * len(model.v_template)))
    calls = []
    drawing = iter_motion_map(model, motion, HEIGHT, WIDTH, shading, lambda *done: calls.append(done))
    groups = [group.clone() for group in drawing]
    assert [len(group) for group in groups] == [2, 2, 1]
    assert calls == [(2, 5), (4, 5), (5, 5)]
    assert torch.allclose(torch.cat(groups), whole, atol=1e-6)
    assert torch.allclose(render_motion_map(model, motion, HEIGHT, WIDTH, shading), whole, atol=1e-6)


def test_an_exception_in_progress_ends_the_drawing():
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_motion_map(toy_body(), standing(2), HEIGHT, WIDTH, progress=stop)


def test_skipping_back_faces_of_a_closed_body_changes_no_pixel():
    model, motion = toy_body(), standing(3)
    open_model = replace(model, closed=False)
    assert torch.equal(render_motion_map(model, motion, 64, 48), render_motion_map(open_model, motion, 64, 48))


def test_the_camera_follows_the_size_of_the_picture():
    model, motion = toy_body(), standing(1)
    small = render_motion_map(model, motion, HEIGHT, WIDTH)
    large = render_motion_map(model, motion, 2 * HEIGHT, 2 * WIDTH)
    area = silhouette(large).sum() / silhouette(small).sum()
    assert area.item() == pytest.approx(4, rel=0.05)
    assert motion.camera.resized(2 * WIDTH, 2 * HEIGHT).K[0, 2] == WIDTH


def test_colours_of_found_pixels_can_be_computed_apart():
    model, motion = toy_body(), standing(2)
    vertices = pose_body(model, motion.rotations, None, motion.transl).vertices
    pixels = visible_body(model, vertices, motion.camera.K, HEIGHT, WIDTH)
    values = map_colours_at(pixels, model, vertices, normals=vertex_normals(vertices, model.faces))
    assert torch.equal(pixels.image(values, 1.0), draw_map(model, vertices, motion.camera.K, HEIGHT, WIDTH))


def test_motions_without_a_camera_or_in_another_frame_are_refused():
    model, motion = toy_body(), standing(1)
    with pytest.raises(ComoviError, match="camera frame"):
        render_motion_map(model, replace(motion, frame="yup"), HEIGHT, WIDTH)
    with pytest.raises(ComoviError, match="needs a camera"):
        render_motion_map(model, replace(motion, camera=None), HEIGHT, WIDTH)
    with pytest.raises(ComoviError, match="at least one pixel"):
        render_motion_map(model, motion, 0, WIDTH)


def test_the_benchmark_draws_a_body_that_fills_the_picture():
    from comfyui_comovi.comovi_model.body.benchmark import swaying_motion

    model = toy_body()
    mask = silhouette(render_motion_map(model, swaying_motion(model, 3, 96, 64), 96, 64))
    rows = mask.any(2).any(0).nonzero()
    assert 70 < rows.max() - rows.min() < 96
