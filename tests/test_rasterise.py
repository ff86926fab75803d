"""The z-buffer against a per-pixel search over all faces, and its invariances."""

from __future__ import annotations

import pytest
import torch
from comfyui_comovi.comovi_model.body import rasterise as raster
from comfyui_comovi.comovi_model.body.cameras import intrinsics
from comfyui_comovi.comovi_model.body.rasterise import rasterise, visible_pixels
from comfyui_comovi.comovi_model.body.rasterise_nvdiffrast import installed
from comfyui_comovi.comovi_model.errors import ComoviError

HEIGHT, WIDTH = 48, 40


def brute_force(vertices, faces, K, height, width, cull):
    """Every face at every pixel, float64: face index (F, H, W), bary, depth."""
    points = vertices.double() @ K.double().T
    points = torch.cat([points[..., :2] / points[..., 2:], points[..., 2:]], -1)
    x = torch.arange(width, dtype=torch.float64) + 0.5
    y = torch.arange(height, dtype=torch.float64)[:, None] + 0.5
    best = torch.full((len(vertices), height, width), -1)
    best_depth = torch.full(best.shape, torch.inf, dtype=torch.float64)
    best_bary = torch.zeros(*best.shape, 3, dtype=torch.float64)
    for frame in range(len(vertices)):
        for number, face in enumerate(faces):
            p = points[frame, face]
            area = torch.linalg.det(p[1:, :2] - p[0, :2])
            if (p[:, 2] <= raster.NEAR).any() or area == 0 or (cull and area > 0):
                continue
            weights = []
            for corner in range(3):
                a, b = p[(corner + 1) % 3], p[(corner + 2) % 3]
                weights.append(((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / area)
            weights = torch.stack(weights, -1)
            over_z = weights / p[:, 2]
            depth = weights.sum(-1) / over_z.sum(-1)
            nearer = (weights >= 0).all(-1) & (depth < best_depth[frame])
            best[frame][nearer] = number
            best_depth[frame][nearer] = depth[nearer]
            best_bary[frame][nearer] = (over_z / over_z.sum(-1, keepdim=True))[nearer]
    return best, best_bary, best_depth


def random_scene(seed: int, spread: float = 1.5):
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.randn(2, 40, 3, generator=generator) * torch.tensor([spread, spread, 1.0])
    vertices[..., 2] += 4
    faces = torch.rand(60, 40, generator=generator).argsort(1)[:, :3]
    return vertices, faces, intrinsics(30.0, 19.3, 25.1)


@pytest.mark.parametrize("cull", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_every_pixel_shows_the_face_that_an_exhaustive_search_finds(seed, cull):
    vertices, faces, K = random_scene(seed)  # large, crossing, partly behind the camera and outside the picture
    fragments = rasterise(vertices, faces, K, HEIGHT, WIDTH, cull)
    face, bary, depth = brute_force(vertices, faces, K, HEIGHT, WIDTH, cull)
    assert (face >= 0).float().mean() > 0.2
    assert int((fragments.face != face).sum()) == 0
    seen = face >= 0
    assert (fragments.bary - bary)[seen].abs().max() < 1e-6
    assert (fragments.depth - depth)[seen].abs().max() < 1e-5


def test_triangles_larger_than_a_tile_are_cut_without_a_seam(monkeypatch):
    vertices, faces, K = random_scene(7)
    whole = rasterise(vertices, faces, K, HEIGHT, WIDTH)
    monkeypatch.setattr(raster, "TILE_SIZES", (4, 8))
    monkeypatch.setattr(raster, "CANDIDATES", 64)
    monkeypatch.setattr(raster, "MAX_PIXELS", 1)
    assert torch.equal(rasterise(vertices, faces, K, HEIGHT, WIDTH).face, whole.face)


def test_a_fan_through_pixel_centres_has_no_hole_and_the_lower_face_wins():
    rim = torch.tensor([[0.0, 0], [8, 0], [16, 0], [16, 8], [16, 16], [8, 16], [0, 16], [0, 8]]) + 0.5
    corners = torch.cat([torch.full((1, 2), 8.5), rim])
    vertices = torch.cat([corners, torch.ones(9, 1)], 1)[None]  # K = identity: position is pixel
    faces = torch.tensor([[0, 1 + (i + 1) % 8, 1 + i] for i in range(8)])
    fragments = rasterise(vertices, faces, torch.eye(3), 18, 18)
    assert (fragments.face[0, :17, :17] >= 0).all()
    assert (fragments.face[0, 17] == -1).all()
    assert fragments.face[0, 8, 8] == 0


def test_a_finely_cut_plane_is_watertight():
    generator = torch.Generator().manual_seed(0)
    size = 30
    grid = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="xy"), -1).double()
    inner = torch.zeros(size, size, 1, dtype=torch.float64)
    inner[1:-1, 1:-1] = 1
    grid = grid + inner * (torch.rand(size, size, 2, generator=generator, dtype=torch.float64) - 0.5) * 0.6
    vertices = torch.cat([grid.view(-1, 2) * 2, torch.ones(size * size, 1)], 1)[None]
    corner = (torch.arange(size - 1)[:, None] * size + torch.arange(size - 1)).view(-1)
    faces = torch.cat([torch.stack([corner, corner + size, corner + 1], 1),
                       torch.stack([corner + 1, corner + size, corner + size + 1], 1)])  # fmt: skip
    fragments = rasterise(vertices, faces, torch.eye(3), 58, 58)
    assert (fragments.face >= 0).all()
    assert (fragments.bary.sum(-1) - 1).abs().max() < 1e-6


def test_positions_interpolate_perspective_correctly():
    vertices, faces, K = random_scene(3)
    pixels = visible_pixels(vertices, faces, K, HEIGHT, WIDTH)
    position = pixels.interpolate(vertices, faces).double()  # (P, 3)
    row, column = pixels.index // WIDTH % HEIGHT, pixels.index % WIDTH
    projected = position @ K.double().T
    centre = torch.stack([column, row], 1) + 0.5
    assert (projected[:, :2] / projected[:, 2:] - centre).abs().max() < 1e-4
    assert (position[:, 2] - pixels.depth).abs().max() < 1e-5


def test_frames_do_not_influence_each_other_and_may_have_their_own_camera():
    vertices, faces, K = random_scene(4)
    cameras = torch.stack([K, intrinsics(24.0, 20.0, 22.0)])
    both = rasterise(vertices, faces, cameras, HEIGHT, WIDTH)
    for frame in range(2):
        alone = rasterise(vertices[frame : frame + 1], faces, cameras[frame], HEIGHT, WIDTH)
        assert torch.equal(both.face[frame], alone.face[0])


def test_faces_behind_the_camera_or_with_nan_are_not_drawn():
    vertices = torch.tensor([[[0.0, 0, -1], [9, 0, -1], [0, 9, -1], [torch.nan, 0, 1], [0, 0, 0], [1, 1, 1]]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 1], [3, 4, 5], [5, 4, 3], [0, 1, 5]])
    pixels = visible_pixels(vertices, faces, torch.eye(3), 8, 8, cull=False)
    assert len(pixels.index) == 0
    assert not pixels.mask().any()


