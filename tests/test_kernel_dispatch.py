"""Which back end runs: comfy-kitchen behind the fused kernels, measured choices behind "auto", and the reasons."""

from __future__ import annotations

import importlib.util
import json
from functools import partial

import pytest
import torch
from comfyui_comovi.kernels import choices, dispatch, fp8, kitchen
from comfyui_comovi.kernels.dispatch import OPERATIONS, explain, use_backend, wanted
from comfyui_comovi.kernels.join_norm import join_norm_affine, join_norm_modulate, join_norm_modulate_formula
from comfyui_comovi.kernels.norm_modulate import norm_modulate, norm_modulate_formula
from comfyui_comovi.kernels.qk_norm_rope import qk_norm_rope, qk_norm_rope_formula
from kernel_checks import check, numbers, rows
from torch._subclasses.fake_tensor import FakeTensorMode

INSTALLED = importlib.util.find_spec("comfy_kitchen") is not None
needs_kitchen = pytest.mark.skipif(not INSTALLED, reason="comfy-kitchen is not installed (pip install '.[kitchen]')")


@needs_kitchen
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_comfy_kitchen_gives_what_the_formulas_give(dtype):
    x, update, (shift, scale, gate) = numbers(2, 3, 5, 96), numbers(2, 3, 5, 96, dtype=dtype, seed=1), rows(2, 3, 96)
    q, k = numbers(2, 7, 96, dtype=dtype), numbers(2, 7, 96, dtype=dtype, seed=1)
    weights, angles = [numbers(96, dtype=dtype, seed=seed) for seed in (2, 3)], numbers(7, 12, seed=4)
    with use_backend("comfy-kitchen"):
        check(norm_modulate, norm_modulate_formula, (x, shift, scale), dtype, out_dtype=dtype)
        inputs = (x, update, gate, shift, scale)
        check(join_norm_modulate, join_norm_modulate_formula, inputs, dtype, out_dtype=dtype)
        check(qk_norm_rope, qk_norm_rope_formula, (q, k, *weights, angles.cos(), angles.sin(), 4), dtype)
        join_norm_affine(x, update, gate, weights[0], weights[1])  # it has none: plain


@needs_kitchen
def test_its_operators_are_really_called(monkeypatch):
    called = []
    real = {name: getattr(kitchen, name) for name in ("norm_modulate", "qk_norm_rope")}

    def counting(name, *inputs):
        called.append(name)
        return real[name](*inputs)

    for name in real:
        monkeypatch.setattr(kitchen, name, partial(counting, name))
    x, (shift, scale, gate) = numbers(1, 2, 3, 96), rows(1, 2, 96)
    with use_backend("norm_modulate=comfy-kitchen,torch"):
        norm_modulate(x, shift, scale)
        join_norm_modulate(x, x, gate, shift, scale)
    with use_backend("comfy-kitchen"):
        join_norm_modulate(x, x, gate, shift, scale)
        norm_modulate(x, shift.repeat(1, 1, 3, 1), scale.repeat(1, 1, 3, 1))  # a row per token: plain
        norm_modulate(x.requires_grad_(), shift, scale)  # gradients: plain
    assert called == ["norm_modulate", "norm_modulate"]


def test_comfy_kitchen_refuses_in_words(monkeypatch):
    x = numbers(1, 1, 2, 96)
    with use_backend("comfy-kitchen"):
        assert "no such operation" in kitchen.refusal("pose_attention", x)
        assert "meta" in kitchen.refusal("norm_modulate", x.to("meta"))
        if INSTALLED:
            assert kitchen.refusal("norm_modulate", x) == ""
            assert "float64" in kitchen.refusal("norm_modulate", x.double())
            assert "gradients" in kitchen.refusal("norm_modulate", x.clone().requires_grad_())
            assert "no fast adaln here (cuda:" in kitchen.missing("norm_modulate", "cuda") or torch.cuda.is_available()
    with use_backend("triton"):
        assert "fast on a GPU" in kitchen.refusal("norm_modulate", x)  # on a CPU it is for tests
    with use_backend("auto"):
        assert kitchen.refusal("norm_modulate", x)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    kitchen._missing.cache_clear()
    assert kitchen.missing("norm_modulate", "cuda") == "comfy-kitchen is not installed"
    kitchen._missing.cache_clear()


def test_every_operation_is_explained():
    for setting in ("auto", "torch", "triton", "comfy-kitchen"):
        for device in ("cpu", "cuda"):
            with use_backend(setting):
                lines = explain(device)
            assert [line.split(":")[0] for line in lines] == list(OPERATIONS)
            if setting in ("auto", "torch"):
                assert all(": torch (" in line for line in lines)
    with use_backend("triton"):
        assert "fused kernels run on a GPU, not on mps" in explain("mps")[0]


@pytest.mark.skipif(bool(dispatch.triton_missing()), reason="triton is not installed")
def test_triton_is_not_launched_on_a_gpu_that_is_not_the_current_one(monkeypatch):
    monkeypatch.setattr(dispatch, "current_gpu", lambda: 0)
    with FakeTensorMode(), use_backend("triton"):
        refusals = [dispatch.refusal("norm_modulate", torch.empty(2, 96, device=f"cuda:{n}")) for n in (0, 1)]
    assert refusals[0] == ""
    assert "tensors on cuda:1" in refusals[1]


def test_eight_bit_products_are_left_to_gpus_with_the_same_floats(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "7.0")
    with FakeTensorMode():
        rows = fp8.Rows8(torch.empty(16, 32, dtype=fp8.FP8, device="cuda:0"), torch.empty(16, device="cuda:0"))
    assert "AMD" in fp8.fp8_linear_refusal(rows, rows, torch.bfloat16)


def test_auto_takes_what_was_measured_on_this_gpu(tmp_path, monkeypatch, caplog):
    path = tmp_path / "deep" / "choices.json"
    choices.keep_choices(path, "GPU X", {"join_norm": "triton", "attention": "cudnn"}, {"torch": "2.13"})
    assert choices.read_choices(path, "GPU X") == {"join_norm": "triton", "attention": "cudnn"}
    assert choices.read_choices(path, "GPU Y") == {}
    assert choices.read_choices(path, "") == {}
    assert choices.read_choices(tmp_path / "none.json", "GPU X") == {}
    assert json.loads(path.read_text())["torch"] == "2.13"
    for damaged in ("{", "[1]", '{"gpu": "GPU X"}', '{"gpu": "GPU X", "choices": 3}'):
        (tmp_path / "damaged.json").write_text(damaged)
        assert choices.read_choices(tmp_path / "damaged.json", "GPU X") == {}
        assert "time the kernels again" in caplog.messages.pop()
        caplog.clear()
    monkeypatch.setattr(dispatch, "measured", lambda: choices.read_choices(path, "GPU X"))
    with use_backend("auto"):
        assert wanted("join_norm") == "triton"
        assert wanted("norm_modulate") == "auto"
    with use_backend("torch"):
        assert wanted("join_norm") == "torch"
