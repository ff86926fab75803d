"""The tool that counts the memory of one evaluation: what it counts, and that one branch needs less than two."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import comfyui_comovi
import pytest
import torch
from comfyui_comovi.kernels.live_memory import LiveBytes

FILE = Path(comfyui_comovi.__file__).parent / "tools" / "measure_memory.py"


@pytest.fixture(scope="module")
def tool():
    if not FILE.exists():
        pytest.skip("tools/ is not installed")
    spec = importlib.util.spec_from_file_location("measure_memory", FILE)
    module = sys.modules["measure_memory"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_counts_storages_that_live_at_the_same_time():
    live = LiveBytes()
    with live, torch.device("meta"):
        first = torch.empty(1000)
        second = first + 1  # 8000 bytes together
        view = second.reshape(10, 100)  # nothing new
        del first
        third = view * 2  # 8000 again
        del second, view, third
        fourth = torch.empty(500, dtype=torch.float64)
    assert live.peak == 8000
    assert live.now == 4000
    del fourth
    assert live.now == 0


def test_one_evaluation_grows_with_the_batch_and_the_branches(tool):
    options = argparse.Namespace(dtype="float32", interaction="single_m2v", frames=33, height=512, width=512)
    both, twice, alone = (
        tool.one_evaluation("comfyui_comovi", options, batch, branches).peak
        for batch, branches in ((1, "both"), (2, "both"), (1, "motion"))
    )
    assert 1.5 < twice / both < 2.1
    assert 0.5 < alone / both < 0.95
