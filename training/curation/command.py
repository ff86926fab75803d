"""`comovi-train curate`: looks through raw videos and lists the parts worth training on.

    comovi-train curate raw_videos --out curated                       scores only
    comovi-train curate raw_videos --out curated --rule movement:0.004 --rule still::0.5 --find-people --rule people:1:1
    comovi-train prepare curated/segments.jsonl --out my_data          makes clips of what was kept

A video that cannot be read lands in quarantine.jsonl and the run goes on; the same command continues a stopped run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from ...comovi_model.errors import ComoviError
from ...comovi_model.files import atomic_path, file_error
from ..data.beside import find_text, find_videos, read_captions, video_id
from ..data.manifest import unique_id
from .records import Segment, segment_from, segment_record, write_segments
from .stages import CurateSettings, RawVideo, Rule, curate_video
from .workers import Failure, run_all

LIST, QUARANTINE, SETTINGS, FINISHED = "segments.jsonl", "quarantine.jsonl", "curate.json", ".finished"
RUNNERS = ("local", "ray")


@dataclass(frozen=True)
class Curated:
    """What a run of `curate` leaves."""

    folder: Path
    segments: tuple[Segment, ...]
    refused: tuple[tuple[str, str], ...]  # video, reason


def curate(
    videos: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: CurateSettings,
    *,
    runner: str = "local",
    workers: int = 0,
    seconds: float | None = None,
    address: str | None = None,
    progress: bool = False,
) -> Curated:
    """Look through a folder of videos; both runners write the same files."""
    from tqdm import tqdm

    if runner not in RUNNERS:
        raise ComoviError(f"unknown runner {runner!r}; choose one of {', '.join(RUNNERS)}.")
    out = Path(os.path.abspath(out))
    raws = _raw_videos(Path(videos))
    _same_settings(out, settings)
    finished: dict[str, list[Segment]] = {}
    waiting = []
    for raw in raws:
        found = _finished(out, raw)
        if found is None:
            waiting.append(raw)
        else:
            finished[raw.id] = found
    work = partial(curate_video, settings=settings)
    if runner == "ray":
        from .ray_runner import run_on_ray

        stream = run_on_ray(work, waiting, workers, seconds, address)
    else:
        stream = run_all(work, waiting, workers, seconds)
    refused = []
    bar = tqdm(total=len(raws), initial=len(finished), desc="curating", unit="video", disable=not progress)
    with bar:
        for done in stream:
            if isinstance(done.result, Failure):
                refused.append((done.item.id, done.result.reason))
            else:
                finished[done.item.id] = done.result
                _finish(out, done.item, done.result)
            bar.update()
    segments = [segment for one in finished.values() for segment in one]
    write_segments(out / LIST, segments)
    with atomic_path(out / QUARANTINE) as temporary:
        rows = [{"id": name, "reason": reason} for name, reason in sorted(refused)]
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    ordered = sorted(segments, key=lambda one: (one.video_id, one.number))
    return Curated(out, tuple(ordered), tuple(sorted(refused)))


def _raw_videos(folder: Path) -> list[RawVideo]:
    paths = find_videos(folder)
    base = folder if folder.is_dir() else folder.parent
    captions = read_captions(base)
    raws: list[RawVideo] = []
    names: set[str] = set()
    for path in paths:
        name = video_id(path, base)
        name = unique_id(names, name, f"{name}-{path.suffix[1:]}")  # dance.mp4 beside dance.mov
        try:
            text = find_text(path, captions)
        except ComoviError:
            text = ()  # captions may be written later, for what is kept
        raws.append(RawVideo(name, path.absolute(), text))
    return raws


def _same_settings(out: Path, settings: CurateSettings) -> None:
    record, path = json.loads(json.dumps(asdict(settings))), out / SETTINGS
    if path.is_file():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise ComoviError(f"{path} cannot be read ({error}); choose another folder.") from None
        for name in record:
            if record[name] != there.get(name):
                raise ComoviError(
                    f"{out} was curated with {name} = {there.get(name)!r}, and now it is {record[name]!r}; choose "
                    "another folder (--out)."
                )
        return
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _signature(raw: RawVideo) -> str:
    try:
        status = raw.video.stat()
    except OSError as error:
        raise file_error(error, raw.video, "read") from None
    return hashlib.sha256(json.dumps([status.st_size, status.st_mtime_ns, raw.text]).encode()).hexdigest()


def _finish(out: Path, raw: RawVideo, segments: list[Segment]) -> None:
    with atomic_path(out / FINISHED / f"{raw.id}.json") as temporary:
        rows = [segment_record(segment, out) for segment in segments]
        temporary.write_text(json.dumps({"of": _signature(raw), "segments": rows}), encoding="utf-8")


def _finished(out: Path, raw: RawVideo) -> list[Segment] | None:
    try:
        record = json.loads((out / FINISHED / f"{raw.id}.json").read_text(encoding="utf-8"))
        if record["of"] != _signature(raw):
            return None
        return [segment_from(row, out) for row in record["segments"]]
    except (OSError, AttributeError, KeyError, TypeError, ValueError):  # not there, or not readable: done again
        return None


def parse_rule(text: str) -> Rule:
    """ "movement:0.004" is at least, "still::0.5" at most, "people:1:1" exactly."""
    name, *bounds = text.split(":")
    try:
        least = float(bounds[0]) if bounds and bounds[0] else -float("inf")
        most = float(bounds[1]) if len(bounds) > 1 and bounds[1] else float("inf")
        if not bounds or len(bounds) > 2:
            raise ValueError
    except ValueError:
        raise ComoviError(f"a rule is written score:least:most, as still::0.5, got {text!r}.") from None
    return Rule(name, least, most)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", type=Path, help="folder of raw videos")
    parser.add_argument("--out", type=Path, required=True, help="folder for the list")
    parser.add_argument("--frames", type=int, default=81)
    parser.add_argument("--fps", default="16")
    parser.add_argument("--clips-per-video", type=int, default=2, help="0 takes all that fit")
    parser.add_argument("--rule", action="append", default=[], metavar="SCORE:LEAST:MOST", help="drop what is outside")
    parser.add_argument("--find-people", action="store_true", help="also look for people in the first picture")
    parser.add_argument("--runner", choices=RUNNERS, default="local")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="processes")
    parser.add_argument("--seconds", type=float, default=600.0, help="most that one video may take")
    parser.add_argument("--address", help="of a Ray cluster; left out, Ray runs on this machine")


def run(options: argparse.Namespace) -> int:
    rules = tuple(parse_rule(text) for text in options.rule)
    settings = CurateSettings(options.frames, options.fps, options.clips_per_video, options.find_people, rules)
    done = curate(
        options.videos, options.out, settings, runner=options.runner, workers=options.workers,
        seconds=options.seconds, address=options.address, progress=True,
    )  # fmt: skip
    dropped = Counter(segment.dropped.split(" is ")[0] for segment in done.segments if segment.dropped)
    kept = sum(segment.kept for segment in done.segments)
    print(f"{kept} of {len(done.segments)} segments are kept: {done.folder / LIST}")
    for name, count in dropped.most_common():
        print(f"dropped by {name}: {count}")
    for name, reason in done.refused[:10]:
        print(f"left out: {name}: {reason}")
    return 0 if kept else 1
