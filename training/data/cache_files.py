"""The files of a cache: shards of tensors, each with an index beside it, and what must be the same for all of them.

    cache.json                     what the numbers depend on (the fingerprint), and which clips belong to the cache
    shard-000-00000.safetensors    tensors of some clips, named "id/video"; the first number is the rank that made it
    shard-000-00000.json           its index, written last: a shard without one does not count
    quarantine-000.jsonl           clips that could not be encoded, and why

A cache is checked as a whole when it is opened, so that a missing file is found before a run begins, not in its middle.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...comovi_model.errors import ComoviError
from ...comovi_model.files import atomic_path

FORMAT = "comovi-cache-1"
HEAD = "cache.json"
CHECKED_WHOLE = 2**31  # bytes: smaller caches are read through when they are opened, larger ones clip by clip


@dataclass(frozen=True)
class CachedClip:
    """One clip of the index."""

    id: str
    sentences: tuple[str, ...]
    latent: tuple[int, int, int]  # F, h, w
    of: str  # signature of the files that it was made of
    checks: Mapping[str, int]  # CRC-32 of the bytes of every tensor, by its last name


@dataclass(frozen=True)
class Shard:
    """A shard with its index."""

    path: Path
    size: int  # bytes
    clips: tuple[CachedClip, ...]


def checksum(tensor: Tensor) -> int:
    return zlib.crc32(tensor.contiguous().flatten().view(torch.uint8).numpy())


def write_shard(path: Path, clips: Mapping[str, dict[str, Tensor]], about: Mapping[str, dict[str, Any]]) -> Shard:
    """Tensors first, index last. `clips`: id -> tensors by name; `about`: id -> the other fields of CachedClip."""
    flat = {f"{name}/{key}": value.contiguous() for name, rows in clips.items() for key, value in rows.items()}
    with atomic_path(path) as temporary:
        save_file(flat, str(temporary), {"format": FORMAT})
    index = tuple(
        CachedClip(id=name, checks={key: checksum(value) for key, value in rows.items()}, **about[name])
        for name, rows in clips.items()
    )
    shard = Shard(path, path.stat().st_size, index)
    write_index(shard)
    return shard


def write_index(shard: Shard) -> None:
    record = {"format": FORMAT, "bytes": shard.size, "clips": [asdict(clip) for clip in shard.clips]}
    with atomic_path(shard.path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(record), encoding="utf-8")


def read_index(path: Path) -> Shard:
    """The shard of an index file; the shard itself is not looked at."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ComoviError(f"{path} has format {record['format']!r}, this version reads {FORMAT!r}.")
        clips = tuple(
            CachedClip(
                str(row["id"]),
                tuple(map(str, row["sentences"])),
                tuple(map(int, row["latent"])),  # type: ignore[arg-type]
                str(row["of"]),
                {str(key): int(value) for key, value in row["checks"].items()},
            )
            for row in record["clips"]
        )
        return Shard(path.with_suffix(".safetensors"), int(record["bytes"]), clips)
    except ComoviError:
        raise
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ComoviError(f"{path}, an index of the cache, is damaged ({error}); delete it and cache again.") from None


def read_shards(folder: Path) -> list[Shard]:
    """All indices of a cache, in the order of their names."""
    return [read_index(path) for path in sorted(folder.glob("shard-*.json"))]


def read_head(folder: Path) -> dict[str, Any]:
    """What cache.json says."""
    path = folder / HEAD
    if not path.is_file():
        raise ComoviError(f"{folder} is no cache (it has no {HEAD}); make one with comovi-train cache.")
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(head["fingerprint"], dict)
        assert isinstance(head["clips"], list)
        return head
    except (OSError, KeyError, TypeError, ValueError, AssertionError) as error:
        raise ComoviError(f"{path} is damaged ({error}); delete it and run comovi-train cache again.") from None


