"""What `comovi show` does: read a motion, decide what to make of it by the name of the result, and make it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from ..body.motion import BodyMotion
from ..body.smpl import BodyModel, load_body_model
from ..errors import ComoviError
from ..files import require_place
from ..images import write_image
from ..motion_io.adapt import for_body
from ..motion_io.reading import read_motion
from ..video import video_facts, write_video
from .compare import compare_motions, draw_comparison
from .overlay import iter_overlay, poses_of_pictures
from .page import write_page
from .page_video import page_video, video_frames
from .path_plot import draw_path_plot
from .sheet import draw_sheet
from .turntable import VIEWS, iter_views

SUFFIX_OF = {"player": ".html", "overlay": ".mp4", "sheet": ".png", "path": ".png", "compare": ".png"}
USUAL_SIZE = (640, 640)


@dataclass(frozen=True)
class _Request:
    """One picture, video or page to make."""

    motion: BodyMotion
    body: BodyModel
    out: Path
    video: Path | None
    style: str
    opacity: float
    size: tuple[int, int]
    title: str
    other: BodyMotion | None
    names: tuple[str, str]


def show_file(
    file: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    what: str | None = None,
    video: str | os.PathLike[str] | None = None,
    compare: str | os.PathLike[str] | None = None,
    body: str | os.PathLike[str] | None = None,
    style: str = "solid",
    opacity: float = 0.7,
    size: tuple[int, int] | None = None,
    title: str = "",
    overwrite: bool = False,
) -> list[str]:
    """Makes the result and returns sentences about it; see cli_show.py for the choices."""
    file = Path(file)
    out = Path(f"{file.stem or 'motion'}.html") if out is None and what is None else out
    what, target = _decide(file, None if out is None else Path(out), what, video is not None, compare is not None)
    if size is not None and what.replace("-side", " side") not in VIEWS:
        raise ComoviError(f"--size is for turntables and views; {what} has a size of its own, so leave it out.")
    if target.exists() and not overwrite:
        raise ComoviError(f"{target} exists already; choose another --out, or add --overwrite.")
    require_place(target)
    model = load_body_model(None if body is None else os.fspath(body))
    motion, notes = _read(file, model)
    other = None
    if compare is not None:
        other, more = _read(Path(compare), model)
        notes += more
    request = _Request(motion, model, target, None if video is None else Path(video), style, opacity,
                       size or USUAL_SIZE, title or file.name, other,
                       (file.name, "" if compare is None else Path(compare).name))  # fmt: skip
    return [*notes, *_make(request, what), f"wrote {target}"]


def _decide(file: Path, out: Path | None, what: str | None, video: bool, compare: bool) -> tuple[str, Path]:
    """What to make and where, or an error when they do not fit together."""
    suffix = "" if out is None else out.suffix.lower()
    if what is None:
        usual = {".html": "player", ".htm": "player", ".mp4": "overlay" if video else "turntable", ".png": "sheet"}
        if suffix not in usual:
            raise ComoviError(f"cannot write {out}: the name must end in .html, .mp4 or .png, or say --what.")
        what = "compare" if compare and suffix == ".png" else usual[suffix]
    wanted = SUFFIX_OF.get(what, ".mp4")
    target = Path(f"{file.stem or 'motion'}_{what}{wanted}") if out is None else out
    if suffix and {".htm": ".html"}.get(suffix, suffix) != wanted:
        raise ComoviError(f"{what} is written as {wanted}, and {target} ends in {suffix}; change one of them.")
    if what == "overlay" and not video:
        raise ComoviError("an overlay needs the video that the motion was taken from; name it with --video.")
    if what not in ("overlay", "player") and video:
        raise ComoviError(f"--video goes with a page or an overlay, not with {what}.")
    if (what == "compare") != compare:
        raise ComoviError("a comparison needs a second motion: --compare FILE, with --what compare or a .png result.")
    return what, target


def _read(path: Path, model: BodyModel) -> tuple[BodyMotion, list[str]]:
    found = read_motion(path, body=model)
    motion, notes = for_body(found.motion, model)
    return motion, [f"{path.name}: {note}" for note in (*found.notes, *notes)]


def _make(request: _Request, what: str) -> list[str]:
    motion, body, out = request.motion, request.body, request.out
    if what == "player":
        film = None if request.video is None else page_video(request.video)
        write_page(out, motion, body, title=request.title, video=film)
        return [] if request.video is None else _stretched(motion, *video_facts(request.video)[1:3])
    if what == "overlay":
        return _write_overlay(request)
    if what == "sheet":
        write_image(out, draw_sheet(motion, body, title=request.title, style=request.style))
        return []
    if what == "path":
        write_image(out, draw_path_plot(motion, body, title=request.title))
        return []
    if what == "compare":
        assert request.other is not None
        comparison = compare_motions(motion, request.other, body)
        write_image(out, draw_comparison(comparison, request.names))
        return comparison.report()
    width, height = request.size
    view = what.replace("-side", " side")
    assert view in VIEWS
    with closing(iter_views(motion, body, height, width, view=view, style=request.style)) as pictures:
        write_video(out, _counted(pictures, len(motion), what), motion.fps)
    return []


def _write_overlay(request: _Request) -> list[str]:
    assert request.video is not None
    count, width, height, fps = video_facts(request.video)
    motion, notes = request.motion, _stretched(request.motion, width, height)
    total = len(poses_of_pictures(motion, count, fps))
    if count == len(motion) and abs(fps - motion.fps) > 0.01 * fps:
        notes.append(f"the video has {fps:g} frames per second and the motion {motion.fps:g}; they go frame by frame.")
    width, height = width - width % 2, height - height % 2  # H.264 needs even sides
    frames = (torch.from_numpy(frame) for frame in video_frames(request.video))
    drawn = iter_overlay(frames, count, motion, request.body, opacity=request.opacity, style=request.style, fps=fps)
    cut = (picture[:height, :width] for picture in drawn)
    write_video(request.out, _counted(cut, total, "overlay"), fps if count > 1 else motion.fps)
    return notes


def _stretched(motion: BodyMotion, width: int, height: int) -> list[str]:
    """A note if the pictures have another shape than the motion's camera."""
    note = "" if motion.camera is None else motion.camera.stretched_by(width, height)
    return [note] if note else []


def _counted(pictures: Iterator[torch.Tensor], total: int, name: str) -> Iterator[torch.Tensor]:
    """The same pictures, with a progress bar when it takes long."""
    yield from tqdm(pictures, total=total, desc=name, unit="frame", leave=False, delay=1)
