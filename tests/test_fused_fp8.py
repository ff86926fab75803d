"""The forms that give 8-bit numbers: kernels against formulas, rows that overflow or vanish, and the matrix product."""

from __future__ import annotations

import pytest
import torch
from comfyui_comovi.kernels import fp8
from comfyui_comovi.kernels.dispatch import use_backend
from kernel_checks import DEVICE, DTYPES, fused_kernels, numbers, relative, rows

triton = pytest.importorskip("triton", reason="triton is not installed (pip install '.[kernels]')")
SHAPES = ((2, 3, 5, 96), (1, 2, 3, 120), (1, 1, 2, 3072))


@pytest.fixture(autouse=True)
def _fused(monkeypatch):
    with fused_kernels(monkeypatch):
        yield


def eight(value):
    """The 8-bit results among those of an operation."""
    found = value if isinstance(value, tuple) and not isinstance(value, fp8.Rows8) else (value,)
    return [part for part in found if isinstance(part, fp8.Rows8)]


def check(operation, inputs):
    """Fused: as near to the truth as the formula, which is as near as 8 bits can be; twice the same bits."""
    wide = [x.double() if isinstance(x, torch.Tensor) else x for x in inputs]
    fused, again = operation(*inputs), operation(*inputs)
    with use_backend("torch"):
        plain, truth = operation(*inputs), operation(*wide)
    for mine, repeated, eager, exact in zip(*map(eight, (fused, again, plain, truth)), strict=True):
        assert mine.values.dtype == torch.float8_e4m3fn
        assert mine.values.shape == eager.values.shape
        assert mine.scales.shape == eager.scales.shape
        assert torch.equal(mine.values.view(torch.uint8), repeated.values.view(torch.uint8))
        assert torch.isfinite(mine.widen()).all()
        torch.testing.assert_close(mine.scales, eager.scales, rtol=1e-5, atol=0)
        assert relative(mine.widen(), exact.widen(torch.float64)) < 0.01, "few numbers fall on the other side of a step"
        differ = (mine.values.view(torch.uint8) != eager.values.view(torch.uint8)).float().mean()
        assert differ < 0.02


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_norms(shape, dtype):
    x, update = numbers(*shape), numbers(*shape, dtype=dtype, seed=1)
    shift, scale, gate = rows(shape[0], shape[1], shape[3])
    weight, bias = numbers(shape[3], seed=2), numbers(shape[3], seed=3)
    check(fp8.norm_modulate_fp8, (x, shift, scale))
    check(fp8.join_norm_modulate_fp8, (x, update, gate, shift, scale))
    check(fp8.join_norm_affine_fp8, (x, update, None, weight, bias))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "length", "dim", "heads"), [(2, 5, 96, 4), (1, 2, 120, 5)])
def test_queries_and_keys(batch, length, dim, heads, dtype):
    q, k = numbers(batch, length, dim, dtype=dtype), numbers(batch, length, dim, dtype=dtype, seed=1)
    angles = numbers(length, dim // heads // 2, seed=4)
    check(fp8.qk_norm_rope_fp8, (q, k, numbers(dim, seed=2), numbers(dim, seed=3), angles.cos(), angles.sin(), heads))


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_any_tensor(dtype, gelu):
    check(fp8.to_rows8, (4 * numbers(2, 3, 120, dtype=dtype), gelu))


def test_the_join_is_that_of_the_wide_form():
    from comfyui_comovi.kernels.join_norm import join_norm_affine

    x, update, weight, bias = numbers(1, 2, 3, 96), numbers(1, 2, 3, 96, seed=1), numbers(96), numbers(96)
    wide, narrow = (
        join_norm_affine(x, update, None, weight, bias),
        fp8.join_norm_affine_fp8(x, update, None, weight, bias),
    )
    assert torch.equal(wide[0], narrow[0])
    assert relative(narrow[1].widen(), wide[1].double()) < 0.04  # 3 bits behind the point


def test_rows_of_zeros_and_of_huge_numbers():
    flat, row = torch.zeros(1, 1, 1, 96, device=DEVICE), torch.zeros(1, 1, 1, 96, device=DEVICE)
    check(fp8.norm_modulate_fp8, (flat, row, row))
    assert not fp8.norm_modulate_fp8(flat, row, row).widen().any()
    huge = row + 1e30
    check(fp8.norm_modulate_fp8, (numbers(1, 1, 2, 96), huge, huge))


def test_the_product_of_8_bit_rows():
    x, weight, bias = numbers(2, 3, 32), numbers(48, 32, seed=1), numbers(48, seed=2)
    left, right = fp8.quantise_rows(x), fp8.quantise_rows(weight)
    exact = left.widen(torch.float64) @ right.widen(torch.float64).t() + bias.double()
    assert relative(fp8.fp8_linear(left, right, bias, torch.float32), exact) < 1e-6
    assert relative(fp8.fp8_linear(left, right, bias, torch.bfloat16), exact) < 4e-3
    assert relative(exact, (x @ weight.t() + bias).double()) < 0.06
    assert "tensors on cpu" in fp8.fp8_linear_refusal(left, right, torch.bfloat16) or DEVICE == "cuda"


def test_refusals_are_said():
    x = numbers(1, 1, 2, 96)
    assert fp8.fp8_refusal("norm_modulate", x) == ""
    assert "8-bit numbers have none" in fp8.fp8_refusal("norm_modulate", x.requires_grad_())


def test_operators_are_well_formed():
    from comfyui_comovi.kernels import library_fp8

    x, (shift, scale, gate) = numbers(1, 2, 3, 96), rows(1, 2, 96)
    q, weight, angles = numbers(1, 5, 96), numbers(96), numbers(5, 12)
    for operator, inputs in (
        (library_fp8.quantise_rows, (x, True)),
        (library_fp8.norm_modulate, (x, shift.contiguous(), scale.contiguous(), 1e-6)),
        (library_fp8.join_norm, (x, x.clone(), gate.contiguous(), weight, weight.clone(), True, 1e-6)),
        (library_fp8.qk_norm_rope, (q, q.clone(), weight, weight.clone(), angles.cos(), angles.sin(), 4, 1e-6)),
    ):
        torch.library.opcheck(operator, inputs, test_utils=("test_schema", "test_faketensor"))
