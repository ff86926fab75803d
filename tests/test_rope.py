"""Rotary positions: against complex numbers in float64, and the law that gives them their name."""

from __future__ import annotations

import pytest
import torch
from comfyui_comovi.comovi_model.wan import rope
from comfyui_comovi.comovi_model.wan.rope import axis_angles, grid_rope, pairs_per_axis, rope_angles
from comfyui_comovi.kernels.qk_norm_rope import rotate_pairs
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device("cpu")


def by_complex_numbers(x, grid, head_dim):
    """The definition: adjacent channels are one complex number, times e^(i angle), token by token, pair by pair."""
    frames, rows, columns = pairs_per_axis(head_dim)
    out = torch.empty_like(x)
    token = 0
    for f in range(grid[0]):
        for y in range(grid[1]):
            for c in range(grid[2]):
                angles = [f * 10000 ** (-j / frames) for j in range(frames)]
                angles += [y * 10000 ** (-j / rows) for j in range(rows)]
                angles += [c * 10000 ** (-j / columns) for j in range(columns)]
                turn = torch.polar(torch.ones(len(angles)).double(), torch.tensor(angles).double())
                pairs = torch.view_as_complex(x[:, token].unflatten(-1, (-1, 2)).contiguous())
                out[:, token] = torch.view_as_real(pairs * turn).flatten(-2)
                token += 1
    return out


@pytest.mark.parametrize(("dim", "expected"), [(128, (22, 21, 21)), (16, (4, 2, 2)), (12, (2, 2, 2)), (2, (1, 0, 0))])
def test_the_pairs_are_shared_between_the_axes(dim, expected):
    assert pairs_per_axis(dim) == expected


@pytest.mark.parametrize(("grid", "head_dim"), [((2, 3, 4), 16), ((3, 1, 2), 128), ((1, 2, 2), 4)])
def test_rotation_equals_the_complex_formula(grid, head_dim):
    x = torch.randn(2, grid[0] * grid[1] * grid[2], 3, head_dim, dtype=torch.float64)
    table = grid_rope(grid, head_dim, CPU, torch.float64)
    torch.testing.assert_close(rotate_pairs(x, table.cos, table.sin), by_complex_numbers(x, grid, head_dim))


def test_the_real_formula_equals_the_complex_product():
    x, angles = torch.randn(2, 5, 3, 8), torch.randn(5, 4)
    cos, sin = angles.cos(), angles.sin()
    fast = rotate_pairs(x, cos, sin)
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[:, None], sin[:, None]
    torch.testing.assert_close(fast, torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2))


def test_a_score_depends_on_the_distance_only():
    q, k = torch.randn(2, 1, 1, 1, 24, dtype=torch.float64)

    def score(at, other):
        turned = []
        for x, (f, y, c) in ((q, at), (k, other)):
            angles = rope_angles(torch.tensor([f]), torch.tensor([y]), torch.tensor([c]), 24)
            turned.append(rotate_pairs(x, angles.cos(), angles.sin()))
        return float((turned[0] * turned[1]).sum())

    assert score((1.0, 2.0, 3.0), (4.0, 4.0, 4.0)) == pytest.approx(score((11.5, 0.0, 7.25), (14.5, 2.0, 8.25)))
    assert score((1.0, 2.0, 3.0), (4.0, 4.0, 4.0)) != pytest.approx(score((1.0, 2.0, 3.0), (4.0, 5.0, 4.0)))


def test_positions_may_be_fractions():
    half = axis_angles(torch.tensor([0.5]), 4)
    assert torch.equal(half * 2, axis_angles(torch.tensor([1]), 4))


class OnMeta(TorchDispatchMode):
    """Notes the dtypes of what is made on the meta device."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.seen |= {x.dtype for x in (made,) if isinstance(x, torch.Tensor) and x.is_meta}
        return made


def test_devices_without_float64_are_never_asked_for_it(monkeypatch):
    assert [rope.exact_device(torch.device(name)).type for name in ("mps", "xpu", "cuda", "cpu")] == [
        "cpu", "cpu", "cuda", "cpu",
    ]  # fmt: skip
    monkeypatch.setattr(rope, "WITHOUT_FLOAT64", ("meta",))
    with OnMeta() as watched:
        table = grid_rope((2, 3, 7), 20, torch.device("meta"), torch.float32)
    assert table.cos.is_meta
    assert watched.seen == {torch.float32}


def test_a_kept_table_made_without_gradients_serves_a_training_step():
    with torch.inference_mode():
        grid_rope((2, 2, 5), 12, CPU, torch.float32)
    table = grid_rope((2, 2, 5), 12, CPU, torch.float32)
    x = torch.randn(1, 20, 2, 12, requires_grad=True)
    rotate_pairs(x, table.cos, table.sin).sum().backward()
    assert x.grad is not None
