"""Files that a node reads: which file a name means, and what tells that it was exchanged."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any

import folder_paths


def named_file(choice: Any, suffixes: Collection[str]) -> str | None:
    """The path of a file of ComfyUI's folders with one of these suffixes (".bvh"), or None.

    Names are those of the core: below the input folder, or marked at the end as in "walk.npz [output]". The disk is
    asked and not the list of a widget, which leaves things out where a folder is large.
    """
    if not isinstance(choice, str):
        return None
    name, folder = folder_paths.annotated_filepath(choice)
    folder = os.path.abspath(folder or folder_paths.get_input_directory())
    path = os.path.abspath(os.path.join(folder, name))
    inside = path.startswith(os.path.join(folder, ""))
    known = os.path.splitext(path)[1].lower() in suffixes
    return path if inside and known and os.path.isfile(path) else None


def file_state(name: str | None, path_of: Callable[[str], str | None]) -> str:
    """What `fingerprint_inputs` says of a file: it changes when the file does.

    A name that comes by a wire is not known yet (None) and says nothing, so that the node is not run again each time.
    """
    if name is None:
        return ""
    path = path_of(name)
    if path is None:
        return name
    status = os.stat(path)
    return f"{name} {status.st_mtime_ns} {status.st_size}"
