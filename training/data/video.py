"""Videos as training reads them: every frame with its exact time, turned upright; and lossless files.

Letters: F frames, H x W pixels, RGB uint8.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ...comovi_model.clean.time_base import exact_fps
from ...comovi_model.errors import ComoviError
from ...comovi_model.files import atomic_path, require_file
from ...comovi_model.images import MAX_SIDE
from .timing import Timeline, timeline

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts")
LOSSLESS = ".mkv"  # holds H.264 of RGB pixels without loss


@dataclass(frozen=True)
class VideoFacts:
    """A video as it is shown: upright size in pixels, and when its frames are."""

    path: Path
    width: int
    height: int
    time: Timeline


def scan_video(path: str | os.PathLike[str], seconds: float | None = None) -> VideoFacts:
    """Decodes the video once (its first `seconds` only, if given) and keeps times, not pictures."""
    path = require_file(path, "video")
    stamps: list[int] = []
    size: tuple[int, int] | None = None
    with closing(_frames(path)) as frames:
        tick, rate = next(frames)
        for frame in frames:
            if frame.pts is None:
                raise ComoviError(f"video {path} has frames without a time stamp; convert it to a new file first.")
            shown = _upright_size(frame)
            if size not in (None, shown):
                raise ComoviError(f"video {path} changes its size from {size} to {shown}; cut it into separate files.")
            size = shown
            if seconds is not None and stamps and (frame.pts - stamps[0]) * tick > seconds:
                break
            stamps.append(frame.pts)
    if size is None:
        raise ComoviError(f"video {path} has no frames that can be read; is it a complete file?")
    try:
        return VideoFacts(path, *size, timeline(stamps, tick, rate))
    except ComoviError as error:
        raise ComoviError(f"video {path}: {error}") from None


def read_frames(path: str | os.PathLike[str], wanted: Sequence[int]) -> Iterator[np.ndarray]:
    """The pictures (H, W, 3) uint8 of rising frame numbers; one number may come several times."""
    path = require_file(path, "video")
    queue = iter(wanted)
    number = next(queue, None)
    with closing(_frames(path)) as frames:
        next(frames)
        for index, frame in enumerate(frames):
            if number is None:
                return
            if index < number:
                continue
            picture = np.rot90(frame.to_ndarray(format="rgb24"), _quarter_turns(frame))
            while number == index:
                yield picture
                number = next(queue, None)
    if number is not None:
        raise ComoviError(f"video {path} ended before frame {number}; is it a complete file?")


def decoded(path: str | os.PathLike[str]) -> Iterator[np.ndarray]:
    """Every picture (H, W, 3) uint8, one by one."""
    path = require_file(path, "video")
    with closing(_frames(path)) as frames:
        next(frames)
        for frame in frames:
            yield np.rot90(frame.to_ndarray(format="rgb24"), _quarter_turns(frame))


def read_all(path: str | os.PathLike[str]) -> np.ndarray:
    """Every picture, (F, H, W, 3) uint8."""
    pictures = list(decoded(path))
    if not pictures:
        raise ComoviError(f"video {path} has no frames that can be read; is it a complete file?")
    return np.stack(pictures)


def _frames(path: Path) -> Generator[Any, None, None]:
    """First (seconds per tick, exact nominal rate), then the decoded frames in the order they are shown."""
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ComoviError(f"{path} holds no video.")
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.base_rate
            if not rate or stream.time_base is None:
                raise ComoviError(f"video {path} does not say how many frames a second it has.")
            if max(stream.width, stream.height) > MAX_SIDE:
                raise ComoviError(f"video {path} is {stream.width}x{stream.height}; at most {MAX_SIDE} can be used.")
            aspect = stream.sample_aspect_ratio
            if aspect and aspect != 1:
                raise ComoviError(f"video {path} has pixels that are not square ({aspect}); convert it first.")
            yield Fraction(stream.time_base), exact_fps(Fraction(rate))
            yield from container.decode(stream)
    except av.error.FFmpegError as error:
        raise ComoviError(f"video {path} cannot be read ({error.strerror or error}); is it a complete file?") from error


def _quarter_turns(frame: Any) -> int:
    """Counter-clockwise turns that bring the picture upright; phones record sideways and say so."""
    return round(getattr(frame, "rotation", 0) / 90) % 4


def _upright_size(frame: Any) -> tuple[int, int]:
    sideways = _quarter_turns(frame) % 2
    return (frame.height, frame.width) if sideways else (frame.width, frame.height)


def write_lossless(path: str | os.PathLike[str], frames: np.ndarray, fps: Fraction) -> Path:
    """Frames (F, H, W, 3) uint8 as H.264 of RGB pixels, bit for bit; the name must end in .mkv."""
    import av

    path = Path(path)
    assert path.suffix == LOSSLESS
    with atomic_path(path) as temporary, av.open(str(temporary), "w") as container:
        stream: Any = container.add_stream("libx264rgb", rate=fps, options={"crf": "0", "preset": "veryfast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
    return path
