"""The fused kernels against their formulas in float64, interpreted on a CPU; on a GPU, where there is one, for real.

Rule for errors: at most 1.5 times the error of plain PyTorch in the same dtype, plus a little.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from comfyui_comovi.kernels import join_norm as jn
from comfyui_comovi.kernels import norm_modulate as nm
from comfyui_comovi.kernels import pose_attention as pa
from comfyui_comovi.kernels import qk_norm_rope as qk
from comfyui_comovi.kernels.dispatch import explain, parse, refusal, use_backend
from kernel_checks import DEVICE, DTYPES, check, fused_kernels, numbers, rows

triton = pytest.importorskip("triton", reason="triton is not installed (pip install '.[kernels]')")

SHAPES = ((1, 1, 1, 96), (2, 3, 5, 96), (3, 2, 4, 120), (1, 2, 3, 192), (2, 1, 2, 3072))  # B, F, S, D


@pytest.fixture(autouse=True)
def _fused(monkeypatch):
    with fused_kernels(monkeypatch):
        yield


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_norm_modulate(shape, dtype):
    shift, scale, _ = rows(shape[0], shape[1], shape[3])
    for stream in {torch.float32, dtype}:
        x = numbers(*shape, dtype=stream)
        check(nm.norm_modulate, nm.norm_modulate_formula, (x, shift, scale), dtype, out_dtype=dtype)


def test_norm_modulate_with_one_row_for_all_frames():
    x, (shift, scale, _) = numbers(2, 3, 4, 96), rows(2, 1, 96)
    check(nm.norm_modulate, nm.norm_modulate_formula, (x, shift, scale), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_join_norm(shape, dtype):
    x, update = numbers(*shape), numbers(*shape, dtype=dtype, seed=1)
    shift, scale, gate = rows(shape[0], shape[1], shape[3])
    weight, bias = numbers(shape[3], seed=2), numbers(shape[3], seed=3)
    for given in (gate, None):
        check(jn.join, jn.join_formula, (x, update, given), dtype)
        check(jn.join, jn.join_formula, (x, update, given, numbers(*shape, dtype=dtype, seed=4)), dtype)
        inputs = (x, update, given, shift, scale)
        check(jn.join_norm_modulate, jn.join_norm_modulate_formula, inputs, dtype, out_dtype=dtype)
        inputs = (x, update, given, weight, bias)
        check(jn.join_norm_affine, jn.join_norm_affine_formula, inputs, dtype, out_dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "length", "dim", "heads"), [(2, 7, 96, 4), (1, 1, 120, 5), (3, 5, 192, 4), (1, 3, 3072, 24)]
)
def test_qk_norm_rope(batch, length, dim, heads, dtype):
    q, k = numbers(batch, length, dim, dtype=dtype), numbers(batch, length, dim, dtype=dtype, seed=1)
    weights = [numbers(dim, dtype=dtype, seed=seed) for seed in (2, 3)]
    angles = numbers(length, dim // heads // 2, seed=4)
    inputs = (q, k, *weights, angles.cos(), angles.sin(), heads)
    check(qk.qk_norm_rope, qk.qk_norm_rope_formula, inputs, dtype)
    check(qk.norm_heads, qk.norm_heads_formula, (q, weights[0], heads), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("groups", "queries", "keys", "heads", "size"),
    [(2, 4, 70, 2, 24), (1, 4, 64, 3, 16), (3, 1, 5, 1, 32), (1, 16, 130, 1, 256)],
)
def test_pose_attention(groups, queries, keys, heads, size, dtype):
    q = numbers(2, groups * queries, heads, size, dtype=dtype)
    k, v = (numbers(2, groups * keys, heads, size, dtype=dtype, seed=seed) for seed in (1, 2))

    def fused(q, k, v, groups):
        return pa.pose_attention(q, k, v, groups, pytest.fail)

    check(fused, pa.pose_attention_formula, (q, k, v, groups), dtype)


def test_pose_attention_leaves_heads_that_do_not_fit_to_the_library():
    q, k = numbers(1, 4, 1, 288), numbers(1, 6, 1, 288, seed=1)
    asked = []
    pa.pose_attention(q, k, k, 2, lambda q, k, v: asked.append(q.shape) or q)
    assert len(asked) == 1


def test_operators_are_well_formed():
    """PyTorch's own check of schema, shapes under torch.compile and registration of gradients."""
    from comfyui_comovi.kernels import library

    x, (shift, scale, gate) = numbers(1, 2, 3, 96), rows(1, 2, 96)
    shift, scale, gate = shift.contiguous(), scale.contiguous(), gate.contiguous()
    weight, q, angles = numbers(96), numbers(1, 5, 96), numbers(5, 12)
    pose = (numbers(1, 4, 2, 16), numbers(1, 10, 2, 16), numbers(1, 10, 2, 16))
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor")
    for operator, inputs in (
        (library.norm_modulate, (x, shift, scale, 1e-6, torch.float32)),
        (library.join, (x, x.clone(), gate, x.clone())),
        (library.join_norm_modulate, (x, x.clone(), gate, shift, scale, 1e-6, torch.float32)),
        (library.join_norm_affine, (x, x.clone(), None, weight, weight.clone(), 1e-6, torch.float32)),
        (library.qk_norm_rope, (q, q.clone(), weight, weight.clone(), angles.cos(), angles.sin(), 4, 1e-6)),
        (library.norm_heads, (q, weight, 4, 1e-6)),
        (library.pose_attention, (*pose, 2)),
    ):
        torch.library.opcheck(operator, inputs, test_utils=utilities)


