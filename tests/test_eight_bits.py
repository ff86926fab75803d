"""Blocks with 8-bit products: near the plain network, half the memory, and rows that are made once."""

from __future__ import annotations

import pytest
import torch
from comfyui_comovi.comovi_model.comovi.config import DualBranchConfig
from comfyui_comovi.comovi_model.comovi.dual_branch import DualBranch
from comfyui_comovi.comovi_model.wan import eight_bits
from comfyui_comovi.comovi_model.wan.eight_bits import Linear8, use_eight_bits
from comfyui_comovi.kernels import fp8
from torch import nn

SIZES = {"dim": 96, "ffn_dim": 192, "num_heads": 4, "num_layers": 2, "text_dim": 10, "text_len": 5, "freq_dim": 16}


@pytest.fixture
def network():
    torch.manual_seed(0)
    net = DualBranch(DualBranchConfig(**SIZES, in_channels=4, out_channels=4)).requires_grad_(False)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    return net


def evaluate(net):
    generator = torch.Generator().manual_seed(1)
    video, motion = (torch.randn(1, 4, 3, 4, 6, generator=generator) for _ in range(2))
    text = torch.randn(1, 5, 10, generator=generator)
    return net(video, motion, torch.tensor([[0.0, 500.0, 500.0]]), text)


def test_a_network_in_eight_bits_says_nearly_the_same(network):
    plain = evaluate(network)
    before = sum(p.numel() * p.element_size() for p in network.parameters())
    assert use_eight_bits(network) == 2 * 2 * 10, "layers, branches; q k v o twice and two of the feed-forward network"
    assert type(network.zero_linear_blocks[0]) is nn.Linear
    assert type(network.head.head) is nn.Linear
    for ours, theirs in zip(evaluate(network)[:2], plain[:2], strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 0.15  # measured 0.05
        assert not torch.equal(ours, theirs)
    kept = [*network.parameters(), *network.buffers()]
    assert sum(p.numel() * p.element_size() for p in kept) < 0.5 * before


def test_norms_hand_over_rows_that_are_in_eight_bits(network, monkeypatch):
    """Only what comes out of attention and activation is turned into 8 bits by itself."""
    made = []
    monkeypatch.setattr(eight_bits, "to_rows8", lambda x, gelu=False: made.append(gelu) or fp8.to_rows8(x, gelu))
    use_eight_bits(network)
    evaluate(network)
    # For each of the 4 blocks: o, o of the cross attention, the second feed-forward layer; k and v of the sentence.
    assert made.count(True) == 4
    assert made.count(False) == 4 * 4


def test_a_layer_is_its_quantised_product():
    layer = nn.Linear(32, 16)
    x = torch.randn(2, 3, 32)
    eight = Linear8(layer)
    rows = fp8.quantise_rows(x)
    expected = rows.widen() @ fp8.Rows8(eight.weight, eight.scales).widen().t() + layer.bias
    torch.testing.assert_close(eight(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(eight(rows), eight(x))
