"""The table of memory modes: what is known by hand, and what must be less than what."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comfyui_comovi.comovi_model.comovi import memory_modes
from comfyui_comovi.comovi_model.comovi.memory_modes import MODES, Mode, need, table, weight_bytes

LATENT = (21, 52, 30)  # large enough that tokens and not the embedding of time set the peak


@pytest.fixture(autouse=True)
def _few_layers(monkeypatch):
    """The released width with 4 layers of 30: the meta device costs time for every operator."""

    def forget():
        memory_modes.network.cache_clear()
        memory_modes.step_bytes.cache_clear()

    monkeypatch.setattr(memory_modes, "WAN22_5B", replace(memory_modes.WAN22_5B, num_layers=4))
    forget()
    yield
    forget()


def test_weights_are_those_of_the_network():
    count = sum(parameter.numel() for parameter in memory_modes.network().parameters())
    whole, motion, video = (weight_bytes(Mode("", branches=name)) for name in ("both", "motion", "video"))
    assert whole == 2 * count
    assert 0.45 < motion / whole < 0.55
    assert 0.45 < video / whole < 0.55
    assert weight_bytes(Mode("", eight_bits=True)) == pytest.approx(count, rel=0.15)
    assert weight_bytes(Mode("", streamed=True)) < 0.6 * whole


def test_each_choice_saves_what_it_says():
    whole, in_turn = need(Mode(""), LATENT, False), need(Mode("", sentences=1, keep_text=False), LATENT, False)
    assert whole.text == pytest.approx(2 * 8 * 2 * 512 * 3072 * 2 / 2**30)
    assert in_turn.text == pytest.approx(whole.text / 16)
    assert in_turn.step < 0.6 * whole.step
    assert need(Mode("", branches="motion"), LATENT, False).step < whole.step
    assert need(Mode(""), LATENT, True).step < whole.step, "fused kernels store less in between"


def test_the_table_is_complete(monkeypatch):
    monkeypatch.setattr(memory_modes, "SIZES", {"small": LATENT})
    lines = table()
    assert len(lines) == 2 + len(MODES)
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    streamed = next(line for line in lines if "streamed from main memory" in line)
    assert streamed.count("yes") == 3
