"""CoMoVi_LoadNanoClipVae: the embedded text encoder and autoencoder as ordinary CLIP and VAE."""

from __future__ import annotations

from comfy_api.latest import io

from .native.nano_clip import nano_clip
from .native.nano_vae import nano_vae
from .schema import make_schema


class LoadNanoClipVae(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_LoadNanoClipVae",
            "Load CoMoVi Nano CLIP and VAE",
            "loaders",
            description="The text encoder and the autoencoder of the embedded nano model. Nothing is downloaded. "
            "For the real CoMoVi weights use the core's Load CLIP (type wan) and Load VAE (Wan2.2) instead.",
            search_aliases=["comovi", "nano", "clip", "vae", "text encoder", "autoencoder", "load"],
            inputs=[],
            outputs=[
                io.Clip.Output(display_name="CLIP", tooltip="For CLIP Text Encode; it knows about a hundred words."),
                io.Vae.Output(display_name="VAE", tooltip="For VAE Encode and VAE Decode, 16 x 16 pixels a cell."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(nano_clip(), nano_vae())


NODES = [LoadNanoClipVae]
