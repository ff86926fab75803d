"""The backward kernels against float64 differentiation of the formulas: no worse than plain PyTorch, same bits twice.

Interpreted on a CPU; on a GPU, where there is one, for real.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from comfyui_comovi.kernels import join_norm as jn
from comfyui_comovi.kernels import norm_modulate as nm
from comfyui_comovi.kernels import pose_attention as pa
from comfyui_comovi.kernels import qk_norm_rope as qk
from kernel_checks import DTYPES, check_gradients, fused_kernels, numbers, rows

triton = pytest.importorskip("triton", reason="triton is not installed (pip install '.[kernels]')")
from comfyui_comovi.kernels.triton_impl import qk_norm_rope_bwd  # noqa: E402

SHAPES = ((2, 3, 5, 96), (1, 2, 9, 120))  # B, F, S, D


@pytest.fixture(autouse=True)
def _fused(monkeypatch):
    with fused_kernels(monkeypatch):
        yield


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_norm_modulate(shape, dtype):
    shift, scale, _ = rows(shape[0], shape[1], shape[3])
    for stream in {torch.float32, dtype}:

        def in_dtype(function, x, shift, scale):
            return function(x, shift, scale, out_dtype=torch.float64 if x.dtype == torch.float64 else dtype)

        fused, formula = (partial(in_dtype, f) for f in (nm.norm_modulate, nm.norm_modulate_formula))
        check_gradients(fused, formula, (numbers(*shape, dtype=stream), shift, scale), (0, 1, 2), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_join_norm(shape, dtype):
    x, update = numbers(*shape), numbers(*shape, dtype=dtype, seed=1)
    shift, scale, gate = rows(shape[0], shape[1], shape[3])
    one_gate = gate[:1, :1].contiguous()  # one row for all samples and frames
    weight, bias = numbers(shape[3], seed=2), numbers(shape[3], seed=3)
    addend = numbers(*shape, dtype=dtype, seed=4)
    check_gradients(jn.join, jn.join_formula, (x, update, one_gate, addend), (0, 1, 2, 3), dtype)
    for given in (gate, None):
        learn = (0, 1, 3, 4) if given is None else (0, 1, 2, 3, 4)
        inputs = (x, update, given, shift, scale)
        check_gradients(jn.join_norm_modulate, jn.join_norm_modulate_formula, inputs, learn, dtype)
        inputs = (x, update, given, weight, bias)
        check_gradients(jn.join_norm_affine, jn.join_norm_affine_formula, inputs, learn, dtype)


def test_join_norm_whose_second_result_is_not_used():
    x, update, weight, bias = (
        numbers(1, 2, 3, 96),
        numbers(1, 2, 3, 96, seed=1),
        numbers(96, seed=2),
        numbers(96, seed=3),
    )
    for index in (0, 1):
        check_gradients(
            lambda *inputs, index=index: jn.join_norm_affine(*inputs)[index],
            lambda *inputs, index=index: jn.join_norm_affine_formula(*inputs)[index],
            (x, update, None, weight, bias), (0, 1), torch.float32,
        )  # fmt: skip


def test_what_does_not_learn_costs_nothing(monkeypatch):
    """With frozen modulation no sums over tokens are made."""
    from comfyui_comovi.kernels import gradients as backward

    monkeypatch.setattr(backward, "frame_sums", lambda *_: pytest.fail("sums were made"))
    x, update, (shift, scale, gate) = numbers(1, 2, 3, 96), numbers(1, 2, 3, 96, seed=1), rows(1, 2, 96)
    check_gradients(nm.norm_modulate, nm.norm_modulate_formula, (x, shift, scale), (0,), torch.float32)
    inputs = (x, update, gate, shift, scale)
    check_gradients(jn.join_norm_modulate, jn.join_norm_modulate_formula, inputs, (0, 1), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "length", "dim", "heads"), [(2, 7, 96, 4), (3, 3, 192, 4)])
def test_qk_norm_rope(batch, length, dim, heads, dtype, monkeypatch):
    monkeypatch.setattr(qk_norm_rope_bwd, "CHUNK", 8)  # several partial sums
    q, k = numbers(batch, length, dim, dtype=dtype), numbers(batch, length, dim, dtype=dtype, seed=1)
    weights = [numbers(dim, dtype=dtype, seed=seed) for seed in (2, 3)]
    angles = numbers(length, dim // heads // 2, seed=4)
    inputs = (q, k, *weights, angles.cos(), angles.sin(), heads)
    check_gradients(qk.qk_norm_rope, qk.qk_norm_rope_formula, inputs, (0, 1, 2, 3), dtype)
    check_gradients(qk.norm_heads, qk.norm_heads_formula, (q, weights[0], heads), (0, 1), dtype)


def test_positions_that_learn_take_the_formula():
    q, weight, angles = numbers(1, 3, 24), numbers(24), numbers(3, 6).requires_grad_()
    out = qk.qk_norm_rope(q, q, weight, weight, angles.cos(), angles.sin(), 2)
    assert torch.autograd.grad(out[0].sum(), angles)[0].abs().sum() > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("groups", "queries", "keys", "heads", "size"), [(2, 4, 37, 2, 24), (1, 16, 20, 1, 256)])
def test_pose_attention(groups, queries, keys, heads, size, dtype):
    q = numbers(2, groups * queries, heads, size, dtype=dtype)
    k, v = (numbers(2, groups * keys, heads, size, dtype=dtype, seed=seed) for seed in (1, 2))
    check_gradients(
        lambda q, k, v: pa.pose_attention(q, k, v, groups, pytest.fail),
        lambda q, k, v: pa.pose_attention_formula(q, k, v, groups),
        (q, k, v), (0, 1, 2), dtype,
    )  # fmt: skip
