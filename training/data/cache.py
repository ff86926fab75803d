"""`comovi-train cache`: encodes clips once, so that training loads neither autoencoder nor text encoder.

    comovi-train cache my_data --encoders wan --wan models/Wan2.2-TI2V-5B-Diffusers
    torchrun --nproc-per-node 8 -m comfyui_comovi.training cache my_data ...      (every process takes every 8th clip)

Per clip: `video`, `motion` (C, F, h, w) and `first_video`, `first_motion` (C, 1, h, w), the posterior means in bfloat16
(float16 or float32 on demand); `text.0`, `text.1`, ... (L, D), not padded; `pose` (T, 24, 6) and `betas` (10) float32.
The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...comovi_model.body.motion import BodyMotion
from ...comovi_model.errors import ComoviError
from ...comovi_model.files import TEMPORARY, atomic_path, require_file
from ...comovi_model.motion_io.adapt import for_body
from ...comovi_model.motion_io.reading import read_motion
from .cache_files import (
    CachedClip,
    Shard,
    check_cache,
    read_shards,
    signature,
    write_head,
    write_index,
    write_shard,
)
from .encoders import Encoders, add_encoder_arguments, encoders_from
from .manifest import Clip, read_manifest, read_official
from .poses import load_body
from .prepare import HELD_OUT, LIST, SETTINGS
from .prepare_clip import PrepareSettings, body_hash, draw
from .video import read_all

VERSION = 1  # raise it when the same clip is encoded differently
MISSING = "missing"  # the signature of a clip whose files cannot be found
EMPTY = "empty-text"  # the entry of the sentence "", for dropping texts
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
SHARD_BYTES = 2**28


@dataclass(frozen=True)
class BuiltCache:
    """What a run of `build_cache` leaves."""

    folder: Path
    encoded: int  # by this run
    there: int  # clips of this rank before it
    refused: tuple[tuple[str, str], ...]  # id, reason


def open_clips(path: str | os.PathLike[str]) -> list[Clip]:
    """The clips of a prepared folder, of a list (.jsonl), or of the released code's list (.json)."""
    path = list_of(path)
    clips = read_official(path) if path.suffix == ".json" else read_manifest(path)
    if not clips:
        raise ComoviError(f"{path} lists no clip; quarantine.jsonl beside it says why.")
    return clips


def list_of(path: str | os.PathLike[str]) -> Path:
    """The list itself, where a prepared folder is named."""
    path = Path(path)
    if not path.is_dir():
        return require_file(path, "list of clips")
    if not (path / LIST).is_file():
        raise ComoviError(f"{path} holds no {LIST}; make clips with comovi-train prepare.")
    return path / LIST


