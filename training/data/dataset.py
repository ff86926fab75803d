"""Where the trainer's clips come from: a cache, or prepared clips that are encoded when they are asked for.

Both give the same numbers to the last bit, because both round the latents as the cache stores them. Reading is a pure
function of the clips and the draw, so it may happen ahead, in any thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...comovi_model.errors import ComoviError
from ..batch import ClipSource, Draw, TrainBatch
from .buckets import Bucket
from .cache import DTYPES, EMPTY, encode_clip, open_clips
from .cache_files import CachedClip, Shard, check_cache, open_shard, read_head, read_tensor
from .encoders import Encoders

Rows = dict[str, Tensor]
OPEN_SHARDS = 64  # kept mapped; a large cache has thousands


class CachedClips:
    """The clips of one cache or of several that agree, in the order of their ids. Opening checks them."""

    def __init__(self, *folders: str | os.PathLike[str]):
        self.folders = [Path(folder) for folder in folders]
        self.entries: list[tuple[Shard, CachedClip]] = []
        empty = None
        for folder in self.folders:
            compare_encoders(self.folders[0], folder)
            entries = {clip.id: (shard, clip) for shard in check_cache(folder) for clip in shard.clips}
            empty = entries.pop(EMPTY, None) or empty
            self.entries += [entries[name] for name in sorted(entries)]
        if not self.entries:
            raise ComoviError(f"the cache in {self.folders[0]} holds no clip; its quarantine files say why.")
        self._files: dict[Path, Any] = {}
        self._lock = threading.Lock()
        self.empty_text: Tensor | None = None  # (L, D) float32, the embedding of ""
        if empty is not None:
            self.empty_text = self._tensor(*empty, "text.0").float()

    def __len__(self) -> int:
        return len(self.entries)

    def bucket_of(self, index: int) -> tuple[int, ...]:
        return self.entries[index][1].latent

    def read(self, indices: Sequence[int], draw: Draw) -> TrainBatch:
        rows, names, sentences = [], [], []
        for index, choice in zip(indices, sentence_choices(len(indices), draw), strict=True):
            shard, clip = self.entries[index]
            text = int(choice * len(clip.sentences))
            keys = [key for key in clip.checks if not key.startswith("text.") or key == f"text.{text}"]
            row = {key.split(".")[0]: self._tensor(shard, clip, key) for key in keys}
            rows.append(row)
            names.append(clip.id)
            sentences.append(clip.sentences[text])
        return assemble(names, sentences, rows)

    def _tensor(self, shard: Shard, clip: CachedClip, key: str) -> Tensor:
        with self._lock:
            file = self._files.pop(shard.path, None)
            if file is None:
                file = open_shard(shard).__enter__()
            self._files[shard.path] = file  # the newest is last
            if len(self._files) > OPEN_SHARDS:
                del self._files[next(iter(self._files))]
        return read_tensor(file, shard, clip, key)


class PreparedClips:
    """Prepared clips without a cache: each is decoded and encoded when it is read. For trying, and for checking."""

    def __init__(self, *folders: str | os.PathLike[str], encoders: Encoders, dtype: str = "bfloat16"):
        self.clips = [clip for folder in folders for clip in sorted(open_clips(folder), key=lambda clip: clip.id)]
        self.encoders, self.dtype = encoders, DTYPES[dtype]
        self.empty_text: Tensor | None = encoders.embed([""])[0].to(self.dtype).float()

    def __len__(self) -> int:
        return len(self.clips)

    def bucket_of(self, index: int) -> tuple[int, ...]:
        clip = self.clips[index]
        return Bucket(clip.frames, clip.size[1], clip.size[0]).latent

    def read(self, indices: Sequence[int], draw: Draw) -> TrainBatch:
        rows, names, sentences = [], [], []
        for index, choice in zip(indices, sentence_choices(len(indices), draw), strict=True):
            clip = self.clips[index]
            text = int(choice * len(clip.text))
            row = encode_clip(clip, self.encoders, self.dtype)
            row["text"] = row[f"text.{text}"]
            rows.append({key: value for key, value in row.items() if not key.startswith("text.")})
            names.append(clip.id)
            sentences.append(clip.text[text])
        return assemble(names, sentences, rows)


def sentence_choices(count: int, draw: Draw) -> list[float]:
    """A number in 0..1 per clip that chooses its sentence; in validation always the first."""
    if draw.quantile is not None:
        return [0.0] * count
    return torch.rand(count, generator=draw.generator("sentence"), dtype=torch.float64).tolist()


def assemble(names: Sequence[str], sentences: Sequence[str], rows: Sequence[Rows]) -> TrainBatch:
    """Rows of one bucket side by side; texts are padded with zeros to the longest one."""
    shapes = {tuple(row["video"].shape) for row in rows}
    if len(shapes) != 1:
        raise ComoviError(f"a batch holds clips of one size, these are {sorted(shapes)}.")

    def stacked(key: str) -> Tensor | None:
        if any(key not in row for row in rows):
            return None
        return torch.stack([row[key].float() for row in rows])

    texts = [row["text"].float() for row in rows if "text" in row]
    text = length = None
    if len(texts) == len(rows):
        text = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        length = torch.tensor([len(one) for one in texts])
    video, motion = stacked("video"), stacked("motion")
    first_video, first_motion = stacked("first_video"), stacked("first_motion")
    assert video is not None
    assert motion is not None
    assert first_video is not None
    assert first_motion is not None
    return TrainBatch(
        names=tuple(names),
        video=video,
        motion=motion,
        first_video=first_video,
        first_motion=first_motion,
        sentences=tuple(sentences),
        text=text,
        text_length=length,
        pose=stacked("pose"),
        betas=stacked("betas"),
    )


def open_source(data: Any, train: bool = True) -> ClipSource:
    """The clips that a configuration (section `data`) names: kind "cache" or "prepared"."""
    folders = data.train if train else data.validation
    where = f"data.{'train' if train else 'validation'}"
    if not folders:
        raise ComoviError(f"{where} is empty; name a folder that comovi-train made, as --set {where}=my_data/cache.")
    for folder in folders:
        if not Path(folder).exists():
            raise ComoviError(f"{where}: {folder} does not exist; make it with comovi-train prepare and cache.")
    if data.kind == "cache":
        return CachedClips(*folders)
    if data.kind == "prepared":
        from .encoders import load_encoders

        return PreparedClips(*folders, encoders=load_encoders(data.encoders, data.wan))
    raise ComoviError(f"data.kind is {data.kind!r}; choose cache or prepared.")


def compare_encoders(first: Path, other: Path) -> None:
    """Latents of two autoencoders cannot be mixed; other fields of the fingerprint may differ."""
    one, two = (read_head(folder)["fingerprint"] for folder in (first, other))
    for name in ("autoencoder", "text_encoder"):
        if one.get(name) != two.get(name):
            raise ComoviError(
                f"the caches {first} and {other} cannot be mixed: {name} is {one.get(name)!r} there and "
                f"{two.get(name)!r} here."
            )
