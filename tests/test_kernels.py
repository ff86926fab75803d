"""The named formulas: against themselves written out in float64, in three dtypes, with gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from comfyui_comovi.comovi_model.wan.attention import Parts
from comfyui_comovi.comovi_model.wan.branch import Block, TimeSignal
from comfyui_comovi.comovi_model.wan.config import WanConfig
from comfyui_comovi.comovi_model.wan.rope import grid_rope
from comfyui_comovi.kernels.dense_attention import dense_attention, two_product_attention
from comfyui_comovi.kernels.join_norm import join, join_norm_affine, join_norm_modulate
from comfyui_comovi.kernels.norm_modulate import norm_modulate
from comfyui_comovi.kernels.pose_attention import pose_attention
from comfyui_comovi.kernels.qk_norm_rope import norm_heads, qk_norm_rope, rms_norm
from comfyui_comovi.kernels.zero_linear import zero_linear

ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 8e-3}  # relative, of one rounding


def randn(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype)


def layer_norm(x, eps=1e-6):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()


def relative(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize("out_dtype", list(ROUNDING), ids=str)
@pytest.mark.parametrize("rows", [(2, 3, 1), (2, 1, 1), (1, 1, 1), (2, 3, 5)])
def test_norm_modulate_is_its_formula(rows, out_dtype):
    x, shift, scale = randn(2, 3, 5, 8), randn(*rows, 8), randn(*rows, 8)
    wide = torch.float64 if out_dtype is torch.float64 else torch.float32
    out = norm_modulate(x.to(wide), shift.to(wide), scale.to(wide), 1e-6, out_dtype)
    assert out.dtype == out_dtype
    assert relative(out, layer_norm(x) * (1 + scale) + shift) < ROUNDING[out_dtype]


def test_the_epsilon_acts_on_small_inputs():
    x, zero = 1e-3 * randn(1, 1, 4, 8), torch.zeros(1, dtype=torch.float64)
    assert relative(norm_modulate(x, zero, zero, 1e-6), layer_norm(x, 1e-6)) < 1e-12
    assert relative(norm_modulate(x, zero, zero, 1e-5), layer_norm(x, 1e-6)) > 1e-2


def test_join_norm_is_a_join_and_then_a_norm():
    x, update, gate = randn(2, 3, 5, 8), randn(2, 3, 5, 8), randn(2, 3, 1, 8)
    shift, scale, weight, bias = randn(2, 3, 1, 8), randn(2, 3, 1, 8), randn(8), randn(8)
    for g in (gate, None):
        expected = x + (update if g is None else g * update)
        torch.testing.assert_close(join(x, update, g), expected)
        joined, normed = join_norm_modulate(x, update, g, shift, scale)
        torch.testing.assert_close(joined, expected)
        torch.testing.assert_close(normed, layer_norm(expected) * (1 + scale) + shift)
        joined, normed = join_norm_affine(x, update, g, weight, bias)
        torch.testing.assert_close(joined, expected)
        torch.testing.assert_close(normed, layer_norm(expected) * weight + bias)


def test_the_residual_keeps_small_updates_that_bfloat16_would_lose():
    x, update = torch.full((1, 1, 1, 4), 256.0), torch.full((1, 1, 1, 4), 0.25, dtype=torch.bfloat16)
    assert float(join(x, update)[0, 0, 0, 0]) == 256.25
    gate = torch.full((1, 1, 1, 4), 0.5)
    assert float(join(x, update, gate)[0, 0, 0, 0]) == 256.125


def test_rms_norm_runs_over_all_heads_together():
    x, weight = randn(2, 5, 12), randn(12)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight
    torch.testing.assert_close(rms_norm(x, weight), expected)
    torch.testing.assert_close(norm_heads(x, weight, 3), expected.reshape(2, 5, 3, 4))


def test_qk_norm_rope_without_a_turn_is_the_norm_and_a_turn_keeps_lengths():
    q, k, wq, wk = randn(2, 6, 12), randn(2, 6, 12), randn(12), randn(12)
    still, zero = torch.ones(6, 2, dtype=torch.float64), torch.zeros(6, 2, dtype=torch.float64)
    q_out, k_out = qk_norm_rope(q, k, wq, wk, still, zero, 3)
    torch.testing.assert_close(q_out, norm_heads(q, wq, 3))
    torch.testing.assert_close(k_out, norm_heads(k, wk, 3))
    angles = randn(6, 2)
    turned, _ = qk_norm_rope(q, k, wq, wk, angles.cos(), angles.sin(), 3)
    torch.testing.assert_close(turned.norm(dim=-1), q_out.norm(dim=-1))


@pytest.mark.parametrize("dtype", list(ROUNDING), ids=str)
def test_dense_attention_equals_the_library_on_both_sides_of_the_size_limit(dtype, monkeypatch):
    q, k, v = (randn(2, n, 3, 8).to(dtype) for n in (7, 9, 9))
    expected = F.scaled_dot_product_attention(*(x.double().transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    small = dense_attention(q, k, v)
    monkeypatch.setattr("comfyui_comovi.kernels.dense_attention.SMALL_SCORES", 0)
    large = dense_attention(q, k, v)
    assert relative(small, expected) < 3 * ROUNDING[dtype]
    assert relative(large, expected) < 3 * ROUNDING[dtype]


def test_attention_over_one_key_is_its_value_and_large_scores_do_not_overflow():
    q, v = 1e3 * randn(1, 2, 5, 4).float(), randn(1, 2, 1, 4).float()
    torch.testing.assert_close(two_product_attention(q, q[:, :, :1], v), v.expand(-1, -1, 5, -1))


def test_pose_attention_lets_each_group_read_its_own_frame():
    q, k, v = randn(2, 8, 3, 4), randn(2, 10, 3, 4), randn(2, 10, 3, 4)
    out = pose_attention(q, k, v, 2, dense_attention)
    for g in range(2):
        alone = dense_attention(q[:, 4 * g : 4 * g + 4], k[:, 5 * g : 5 * g + 5], v[:, 5 * g : 5 * g + 5])
        torch.testing.assert_close(out[:, 4 * g : 4 * g + 4], alone)


def test_zero_linear_adds_a_product_and_keeps_the_stream_wide():
    linear = torch.nn.Linear(8, 8, dtype=torch.bfloat16)
    x, source = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 3, 8)
    out = zero_linear(x, source, linear, torch.bfloat16)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, x + linear(source.bfloat16()).float())


@pytest.mark.parametrize(
    "operation",
    [
        lambda x, y, g: norm_modulate(x, g, g),
        lambda x, y, g: join_norm_modulate(x, y, g, g, g)[1],
        lambda x, y, g: join_norm_affine(x, y, g, g[0, 0, 0], g[0, 0, 0])[1],
        lambda x, y, g: torch.cat(qk_norm_rope(
            x[0], y[0], g[0, 0, 0], g[0, 0, 0], torch.full((3, 1), 0.6), torch.full((3, 1), 0.8), 2
        )),
        lambda x, y, g: dense_attention(x, y, x * y),
        lambda x, y, g: pose_attention(x.flatten(1, 2)[:, :, None], y.flatten(1, 2)[:, :, None],
                                       x.flatten(1, 2)[:, :, None], 2, dense_attention),
    ],
    ids=["norm_modulate", "join_norm_modulate", "join_norm_affine", "qk_norm_rope", "attention", "pose_attention"],
)  # fmt: skip
def test_gradients_are_those_of_finite_differences(operation):
    torch.manual_seed(0)
    inputs = [
        randn(1, 2, 3, 4).requires_grad_(),
        randn(1, 2, 3, 4).requires_grad_(),
        randn(1, 2, 1, 4).requires_grad_(),
    ]
    assert torch.autograd.gradcheck(operation, inputs)


def test_a_block_compiles_into_one_graph():
    """`fullgraph` raises at the first graph break; no C compiler is needed for that."""
    config = WanConfig(dim=24, ffn_dim=20, num_heads=2, num_layers=1, text_dim=4, text_len=3, freq_dim=4)
    block = Block(config, Parts())
    rope = grid_rope((2, 1, 3), 12, torch.device("cpu"), torch.float32)
    text = block.cross_attn.keys_values(torch.randn(1, 3, 24))
    x, time = torch.randn(1, 2, 3, 24), TimeSignal(torch.randn(1, 2, 1, 24), torch.randn(1, 2, 1, 6, 24))
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    expected = block(x, time, rope, text, torch.float32)
    torch.testing.assert_close(compiled(x, time, rope, text, torch.float32), expected)
