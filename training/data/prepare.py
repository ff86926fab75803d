"""`comovi-train prepare`: videos with sentences and estimated bodies -> clips to train on.

    comovi-train prepare my_videos --out my_data --preset nano --cache

Each video is worked on alone, so it may fail alone: quarantine.jsonl says why. What is finished is kept, and the same
command goes on where it was stopped. `out` holds clips.jsonl (the list), clips/ and prepare.json (the settings).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from ...comovi_model.clean.time_base import exact_fps
from ...comovi_model.errors import ComoviError
from ...comovi_model.files import TEMPORARY, atomic_path, file_error
from ..curation.workers import Failure, run_all
from .beside import find_poses, find_text, find_videos, read_captions, video_id
from .encoders import add_encoder_arguments, encoders_from
from .manifest import Clip, from_record, record_text, unique_id, write_manifest
from .prepare_clip import (
    PRESETS,
    PrepareSettings,
    Refused,
    VideoClips,
    VideoJob,
    prepare_video,
    settings_record,
)

LIST, QUARANTINE, SETTINGS, FINISHED = "clips.jsonl", "quarantine.jsonl", "prepare.json", ".finished"
HELD_OUT = "held_out.jsonl"  # clips to measure on, if some were asked for


@dataclass(frozen=True)
class Prepared:
    """What a run of `prepare` leaves."""

    folder: Path
    clips: tuple[Clip, ...]
    refused: tuple[Refused, ...]
    held_out: tuple[Clip, ...] = ()


def prepare(
    videos: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: PrepareSettings,
    *,
    hold_out: float = 0.0,
    workers: int = 0,
    seconds: float | None = None,
    progress: bool = False,
) -> Prepared:
    """Make clips of a folder of videos (or of the list that `comovi-train curate` wrote).

    hold_out: share of the videos whose clips go into a list of their own, for measuring. workers = 0 works in this
    process; `seconds` is the most that one video may take with workers.
    """
    from tqdm import tqdm

    if not 0 <= hold_out < 1:
        raise ComoviError(f"the share of videos to hold out must lie between 0 and 1, got {hold_out}.")
    out = Path(os.path.abspath(out))
    jobs, refused = find_jobs(Path(videos), settings, out / "clips")
    for left in (*out.glob(f".*{TEMPORARY}*"), *(out / FINISHED).glob(f".*{TEMPORARY}*")):  # by a run that was killed
        left.unlink()
    _same_settings(out, settings)
    finished, waiting = {}, []
    for job in jobs:
        found = _finished(out, job)
        if found is None:
            waiting.append(job)
        else:
            finished[job.id] = found
    work = partial(prepare_video, settings=settings, out=out)
    with tqdm(total=len(jobs), initial=len(finished), desc="preparing", unit="video", disable=not progress) as bar:
        for done in run_all(work, waiting, workers, seconds):
            if isinstance(done.result, Failure):
                refused.append(Refused(done.item.id, str(done.item.video), done.result.reason))
            else:
                finished[done.item.id] = done.result
                refused.extend(done.result.refused)
                if not done.result.refused:
                    _finish(out, done.item, done.result)
            bar.set_postfix_str(f"{sum(len(one.clips) for one in finished.values())} clips, {len(refused)} refused")
            bar.update()
    apart = held_out_videos([name for name, one in finished.items() if one.clips], hold_out)
    lists: list[list[Clip]] = [[], []]
    for name, one in finished.items():
        lists[name in apart].extend(one.clips)
    clips, held_out = (sorted(some, key=lambda clip: clip.id) for some in lists)
    refused.sort(key=lambda one: one.id)
    write_manifest(out / LIST, clips)
    if held_out or (out / HELD_OUT).exists():
        write_manifest(out / HELD_OUT, held_out)
    with atomic_path(out / QUARANTINE) as temporary:
        temporary.write_text("".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in refused), "utf-8")
    return Prepared(out, tuple(clips), tuple(refused), tuple(held_out))


def held_out_videos(names: Sequence[str], share: float) -> set[str]:
    """About this share of the videos, at least one; all clips of a video stay together. A video is chosen by its name
    alone, so one that is held out stays so when others are added."""
    if share == 0 or len(names) < 2:
        return set()
    order = {name: int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") for name in names}
    return {name for name in names if order[name] < share * 2**64} or {min(names, key=order.__getitem__)}


def find_jobs(videos: Path, settings: PrepareSettings, made: Path) -> tuple[list[VideoJob], list[Refused]]:
    """What there is to do in a folder, or in a list of segments; and what lacks poses or a sentence.

    made: where the clips go, which may lie in the folder and are no videos to make clips of.
    """
    if videos.suffix == ".jsonl":
        return _listed_jobs(videos, settings)
    paths = find_videos(videos, made)
    folder = videos if videos.is_dir() else videos.parent
    captions = read_captions(folder)
    jobs, refused = [], []
    names: set[str] = set()
    for path in paths:
        name = video_id(path, folder)
        name = unique_id(names, name, f"{name}-{path.suffix[1:]}")  # dance.mp4 beside dance.mov
        try:
            jobs.append(VideoJob(name, path.absolute(), find_poses(path).absolute(), find_text(path, captions)))
        except ComoviError as error:
            refused.append(Refused(name, str(path), str(error)))
    return jobs, refused


def _listed_jobs(path: Path, settings: PrepareSettings) -> tuple[list[VideoJob], list[Refused]]:
    """Jobs from the list of `comovi-train curate`: its kept segments, video by video."""
    from ..curation.records import read_segments

    frames, fps = max(bucket.frames for bucket in settings.buckets), exact_fps(settings.fps)
    starts: dict[Path, list[Any]] = {}
    for segment in read_segments(path):
        if not segment.kept:
            continue
        if (frames - 1) / fps > (segment.frames - 1) / exact_fps(segment.fps):
            raise ComoviError(
                f"{path} lists segments of {segment.frames} frames at {segment.fps} per second, and clips of {frames} "
                f"at {settings.fps} are longer, so they would run over cuts; curate with --frames {frames} --fps "
                f"{settings.fps}."
            )
        starts.setdefault(segment.video, []).append(segment)
    jobs, refused = [], []
    for video, segments in starts.items():
        name = segments[0].video_id
        try:
            beside = () if all(one.text for one in segments) else find_text(video, read_captions(video.parent))
            texts = tuple(one.text or beside for one in segments)
            begin = tuple(Fraction(segment.start) for segment in segments)
            own = texts if len(set(texts)) > 1 else ()
            jobs.append(VideoJob(name, video, find_poses(video).absolute(), texts[0], begin, own))
        except ComoviError as error:
            refused.append(Refused(name, str(video), str(error)))
    return jobs, refused


def _same_settings(out: Path, settings: PrepareSettings) -> None:
    """Clips of two kinds must not lie in one folder."""
    record = json.loads(json.dumps(settings_record(settings)))
    path = out / SETTINGS
    try:
        if path.is_file():
            there = json.loads(path.read_text(encoding="utf-8"))
            for name in sorted(set(record) | set(there)):
                if record.get(name) != there.get(name):
                    raise ComoviError(
                        f"{out} holds clips made with {name} = {there.get(name)!r}, and now it is "
                        f"{record.get(name)!r}; choose another folder (--out), or delete this one."
                    )
            return
    except (OSError, json.JSONDecodeError) as error:
        raise ComoviError(f"{path} cannot be read ({error}); choose another folder.") from None
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _signature(job: VideoJob) -> str:
    """Changes when the video, its poses or its sentences do."""
    files = [job.video, *(sorted(job.poses.iterdir()) if job.poses.is_dir() else [job.poses])]
    try:
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    except OSError as error:
        raise file_error(error, job.video, "read") from None
    starts = None if job.starts is None else [str(start) for start in job.starts]
    return hashlib.sha256(json.dumps([stats, job.texts or job.text, starts]).encode()).hexdigest()


def _finish(out: Path, job: VideoJob, result: VideoClips) -> None:
    """Written last: a video whose clips are all there."""
    lines = [record_text(clip, out) for clip in result.clips]
    with atomic_path(out / FINISHED / f"{job.id}.json") as temporary:
        temporary.write_text(json.dumps({"of": _signature(job), "clips": lines}), encoding="utf-8")


def _finished(out: Path, job: VideoJob) -> VideoClips | None:
    path = out / FINISHED / f"{job.id}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["of"] != _signature(job):
            return None
        clips = tuple(from_record(json.loads(line), out) for line in record["clips"])
    except (OSError, KeyError, TypeError, ValueError):  # not there, or not readable: it is made again
        return None
    there = all(path is None or path.is_file() for clip in clips for path in (clip.rgb, clip.motion, clip.smpl))
    return VideoClips(clips, ()) if there else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", type=Path, help="folder of videos, each with a .txt of sentences and poses beside it")
    parser.add_argument("--out", type=Path, required=True, help="folder for the clips")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="paper", help="what follows changes single values")
    help_of = {
        "size": "frames x height x width, as 81x704x1280; several make buckets",
        "fps": "frames per second of the clips",
        "clips-per-video": "0 takes all that fit",
        "hold-last": "frames that may repeat the last one where a video is too short",
        "crop": "centre or person",
        "smoothing": "of the poses: paper, none, savgol, gaussian or one-euro",
        "strength": "of smoothings other than the paper's, 0 to 1",
        "gap-seconds": "longest gap between poses that is filled",
        "body": "nano, or a body file (SMPL .pkl or .npz); the mannequin if left out",
        "shading": "phong_reference or flat",
        "samples": "of the motion map per pixel and direction",
        "focal-px": "focal length of the videos in pixels, for pose files without a camera",
        "crf": "of the stored pictures (H.264); 0 stores them without loss",
        "least-in-picture": "share of joints that must be in the picture, 0 to 1",
    }
    kinds = {item.name: type(item.default) for item in fields(PrepareSettings)}
    for name, text in help_of.items():
        if name == "size":
            parser.add_argument("--size", action="append", metavar="TxHxW", help=text)
        else:
            parser.add_argument(f"--{name}", type=kinds[name.replace("-", "_")], help=text)
    parser.add_argument("--hold-out", type=float, default=0.0, metavar="SHARE", help="of the videos, for measuring")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="processes; 0 is none")
    parser.add_argument("--seconds", type=float, default=600.0, help="most that one video may take")
    parser.add_argument("--cache", action="store_true", help="also make the cache that training reads, in OUT/cache")
    add_encoder_arguments(parser)


def settings_from(options: argparse.Namespace) -> PrepareSettings:
    """The preset with what was given beside it."""
    changes: dict[str, Any] = {
        item.name: value for item in fields(PrepareSettings) if (value := getattr(options, item.name, None)) is not None
    }
    if options.size:
        changes["sizes"] = tuple(options.size)
    return replace(PRESETS[options.preset], **changes)


def run(options: argparse.Namespace) -> int:
    settings = settings_from(options)
    done = prepare(
        options.videos, options.out, settings, hold_out=options.hold_out, workers=options.workers,
        seconds=options.seconds, progress=True,
    )  # fmt: skip
    report(done)
    if options.cache and done.clips:
        from .cache import build_all, summary

        encoders = encoders_from(options, "nano" if options.preset == "nano" else "wan")
        for built in build_all(done.folder, encoders, progress=True):
            print(summary(built))
    return 0 if done.clips else 1


def report(done: Prepared) -> None:
    """Say what was made, and why the rest was not."""
    print(f"{len(done.clips)} clips in {done.folder / LIST}")
    if done.held_out:
        print(f"{len(done.held_out)} clips held out in {done.folder / HELD_OUT}")
    for one in done.refused[:10]:
        print(f"left out: {one.id}: {one.reason}")
    if len(done.refused) > 10:
        print(f"{len(done.refused) - 10} more are left out; see {done.folder / QUARANTINE}")
