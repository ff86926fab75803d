"""Files that are either whole or absent, and file errors as sentences.

Every output of this project goes through `atomic_path` or `atomic_folder`: the bytes are written under a temporary
name beside the target and renamed at the end, so that neither Ctrl-C nor a full disk leaves half a file.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import ComoviError

TEMPORARY = ".tmp-"  # part of every temporary name; .gitignore knows it

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EACCES: "permission is denied; choose a place that you may use or change its permissions",
    errno.EPERM: "the operation is not permitted; choose a place that you may use",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOENT: "it does not exist; check the spelling",
    errno.ENOTDIR: "a part of the path is a file where a folder is needed; choose another path",
    errno.EISDIR: "it is a folder where a file is needed; give the path of a file",
    errno.EEXIST: "it exists already; choose another name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "its symbolic links form a circle; mend the links",
    errno.EIO: "the device reported a read or write error; check the disk",
    errno.EFBIG: "the file would be larger than the file system allows; choose another folder",
    errno.EMFILE: "too many files are open; close some programs or raise the limit with ulimit -n",
}


def file_error(error: OSError, path: str | os.PathLike[str], action: str) -> ComoviError:
    """Return a `ComoviError` that says in one sentence why `action` ("read", "write") failed on `path`."""
    reason = _REASONS.get(error.errno or 0) or error.strerror or type(error).__name__
    return ComoviError(f"cannot {action} {_shortened(path)}: {reason}.")


def _shortened(path: str | os.PathLike[str]) -> str:
    """The path as text; the middle of a very long one is left out, so that the sentence stays one."""
    text = os.fspath(path)
    return text if len(text) <= 300 else f"{text[:140]}...{text[-140:]}"


def require_file(path: str | os.PathLike[str], what: str = "file") -> Path:
    """Return `path` when it is a non-empty readable file; `what` names it in the error ("motion file")."""
    path = Path(path)
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise ComoviError(f"{what} {path} is a folder; give the path of a file.")
        with path.open("rb") as stream:
            if not stream.read(1):
                raise ComoviError(f"{what} {path} is empty (0 bytes); it was probably not written completely.")
    except FileNotFoundError as error:
        raise ComoviError(f"{what} {_shortened(path)} does not exist; check the spelling.") from error
    except OSError as error:
        raise file_error(error, path, f"read {what}") from error
    except ValueError as error:
        if isinstance(error, ComoviError):
            raise
        raise ComoviError(f"{what} {str(path)!r} is not a usable path ({error}).") from error
    return path


def require_place(path: str | os.PathLike[str]) -> Path:
    """Return `path` when a file can be written there; asked before long work, so that the work is not lost."""
    path = Path(path)
    ancestor = path.parent
    try:
        if path.is_dir():
            raise ComoviError(f"cannot write {path}: it is a folder where a file is needed; give the path of a file.")
        while not ancestor.exists() and ancestor != ancestor.parent:
            ancestor = ancestor.parent
        with tempfile.TemporaryFile(dir=ancestor):
            return path
    except OSError as error:
        raise file_error(error, path, "write") from error


def _new_folders(folder: Path) -> list[Path]:
    """Create `folder` and return the folders that were not there before, innermost first."""
    missing = []
    current = folder
    while not current.exists():
        missing.append(current)
        current = current.parent
    if not current.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(current))
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _blamed_path(error: OSError, temporary: Path, target: Path) -> str:
    """The path to name: the target when the failing file is (inside) our temporary one, else the failing file."""
    name = error.filename
    if not isinstance(name, str) or name.startswith(str(temporary)):
        return str(target)
    return name


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well it is renamed to `path`, else removed.

    The temporary name keeps the suffix, because encoders choose the format by it. Missing parent folders are created,
    and removed again on failure. Any `OSError` becomes a `ComoviError` that names the file.
    """
    path = Path(path)
    created: list[Path] = []
    # Few characters: a name may have 255 bytes, and one character of it up to four.
    temporary = path.parent / f".{path.stem[:30]}{TEMPORARY}{secrets.token_hex(4)}{path.suffix[:20]}"
    try:
        if path.is_dir():
            raise ComoviError(f"cannot write {path}: it is a folder where a file is needed; give the path of a file.")
        created = _new_folders(path.parent)
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _remove_empty(created)
        if isinstance(error, OSError):
            raise file_error(error, _blamed_path(error, temporary, path), "write") from error
        raise


@contextmanager
def atomic_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder; when the block ends well, its files appear in `path` together.

    A folder that holds something is refused before any work, unless `overwrite` is set; then files of the same names
    are replaced one by one and all others stay (a mistyped `--out` can never delete a folder).
    """
    path = Path(path)
    created: list[Path] = []
    temporary = path
    try:
        if path.exists() and not path.is_dir():
            raise ComoviError(f"cannot write into {path}: it is a file where a folder is needed; choose another name.")
        if path.is_dir() and any(path.iterdir()) and not overwrite:
            raise ComoviError(f"folder {path} is not empty; choose another one, or pass --overwrite.")
        created = _new_folders(path)
        temporary = path / f"{TEMPORARY}{secrets.token_hex(4)}"
        temporary.mkdir()
        yield temporary
        for item in sorted(temporary.iterdir()):
            os.replace(item, path / item.name)
        temporary.rmdir()
    except BaseException as error:
        if temporary != path:
            shutil.rmtree(temporary, ignore_errors=True)
        _remove_empty(created)
        if isinstance(error, OSError):
            raise file_error(error, _blamed_path(error, temporary, path), "write") from error
        if isinstance(error, ComoviError) and str(temporary) in str(error):
            raise ComoviError(str(error).replace(str(temporary), str(path))) from error
        raise