def fingerprint(path: str | os.PathLike[str], encoders: Encoders, dtype: str) -> dict[str, Any]:
    """Everything that the numbers of a cache depend on, by name."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    settings: dict[str, Any] = {}
    if (folder / SETTINGS).is_file():
        try:
            settings = dict(json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError) as error:
            raise ComoviError(f"{folder / SETTINGS} is damaged ({error}); make the clips again.") from None
    return {"cache_version": VERSION, "dtype": dtype, **encoders.fingerprint(), **settings}


def encode_clip(clip: Clip, encoders: Encoders, dtype: torch.dtype, body: str = "") -> dict[str, Tensor]:
    """All tensors of a clip, rounded as they are stored. body: for clips without a motion map (poses.load_body)."""
    if (clip.frames - 1) % 4 or clip.size[0] % 32 or clip.size[1] % 32:
        raise ComoviError(
            f"{clip.frames} frames of {clip.size[0]}x{clip.size[1]} cannot be encoded; frames must be 1 + 4 k and "
            "sides multiples of 32 (comovi-train prepare makes such clips)."
        )
    pictures = read_all(clip.rgb)
    found = (len(pictures), pictures.shape[2], pictures.shape[1])
    if found != (clip.frames, *clip.size):
        raise ComoviError(
            f"{clip.rgb} has {found[0]} frames of {found[1]}x{found[2]}, the list says {clip.frames} of "
            f"{clip.size[0]}x{clip.size[1]}."
        )
    motion = None if clip.smpl is None else read_motion(clip.smpl, space="camera").motion
    if motion is not None and motion.frame != "camera":
        raise ComoviError(f"{clip.smpl} holds poses in world axes ({motion.frame}); the camera's are needed.")
    if clip.motion is not None:
        drawn = read_all(clip.motion)
    else:
        drawn = _drawn(clip, motion, body)
    if drawn.shape != pictures.shape:
        raise ComoviError(f"the motion map is {drawn.shape}, the pictures are {pictures.shape}.")
    rows = {
        "video": encoders.encode(pictures).to(dtype),
        "motion": encoders.encode(drawn).to(dtype),
        "first_video": encoders.encode(pictures[:1]).to(dtype),
        "first_motion": encoders.encode(drawn[:1]).to(dtype),
    }
    rows |= {f"text.{number}": text.to(dtype) for number, text in enumerate(encoders.embed(clip.text))}
    if motion is not None:
        if len(motion) != clip.frames:
            raise ComoviError(f"{clip.smpl} has {len(motion)} poses, the clip {clip.frames} frames.")
        rows |= {"pose": motion.rotations_6d(), "betas": motion.betas}
    return rows


def _drawn(clip: Clip, motion: BodyMotion | None, body: str) -> Any:
    if motion is None or motion.camera is None:
        raise ComoviError("the clip has no motion map and no pose file with a camera to draw one from.")
    model = load_body(body)
    fitting, _ = for_body(motion, model)
    return draw(model, fitting, clip.size[1], clip.size[0], PrepareSettings())


def build_cache(
    clips: str | os.PathLike[str],
    out: str | os.PathLike[str],
    encoders: Encoders,
    *,
    rank: int = 0,
    world: int = 1,
    dtype: str = "bfloat16",
    shard_bytes: int = SHARD_BYTES,
    body: str = "",
    progress: bool = False,
) -> BuiltCache:
    """Encode every `world`-th clip that is not there yet; see the module's text. `body`: as for encode_clip."""
    from tqdm import tqdm

    if not 0 <= rank < world:
        raise ComoviError(f"rank must lie between 0 and world - 1, got rank {rank} of {world}.")
    if dtype not in DTYPES:
        raise ComoviError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}.")
    listed, out = open_clips(clips), Path(out)
    for left in out.glob(f".shard-{rank:03d}-*{TEMPORARY}*"):  # by a run that was killed
        left.unlink()
    depends = fingerprint(clips, encoders, dtype)
    if any(clip.motion is None for clip in listed):
        depends["drawn_body"] = body_hash(body)
    write_head(out, depends, [clip.id for clip in listed])
    wanted = {clip.id: _signature(clip) for clip in listed}
    shards = _without_stale(read_shards(out), wanted) if rank == 0 else read_shards(out)
    done = {entry.id for shard in shards for entry in shard.clips if _current(entry, wanted)}
    mine = [clip for index, clip in enumerate(listed) if index % world == rank]
    waiting = [clip for clip in mine if clip.id not in done]
    writer = _Writer(out, rank, shard_bytes, sum(1 for shard in shards if f"-{rank:03d}-" in shard.path.name))
    if rank == 0 and EMPTY not in done:
        writer.add(EMPTY, {"text.0": encoders.embed([""])[0].to(DTYPES[dtype])}, ("",), (0, 0, 0), EMPTY)
    refused = []
    for clip in tqdm(waiting, desc="encoding", unit="clip", disable=not progress):
        try:
            rows = encode_clip(clip, encoders, DTYPES[dtype], body)
        except ComoviError as error:
            refused.append((clip.id, str(error)))
            continue
        latent = tuple(rows["video"].shape[1:])
        writer.add(clip.id, rows, clip.text, latent, wanted[clip.id])
    writer.flush()
    with atomic_path(out / f"quarantine-{rank:03d}.jsonl") as temporary:
        lines = [json.dumps({"id": name, "reason": reason}, ensure_ascii=False) + "\n" for name, reason in refused]
        temporary.write_text("".join(lines), encoding="utf-8")
    return BuiltCache(out, len(waiting) - len(refused), len(mine) - len(waiting), tuple(refused))


def build_all(folder: Path, encoders: Encoders, out: Path | None = None, **more: Any) -> Iterator[BuiltCache]:
    """The caches of a prepared folder: of its clips, and of those held out, if there are any, in a cache beside it."""
    out = out or folder / "cache"
    yield build_cache(folder, out, encoders, **more)
    held_out = folder / HELD_OUT
    if held_out.is_file() and held_out.stat().st_size:
        yield build_cache(held_out, out.with_name(f"{out.name}_held_out"), encoders, **more)


