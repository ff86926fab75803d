"""What the scripts on our network inside ComfyUI's own Python share: one nano start, a random network, and the report.

Imported after in_comfy.
"""

from __future__ import annotations

import json
import tempfile
import traceback
from pathlib import Path

import comfy.sample
import torch
from comovi_pack.comovi_model.body.rotations import matrix_to_6d_rows
from comovi_pack.comovi_model.comovi.config import DualBranchConfig
from comovi_pack.comovi_model.comovi.dual_branch import DualBranch
from comovi_pack.comovi_model.nano import generate
from comovi_pack.comovi_model.nano.model import load_nano
from comovi_pack.comovi_model.nano.start import make_start
from comovi_pack.comovi_model.nano.text_encoder import tokenise
from comovi_pack.comovi_model.wan.flow import FlowSchedule
from comovi_pack.comovi_model.wan.sampling import Stream, classifier_free, sample
from safetensors.torch import save_file

PROMPT = "a woman in a red shirt and blue trousers raises both arms"
FOLDER = Path(tempfile.mkdtemp())
torch.set_num_threads(1)


class NanoCase:
    """One nano start, as latents, sentences and noise."""

    def __init__(self):
        self.nano, self.start = load_nano(), make_start(PROMPT, 3)
        pictures = [torch.from_numpy(p.copy())[None] for p in (self.start.frame, self.start.motion_map)]
        self.first = [generate.encode_first(self.nano, picture) for picture in pictures]
        self.latent = torch.zeros(1, 96, 9, *self.first[0].shape[3:])
        self.latent[:, :48, :1], self.latent[:, 48:, :1] = self.first
        self.mask = torch.ones_like(self.latent)
        self.mask[:, :, 0] = 0
        ids, _ = tokenise([PROMPT])
        self.text = {"positive": self.nano.text_encoder(ids), "negative": self.nano.text_encoder(torch.zeros_like(ids))}
        self.noise = comfy.sample.prepare_noise(self.latent, 5)

    def comfy(self, model, steps=3, cfg=1.0, sampler="euler", scheduler="simple", **options):
        conds = [[[self.text[name], {}]] for name in ("positive", "negative")]
        return comfy.sample.sample(
            model, self.noise, steps, cfg, sampler, scheduler, *conds, self.latent, noise_mask=self.mask, seed=5,
            disable_pbar=True, **options,
        )  # fmt: skip

    def ours(self, sigmas, cfg):
        """(video, motion, pose) of our own sampler with the same noise."""
        conditions = [term.condition for term in classifier_free(cfg)]
        cache = self.nano.network.make_text_cache(torch.cat([self.text[name] for name in conditions]))
        pose = matrix_to_6d_rows(self.start.pose.rotations[:1]).flatten(1)
        firsts = dict(zip(("video", "motion"), self.first, strict=True))
        velocity = generate.NanoVelocity(self.nano, self.nano.network, firsts, {"+".join(conditions): cache}, pose)
        schedule = FlowSchedule(tuple(sigmas))
        halves = {"video": self.noise[:, :48], "motion": self.noise[:, 48:]}
        streams = {name: Stream(halves[name], firsts[name], schedule) for name in halves}
        made = sample(velocity, streams, schedule, classifier_free(cfg), sampler="euler")
        return torch.cat([made.latents["video"], made.latents["motion"]], 1), made.extras["positive"]["pose"]


def largest(a, b):
    return float((a - b).abs().max())


def tiny(**more):
    torch.manual_seed(0)
    sizes = {"dim": 256, "ffn_dim": 512, "num_heads": 2, "num_layers": 2, "freq_dim": 64}
    values = {**sizes, "text_dim": 64, "text_len": 512}
    network = DualBranch(DualBranchConfig(**{**values, **more}))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network.eval().requires_grad_(False)


def write(name, tensors, metadata=None):
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, str(FOLDER / name), metadata=metadata)
    return FOLDER / name


class TinyCase:
    """A random network in the layout of the released files."""

    def __init__(self, network):
        self.network = network
        generator = torch.Generator().manual_seed(1)
        self.latent = torch.randn(1, 96, 3, 6, 4, generator=generator)
        self.mask = torch.ones_like(self.latent)
        self.mask[:, :, 0] = 0
        self.text = [torch.randn(1, 512, 64, generator=generator) for _ in range(2)]
        self.noise = comfy.sample.prepare_noise(self.latent, 1)

    def comfy(self, model, steps=2, cfg=2.0, sampler="euler", scheduler="simple", mask=None, latent=None, **options):
        conds = [[[text, {}]] for text in self.text]
        return comfy.sample.sample(
            model, self.noise, steps, cfg, sampler, scheduler, *conds, self.latent if latent is None else latent,
            noise_mask=self.mask if mask is None else mask, seed=1, disable_pbar=True, **options,
        )  # fmt: skip

    def custom(self, model, sampler, sigmas, cfg=2.0):
        conds = [[[text, {}]] for text in self.text]
        return comfy.sample.sample_custom(
            model, self.noise, cfg, sampler, sigmas, *conds, self.latent, noise_mask=self.mask, seed=1,
            disable_pbar=True,
        )  # fmt: skip


def halves(a, b):
    return [largest(a[:, :48], b[:, :48]), largest(a[:, 48:], b[:, 48:])]


def report(checks):
    """Prints what the functions named check_... give as one JSON object: name -> figures or {"error": ...}."""
    results = {}
    for name, function in list(checks.items()):
        if name.startswith("check_"):
            try:
                with torch.no_grad():
                    results[name.removeprefix("check_")] = function()
            except Exception:
                results[name.removeprefix("check_")] = {"error": traceback.format_exc()[-2000:]}
    print(json.dumps(results))
