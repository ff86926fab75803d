"""Previews: while the sampler works, the web UI shows the clip of both halves, moving."""

from __future__ import annotations

import numpy as np
import torch
from comfyui_comovi.comovi_model.comovi.checkpoint import save_checkpoint
from comfyui_comovi.comovi_model.comovi.config import DualBranchConfig
from comfyui_comovi.comovi_model.comovi.dual_branch import DualBranch
from nano_graph import HEIGHT, WIDTH, psnr
from PIL import Image

PICTURES = 17  # of 9 latent frames: one for the first, two for each other


def halves(picture: Image.Image) -> list[np.ndarray]:
    """Video and motion map of a preview, shrunk to 4 x 4 pixels a cell, 0 to 1."""
    size = (WIDTH // 4 * 2, HEIGHT // 4)
    pixels = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BOX), dtype=np.float32) / 255
    return [pixels[:, : WIDTH // 4], pixels[:, WIDTH // 4 :]]


def is_shaped(picture: Image.Image, width: int) -> bool:
    """Is this a picture of `width` x HEIGHT pixels, made smaller or larger?"""
    return abs(picture.width / picture.height - width / HEIGHT) < 0.01


def shrunk(frames: np.ndarray) -> np.ndarray:
    """Decoded frames (33, H, W, 3) as previews should show them: (17, H/4, W/4, 3), two frames in one."""
    blocks = frames.reshape(len(frames), HEIGHT // 4, 4, WIDTH // 4, 4, 3).mean(axis=(2, 4))
    return np.concatenate([blocks[:1], blocks[1:].reshape(16, 2, *blocks.shape[1:]).mean(axis=1)])


def test_previews_move_and_show_what_will_come_out(comfyui, nano):
    g = nano(comfyui)
    samples = g.ksampler(steps=24)  # long enough to see the clip move also where steps are quick
    decoded = [g.add("PreviewImage", images=images) for images in g.decode(samples)]
    result = comfyui.run(g)
    pictures = [halves(p) for p in result.previews if is_shaped(p, 2 * WIDTH)]  # an older ComfyUI adds one half alone
    assert len(pictures) >= 24, "at least one a step with both halves side by side"
    frames = [shrunk(result.images(node)) for node in decoded]
    last = [[max(psnr(half, frame) for frame in clip) for clip in frames] for half in pictures[-1]]
    assert min(last[0][0], last[1][1]) > 20, f"dB from the nearest of the decoded frames: {last}"
    assert max(last[0][1], last[1][0]) < 15, "the video stands left, the motion map right"
    shown = {max(range(PICTURES), key=lambda i: psnr(p[0], frames[0][i]) + psnr(p[1], frames[1][i])) for p in pictures}
    assert len(shown) >= 4, f"the clip moves; only its pictures {sorted(shown)} were seen"


def test_the_player_ends_with_the_run(comfyui, nano):
    """After the last step no picture may come: it would belong to a node that has ended."""
    g = nano(comfyui)
    sampler = g.ksampler(steps=4, seed=3)
    decoded = g.add("PreviewImage", images=g.decode(sampler)[0])
    events = comfyui.run(g).events
    running = [event.data.get("node") if event.type == "executing" else None for event in events]
    begin, end = running.index(sampler.id), running.index(decoded.id)
    kinds = [event.type for event in events]
    assert "preview" in kinds[begin:end]
    assert "preview" not in kinds[end:]
    assert "preview" not in kinds[:begin]


def test_previews_do_not_change_the_result(start_comfyui, new_comfyui, nano):
    """Bit for bit; and without previews none come."""
    g = nano(new_comfyui)
    saved = g.save_latent(g.ksampler(steps=2, seed=5))
    with_previews = new_comfyui.run(g).latent(saved)
    with start_comfyui("new", "--cpu", "--preview-method", "none") as server:
        h = nano(server)
        saved = h.save_latent(h.ksampler(steps=2, seed=5))
        result = server.run(h)
        without = result.latent(saved)
    assert result.previews == []
    assert torch.equal(without, with_previews)


def test_one_branch_is_shown_alone(comfyui, nano):
    g = nano(comfyui, model={"branches": "motion only"})
    g.save_latent(g.ksampler(steps=2))
    previews = comfyui.run(g).previews
    assert is_shaped(previews[-1], WIDTH)


def test_models_with_the_wan_vae_are_shown_in_its_colours(comfyui, nano):
    """A small network of the released kind: ComfyUI's own table of colours, one pixel a cell, both halves."""
    config = DualBranchConfig(dim=128, ffn_dim=128, num_heads=1, num_layers=1, freq_dim=32, text_dim=128)
    folder = comfyui.base / "models" / "diffusion_models"
    folder.mkdir(exist_ok=True)
    save_checkpoint(folder / "previewed.safetensors", DualBranch(config))
    g = nano(comfyui, model={"model_name": "previewed.safetensors"})
    g.save_latent(g.ksampler(steps=3))
    pictures = [picture for picture in comfyui.run(g).previews if is_shaped(picture, 2 * WIDTH)]
    assert len(pictures) >= 3
