"""The encoders of Wan2.2-TI2V-5B through diffusers and transformers, from a folder that the user has.

The folder is the one that diffusers reads (Wan-AI/Wan2.2-TI2V-5B-Diffusers), with vae/, text_encoder/ and tokenizer/.
Both libraries are the extra [encode] and are imported only here, when this file is asked for.

T = 1 + 4 (F - 1) frames, C = 48 channels, h = H / 16, w = W / 16, L <= 512 words of width D = 4096.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...comovi_model.errors import ComoviError
from .encoders import file_hash, to_uint8

PARTS = ("vae", "text_encoder", "tokenizer")
MOST_WORDS = 512
INSTALL = "to install: pip install 'comfyui-comovi[encode]' (diffusers and transformers)"


class WanEncoders:
    """Both are loaded when first used. The autoencoder runs in float32, umT5 in bfloat16 on a GPU, as Wan runs them."""

    def __init__(self, folder: str, device: str = "cpu"):
        if not folder:
            raise ComoviError(
                "name the folder of Wan2.2-TI2V-5B in the layout of diffusers: --wan FOLDER (or --encoders nano)."
            )
        self.folder, self.device = Path(folder), torch.device(device)
        for part in PARTS:
            if not (self.folder / part).is_dir():
                raise ComoviError(
                    f"{self.folder} has no folder {part}; expected Wan2.2-TI2V-5B as diffusers reads it, with "
                    f"{', '.join(PARTS)}."
                )
        self.text_dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32

    def fingerprint(self) -> dict[str, str]:
        return {
            "autoencoder": "wan " + file_hash(self.folder / "vae"),
            "text_encoder": f"umt5 {file_hash(self.folder / 'text_encoder')} {self.text_dtype}",
        }

    @torch.no_grad()
    def encode(self, frames: np.ndarray) -> Tensor:
        """The mean of the posterior, less the channels' means and over their deviations, as the network is fed."""
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).permute(3, 0, 1, 2)[None]
        latent = self._autoencoder.encode(pixels.float() / 127.5 - 1).latent_dist.mode()[0]
        mean, deviation = self._spread()
        return ((latent - mean) / deviation).float().cpu()

    @torch.no_grad()
    def decode(self, latent: Tensor) -> np.ndarray:
        mean, deviation = self._spread()
        pixels = self._autoencoder.decode((latent.to(self.device).float() * deviation + mean)[None]).sample[0]
        return to_uint8(pixels.permute(1, 2, 3, 0))

    def _spread(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of every latent channel, (C, 1, 1, 1) each."""
        config = self._autoencoder.config
        one, other = (
            torch.tensor(values, device=self.device).view(-1, 1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )
        return one, other

    @torch.no_grad()
    def embed(self, sentences: Sequence[str]) -> list[Tensor]:
        """One sentence at a time and without padding: the same numbers as padded ones with a mask, cut afterwards."""
        tokenizer, encoder = self._text
        rows = []
        for sentence in sentences:
            clean = " ".join(html.unescape(html.unescape(sentence)).split())
            ids = tokenizer(clean, max_length=MOST_WORDS, truncation=True, return_tensors="pt").input_ids
            rows.append(encoder(ids.to(self.device)).last_hidden_state[0].float().cpu())
        return rows

    @cached_property
    def _autoencoder(self) -> Any:
        try:
            from diffusers import AutoencoderKLWan
        except ImportError as error:
            raise ComoviError(f"Wan's autoencoder needs diffusers ({error}); {INSTALL}.") from None
        model = _loaded(self.folder / "vae", lambda path: AutoencoderKLWan.from_pretrained(path, local_files_only=True))
        return model.eval().requires_grad_(False).to(self.device)

    @cached_property
    def _text(self) -> tuple[Any, Any]:
        try:
            from transformers import AutoTokenizer, UMT5EncoderModel
        except ImportError as error:
            raise ComoviError(f"Wan's text encoder needs transformers ({error}); {INSTALL}.") from None
        tokenizer = _loaded(
            self.folder / "tokenizer", lambda path: AutoTokenizer.from_pretrained(path, local_files_only=True)
        )
        given = {"dtype": self.text_dtype, "local_files_only": True}
        model = _loaded(self.folder / "text_encoder", lambda path: UMT5EncoderModel.from_pretrained(path, **given))
        return tokenizer, model.eval().requires_grad_(False).to(self.device)


def _loaded(path: Path, load: Any) -> Any:
    """Local files only: a path that does not fit must not become the name of something to download."""
    try:
        return load(str(path))
    except Exception as error:  # these libraries raise anything
        said = " ".join(str(error).split())[:200]
        raise ComoviError(f"{path} cannot be loaded ({type(error).__name__}: {said}).") from error
