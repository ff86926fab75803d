"""Train the nano autoencoder: principal components in a minute, then a small convolutional correction.

    python -m comfyui_comovi.training.train_autoencoder --out runs/autoencoder --minutes 15

Crops of 64 x 64 pixels (aligned to the 16-pixel cells, near the body) of two successive groups of four frames, video
and motion map alike. The linear maps learn at 0.02 of the rate (the full rate spoils them). `--freeze-encoder`
goes on with the decoder alone: latents that were made before stay valid.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ..comovi_model.files import atomic_path
from ..comovi_model.nano.autoencoder import (
    NanoAutoencoder,
    fit_principal_components,
    frames_to_groups,
    groups_to_patches,
)
from ..comovi_model.nano.draw import draw_clip
from ..comovi_model.nano.model import save_autoencoder
from ..comovi_model.nano.people import load_nano_body
from ..comovi_model.nano.scene import sample_scene
from .nano_clips import VALIDATION_SEEDS, pixels_to_unit, torch_weights

CROP, CELL = 64, 16
AUTOENCODER_SEEDS = 500_000_000  # apart from those of the transformer's clips


class CropPool:
    """A slowly renewed pool of drawn clips from which training crops are cut."""

    def __init__(self, seed: int, size: int, body) -> None:
        self.body, self.next_seed, self.rng = body, seed, np.random.default_rng(seed)
        self.groups: list[Tensor] = []
        self.size = size

    def renew(self, count: int) -> None:
        for _ in range(count):
            clip = draw_clip(sample_scene(self.next_seed, self.body), self.body)
            self.next_seed += 1
            for frames in (clip.video, clip.motion_map):
                self.groups.append(frames_to_groups(torch.from_numpy(frames)[None])[0])  # (F, 4, H, W, 3) uint8
        self.groups = self.groups[-2 * self.size :]

    def crops(self, count: int) -> Tensor:
        """(count, 3, 4, 64, 64, 3) in [-1, 1]: three successive groups, the first is context for the decoder."""
        out: list[Tensor] = []
        while len(out) < count:
            groups = self.groups[int(self.rng.integers(len(self.groups)))]
            start = int(self.rng.integers(-1, groups.shape[0] - 2))
            index = [max(start, 0), start + 1, start + 2]
            y = int(self.rng.integers((groups.shape[2] - CROP) // CELL + 1)) * CELL
            x = int(self.rng.integers((groups.shape[3] - CROP) // CELL + 1)) * CELL
            crop = groups[index, :, y : y + CROP, x : x + CROP]
            if crop.float().std() > 14 or self.rng.random() < 0.05:  # mostly where somebody is
                out.append(crop)
        return torch.stack(out).float().div_(127.5).sub_(1.0)


def sample_patches(pool: CropPool, count: int) -> Tensor:
    """Patches (count, 3072) in [-1, 1], drawn in proportion to their contrast."""
    patches = torch.cat([groups_to_patches(g[None].float().div(127.5).sub(1))[0].flatten(0, 2) for g in pool.groups])
    weight = patches.std(1) + 2 / 127.5
    generator = torch.Generator().manual_seed(0)
    return patches[torch.multinomial(weight, min(count, len(patches)), generator=generator)]


@torch.no_grad()
def measure_psnr(model: NanoAutoencoder, body, count: int = 16) -> dict[str, float]:
    """Mean peak signal-to-noise ratio over held-out clips, whole frames, dB; video and motion map apart."""
    out = {"rgb": 0.0, "map": 0.0}
    for seed in range(VALIDATION_SEEDS, VALIDATION_SEEDS + count):
        clip = draw_clip(sample_scene(seed, body), body)
        for name, frames in (("rgb", clip.video), ("map", clip.motion_map)):
            x = pixels_to_unit(frames)
            with torch.autocast("cpu", torch.bfloat16):
                y = model.decode(model.encode(x)).float().clamp(-1, 1)
            out[name] += 10 * math.log10(4 / float((x - y).square().mean())) / count
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--start", type=Path, help="weights to go on from; principal components when left out")
    parser.add_argument("--freeze-encoder", action="store_true")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    body, model = load_nano_body(), NanoAutoencoder()
    pool = CropPool(AUTOENCODER_SEEDS + 1_000_000 * options.seed, 160, body)
    pool.renew(160)
    if options.start:
        model.load_state_dict(torch_weights(options.start))
    else:
        explained = fit_principal_components(model, sample_patches(pool, 36000))
        print(f"principal components explain {float(explained.sum()):.4f}", flush=True)
    print("start", measure_psnr(model, body), flush=True)
    if options.freeze_encoder:
        for part in (model.to_latent, model.encoder):
            part.requires_grad_(False)
    linear = [p for part in (model.to_latent, model.to_pixels) for p in part.parameters() if p.requires_grad]
    others = [p for p in model.parameters() if p.requires_grad and all(p is not q for q in linear)]
    optimiser = torch.optim.AdamW(
        [{"params": linear, "scale": 0.02}, {"params": others, "scale": 1.0}],
        lr=options.lr,
        betas=(0.9, 0.98),
        weight_decay=1e-4,
    )
    average = {k: v.clone() for k, v in model.state_dict().items()}
    model.to(memory_format=torch.channels_last)
    begin, step, running = time.time(), 0, 0.0
    while (done := (time.time() - begin) / (60 * options.minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = options.lr * group["scale"] * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * done))
        x = pool.crops(options.batch)
        with torch.autocast("cpu", torch.bfloat16):
            z = model.encode_groups(x)
            noisy = z + 0.05 * torch.randn_like(z)
            error = (model.decode_groups(noisy[:, 1:], noisy[:, :-1]) - x[:, 1:]).float()
        loss = error.square().mean() + 0.03 * error.abs().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        optimiser.step()
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        with torch.no_grad():
            decay = min(0.998, step / (step + 10))
            for key, value in model.state_dict().items():
                average[key].lerp_(value, 1 - decay)
        step += 1
        if step % 40 == 0:
            pool.renew(4)
        if step % 500 == 0:
            save(average, options.out)
            live = {k: v.clone() for k, v in model.state_dict().items()}
            model.load_state_dict(average)
            print(
                f"step {step} {(time.time() - begin) / 60:.1f} min loss {running:.5f}",
                measure_psnr(model, body, 6),
                flush=True,
            )
            model.load_state_dict(live)
    model.load_state_dict(average)
    save(average, options.out)
    print(f"end after {step} steps", measure_psnr(model, body), flush=True)


def save(weights: dict[str, Tensor], folder: Path) -> None:
    """Write the averaged weights, whole or not at all: float32 to go on with, float16 as the nano model has them."""
    with atomic_path(folder / "autoencoder.safetensors") as temporary:
        save_file({k: v.contiguous() for k, v in weights.items()}, str(temporary))
    sizes = {"fine": len(weights["encoder.0.weight"]), "coarse": len(weights["decoder_in.weight"])}
    save_autoencoder(weights, folder, sizes, "training.train_autoencoder")


if __name__ == "__main__":
    main()
