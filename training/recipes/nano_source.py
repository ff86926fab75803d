"""The nano model's drawn clips (training/nano_clips.py) as the trainer reads them.

Shards are mapped, not read, so several processes share their pages and a start costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...comovi_model.errors import ComoviError
from ...comovi_model.nano.sentences import write_sentence
from ...comovi_model.wan.weights import TensorFiles, open_weights
from ..batch import Draw, TrainBatch
from ..counters import numpy_generator
from ..nano_clips import labels_to_request

SPREAD_CLIPS = 512  # so many clips tell how far latents move from their first frame


class NanoClips:
    """All shards of one or several folders, in the order of their seeds."""

    def __init__(self, folders: str | Path | Sequence[str | Path], limit: int | None = None):
        several = [folders] if isinstance(folders, (str, Path)) else list(folders)
        paths = sorted((path for folder in several for path in Path(folder).glob("shard-*.safetensors")), key=_seed)
        if not paths:
            raise ComoviError(
                f"there are no nano clips in {', '.join(map(str, several))}; make some with "
                "`python -m comfyui_comovi.training.nano_clips`."
            )
        self.shards: list[TensorFiles] = [open_weights(path) for path in paths]
        self.place: list[tuple[int, int]] = []  # (shard, row) of every clip
        for number, shard in enumerate(self.shards):
            self.place += [(number, row) for row in range(_rows(shard, paths[number]))]
        self.place = self.place[:limit]
        self.first_seeds = [_seed(path) for path in paths]

    def __len__(self) -> int:
        return len(self.place)

    def bucket_of(self, index: int) -> tuple[int, ...]:
        """Latent (F, h, w)."""
        shard, _ = self.place[index]
        return self.shards[shard].entries["video"].shape[2:]

    def read(self, indices: Sequence[int], draw: Draw) -> TrainBatch:
        """Clips with freshly written sentences."""
        rng = numpy_generator(draw.seed, "sentences", draw.step, draw.micro, draw.rank)
        labels = self._rows("labels", indices)
        video, motion = (self._rows(name, indices).float() for name in ("video", "motion"))
        places = [self.place[index] for index in indices]
        return TrainBatch(
            names=tuple(f"{self.first_seeds[shard] + row}" for shard, row in places),
            video=video,
            motion=motion,
            first_video=video[:, :, :1],
            first_motion=motion[:, :, :1],
            sentences=tuple(write_sentence(*labels_to_request(row), rng) for row in labels),
            text=None,
            text_length=None,
            pose=self._rows("pose", indices).float(),
            betas=None,
        )

    def spread(self, branch: str) -> Tensor:
        """Standard deviation per channel of a latent minus its first frame, (48,); branch "video" or "motion"."""
        latents = self._rows(branch, range(min(SPREAD_CLIPS, len(self)))).float()
        return (latents[:, :, 1:] - latents[:, :, :1]).square().mean((0, 2, 3, 4)).sqrt()

    def _rows(self, name: str, indices: Sequence[int]) -> Tensor:
        return torch.stack([self.shards[shard][name][row] for shard, row in (self.place[i] for i in indices)])


def _seed(path: Path) -> int:
    try:
        return int(path.stem.removeprefix("shard-"))
    except ValueError as error:
        raise ComoviError(f"{path} is not a shard of nano clips: expected shard-NUMBER.safetensors.") from error


def _rows(shard: TensorFiles, path: Path) -> int:
    shapes = shard.shapes()
    missing = [name for name in ("video", "motion", "pose", "labels") if name not in shapes]
    counts = {shape[0] if shape else 0 for shape in shapes.values()}
    if missing or len(counts) != 1:
        raise ComoviError(f"{path} is not a shard of nano clips: it lacks {', '.join(missing) or 'equal lengths'}.")
    return int(np.min(list(counts)))
