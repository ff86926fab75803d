"""A video that a page can carry: as it is where every browser plays it, else as a smaller H.264 copy."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..body.motion import BodyMotion
from ..errors import ComoviError
from ..files import require_file
from ..video import upright_pixels, write_video
from .overlay import same_rate

PLAYED = {  # (container, codec) -> MIME type that current browsers play
    ("mp4", "h264"): "video/mp4",
    ("webm", "vp8"): "video/webm",
    ("webm", "vp9"): "video/webm",
}
PLAYED_PIXELS = ("yuv420p", "yuvj420p")
LARGEST_COPIED = 6 * 2**20  # bytes that are taken over as they are
LARGEST_SIDE = 720  # pixels of a copy
LENGTH_TOLERANCE = 0.1  # share by which a video may be shorter or longer than its motion and still be the same clip


@dataclass(frozen=True)
class PageVideo:
    """Bytes of a video file and what is known of it."""

    content: bytes
    type: str  # MIME
    frames: int
    fps: float

    def times_of(self, motion: BodyMotion) -> list[float]:
        """The second of the video at which each frame of the motion is seen, (F,), never running backward.

        A motion of the same rate that is shorter and says nothing is taken for the beginning of the video."""
        assert motion.source_index is not None
        source = motion.source_index.tolist()
        count = len(motion)
        if source != list(range(count)) and min(source) >= 0 and max(source) < self.frames and source == sorted(source):
            index = [float(number) for number in source]
        elif abs(self.frames - count) <= 1 or (count < self.frames and same_rate(motion.fps, self.fps)):
            index = [float(number) for number in range(count)]
        else:  # the same time, at another rate
            seconds, own = count / motion.fps, self.frames / self.fps
            if abs(seconds - own) > LENGTH_TOLERANCE * max(seconds, own):
                raise ComoviError(
                    f"the video lasts {own:.2f} s ({self.frames} frames) and the motion {seconds:.2f} s ({count} "
                    "frames), and the motion does not say which frames it was taken from; trim one of them."
                )
            index = [min(number / motion.fps * self.fps, self.frames - 1) for number in range(count)]
        return [round(number / self.fps, 5) for number in index]


def page_video(path: str | os.PathLike[str]) -> PageVideo:
    """Reads a video file for a page; what browsers do not play, or is large, is encoded again."""
    path = require_file(Path(path), "video")
    facts = _facts(path)
    kind = PLAYED.get((facts["container"], facts["codec"]))
    if kind and facts["pixels"] in PLAYED_PIXELS and path.stat().st_size <= LARGEST_COPIED:
        return PageVideo(path.read_bytes(), kind, facts["frames"], facts["fps"])
    return encoded(video_frames(path), facts["fps"])


def encoded(frames: Any, fps: float) -> PageVideo:
    """Frames (each (H, W, 3), uint8 or float in 0..1) as H.264 of at most LARGEST_SIDE pixels on a side."""
    count = 0

    def small() -> Iterator[np.ndarray]:
        nonlocal count
        for frame in frames:
            count += 1
            yield _shrunk(frame)

    with tempfile.TemporaryDirectory() as folder:
        path = write_video(Path(folder) / "page.mp4", small(), fps, crf=23)
        return PageVideo(path.read_bytes(), "video/mp4", count, fps)


def _shrunk(frame: Any) -> np.ndarray:
    """(H, W, 3) uint8 of even sides."""
    from ..images import to_uint8

    pixels = to_uint8(frame)
    height, width = pixels.shape[:2]
    scale = min(1.0, LARGEST_SIDE / max(height, width))
    size = (max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2))
    if size == (width, height):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def video_frames(path: str | os.PathLike[str]) -> Iterator[np.ndarray]:
    """Every frame (H, W, 3) uint8 of the first video stream, upright, one after the other."""
    import av

    try:
        with av.open(os.fspath(path)) as container:
            for frame in container.decode(container.streams.video[0]):
                yield upright_pixels(frame)
    except av.error.FFmpegError as error:
        raise _unreadable(path, error) from error


def _facts(path: Path) -> dict[str, Any]:
    """Container, codec, pixel format, frames and rate; frames are counted by their packets."""
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ComoviError(f"{path} holds no video; give a video file.")
            stream = container.streams.video[0]
            fps = float(stream.average_rate or 0)
            codec, pixels = stream.codec_context.name, stream.codec_context.pix_fmt
            count = sum(packet.size > 0 for packet in container.demux(stream))
    except av.error.FFmpegError as error:
        raise _unreadable(path, error) from error
    if not count or not fps:
        raise ComoviError(f"video {path} has no frames that can be read; is it a complete file?")
    return {"container": _container(path), "codec": codec, "pixels": pixels, "frames": count, "fps": fps}


def _container(path: Path) -> str:
    """ "mp4", "webm", or "" for their relatives that browsers treat differently (QuickTime, Matroska) and others."""
    with path.open("rb") as file:
        head = file.read(64)
    if head[4:8] == b"ftyp" and head[8:12] != b"qt  ":
        return "mp4"
    return "webm" if head.startswith(b"\x1aE\xdf\xa3") and b"webm" in head else ""


def _unreadable(path: str | os.PathLike[str], error: Any) -> ComoviError:
    return ComoviError(f"video {path} cannot be read ({error.strerror or error}); is it a complete file?")
