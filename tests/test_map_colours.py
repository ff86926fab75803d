"""Colours of the motion map: the formula on triangles that can be worked out by hand, and the way back."""

from __future__ import annotations

import pytest
import torch
from comfyui_comovi.comovi_model.body import map_colours as colours
from comfyui_comovi.comovi_model.body.cameras import intrinsics
from comfyui_comovi.comovi_model.body.map_render import draw_map
from comfyui_comovi.comovi_model.body.parts import PART_NAMES
from comfyui_comovi.comovi_model.body.smpl import BodyModel
from comfyui_comovi.comovi_model.errors import ComoviError


def one_triangle(corners, part: int) -> BodyModel:
    return BodyModel(
        v_template=corners, shapedirs=torch.zeros(3, 3, 0), posedirs=None, J_regressor=torch.zeros(24, 3),
        weights=torch.zeros(3, 24), faces=torch.tensor([[0, 1, 2]]), part_of_vertex=torch.full((3,), part),
        name="triangle",
    )  # fmt: skip


def test_a_lit_triangle_has_the_colour_that_the_formula_gives():
    # A plane through (0, 0, 2) tilted about x by 30 degrees, so that it looks at the camera and a little down.
    tilt = torch.tensor(torch.pi / 6)
    along = torch.tensor([0.0, tilt.cos(), -tilt.sin()])
    normal = torch.tensor([0.0, -tilt.sin(), -tilt.cos()])
    centre, across = torch.tensor([0.0, 0.0, 2.0]), torch.tensor([1.0, 0.0, 0.0])
    corners = torch.stack([centre + 0.5 * across + along, centre - along, centre - 0.5 * across + along])
    if torch.linalg.cross(corners[1] - corners[0], corners[2] - corners[0]) @ normal < 0:
        corners = corners.flip(0)
    part = PART_NAMES.index("rightUpLeg")
    model, K = one_triangle(corners, part), intrinsics(20.0, 15, 15)
    picture = draw_map(model, corners[None], K, 30, 30)[0]
    flat = draw_map(model, corners[None], K, 30, 30, "flat")[0]

    row, column = 17, 15
    ray = torch.tensor([(column + 0.5 - 15) / 20, (row + 0.5 - 15) / 20, 1.0])
    point = ray * (normal @ centre) / (normal @ ray)
    light = torch.nn.functional.normalize(torch.tensor([0.0, 1.0, 0.0]) - point, dim=0)
    base = torch.tensor([(2 * part + 1) / 48, normal[1] / 2 + 0.5, normal[0] / 2 + 0.5])
    expected = (0.5 + 0.3 * max(0.0, float(normal @ light))) * base + 0.2
    assert torch.allclose(picture[row, column], expected, atol=1e-6)
    assert torch.allclose(flat[row, column], base, atol=1e-6)
    assert torch.equal(picture[0, 0], torch.ones(3))  # white background


def test_the_light_stands_below_the_camera():
    down, up = torch.tensor([[0.0, 0.6, -0.8]]), torch.tensor([[0.0, -0.6, -0.8]])
    point = torch.tensor([[0.0, 0.0, 3.0]])
    assert colours.light_level(down, point) > colours.light_level(up, point)


def test_part_codes_are_odd_for_surfaces_that_face_the_camera_and_even_for_others():
    normals = torch.tensor([[0.0, 0, -1], [0, 0, 1], [1, 0, 0]])
    semantic = colours.encode_semantic(normals, torch.tensor([5, 5, 5])) * 48
    assert torch.allclose(semantic, torch.tensor([11.0, 12.0, 12.0]))  # n_z = 0 counts as away


def test_the_thigh_has_the_level_seen_in_the_published_example():
    """Frame 0 of the example video shows the right thigh with R = 63: (63/255 - 0.2) / 0.8 is about 3/48."""
    thigh = colours.encode_semantic(torch.tensor([[0.0, 0, -1]]), torch.tensor([PART_NAMES.index("rightUpLeg")]))
    assert thigh.item() == pytest.approx((63 / 255 - 0.2) / 0.8, abs=1 / 255)


