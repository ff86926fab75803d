"""HumanML3D's text-to-motion matching network, with the key names of its published file (Guo et al., 2022).

Motions: features without the four contacts (F, 259) -> two convolutions of stride 2 (F / 4, 512) -> a GRU in both
directions -> 512. Sentences: word vectors (L, 300) and tags (L, 15) -> a GRU in both directions -> 512.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from ...comovi_model.errors import ComoviError
from ...comovi_model.motion_io.humanml3d import WIDTH

STRIDE = 4  # frames per step of the motion's GRU
SPACE = 512
LONGEST = 196  # frames


class BothWays(nn.Module):
    """Linear, GRU in both directions, and a small network on its last states."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.input_emb = nn.Linear(inputs, hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True)
        self.output_net = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.LayerNorm(hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, SPACE)
        )
        self.hidden = nn.Parameter(torch.zeros(2, 1, hidden))

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """x (N, L, inputs), lengths of the rows -> (N, 512)."""
        packed = pack_padded_sequence(self.input_emb(x), list(lengths), batch_first=True, enforce_sorted=False)
        _, last = self.gru(packed, self.hidden.expand(-1, len(x), -1).contiguous())
        return self.output_net(torch.cat([last[0], last[1]], -1))


class TextEncoder(BothWays):
    def __init__(self, words: int = 300, tags: int = 15):
        super().__init__(words, SPACE)
        self.pos_emb = nn.Linear(tags, words)


class MovementEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv1d(WIDTH - 4, SPACE, 4, 2, 1), nn.Identity(), nn.LeakyReLU(0.2),
            nn.Conv1d(SPACE, SPACE, 4, 2, 1), nn.Identity(), nn.LeakyReLU(0.2),
        )  # fmt: skip
        self.out_net = nn.Linear(SPACE, SPACE)

    def forward(self, x: Tensor) -> Tensor:
        """(N, F, 259) -> (N, F // 4, 512)."""
        return self.out_net(self.main(x.transpose(1, 2)).transpose(1, 2))


class MatchingNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.movement_encoder, self.text_encoder = MovementEncoder(), TextEncoder()
        self.motion_encoder = BothWays(SPACE, 1024)

    @classmethod
    def read(cls, path: Path) -> MatchingNetwork:
        """From finest.tar: a torch file with one state dict per encoder; nothing in it is executed."""
        try:
            parts = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for damaged and for hostile files
            said = " ".join(str(error).split())[:160]
            raise ComoviError(f"{path} cannot be read as plain tensors ({said}).") from None
        network = cls()
        for name, module in network.named_children():
            if not isinstance(parts, dict) or name not in parts:
                raise ComoviError(f"{path} has no {name}; expected HumanML3D's text_mot_match/model/finest.tar.")
            try:
                module.load_state_dict(parts[name])
            except RuntimeError as error:
                said = " ".join(str(error).split())[:300]
                raise ComoviError(f"{path}: {name} does not fit: {said}") from None
        return network.eval()

    @torch.no_grad()
    def embed_texts(self, words: Tensor, tags: Tensor, lengths: Sequence[int]) -> np.ndarray:
        """Word vectors (N, L, 300), one-hot tags (N, L, 15) -> (N, 512) float64."""
        return self.text_encoder(words + self.text_encoder.pos_emb(tags), lengths).double().numpy()

    @torch.no_grad()
    def embed_motions(self, motions: Sequence[Tensor], batch: int = 32) -> np.ndarray:
        """Normalised features, (F, 263) each -> (N, 512) float64. Frames beyond a multiple of four do not count.

        The published code pads every motion with zeros to 196 frames, which the last steps of a shorter one can see.
        """
        rows = []
        for start in range(0, len(motions), batch):
            part = [motion[: len(motion) // STRIDE * STRIDE, :-4] for motion in motions[start : start + batch]]
            padded = torch.zeros(len(part), max(LONGEST, *map(len, part)), WIDTH - 4)
            for row, motion in zip(padded, part, strict=True):
                row[: len(motion)] = motion
            rows.append(self.motion_encoder(self.movement_encoder(padded), [len(x) // STRIDE for x in part]))
        return torch.cat(rows).double().numpy()
