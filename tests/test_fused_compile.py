"""torch.compile over a block whose operations are the fused ones: one graph, the same numbers, also in training."""

from __future__ import annotations

import pytest
import torch
from comfyui_comovi.comovi_model.wan.attention import Parts
from comfyui_comovi.comovi_model.wan.branch import Block, TimeSignal
from comfyui_comovi.comovi_model.wan.config import WanConfig
from comfyui_comovi.comovi_model.wan.rope import grid_rope
from comfyui_comovi.kernels import linear_gelu
from comfyui_comovi.kernels.dispatch import use_backend
from kernel_checks import DEVICE, fused_kernels

triton = pytest.importorskip("triton", reason="triton is not installed (pip install '.[kernels]')")
CONFIG = WanConfig(dim=32, ffn_dim=24, num_heads=2, num_layers=1, text_dim=4, text_len=3, freq_dim=4)


@pytest.fixture(autouse=True)
def _fused(monkeypatch):
    with fused_kernels(monkeypatch):
        yield
    torch.compiler.reset()


@pytest.fixture
def block():
    torch.manual_seed(0)
    made = Block(CONFIG, Parts(device=DEVICE))
    rope = grid_rope((2, 1, 3), 16, torch.device(DEVICE), torch.float32)
    x, e, e0, text = (torch.randn(size, device=DEVICE) for size in ((1, 2, 3, 32), (1, 2, 1, 32), (1, 2, 1, 6, 32),
                                                                    (1, 3, 32)))  # fmt: skip

    def run(function, x):
        return function(x, TimeSignal(e, e0), rope, made.cross_attn.keys_values(text), torch.float32)

    return made, run, x


def operators(graph) -> set[str]:
    return {str(node.target) for node in graph.graph.nodes if "comovi" in str(node.target)}


def test_a_block_is_one_graph_with_our_operators_in_it(block):
    """`fullgraph` raises at the first graph break."""
    made, run, x = block
    seen = []

    def backend(graph, inputs):
        seen.append(operators(graph))
        return graph

    with torch.no_grad():
        ours = run(torch.compile(made, backend=backend, fullgraph=True), x)
        torch.testing.assert_close(ours, run(made, x))
        with use_backend("torch"):
            torch.testing.assert_close(ours, run(made, x), atol=1e-5, rtol=1e-5)
    assert len(seen) == 1
    names = {name.split(".")[1] for name in seen[0]}
    assert names == {"norm_modulate", "join", "join_norm_affine", "join_norm_modulate", "qk_norm_rope", "norm_heads"}


def test_asking_the_matrix_library_breaks_no_graph():
    epilogue = linear_gelu.epilogue_is_tanh
    compiled = torch.compile(lambda x: x + epilogue(x.device), backend="eager", fullgraph=True)
    assert compiled(torch.zeros(2, device=DEVICE)).tolist() == [float(epilogue(torch.device(DEVICE)))] * 2


def test_training_compiles_with_the_backward_kernels(block):
    """Ahead-of-time differentiation sees the backward kernels by their shapes; gradients are those of the formulas."""
    made, run, x = block
    compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
    found = []
    for function, setting in ((compiled, "triton"), (made, "torch")):
        made.zero_grad()
        given = x.clone().requires_grad_()
        with use_backend(setting):
            run(function, given).square().sum().backward()
        found.append({"x": given.grad, **{name: p.grad.clone() for name, p in made.named_parameters()}})
    for name, ours in found[0].items():
        torch.testing.assert_close(ours, found[1][name], atol=2e-4, rtol=2e-4)