def random_surface(seed: int = 0, count: int = 4000):
    """Pixels (1, 1, count) that see random camera-facing normals and parts at 5 m, lit; and what they are."""
    generator = torch.Generator().manual_seed(seed)
    # Even over the disc of (n_x, n_y), as a ball in a picture shows them.
    radius, angle = torch.rand(2, count, generator=generator) * torch.tensor([[0.99], [2 * torch.pi]])
    disc = radius.sqrt()[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    normals = torch.cat([disc, -(1 - radius)[:, None].sqrt()], 1)
    part = torch.randint(24, (count,), generator=generator)
    K = intrinsics(3000.0, count / 2, 0.0)
    rays = colours.pixel_rays(K, 1, count)[0]
    plain = colours.encode_colours(normals, part)
    return normals, part, K, colours.lit(plain, normals, 5 * rays)[None, None]


def test_decoding_undoes_the_light_and_the_colours():
    normals, part, K, picture = random_surface()
    decoded = colours.decode_map(picture, K, 5.0, robust=False)
    assert decoded.mask.all()
    angle = torch.linalg.cross(decoded.normals[0, 0], normals).norm(dim=-1).clamp_max(1).asin().rad2deg()
    # Near the rim several normals explain one colour, and the most frontal is taken.
    assert angle.median() < 0.1 and angle.quantile(0.8) < 0.5  # measured 0.02, 0.06
    assert (decoded.parts[0, 0] == part).float().mean() > 0.85  # measured 0.86
    frontal = normals[:, 2] < -0.8
    assert torch.equal(decoded.parts[0, 0][frontal], part[frontal])
    assert angle[frontal].max() < 1


def test_decoding_survives_eight_bits():
    normals, part, K, picture = random_surface(1)
    decoded = colours.decode_map(colours.to_uint8(picture) / 255, K, torch.tensor([5.0]), robust=False)
    angle = (decoded.normals[0, 0] * normals).sum(-1).clamp(-1, 1).acos().rad2deg()
    assert (decoded.parts[0, 0] == part).float().mean() > 0.85
    assert angle.median() < 0.7  # measured 0.35 degrees


def test_a_wrong_light_model_would_be_noticed():
    normals, _, K, picture = random_surface(2)
    as_flat = colours.decode_map(picture, K, 5.0, shading="flat", robust=False)
    assert (as_flat.normals[0, 0] * normals).sum(-1).clamp(-1, 1).acos().rad2deg().median() > 5


def test_flat_maps_decode_without_a_light():
    normals, part, K, _ = random_surface(3)
    decoded = colours.decode_map(colours.encode_colours(normals, part)[None, None], K, 5.0, "flat", robust=False)
    assert torch.equal(decoded.parts[0, 0], part)
    assert (decoded.normals[0, 0] - normals).abs().max() < 1e-2


def test_every_body_colour_is_darker_than_the_background_level():
    _, _, _, picture = random_surface(4, 20000)
    assert picture.amin(-1).max() < 0.884 < colours.BACKGROUND_LEVEL
    assert not colours.silhouette(torch.ones(1, 2, 2, 3)).any()


def test_robust_parts_drop_isolated_pixels_and_keep_areas():
    normals = torch.tensor([0.0, 0.0, -1.0]).expand(40, 40, 3)
    part = torch.full((40, 40), 3)
    part[:, 20:] = 17
    part[10, 10] = 8  # noise
    picture = colours.encode_colours(normals.reshape(-1, 3), part.reshape(-1)).view(1, 40, 40, 3)
    decoded = colours.decode_map(picture, intrinsics(50.0, 20, 20), 3.0, "flat")
    assert (decoded.parts[0, 2:-2, 2:17] == 3).all() and (decoded.parts[0, 2:-2, 23:-2] == 17).all()


def test_an_empty_map_decodes_to_nothing():
    decoded = colours.decode_map(torch.ones(2, 8, 8, 3), intrinsics(8.0, 4, 4), 3.0)
    assert not decoded.mask.any() and (decoded.parts == -1).all() and (decoded.normals == 0).all()


def test_eight_bit_rounding_goes_to_even():
    assert colours.to_uint8(torch.tensor([0.5, 1.5, 2.5, 300.0, -1.0]) / 255).tolist() == [0, 2, 2, 255, 0]


def test_unknown_shadings_and_shapes_are_refused():
    with pytest.raises(ComoviError, match="phong_reference or flat"):
        colours.check_shading("toon")
    with pytest.raises(ComoviError, match="frames, height, width, 3"):
        colours.decode_map(torch.ones(8, 8, 3), torch.eye(3), 3.0)
