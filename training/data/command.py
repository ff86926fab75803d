"""`comovi-train data`: lists of clips, in and out.

comovi-train data import dataset.json --out clips.jsonl     the released code's list as one of ours
comovi-train data export my_data --out dataset.json         and back, with poses as its loader reads them
comovi-train data check my_data                             are all files there, and do they fit together?
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ...comovi_model.errors import ComoviError
from ...comovi_model.motion_io.reading import read_motion
from .cache import open_clips
from .manifest import Clip, write_manifest, write_official
from .video import scan_video


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("import", "export", "check"))
    parser.add_argument("clips", type=Path, help="folder that prepare made, a clips.jsonl, or a released JSON list")
    parser.add_argument("--out", type=Path, help="the list to write")


def run(options: argparse.Namespace) -> int:
    clips = open_clips(options.clips)
    if options.action == "check":
        complaints = [complaint for clip in clips for complaint in problems(clip)]
        print("\n".join([*complaints, f"{len(clips)} clips, {len(complaints)} problems"]))
        return 1 if complaints else 0
    if options.out is None:
        raise ComoviError(f"name the list that data {options.action} shall write: --out FILE.")
    if options.action == "import":
        print(f"{len(clips)} clips in {write_manifest(options.out, clips)}")
    else:
        print(f"{len(clips)} clips in {write_official(options.out, clips, options.out.parent / 'smpl')}")
    return 0


def problems(clip: Clip) -> list[str]:
    """What keeps a clip from being used; reads its videos and its poses."""
    found = []
    for name, path in (("rgb", clip.rgb), ("motion", clip.motion)):
        if path is None:
            continue
        try:
            facts = scan_video(path)
            came = (len(facts.time), facts.width, facts.height)
            if came != (clip.frames, *clip.size):
                found.append(f"{clip.id}: {name} has {came[0]} frames of {came[1]}x{came[2]}, not as the list says.")
        except ComoviError as error:
            found.append(f"{clip.id}: {error}")
    if clip.smpl is not None:
        try:
            count = len(read_motion(clip.smpl).motion)
            if count != clip.frames:
                found.append(f"{clip.id}: {count} poses for {clip.frames} frames.")
        except ComoviError as error:
            found.append(f"{clip.id}: {error}")
    return found
