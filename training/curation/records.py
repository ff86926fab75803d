"""What curation knows about a part of a video, as JSON lines; format name "comovi-segments-1"."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from ...comovi_model.errors import ComoviError
from ...comovi_model.files import atomic_path, require_file

FORMAT = "comovi-segments-1"


@dataclass(frozen=True)
class Segment:
    """A part of a video that may become a clip."""

    video: Path
    video_id: str
    number: int  # in its video, from 0
    start: str  # seconds from the first frame, as a fraction ("81/16"), so that nothing is lost in the file
    frames: int  # of the clip that begins there, at `fps`
    fps: str
    text: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    dropped: str = ""  # why it is not kept; "" is kept

    @property
    def kept(self) -> bool:
        return not self.dropped

    @property
    def seconds(self) -> float:
        """When it begins."""
        return float(Fraction(self.start))


def segment_record(segment: Segment, folder: Path) -> dict[str, Any]:
    video, folder = Path(os.path.abspath(segment.video)), Path(os.path.abspath(folder))
    near = video.relative_to(folder).as_posix() if video.is_relative_to(folder) else str(video)
    return {
        "format": FORMAT,
        "video": near,
        "video_id": segment.video_id,
        "number": segment.number,
        "start": segment.start,
        "frames": segment.frames,
        "fps": segment.fps,
        "text": list(segment.text),
        "scores": dict(segment.scores),
        "dropped": segment.dropped,
    }


def segment_from(record: Any, folder: Path) -> Segment:
    """The inverse of `segment_record`; raises ComoviError, KeyError, TypeError or ValueError."""
    if record.get("format") != FORMAT:
        raise ComoviError(f"the format is {record.get('format')!r}, this version reads {FORMAT!r}.")
    Fraction(record["start"])
    return Segment(
        folder / record["video"],
        str(record["video_id"]),
        int(record["number"]),
        str(record["start"]),
        int(record["frames"]),
        str(record["fps"]),
        tuple(str(one) for one in record.get("text", ())),
        {str(name): float(value) for name, value in record.get("scores", {}).items()},
        str(record.get("dropped", "")),
    )


def read_segments(path: str | os.PathLike[str]) -> list[Segment]:
    """The list that `comovi-train curate` wrote."""
    path = require_file(path, "list of segments")
    segments = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        try:
            segments.append(segment_from(json.loads(line), path.parent))
        except (ComoviError, AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise ComoviError(f"{path}, line {number} is no segment ({' '.join(str(error).split())}).") from None
    return segments


def write_segments(path: str | os.PathLike[str], segments: Iterable[Segment]) -> Path:
    """Whole or not at all, in the order of videos and numbers."""
    path = Path(path)
    ordered = sorted(segments, key=lambda one: (one.video_id, one.number))
    lines = [json.dumps(segment_record(one, path.parent), ensure_ascii=False) + "\n" for one in ordered]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return path