class _Writer:
    """Collects clips and writes a shard when there is enough for one."""

    def __init__(self, folder: Path, rank: int, shard_bytes: int, number: int):
        self.folder, self.rank, self.limit, self.number = folder, rank, shard_bytes, number
        self.clips: dict[str, dict[str, Tensor]] = {}
        self.about: dict[str, dict[str, Any]] = {}
        self.size = 0

    def add(
        self, name: str, rows: dict[str, Tensor], sentences: Sequence[str], latent: tuple[int, int, int], of: str
    ) -> None:
        self.clips[name] = rows
        self.about[name] = {"sentences": tuple(sentences), "latent": latent, "of": of}
        self.size += sum(row.numel() * row.element_size() for row in rows.values())
        if self.size >= self.limit:
            self.flush()

    def flush(self) -> None:
        if not self.clips:
            return
        path = self.folder / f"shard-{self.rank:03d}-{self.number:05d}.safetensors"
        while path.with_suffix(".json").exists():
            self.number += 1
            path = self.folder / f"shard-{self.rank:03d}-{self.number:05d}.safetensors"
        write_shard(path, self.clips, self.about)
        self.clips, self.about, self.size, self.number = {}, {}, 0, self.number + 1


def _signature(clip: Clip) -> str:
    """MISSING where a file cannot be found; encoding it will say which."""
    try:
        return signature((clip.rgb, clip.motion, clip.smpl), clip.text)
    except OSError:
        return MISSING


def _current(entry: CachedClip, wanted: dict[str, str]) -> bool:
    """Whether an entry is of the clip as it is now. One whose files are gone (a disk that is not mounted, videos that
    were deleted to save space) may not have changed, and stays."""
    return wanted.get(entry.id, EMPTY) in (entry.of, MISSING)


def _without_stale(shards: Sequence[Shard], wanted: dict[str, str]) -> list[Shard]:
    """Takes clips that changed, and those that are no longer listed, out of the indices; and lost shards with them."""
    kept = []
    for shard in shards:
        if not shard.path.is_file() or shard.path.stat().st_size != shard.size:
            shard.path.with_suffix(".json").unlink()
            continue
        clips: tuple[CachedClip, ...] = tuple(clip for clip in shard.clips if _current(clip, wanted))
        if len(clips) != len(shard.clips):
            shard = replace(shard, clips=clips)
            write_index(shard)
        kept.append(shard)
    return kept


def summary(built: BuiltCache) -> str:
    """One line, and one for each clip that was refused."""
    lines = [f"{built.encoded} clips encoded, {built.there} were there already: {built.folder}"]
    lines += [f"left out: {name}: {reason}" for name, reason in built.refused[:10]]
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clips", type=Path, help="folder that prepare made, a clips.jsonl, or an official JSON list")
    parser.add_argument("--out", type=Path, help="folder of the cache (default: cache in the folder of the clips)")
    add_encoder_arguments(parser)
    parser.add_argument("--body", default="", help="body file, for clips of a list that have poses and no motion map")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bfloat16")
    parser.add_argument("--rank", type=int, default=int(os.environ.get("RANK", 0)), help="of several machines")
    parser.add_argument("--world", type=int, default=int(os.environ.get("WORLD_SIZE", 1)))
    parser.add_argument("--check", action="store_true", help="encode nothing; read everything and compare checksums")


def default_kind(path: Path) -> str:
    """Nano encoders for clips that were drawn with the nano body, else Wan's."""
    folder = path if path.is_dir() else path.parent
    try:
        drawn_with = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["body"]
    except (OSError, KeyError, TypeError, ValueError):
        return "wan"
    return "nano" if drawn_with == body_hash("nano") else "wan"


def run(options: argparse.Namespace) -> int:
    folder = options.clips if options.clips.is_dir() else options.clips.parent
    out = options.out or folder / "cache"
    if options.check:
        for cache in (out, out.with_name(f"{out.name}_held_out")):
            if cache == out or cache.is_dir():
                shards = check_cache(cache, whole=True)
                count = sum(len(shard.clips) for shard in shards)
                print(f"{count} entries in {len(shards)} shards are whole: {cache}")
        return 0
    list_of(options.clips)
    encoders = encoders_from(options, default_kind(options.clips))
    more = {
        "rank": options.rank,
        "world": options.world,
        "dtype": options.dtype,
        "body": options.body,
        "progress": True,
    }
    if options.clips.is_dir():
        caches = list(build_all(options.clips, encoders, options.out, **more))
    else:
        caches = [build_cache(options.clips, out, encoders, **more)]
    for built in caches:
        print(summary(built))
    return 1 if any(built.refused and not (built.encoded or built.there) for built in caches) else 0
