"""The nano text encoder as a ComfyUI CLIP, so that the core's text nodes take it.

L = 24 tokens, D = 128. ComfyUI's own way of weighting words, "(red:1.3) shirt", holds: a weighted word's feature moves
along the line from the feature of the empty sentence at the same place.
"""

from __future__ import annotations

import logging
from typing import Any

import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import torch
from torch import Tensor, nn

from ...comovi_model.nano.model import load_text_encoder
from ...comovi_model.nano.sentences import MAX_TOKENS, PAD, UNKNOWN, VOCABULARY, WORD_ID, split_words

KEY = "nano"  # the name of our token list, as "t5xxl" or "l" elsewhere
Token = tuple[int, float]  # word number, weight


class NanoTokenizer:
    """Words to (number, weight) pairs, filled up with padding to 24: the empty sentence is padding only."""

    def __init__(self, embedding_directory: str | None = None, tokenizer_data: dict[str, Any] | None = None):
        del embedding_directory, tokenizer_data  # ComfyUI gives them to every tokenizer

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options: Any) -> dict[str, list[list]]:
        """{"nano": one list of 24 (number, weight)}; with word ids, (number, weight, how many-eth word or 0)."""
        words = weighted_words(text)
        tell_about(words)
        row: list[Token] = [(WORD_ID.get(word, UNKNOWN), weight) for word, weight in words[:MAX_TOKENS]]
        row += [(PAD, 1.0)] * (MAX_TOKENS - len(row))
        if return_word_ids:
            return {KEY: [[(*token, i + 1 if i < len(words) else 0) for i, token in enumerate(row)]]}
        return {KEY: [row]}

    def untokenize(self, token_weight_pair: list[tuple]) -> list[tuple]:
        return [(pair, VOCABULARY[int(pair[0])]) for pair in token_weight_pair]

    def state_dict(self) -> dict[str, Tensor]:
        return {}


class NanoTextModel(nn.Module):
    """What ComfyUI calls `cond_stage_model`."""

    def __init__(self, device: Any = None, dtype: Any = None, model_options: dict[str, Any] | None = None):
        super().__init__()
        del dtype, model_options  # 0.4 M numbers: always float32
        self.encoder = load_text_encoder().to(device)
        self.dtypes = {torch.float32}

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """The core's options (layer, projection, device) have no meaning for an encoder of two layers on the CPU."""

    def reset_clip_options(self) -> None:
        pass

    def encode_token_weights(self, tokens: dict[str, list[list[tuple]]]) -> tuple[Tensor, None]:
        """Token rows -> features (1, L * rows, D), and no pooled vector."""
        if KEY not in tokens:
            raise ValueError(
                f"these tokens are for another text encoder ({', '.join(tokens)}); use a text node with the nano CLIP."
            )
        rows = tokens[KEY]
        numbers = torch.tensor([[int(token[0]) for token in row] for row in rows])
        weights = torch.tensor([[float(token[1]) for token in row] for row in rows])[..., None]
        with torch.no_grad():
            features = self.encoder(numbers.to(self.encoder.positions.device))  # (rows, L, D)
            if bool((weights != 1).any()):
                empty = self.encoder(torch.full_like(numbers[:1], PAD).to(features.device))
                weights = weights.to(features)
                features = torch.where(weights == 1, features, (features - empty) * weights + empty)
        return features.flatten(0, 1)[None].cpu(), None

    def load_sd(self, sd: dict[str, Tensor]) -> tuple[list[str], list[str]]:
        missing, unexpected = self.load_state_dict(sd, strict=False)
        return missing, unexpected


def weighted_words(text: str) -> list[tuple[str, float]]:
    """The words of a prompt, each with its weight: "(red:1.3) shirt" -> [("red", 1.3), ("shirt", 1.0)]."""
    parts = comfy.sd1_clip.token_weights(comfy.sd1_clip.escape_important(text), 1.0)
    return [(w, weight) for part, weight in parts for w in split_words(comfy.sd1_clip.unescape_important(part))]


def tell_about(words: list[tuple[str, float]]) -> None:
    """One line in the log for a prompt with words that the nano model never saw, or with more than it reads."""
    unknown = list(dict.fromkeys(word for word, _ in words if word not in WORD_ID))
    if unknown:
        logging.getLogger(__name__).warning(
            "the nano model does not know %s; it knows %d words, listed in the help of Load CoMoVi Nano CLIP and VAE.",
            ", ".join(repr(word) for word in unknown[:12]) + (" and more" if len(unknown) > 12 else ""),
            len(VOCABULARY) - 2,
        )
    if len(words) > MAX_TOKENS:
        logging.getLogger(__name__).warning(
            "the nano model reads %d words; the last %d of this prompt are left out.",
            MAX_TOKENS,
            len(words) - MAX_TOKENS,
        )


def nano_clip() -> comfy.sd.CLIP:
    """A ComfyUI CLIP around the embedded text encoder. It stays on the CPU: a sentence takes it 1 ms."""
    cpu = torch.device("cpu")
    target = comfy.supported_models_base.ClipTarget(NanoTokenizer, NanoTextModel)
    options = {"load_device": cpu, "offload_device": cpu, "initial_device": cpu, "dtype": torch.float32}
    return comfy.sd.CLIP(target, embedding_directory=None, model_options=options)
