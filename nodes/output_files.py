"""Where nodes put their files: below ComfyUI's output folder, numbered like those of the core, listed for /history."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path

import folder_paths

from ..comovi_model.errors import ComoviError

LONGEST_NAME = 200  # bytes; most file systems allow 255, and the number and the suffix are added


@dataclass(frozen=True)
class OutputFile:
    """A file that is about to be written."""

    path: Path
    name: str  # of the file
    subfolder: str  # below the output folder, with forward slashes; "" for the folder itself

    @property
    def relative(self) -> str:
        """The path from the output folder, as the core's 3D preview wants it."""
        return f"{self.subfolder}/{self.name}" if self.subfolder else self.name

    def listing(self) -> dict[str, list[dict[str, str]]]:
        """The node's ui: what the queue panel and the API's /history show and /view takes.

        Also files of the same name that a format leaves beside its own, as the rest mesh of a point cache.
        """
        kind = "3d" if self.path.suffix == ".glb" else "files"  # the panel knows what to do with "3d"
        beside = sorted(path.name for path in self.path.parent.glob(f"{glob.escape(self.path.stem)}.*"))
        names = [self.name, *(name for name in beside if name != self.name)]
        return {kind: [{"filename": name, "subfolder": self.subfolder, "type": "output"} for name in names]}


def prefix_problem(prefix: str | None) -> bool | str:
    """True, or a sentence that says why no file can have this prefix; None stands for a wired input."""
    if prefix is None:
        return True
    longest = max(len(part.encode()) for part in prefix.replace("\\", "/").split("/"))
    if not prefix.strip() or any(ord(letter) < 32 for letter in prefix) or longest > LONGEST_NAME:
        return f"filename_prefix {prefix[:80]!r} is no name for a file; give one such as motion/walk."
    output = os.path.abspath(folder_paths.get_output_directory())
    target = os.path.abspath(os.path.join(output, prefix.replace("\\", "/")))
    if os.path.splitdrive(target)[0] != os.path.splitdrive(output)[0] or os.path.commonpath((output, target)) != output:
        return f"filename_prefix {prefix[:80]!r} leads out of ComfyUI's output folder; give a name inside it."
    return True


def next_file(prefix: str, suffix: str) -> OutputFile:
    """The next free name, e.g. motion/walk -> output/motion/walk_00001_.npz."""
    problem = prefix_problem(prefix)
    if problem is not True:
        raise ComoviError(str(problem))
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    file = f"{name}_{counter:05}_{suffix}"
    return OutputFile(Path(folder) / file, file, subfolder.replace("\\", "/"))
