"""The same prompt on servers started with other flags: little memory, other attention. The numbers must not change."""

from __future__ import annotations

from functools import cache

import pytest
import safetensors.torch
import torch
from nano_graph import nano_model, relative

# Role, flags, what the log must say (so that the flag did something), how much results may differ.
# --small-memory (ours, small_memory.py): the CPU plays a GPU with next to no memory.
SERVERS = {
    "new --novram": ("new", ("--small-memory", "--novram"), "loaded partially", 1e-4),
    "new --lowvram": ("new", ("--small-memory", "--lowvram"), "loaded partially", 1e-4),
    "new pytorch attention": ("new", ("--cpu", "--use-pytorch-cross-attention"), "Using pytorch attention", 1e-4),
    "new split attention": ("new", ("--cpu", "--use-split-cross-attention"), "Using split optimization", 1e-4),
    "old --novram": ("old", ("--small-memory", "--novram"), "loaded partially", 1e-4),
    "old split attention": ("old", ("--cpu", "--use-split-cross-attention"), "Using split optimization", 1e-4),
}


def write_lora(server) -> str:
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for name, value in nano_model().network.state_dict().items():
        if value.dim() == 2 and name.startswith(("blocks.", "motion.blocks.")):
            out, into = value.shape
            key = f"diffusion_model.{name[:-7]}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(4, into, generator=generator) / into**0.5
            tensors[f"{key}.lora_B.weight"] = torch.randn(out, 4, generator=generator) / 4
    folder = server.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(tensors, folder / "flags.safetensors")
    return "flags.safetensors"


def sampled(server, nano) -> dict[str, torch.Tensor]:
    """Latents of a plain run, one with a LoRA, one from fp8 weights, and decoded pictures' latent of the VAE."""
    lora = write_lora(server)
    latents = {}
    for name, weights in {"plain": "default", "fp8": "fp8_e4m3fn"}.items():
        g = nano(server, model={"weight_dtype": weights})
        saved = {name: g.save_latent(g.ksampler(steps=2, seed=3, cfg=2.0))}
        if name == "plain":
            patched = g.add("LoraLoaderModelOnly", model=g.model, lora_name=lora, strength_model=0.8)
            saved["lora"] = g.save_latent(g.ksampler(patched, steps=2, seed=3, cfg=2.0))
            video, _ = g.decode(g.latent)
            saved["encoded"] = g.save_latent(g.add("VAEEncode", pixels=video, vae=g.vae))
        result = server.run(g)
        latents |= {key: result.latent(node) for key, node in saved.items()}
    return latents


@pytest.fixture(scope="module")
def usual(comfyui_servers, nano):
    """What the servers of all other tests give, started with --cpu."""
    return cache(lambda role: sampled(comfyui_servers.get(role), nano))


@pytest.mark.parametrize("name", SERVERS)
def test_flags_change_how_and_not_what(start_comfyui, usual, nano, name):
    role, flags, sign, tolerance = SERVERS[name]
    with start_comfyui(role, *flags) as server:
        latents = sampled(server, nano)
        log = server.log()
    assert sign in log
    reference = usual(role)
    assert relative(reference["lora"], reference["plain"]) > 0.01
    for key, latent in latents.items():
        assert relative(latent, reference[key]) < tolerance, key