def test_wrong_shapes_and_backends_are_refused_in_words():
    vertices, faces, K = random_scene(0)
    with pytest.raises(ComoviError, match="frames, vertices, 3"):
        visible_pixels(vertices[0], faces, K, 8, 8)
    with pytest.raises(ComoviError, match="at least one pixel"):
        visible_pixels(vertices, faces, K, 0, 8)
    with pytest.raises(ComoviError, match="unknown raster backend"):
        visible_pixels(vertices, faces, K, 8, 8, backend="opengl")
    with pytest.raises(ComoviError, match="nvdiffrast"):
        visible_pixels(vertices, faces, K, 8, 8, backend="nvdiffrast")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_draws_the_same_pixels_as_the_cpu():
    vertices, faces, K = random_scene(5)
    cpu = rasterise(vertices, faces, K, HEIGHT, WIDTH)
    cuda = rasterise(vertices.cuda(), faces.cuda(), K.cuda(), HEIGHT, WIDTH, backend="torch")
    assert torch.equal(cuda.face.cpu(), cpu.face)


@pytest.mark.gpu
@pytest.mark.skipif(not (torch.cuda.is_available() and installed()), reason="needs a CUDA device and nvdiffrast")
def test_nvdiffrast_draws_the_same_pixels_but_for_outlines():
    vertices, faces, K = random_scene(5)
    ours = rasterise(vertices, faces, K, HEIGHT, WIDTH)
    theirs = rasterise(vertices.cuda(), faces.cuda(), K.cuda(), HEIGHT, WIDTH, backend="nvdiffrast")
    same = theirs.face.cpu() == ours.face
    assert same.float().mean() > 0.9  # its corners snap to 1/16 pixel
    both = same & (ours.face >= 0)
    assert (theirs.depth.cpu()[both] - ours.depth[both]).abs().median() < 1e-2