def write_head(folder: Path, fingerprint: Mapping[str, Any], clips: Iterable[str]) -> None:
    """Say what the cache depends on. A cache that depends on something else is refused, by the name of the field."""
    wanted = json.loads(json.dumps(dict(fingerprint)))
    if (folder / HEAD).is_file():
        compare(read_head(folder)["fingerprint"], wanted, folder)
    with atomic_path(folder / HEAD) as temporary:
        record = {"format": FORMAT, "fingerprint": wanted, "clips": sorted(clips)}
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def compare(there: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Raise an error that names the first field in which two fingerprints differ."""
    for name in sorted(set(there) | set(wanted)):
        if there.get(name) != wanted.get(name):
            raise ComoviError(
                f"the cache in {folder} was made with {name} = {there.get(name)!r}, and now it is "
                f"{wanted.get(name)!r}; cache into another folder, or delete this one."
            )


def check_cache(folder: Path, whole: bool | None = None) -> list[Shard]:
    """Every shard of a complete cache; an error names what is missing or damaged.

    whole: also compare all bytes with their checksums; None does so where that takes seconds.
    """
    head, shards = read_head(folder), read_shards(folder)
    for shard in shards:
        _check_file(shard)
    there = {clip.id for shard in shards for clip in shard.clips}
    missing = sorted(set(head["clips"]) - there - quarantined(folder))
    if missing:
        few = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ComoviError(
            f"the cache in {folder} lacks {len(missing)} of {len(head['clips'])} clips ({few}); it was not finished, "
            "or a shard was deleted: run comovi-train cache again."
        )
    if not there:
        raise ComoviError(f"the cache in {folder} holds no clip; its quarantine files say why.")
    if whole or (whole is None and sum(shard.size for shard in shards) <= CHECKED_WHOLE):
        for shard in shards:
            with open_shard(shard) as file:
                for clip in shard.clips:
                    for key in clip.checks:
                        read_tensor(file, shard, clip, key)
    return shards


def _check_file(shard: Shard) -> None:
    try:
        size = shard.path.stat().st_size
    except OSError:
        raise ComoviError(
            f"cache shard {shard.path} has vanished; it held {len(shard.clips)} clips. Delete its .json and run "
            "comovi-train cache again."
        ) from None
    if size != shard.size:
        raise ComoviError(
            f"cache shard {shard.path} is damaged: it has {size} bytes, {shard.size} were written. Delete it with its "
            ".json and run comovi-train cache again."
        )
    with open_shard(shard) as file:
        names = set(file.keys())
    for clip in shard.clips:
        lost = [key for key in clip.checks if f"{clip.id}/{key}" not in names]
        if lost:
            raise ComoviError(f"cache shard {shard.path} is damaged: it lacks {clip.id}/{lost[0]}.")


def open_shard(shard: Shard) -> Any:
    """The file, memory-mapped."""
    try:
        return safe_open(str(shard.path), "pt")
    except (OSError, SafetensorError) as error:
        raise ComoviError(
            f"cache shard {shard.path} cannot be read ({' '.join(str(error).split())[:120]}); delete it with its .json "
            "and run comovi-train cache again."
        ) from None


def read_tensor(file: Any, shard: Shard, clip: CachedClip, key: str) -> Tensor:
    """One tensor, its bytes checked."""
    tensor = file.get_tensor(f"{clip.id}/{key}")
    if checksum(tensor) != clip.checks[key]:
        raise ComoviError(
            f"cache shard {shard.path} is damaged: the bytes of {clip.id}/{key} changed since they were written. "
            "Delete it with its .json and run comovi-train cache again."
        )
    return tensor


def quarantined(folder: Path) -> set[str]:
    """Ids of clips that could not be encoded."""
    found = set()
    for path in folder.glob("quarantine-*.jsonl"):
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                found.add(str(json.loads(line)["id"]))
            except (KeyError, TypeError, ValueError):
                continue
    return found


def signature(paths: Iterable[Path | None], sentences: Iterable[str]) -> str:
    """Changes when one of the files is written again, or a sentence changes."""
    stats = []
    for path in paths:
        if path is not None:
            status = os.stat(path)
            stats.append((path.name, status.st_size, status.st_mtime_ns))
    return f"{zlib.crc32(json.dumps([stats, list(sentences)]).encode()):08x}"
