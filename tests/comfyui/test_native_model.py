"""Our network inside ComfyUI, without a server: what it samples, what it loads, what other nodes may do to it.

native_checks.py runs in ComfyUI's own Python, once for the newest and once for the oldest; here stand the expectations.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import comfyui_comovi
import pytest

SCRIPT = Path(__file__).with_name("native_checks.py")
PACKAGE = Path(comfyui_comovi.__file__).parent


@pytest.fixture(scope="module", params=["new", "old"])
def checks(request, comfyui_servers) -> dict:
    install = comfyui_servers.install(request.param)
    done = subprocess.run(
        [str(install.python), "-W", "ignore", str(SCRIPT), str(install.home), str(PACKAGE)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=install.home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.splitlines()[-1])
    results["role"] = request.param
    return results


def figures(checks: dict, name: str) -> dict:
    result = checks[name]
    if isinstance(result, dict) and isinstance(result.get("error"), str):
        pytest.fail(result["error"], pytrace=False)
    return result


def test_euler_gives_the_latents_of_our_own_core(checks):
    errors = figures(checks, "euler_equals_our_core")
    assert max(errors.values()) < 1e-4, errors


def test_the_pose_node_asks_the_head_as_our_core_does(checks):
    found = figures(checks, "pose_equals_our_core")
    assert found["error"] < 1e-4
    assert found["first"] < 1e-6
    assert found["low noise"] < 0.05, "read under little noise, the head says nearly the same"
    assert found["moves"] > 0.1, "raised arms turn"


def test_given_first_frames_survive_every_sampler(checks):
    for sampler, (error, finite) in figures(checks, "first_frames_stay").items():
        assert error == 0.0, sampler
        assert finite, sampler


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


def test_one_branch_alone(checks):
    found = figures(checks, "branches_alone")
    assert found["motion"] == 0.0
    assert found["share of parameters"] < 0.6
    assert found["video alone"]


def test_official_sampling_is_the_released_pipeline(checks):
    found = figures(checks, "official_sampling")
    assert found["sigmas"] < 1e-7
    assert found["error"] < 1e-4


def test_a_given_half_stays_and_decides_the_other(checks):
    found = figures(checks, "given_half")
    assert found["motion"] == found["clean motion"] == 0.0
    for name in ("video follows", "manners differ", "free"):
        assert found[name] > 1e-3, name


def test_a_nano_model_saved_by_comfyui_loads_again(checks):
    assert figures(checks, "saved_nano_loads_again")["error"] == 0.0


def test_patches_of_other_nodes_reach_the_network(checks):
    found = figures(checks, "patches_of_other_nodes")
    assert found["passed through"] == found["watched"] == 0.0
    assert found["shared"] < 1e-5  # what no sentence has touched yet is computed once: only rounding
    assert found["blocks seen"] == [1]
    assert found["attention calls"] >= 2 * 2 * 2 * 2, "steps, layers, branches, self and cross"
    assert found["skipped"] > 1e-3
    assert found["stretched"] > 1e-6
    assert found["odd size"] == [1, 96, 2, 5, 3]


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


def test_masks_of_other_nodes_fit(checks):
    found = figures(checks, "masks_of_other_nodes")
    assert found["small"] == found["picture"] == 0.0
    assert found["free"] > 1e-3


def test_a_model_can_be_loaded_again_without_paging(checks):
    found = figures(checks, "loaded_again_without_paging")
    assert found["file"] == found["expected"]
    assert found["nano"] > 0


def test_the_first_pose_is_not_rounded_to_the_dtype_of_products(checks):
    assert figures(checks, "the_first_pose_is_not_rounded")["error"] < 1e-6


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
