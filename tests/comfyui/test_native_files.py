"""Our network inside ComfyUI, without a server: which files it loads from, and what it refuses.

native_files.py runs in ComfyUI's own Python, once for the newest and once for the oldest; here stand the expectations.
"""

from __future__ import annotations

import pytest
from run_in_comfy import figures, run_checks


@pytest.fixture(scope="module", params=["new", "old"])
def checks(request, comfyui_servers) -> dict:
    return run_checks(comfyui_servers, request.param, "native_files.py")


def test_every_kind_of_file_gives_the_same_network(checks):
    found = figures(checks, "kinds_of_files")
    for name in ("prefixed", "own names"):
        assert found[name] == [0.0, 0.0], name
    size = found["size"]
    for name, share in (("bf16", 0.02), ("fp8", 0.2), ("loaded as fp8", 0.2)):
        assert 0 < max(found[name]) < share * size, (name, found[name])


def test_scaled_fp8_is_right_or_refused(checks):
    found = figures(checks, "kinds_of_files")["scaled fp8"]
    if checks["role"] == "old":
        assert "update ComfyUI" in found
    else:
        assert 0 < max(found) < 0.2 * figures(checks, "kinds_of_files")["size"]


def test_a_plain_wan_file_fills_both_branches_without_exchange(checks):
    assert figures(checks, "wan_file_fills_both_branches") == {"motion block": 0.0, "exchange": 0.0}


def test_a_nano_model_saved_by_comfyui_loads_again(checks):
    assert figures(checks, "saved_nano_loads_again")["error"] == 0.0


def test_scales_are_used_or_refused_whoever_tells_the_form(checks):
    found = figures(checks, "forms_of_eight_bits")
    assert "_quantization_metadata is damaged" in found["damaged"]
    if checks["role"] == "old":
        assert "update ComfyUI" in found["told"]
        assert "update ComfyUI" in found["untold"]
    else:
        assert 0 < found["told"] < 0.5
        assert "does not say in which form" in found["untold"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no spreads", "48 positive numbers"),
        ("few spreads", "48 positive numbers"),
        ("zero spreads", "48 positive numbers"),
        ("wrapped by mistake", "reads 48 channels and makes 48; expected 112"),
        ("spreads of another kind", "comovi_config is damaged"),
        ("patch of another kind", "patch_size is of the wrong kind"),
        ("half a network", "half a network"),
        ("16 channels", "reads 16 channels"),
        ("a list", "more than tensors by name"),
        ("numbers", "more than tensors by name"),
        ("a tensor", "cannot be read as model weights"),
    ],
)
def test_what_a_file_says_about_itself_is_checked(checks, name, sentence):
    assert sentence in figures(checks, "hostile_metadata")[name]


def test_a_model_can_be_loaded_again_without_paging(checks):
    found = figures(checks, "loaded_again_without_paging")
    assert found["file"] == found["expected"]
    assert found["nano"] > 0


def test_small_parts_stay_wide_where_weights_come_later(checks):
    found = figures(checks, "small_parts_stay_wide_where_weights_come_later")
    if found:  # an older ComfyUI does not page
        assert found.pop("blocks.0.ffn.0") == "torch.float8_e4m3fn"
        assert set(found.values()) == {"torch.bfloat16"}


def test_bad_files_get_a_sentence(checks):
    found = figures(checks, "bad_files")
    assert "rgb_blocks.1.ffn.2.weight is missing" in found["lacking"]
    assert "motion_head.head.bias is (7,)" in found["misshaped"]
    assert "neither a CoMoVi nor a Wan2.2" in found["foreign"]
