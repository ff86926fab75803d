"""What lies beside a video: its sentences and the bodies that were estimated in it.

    dance.mp4   dance.txt   dance.npz (or .pkl, .pt, .bvh ... or a folder dance/ of CameraHMR's files)

Sentences are the lines of the text file, or come from captions.json of the folder ({"dance.mp4": "..."} or a list of
them). Poses are found beside the video, in a folder smpl/ or motion/ beside it, or with _pose or _smpl behind the name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...comovi_model.errors import ComoviError
from .video import VIDEO_SUFFIXES

POSE_SUFFIXES = (".npz", ".pkl", ".pt", ".pth", ".npy", ".json", ".bvh", ".glb", ".gltf", ".zip", ".usda")
POSE_FOLDERS = ("", "smpl", "motion")
POSE_ENDINGS = ("", "_pose", "_smpl", ".smpl", "_motion")
CAPTIONS = "captions.json"


def find_videos(folder: str | os.PathLike[str], but: Path | None = None) -> list[Path]:
    """All videos of a folder and of the folders in it, in the order of their names; one file is a list of one.

    but: a folder whose videos are left out, because they were made of the others.
    """
    folder = Path(folder)
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise ComoviError(f"{folder} does not exist; give a folder of videos.")
    found = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if but is not None:
        found = [path for path in found if not path.absolute().is_relative_to(but.absolute())]
    odd = [path for path in found if not _is_text(str(path))]
    if odd:
        raise ComoviError(
            f"the names of {len(odd)} videos are not in UTF-8; rename them, the first is {str(odd[0])!a}."
        )
    if not found:
        raise ComoviError(f"{folder} holds no video ({', '.join(VIDEO_SUFFIXES)}).")
    return found


def _is_text(name: str) -> bool:
    """Whether a name can be written into a list; one from an old archive may be bytes in another encoding."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def video_id(video: Path, folder: Path) -> str:
    """A plain name that tells videos of one name in two folders apart: sub/dance.mp4 is "sub-dance"."""
    relative = video.relative_to(folder) if video.is_relative_to(folder) else Path(video.name)
    return "-".join(part.strip(". ") or "_" for part in relative.with_suffix("").parts)


def find_poses(video: Path) -> Path:
    """The file (or CameraHMR's folder) with the bodies of a video; an error says what was looked for."""
    for place in POSE_FOLDERS:
        for ending in POSE_ENDINGS:
            for suffix in POSE_SUFFIXES:
                path = video.parent / place / f"{video.stem}{ending}{suffix}"
                if path.is_file():
                    return path
            folder = video.parent / place / f"{video.stem}{ending}"
            if folder.is_dir() and any(folder.glob("*.npy")):
                return folder
    raise ComoviError(
        f"no poses beside {video.name}: looked for {video.stem}.npz, .pkl, .pt, ... and the same in smpl/; estimate "
        "them first (comovi estimate, or any program whose files docs/motion_files.md lists)."
    )


def find_text(video: Path, captions: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The sentences of a video, from `captions` (read_captions) or from the text file beside it."""
    for name in (video.name, video.stem):
        if name in captions:
            return tuple(captions[name])
    path = video.with_suffix(".txt")
    if not path.is_file():
        raise ComoviError(f"no sentence for {video.name}: write one into {path.name} beside it, or into {CAPTIONS}.")
    try:
        lines = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except UnicodeDecodeError:
        raise ComoviError(f"{path} is not text in UTF-8.") from None
    if not lines:
        raise ComoviError(f"{path} is empty; write a sentence into it.")
    return lines


def read_captions(folder: str | os.PathLike[str]) -> dict[str, list[str]]:
    """captions.json of a folder: {name of the video: sentence or list of sentences}; {} where there is none."""
    path = Path(folder) / CAPTIONS
    if not path.is_file():
        return {}
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ComoviError(f"{path} is not JSON ({' '.join(str(error).split())}).") from None
    if not isinstance(rows, dict):
        raise ComoviError(f'{path} must look like {{"dance.mp4": "a woman dances", ...}}.')
    captions = {name: [text] if isinstance(text, str) else text for name, text in rows.items()}
    for name, texts in captions.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ComoviError(
                f"{path}: {name!r} must have a sentence or a list of sentences, not {json.dumps(texts)[:80]}."
            )
    return captions
