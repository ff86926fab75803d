"""The body over its video: where it is drawn, what shows through, which pose belongs to which picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.frames import in_frame
from comfyui_comovi.comovi_model.body.mannequin import load_mannequin
from comfyui_comovi.comovi_model.body.map_render import visible_body
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.smpl import pose_body
from comfyui_comovi.comovi_model.body.toy import toy_body
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.show.coarse import coarse_faces
from comfyui_comovi.comovi_model.show.overlay import overlay_motion, poses_of_pictures
from comfyui_comovi.comovi_model.show.painter import STYLES, Painter

HEIGHT, WIDTH = 64, 48
BODY = toy_body()


def standing(frames: int = 3, **changes) -> BodyMotion:
    rotations = torch.eye(3).repeat(frames, 24, 1, 1)
    rotations[:, 0] = torch.diag(torch.tensor([1.0, -1, -1]))  # upright: a camera's y points down
    path = torch.tensor([[0.4 * f - 0.4, 0.0, 4.0] for f in range(frames)])
    motion = BodyMotion(rotations, torch.zeros(10), path, camera=Camera.from_focal(80, WIDTH, HEIGHT))
    return replace(motion, **changes)


def silhouettes(motion: BodyMotion, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    body = pose_body(BODY, motion.rotations, motion.betas, motion.transl)
    return visible_body(BODY, body.vertices, motion.camera.resized(width, height).K, height, width).mask()


@pytest.mark.parametrize("style", STYLES)
def test_the_picture_changes_where_the_body_is_and_nowhere_else(style):
    video = torch.full((3, HEIGHT, WIDTH, 3), 0.5)
    changed = (overlay_motion(video, standing(), BODY, style=style) != video).any(-1)
    inside = silhouettes(standing())
    near = torch.nn.functional.max_pool2d(inside.float()[:, None], 3, 1, 1)[:, 0] > 0
    assert not (changed & ~near).any()
    if style != "normals":  # a normal may happen to have the colour of the background
        assert (changed & inside).sum() >= 0.95 * inside.sum()


def test_opacity_0_is_the_video_and_1_hides_it():
    video = torch.rand(3, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(overlay_motion(video, standing(), BODY, opacity=0.0), video)
    full, other = (overlay_motion(v, standing(), BODY, opacity=1.0) for v in (video, 1 - video))
    core = -torch.nn.functional.max_pool2d(-silhouettes(standing()).float()[:, None], 3, 1, 1)[:, 0] > 0
    assert core.any()
    assert torch.allclose(full[core], other[core], atol=1e-6)


def test_the_camera_is_scaled_to_the_picture():
    small = overlay_motion(torch.zeros(3, HEIGHT, WIDTH, 3), standing(), BODY, opacity=1.0)
    large = overlay_motion(torch.zeros(3, 2 * HEIGHT, 2 * WIDTH, 3), standing(), BODY, opacity=1.0)
    halved = torch.nn.functional.avg_pool2d(large.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    assert (halved - small).abs().mean() < 0.01
    assert small.mean() > 0.01


def test_a_motion_in_other_axes_is_drawn_at_the_same_place():
    video = torch.zeros(3, HEIGHT, WIDTH, 3)
    expected = overlay_motion(video, standing(), BODY)
    turned = overlay_motion(video, in_frame(standing(), BODY, "zup"), BODY)
    assert (turned - expected).abs().max() < 0.02


def test_placeholders_are_not_drawn():
    video = torch.full((3, HEIGHT, WIDTH, 3), 0.5)
    result = overlay_motion(video, standing(valid=torch.tensor([True, False, True])), BODY)
    assert torch.equal(result[1], video[1])
    assert not torch.equal(result[2], video[2])


def test_source_index_says_which_picture_a_pose_belongs_to():
    motion = standing(source_index=torch.tensor([1, 3, 5]))
    video = torch.full((6, HEIGHT, WIDTH, 3), 0.5)
    result = overlay_motion(video, motion, BODY)
    touched = (result != video).flatten(1).any(1).tolist()
    assert touched == [False, True, False, True, False, True]
    assert poses_of_pictures(standing(), 1) == [0, 1, 2]  # one picture serves every pose
    with pytest.raises(ComoviError, match="5 frames and the motion 3"):
        overlay_motion(video[:5], standing(), BODY)
    rate = standing().fps
    assert poses_of_pictures(standing(), 5, 1.005 * rate) == [0, 1, 2, -1, -1]  # the beginning of the video
    with pytest.raises(ComoviError, match="5 frames and the motion 3"):
        poses_of_pictures(standing(), 5, 2 * rate)


def test_progress_is_told_and_may_stop_the_work():
    seen = []

    def stop(done, total):
        seen.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        overlay_motion(torch.zeros(3, HEIGHT, WIDTH, 3), standing(), BODY, on_frame=stop)
    assert seen == [(1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"style": "glass"}, "solid, parts, normals, wireframe"),
        ({"opacity": 1.5}, "between 0"),
        ({"frames": torch.zeros(3, 8, 8)}, r"\(3, 8, 8\)"),
        ({"motion": standing(camera=None, frame="yup")}, "no camera"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(change, message):
    arguments = {"frames": torch.zeros(3, HEIGHT, WIDTH, 3), "motion": standing(), "body": BODY, **change}
    frames, motion, body = (arguments.pop(name) for name in ("frames", "motion", "body"))
    with pytest.raises(ComoviError, match=message):
        overlay_motion(frames, motion, body, **arguments)


def test_coarse_triangles_cover_the_body_with_corners_on_it():
    body = load_mannequin()
    faces = coarse_faces(body)
    assert 1500 < len(faces) < 2600
    assert faces.max() < len(body.v_template)

    def area(triangles):
        a, b, c = body.v_template[triangles].unbind(1)
        return float(torch.linalg.cross(b - a, c - a).norm(dim=1).sum() / 2)

    assert 0.85 < area(faces) / area(body.faces) <= 1.0
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).tolist()
    both_ways = sum((b, a) in {tuple(e) for e in edges} for a, b in edges)
    assert both_ways / len(edges) > 0.98  # neighbours share their edges
    assert coarse_faces(BODY) is BODY.faces


def test_normals_have_the_usual_colours():
    """A body that faces the camera is mostly blue; its left side, to the right of the picture, is redder."""
    motion = standing(1)
    vertices = pose_body(BODY, motion.rotations, motion.betas, torch.tensor([[0.0, 0, 4.0]])).vertices[0]
    painted = Painter(BODY, "normals").paint(vertices, motion.camera.K, HEIGHT, WIDTH)
    inside = painted[..., 3] == 1
    assert painted[inside][:, 2].mean() > 0.75
    columns = inside.nonzero()[:, 1].float()
    red = painted[inside][:, 0]
    assert red[columns > columns.median()].mean() > red[columns < columns.median()].mean() + 0.05
