"""The list of clips: JSON lines, one clip each, with paths relative to the list. Format name "comovi-clips-1".

    {"id": "walk-0", "rgb": "clips/walk-0/rgb.mp4", "motion": "clips/walk-0/motion.mkv",
     "smpl": "clips/walk-0/smpl.npz", "text": ["a person walks"], "fps": "16", "frames": 81, "size": [1280, 704], ...}

The smpl file is our npz of a motion in the camera frame, one pose per frame of the clip (body/motion.py): global_orient
(F, 3, 3), body_pose (F, 23, 3, 3), betas (10), transl (F, 3), focal (F), valid (F), fps, source_index (F).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from itertools import chain, count
from pathlib import Path
from typing import Any

from ...comovi_model.clean.time_base import exact_fps
from ...comovi_model.errors import ComoviError
from ...comovi_model.files import atomic_path, file_error, require_file

FORMAT = "comovi-clips-1"
PATHS = ("rgb", "motion", "first_frame", "motion_first_frame", "smpl")


@dataclass(frozen=True)
class Clip:
    """One clip. Paths are absolute here and relative in the file; None is "not there"."""

    id: str
    rgb: Path
    text: tuple[str, ...]  # at least one sentence; training draws one of them
    frames: int
    size: tuple[int, int]  # width, height in pixels
    fps: Fraction = Fraction(16)
    motion: Path | None = None  # None: drawn from smpl when the cache is made
    smpl: Path | None = None
    first_frame: Path | None = None
    motion_first_frame: Path | None = None
    source: str = ""  # where the clip was cut from
    source_index: tuple[int, ...] = ()  # the source frame of every frame
    filters: Mapping[str, float] = field(default_factory=dict)  # scores by name
    licence: str = ""

    def __post_init__(self) -> None:
        if not self.id or any(sign in self.id for sign in '/\\\n\t"') or self.id.startswith("."):
            raise ComoviError(f"a clip's id must be a plain name, got {self.id!r}.")
        if not any(sentence.strip() for sentence in self.text):
            raise ComoviError(f"clip {self.id} has no sentence; give it a text.")
        if self.motion is None and self.smpl is None:
            raise ComoviError(f"clip {self.id} has neither a motion map nor an smpl file to draw one from.")
        if self.frames < 1 or min(self.size) < 1:
            raise ComoviError(f"clip {self.id} says {self.frames} frames of {self.size[0]}x{self.size[1]} pixels.")


def read_manifest(path: str | os.PathLike[str]) -> list[Clip]:
    """All clips of a list; every mistake is named with its line."""
    path = require_file(path, "list of clips")
    clips: list[Clip] = []
    seen: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # a sentence may hold other line ends
    except UnicodeDecodeError:
        raise ComoviError(f"{path} is not text, so it is no list of clips.") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            clip = from_record(json.loads(line), path.parent)
        except (ComoviError, json.JSONDecodeError, TypeError, ValueError, KeyError) as error:
            raise ComoviError(f"{path}, line {number}: {_said(error)}") from None
        if clip.id in seen:
            raise ComoviError(f"{path}, line {number}: clip {clip.id} is already in line {seen[clip.id]}.")
        seen[clip.id] = number
        clips.append(clip)
    return clips


def write_manifest(path: str | os.PathLike[str], clips: Iterable[Clip]) -> Path:
    """Whole or not at all, in the order of ids, so that the same clips always make the same file."""
    path = Path(path)
    lines = [record_text(clip, path.parent) + "\n" for clip in sorted(clips, key=lambda clip: clip.id)]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return path


def record_text(clip: Clip, folder: Path) -> str:
    """One line, without its end."""
    record: dict[str, Any] = {"format": FORMAT}
    for name, value in asdict(clip).items():
        if value is None or (name in ("source", "source_index", "filters", "licence") and not value):
            continue
        if name in PATHS:
            value = _relative(value, folder)
        record[name] = str(value) if name == "fps" else value
    return json.dumps(record, ensure_ascii=False)


def _relative(path: Path, folder: Path) -> str:
    """Relative where the file lies beside or below the list, so that the folder can be moved."""
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def from_record(record: Any, folder: Path) -> Clip:
    if not isinstance(record, dict):
        raise ComoviError("expected an object in braces.")
    known = {item.name for item in fields(Clip)} | {"format"}
    if record.get("format", FORMAT) != FORMAT:
        raise ComoviError(f"the format is {record['format']!r}, this version reads {FORMAT!r}.")
    strangers = sorted(set(record) - known)
    if strangers:
        raise ComoviError(f"unknown field {strangers[0]!r}; the fields are {', '.join(sorted(known))}.")
    missing = [name for name in ("id", "rgb", "text", "frames", "size") if name not in record]
    if missing:
        raise ComoviError(f"field {missing[0]!r} is missing.")
    values = {name: value for name, value in record.items() if name != "format" and value is not None}
    for name in PATHS:
        if name in values:
            values[name] = folder / str(values[name])
    text = values["text"]
    values["text"] = (text,) if isinstance(text, str) else tuple(str(sentence) for sentence in text)
    values["fps"] = exact_fps(values.get("fps", 16))
    values["size"] = tuple(int(side) for side in values["size"])
    if len(values["size"]) != 2:
        raise ComoviError("size must be [width, height].")
    values["frames"] = int(values["frames"])
    values["source_index"] = tuple(int(index) for index in values.get("source_index", ()))
    return Clip(**values)


def _said(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"this is not JSON ({error.msg} at column {error.colno})."
    return " ".join(str(error).split())


def read_official(path: str | os.PathLike[str]) -> list[Clip]:
    """The dataset list of the released code: a JSON list of rgb_path, motion_path, first_frame, text, smpl_path ..."""
    from .video import scan_video

    path = require_file(path, "dataset list")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ComoviError(f"{path} is not JSON ({_said(error)}).") from None
    if not isinstance(rows, list):
        raise ComoviError(f"{path} must be a list of clips, as the released code reads it.")
    clips = []
    for number, row in enumerate(rows):
        where = f"{path}, clip {number}"
        if not isinstance(row, dict) or not isinstance(row.get("rgb_path"), str):
            raise ComoviError(f"{where}: rgb_path is missing.")
        given = {ours: row.get(theirs) for ours, theirs in OFFICIAL.items()}
        found = {name: path.parent / value for name, value in given.items() if isinstance(value, str) and value}
        facts = scan_video(found["rgb"])
        try:
            clips.append(
                Clip(
                    id=_official_id(row, number),
                    text=(str(row.get("text", "")),),
                    frames=len(facts.time),
                    size=(facts.width, facts.height),
                    fps=facts.time.rate,
                    source=str(row.get("source", row["rgb_path"])),
                    **found,  # type: ignore[arg-type]
                )
            )
        except ComoviError as error:
            raise ComoviError(f"{where}: {error}") from None
    taken: set[str] = set()
    return [replace(clip, id=unique_id(taken, clip.id)) for clip in clips]  # the same name in two folders


def unique_id(taken: set[str], *names: str) -> str:
    """The first of `names` that is not taken, else the last one with a number; it is taken then.

    Names that differ only in the case of letters are one: so they are on the disks of Windows and macOS.
    """
    numbered = (f"{names[-1]}-{number}" for number in count(1))
    name = next(name for name in chain(names, numbered) if name.casefold() not in taken)
    taken.add(name.casefold())
    return name


OFFICIAL = {
    "rgb": "rgb_path",
    "motion": "motion_path",
    "first_frame": "first_frame",
    "motion_first_frame": "motion_first_frame",
    "smpl": "smpl_path",
}


def _official_id(row: Mapping[str, Any], number: int) -> str:
    name = Path(str(row["rgb_path"])).stem.strip(". ")
    return name or f"clip-{number:06d}"


def write_official(path: str | os.PathLike[str], clips: Iterable[Clip], smpl_folder: Path | None = None) -> Path:
    """The list that the released code trains from; `smpl_folder` gets the poses in the form that its loader reads."""
    path = Path(path)
    rows = []
    for clip in clips:
        row: dict[str, Any] = {"type": "video", "text": clip.text[0]}
        for ours, theirs in OFFICIAL.items():
            value = getattr(clip, ours)
            if value is not None:
                row[theirs] = os.path.abspath(value)
        if clip.smpl is not None and smpl_folder is not None:
            row["smpl_path"] = os.path.abspath(_official_smpl(clip, smpl_folder))
        missing = [theirs for theirs in OFFICIAL.values() if theirs not in row]
        if missing:
            raise ComoviError(f"clip {clip.id} lacks {missing[0]}, without which the released loader never returns.")
        rows.append(row)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return path


def _official_smpl(clip: Clip, folder: Path) -> Path:
    """One record per frame, as an array of objects: global_orient (1, 1, 3, 3), body_pose (1, 23, 3, 3), betas (1, 10),
    camera (1, 3), the translation before the camera."""
    import numpy as np

    from ...comovi_model.body.motion import BodyMotion

    assert clip.smpl is not None
    motion = BodyMotion.load(clip.smpl)
    records = np.empty(len(motion), object)
    for index in range(len(motion)):
        records[index] = {
            "global_orient": motion.rotations[index, :1].numpy()[None],
            "body_pose": motion.rotations[index, 1:].numpy()[None],
            "betas": motion.betas.numpy()[None],
            "camera": motion.transl[index].numpy()[None],
        }
    target = folder / f"{clip.id}.npz"
    try:
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, smpl=records)
    except OSError as error:
        raise file_error(error, target, "write") from error
    return target
