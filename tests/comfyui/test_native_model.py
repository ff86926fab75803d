"""Our network inside ComfyUI, without a server: what it samples, and what other nodes may do to it.

native_checks.py runs in ComfyUI's own Python, once for the newest and once for the oldest; here stand the expectations.
"""

from __future__ import annotations

import pytest
from run_in_comfy import figures, run_checks


@pytest.fixture(scope="module", params=["new", "old"])
def checks(request, comfyui_servers) -> dict:
    return run_checks(comfyui_servers, request.param, "native_checks.py")


def test_euler_gives_the_latents_of_our_own_core(checks):
    errors = figures(checks, "euler_equals_our_core")
    assert max(errors.values()) < 1e-4, errors


def test_the_pose_node_asks_the_head_as_our_core_does(checks):
    found = figures(checks, "pose_equals_our_core")
    assert found["error"] < 1e-4
    assert found["first"] < 1e-6
    assert found["rate"] == 16.0, "of the clip, whatever file the first pose came from"
    assert found["low noise"] < 0.05, "read under little noise, the head says nearly the same"
    assert found["moves"] > 0.1, "raised arms turn"


def test_given_first_frames_survive_every_sampler(checks):
    for sampler, (error, finite) in figures(checks, "first_frames_stay").items():
        assert error == 0.0, sampler
        assert finite, sampler


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


def test_patches_of_other_nodes_reach_the_network(checks):
    found = figures(checks, "patches_of_other_nodes")
    assert found["passed through"] == found["watched"] == 0.0
    assert found["shared"] < 1e-5  # what no sentence has touched yet is computed once: only rounding
    assert found["blocks seen"] == [1]
    assert found["attention calls"] >= 2 * 2 * 2 * 2, "steps, layers, branches, self and cross"
    assert found["skipped"] > 1e-3
    assert found["stretched"] > 1e-6
    assert found["odd size"] == [1, 96, 2, 5, 3]


def test_masks_of_other_nodes_fit(checks):
    found = figures(checks, "masks_of_other_nodes")
    assert found["small"] == found["picture"] == 0.0
    assert found["free"] > 1e-3


def test_the_first_pose_is_not_rounded_to_the_dtype_of_products(checks):
    assert figures(checks, "the_first_pose_is_not_rounded")["error"] < 1e-6
