"""The nano text encoder: about a hundred words, two transformer layers.

Shapes: B batch, L = 24 tokens, D = 128. Padding is a word of its own and is attended like any other, as in Wan2.2,
where the transformer reads all text rows without a mask.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .sentences import MAX_TOKENS, VOCABULARY, encode_words

TEXT_DIM = 128


class NanoTextEncoder(nn.Module):
    """Token ids (B, 24) -> text features (B, 24, 128)."""

    def __init__(self, vocabulary_size: int = len(VOCABULARY), dim: int = TEXT_DIM, layers: int = 2, heads: int = 4):
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, dim)
        self.positions = nn.Parameter(torch.randn(1, MAX_TOKENS, dim) * 0.1)
        layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.layers(self.words(ids) + self.positions)


def tokenise(sentences: list[str]) -> tuple[Tensor, list[str]]:
    """Ids (B, 24) int64 and the words, in order of appearance, that the nano model does not know."""
    ids, unknown = [], []
    for sentence in sentences:
        row, strangers = encode_words(sentence)
        ids.append(torch.from_numpy(row))
        unknown += [w for w in strangers if w not in unknown]
    return torch.stack(ids), unknown
