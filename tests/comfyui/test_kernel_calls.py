"""Weights with LoRA patches, offloaded weights and weights in 8 bits go through the same fused operations.

kernel_calls.py runs in ComfyUI's own Python, once for the newest and once for the oldest, and counts the calls.
"""

from __future__ import annotations

import pytest
from run_in_comfy import run_checks

KINDS = ("plain", "lora", "offloaded", "offloaded lora", "fp8", "fp8 lora")
STEPS, LAYERS, BRANCHES = 2, 2, 2
BLOCKS = STEPS * LAYERS * BRANCHES
EXPECTED = {
    "norm_modulate": BLOCKS + STEPS * BRANCHES,  # before self attention, and in the heads
    "join_norm_affine": BLOCKS,
    "join_norm_modulate": BLOCKS,
    "join": BLOCKS,
    "qk_norm_rope": BLOCKS,
    "norm_heads": 2 * BLOCKS,  # queries of cross attention, and keys of the sentence
}


@pytest.fixture(scope="module", params=["new", "old"])
def found(request, comfyui_servers) -> dict:
    return run_checks(comfyui_servers, request.param, "kernel_calls.py")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_weight_goes_through_the_same_kernels(found, kind):
    assert found[f"{kind} torch"] == {}
    assert found[f"{kind} triton"] == EXPECTED
    assert found[f"{kind} error"] < 1e-5


def test_the_kinds_are_what_they_are_called(found):
    assert found["plain patched on the way"] == 0
    assert found["lora moves"] > 1e-3
    assert found["offloaded casts"] > found["plain casts"]
    assert found["offloaded lora patched on the way"] == 3
    assert found["offloaded as loaded"] < 1e-4
    assert found["fp8 casts"] > 0


def test_the_report_says_what_runs(found):
    assert "kernel norm_modulate: triton" in found["report"]