def test_a_whole_network_gives_the_same_with_fused_kernels():
    from comfyui_comovi.comovi_model.comovi.config import DualBranchConfig
    from comfyui_comovi.comovi_model.comovi.dual_branch import DualBranch

    torch.manual_seed(0)
    sizes = {"dim": 96, "ffn_dim": 64, "num_heads": 4, "num_layers": 1, "text_dim": 16, "text_len": 4, "freq_dim": 16}
    config = DualBranchConfig(**sizes, in_channels=4, out_channels=4, pose_head=True, pose_layers=1, pose_ffn_dim=32,
                              pose_heads=4, pose_tokens=4)  # fmt: skip
    network = DualBranch(config, device=DEVICE).requires_grad_(False)
    latents = [numbers(1, 4, 2, 4, 4, seed=seed) for seed in (1, 2)]
    given = {"text": numbers(1, 3, 16, seed=3), "init_pose": numbers(1, 144, seed=4), "pose_from_layers": (0,)}
    time = torch.tensor([[0.0, 500.0]], device=DEVICE)
    fused = network(*latents, time, **given)
    with use_backend("torch"):
        plain = network(*latents, time, **given)
    for ours, theirs in zip(fused, plain, strict=True):
        assert torch.allclose(ours, theirs, atol=2e-5)


def test_the_choice_is_explained():
    x = numbers(1, 1, 2, 96)
    assert refusal("norm_modulate", x) == ""
    assert "float64" in refusal("norm_modulate", x.double())
    assert "side by side" in refusal("norm_modulate", x.transpose(-1, -2))
    assert "programs hold" in refusal("norm_modulate", numbers(1, 20000)) or "holds" in refusal(
        "norm_modulate", numbers(1, 20000)
    )
    with use_backend("torch"):
        assert "asked for" in refusal("norm_modulate", x)
        assert all("torch" in line for line in explain())
    with use_backend("norm_modulate=torch,triton"):
        assert refusal("norm_modulate", x)
        assert not refusal("join_norm", x)
    with use_backend("auto"):
        assert "COMOVI_KERNELS=triton" in refusal("join_norm", x)


def test_a_misspelt_setting_is_refused():
    with pytest.raises(ValueError, match="expected auto, triton, comfy-kitchen, torch"):
        parse("cuda")
    with pytest.raises(ValueError, match="expected auto"):
        parse("norm=torch")


ARCH = 120  # 8-bit floats, and the least shared memory; all six: python -m comfyui_comovi.kernels.aot


def test_every_kernel_of_bfloat16_compiles():
    """No spilled registers, shared memory within the GPU's, and 128-bit loads, told by the compiler itself."""
    package = Path(__file__).resolve().parents[1]
    root = sys.modules["comfyui_comovi"].__path__[0]
    code = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('comfyui_comovi', "
        f"{str(Path(root) / '__init__.py')!r}, submodule_search_locations=[{root!r}]); "
        "m = importlib.util.module_from_spec(spec); sys.modules['comfyui_comovi'] = m; spec.loader.exec_module(m); "
        "from comfyui_comovi.kernels.aot import compile_variant, variants\n"
        f"rows = [compile_variant(v, {ARCH}) for v in variants({ARCH}) if 'bf16' in v.label]\n"
        "bad = [(r.kernel, r.variant, r.problem or r.widest_load) for r in rows if r.problem or r.widest_load < 128]\n"
        "print(len(rows), bad)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=package.parent
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "42 []", done.stdout
