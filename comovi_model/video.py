"""Videos in and out through PyAV: uint8 arrays (F, H, W, 3), red green blue.

Written as H.264, crf 18, yuv420p, BT.709 limited range and tagged so: a motion map is read back by its colours, and an
untagged file is decoded with another matrix by every second player (up to 20 grey levels off).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import closing
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ComoviError
from .files import atomic_path, require_file
from .images import to_uint8

BT709 = 1  # the number of BT.709 in the H.264 tables for primaries, transfer and matrix
LIMITED_RANGE = 1


def _import_av():
    try:
        import av
    except ImportError as error:
        raise ComoviError("videos need PyAV, which is not installed; to install: pip install av") from error
    return av


def write_video(
    path: str | os.PathLike[str], frames: Iterable, fps: float, *, crf: int = 18, description: str | None = None
) -> Path:
    """Write frames (each (H, W, 3), uint8 or float in [0, 1]) to an .mp4 file, whole or not at all.

    `frames` may be an array, a tensor or any iterable, so that a long video need not be in memory.
    `description` names a progress bar.
    """
    av = _import_av()
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ComoviError(f"cannot write {path}: a video's name must end in .mp4.")
    if not 0 < fps <= 1000:
        raise ComoviError(f"cannot write {path} at {fps} frames a second; give a rate between 0 and 1000.")
    if description is not None:
        from tqdm import tqdm

        frames = tqdm(frames, desc=description, unit="frame", leave=False, delay=0.5)
    with atomic_path(path) as temporary:
        try:
            _encode(av, temporary, frames, fps, crf)
        except av.error.FFmpegError as error:
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, str(temporary)) from error
            raise ComoviError(f"cannot write {path}: the video encoder says {error}.") from error
    return path


def _encode(av, path: Path, frames: Iterable, fps: float, crf: int) -> None:
    stream, size = None, None
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        for frame in frames:
            pixels = np.ascontiguousarray(to_uint8(frame))
            if stream is None:
                size = _checked_size(pixels.shape)
                stream = _new_stream(container, size, fps, crf)
            if pixels.shape != size:
                raise ComoviError(f"every frame of a video must be {size}, one is {pixels.shape}.")
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709")
            picture.color_range = LIMITED_RANGE
            container.mux(stream.encode(picture))
        if stream is None:
            raise ComoviError("a video needs at least one frame, none came.")
        container.mux(stream.encode(None))


def _checked_size(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ComoviError(f"a frame must be (H, W, 3) with pixels, one is {shape}.")
    if shape[0] % 2 or shape[1] % 2:
        raise ComoviError(f"a video's width and height must be even, this one is {shape[1]}x{shape[0]}.")
    return shape


def _new_stream(container, size: tuple[int, ...], fps: float, crf: int):
    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": str(crf)})
    stream.height, stream.width = size[:2]
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = BT709
    context.color_range = LIMITED_RANGE
    return stream


def video_facts(path: str | os.PathLike[str]) -> tuple[int, int, int, float]:
    """(frames, width, height, frames per second) of a video, upright; decoded one frame at a time, none is kept."""
    path = require_file(path, "video")
    frames = _decoded(path)
    _, rate = next(frames)
    count, width, height = 0, 0, 0
    for frame, _ in frames:
        count = count + 1
        width, height = (frame.height, frame.width) if quarter_turns(frame) % 2 else (frame.width, frame.height)
    if not count:
        raise _unreadable(path)
    return count, width, height, rate


def read_video(path: str | os.PathLike[str], max_frames: int | None = None) -> tuple[np.ndarray, float]:
    """Read a video: frames (F, H, W, 3) uint8, turned upright as players show them, and its frames per second."""
    path = require_file(path, "video")
    decoded = _decoded(path)
    _, rate = next(decoded)
    with closing(decoded):
        frames = [upright_pixels(frame) for frame, _ in islice(decoded, max_frames)]
    if not frames:
        raise _unreadable(path)
    return np.stack(frames), rate


def upright_pixels(frame: Any) -> np.ndarray:
    """A decoded frame as (H, W, 3) uint8. Phones film on their side and write down by how much to turn."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), quarter_turns(frame)))


def quarter_turns(frame: Any) -> int:
    """How often a decoded frame is to be turned anticlockwise; PyAV before 14 does not say."""
    return round(getattr(frame, "rotation", 0) / 90) % 4


def _decoded(path: Path) -> Generator[tuple[Any, float], None, None]:
    """First (None, frames per second), then every frame of the first video stream, with the rate."""
    av = _import_av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ComoviError(f"{path} holds no video; give a video file.")
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 0)
            if not rate:
                raise _unreadable(path)
            yield None, rate
            for frame in container.decode(stream):
                yield frame, rate
    except av.error.FFmpegError as error:
        raise ComoviError(f"video {path} cannot be read ({error.strerror or error}); is it a complete file?") from error


def _unreadable(path: Path) -> ComoviError:
    return ComoviError(f"video {path} has no frames that can be read; is it a complete file?")
