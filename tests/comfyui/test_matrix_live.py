"""While it samples: previews of both halves come and move, progress counts, and stop means stop."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch


def test_previews_arrive_for_every_step(comfyui, nano):
    """What they show, and that it moves: test_native_previews.py."""
    g = nano(comfyui)
    g.save_latent(g.ksampler(steps=4, seed=11))
    previews = comfyui.run(g).previews
    both = [p for p in previews if p.width / p.height == pytest.approx(2 * 128 / 192, rel=0.05)]
    assert len(both) >= 4
    for picture in both:
        pixels = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
        half = picture.width // 2
        assert pixels[:, :half].std() > 0.02 and pixels[:, half:].std() > 0.02


def test_progress_counts_the_steps(comfyui, nano):
    g = nano(comfyui)
    sampled = g.ksampler(steps=5, seed=12)
    g.save_latent(sampled)
    told = comfyui.run(g).progress(sampled)
    assert told[-1] == (5, 5) and [value for value, _ in told] == sorted(value for value, _ in told)


def test_stopping_in_the_middle_and_going_on(comfyui, nano):
    g = nano(comfyui)
    saved = g.save_latent(g.ksampler(steps=2, seed=13))
    before = comfyui.run(g).latent(saved)

    long = nano(comfyui)
    sampled = long.ksampler(steps=500, seed=14)
    long.save_latent(sampled)
    seen: dict[str, float] = {}

    def stop(event):
        if event.type == "queued":
            seen["prompt"] = event.data["prompt_id"]
        if event.type == "progress" and event.data["value"] >= 3 and "time" not in seen:
            seen["time"], seen["step"] = time.monotonic(), event.data["value"]
            comfyui.client.interrupt(seen["prompt"])

    result = comfyui.run(long, check=False, on_event=stop)
    waited = time.monotonic() - seen["time"]
    assert "stopped" in result.error and result.failure["node_id"] == sampled.id
    last = result.progress(sampled)[-1][0]
    assert last <= seen["step"] + 8 and waited < 10, (
        f"step {last}, {waited:.1f} s after it was stopped in {seen['step']}"
    )

    comfyui.forget()  # nothing of the stopped run may be left in a model or a cache
    assert torch.equal(comfyui.run(g).latent(saved), before)


def test_loading_nodes_report_no_progress_but_long_ones_do(comfyui, nano):
    """Reading the motion back from a map is long: it must count."""
    g = nano(comfyui)
    pose = g.add("CoMoVi_NanoStart", prompt="a man jumps", seed=3)
    body = g.add("CoMoVi_LoadBody", body="nano (embedded)")
    drawn = g.add(
        "CoMoVi_DrawMotionMap", motion=pose[1], body=body, width=128, height=192, shading="phong_reference", smoothing=2
    )
    g.save_images(drawn)
    assert comfyui.run(g).progress(drawn)
