"""Weight files: memory-mapped reading, one-tensor-at-a-time writing, errors as sentences.

A safetensors file is 8 bytes with the length of a JSON header, the header (name -> dtype, shape, byte range) and the
bytes. The bytes are mapped, not read: a tensor costs memory when it is first touched, its pages are the file's own, and
the system may drop them again. Writing into such a tensor changes this process's page, never the file.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ComoviError
from ..files import atomic_path, file_error, require_file

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

MAX_HEADER = 100_000_000  # bytes, the limit of the format
PICKLES = (".pt", ".pth", ".bin", ".ckpt")


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in its file."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int  # bytes from the beginning of the file
    stop: int


class TensorFiles(Mapping[str, Tensor]):
    """The tensors of one or several safetensors files, mapped when asked for; `entries` knows their shapes before."""

    def __init__(self, path: Path, entries: dict[str, Entry], metadata: dict[str, str]):
        self.path, self.entries, self.metadata = path, entries, metadata
        self._maps: dict[Path, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        entry = self.entries[name]
        data = self._mapped(entry.file)[entry.start : entry.stop]
        if entry.start % entry.dtype.itemsize:  # old writers did not align; such a tensor has to be copied
            data = data.clone()
        return data.view(entry.dtype).reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: entry.shape for name, entry in self.entries.items()}

    def again(self) -> TensorFiles:
        """The same files mapped a second time: equal values, independent memory as soon as either is written to."""
        return TensorFiles(self.path, self.entries, self.metadata)

    def _mapped(self, file: Path) -> Tensor:
        if file not in self._maps:
            try:
                storage = torch.UntypedStorage.from_file(str(file), shared=False, nbytes=file.stat().st_size)
            except (OSError, RuntimeError) as error:
                raise ComoviError(f"cannot map {file} into memory: {str(error).splitlines()[0]}.") from error
            self._maps[file] = torch.empty(0, dtype=torch.uint8).set_(storage)
        return self._maps[file]


def open_weights(path: str | Path) -> TensorFiles:
    """A .safetensors file, an .index.json, or a folder with either; no tensor is read yet."""
    path = Path(path)
    if path.is_dir():
        path = _main_file(path)
    require_file(path, "checkpoint")
    if path.suffix == ".json":
        return _open_shards(path)
    return TensorFiles(path, *read_header(path))


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """(entries, metadata) of one safetensors file, checked against the size of the file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = int.from_bytes(head, "little")
            if len(head) < 8 or length > min(MAX_HEADER, size - 8):
                raise _not_safetensors(path, head, size)
            text = file.read(length)
    except OSError as error:
        raise file_error(error, path, "read checkpoint") from error
    try:
        header = json.loads(text)
        metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
        entries = {str(name): _entry(path, value, 8 + length) for name, value in header.items()}
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, ComoviError):
            raise
        raise _not_safetensors(path, head, size) from error
    end = max((entry.stop for entry in entries.values()), default=0)
    if end > size:
        raise ComoviError(
            f"{path} is cut off: its header promises {end:,} bytes and the file has {size:,}; download it again."
        )
    return entries, metadata


def _entry(path: Path, value: dict[str, Any], data: int) -> Entry:
    shape, (start, stop) = tuple(value["shape"]), value["data_offsets"]
    if value["dtype"] not in DTYPES:
        raise ComoviError(f"{path} stores numbers as {value['dtype']}, which is not known here; convert it to BF16.")
    dtype = DTYPES[value["dtype"]]
    if not all(type(n) is int and n >= 0 for n in (*shape, start, stop)):
        raise ValueError(shape)
    if stop - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(shape)
    return Entry(path, dtype, shape, data + start, data + stop)


def _not_safetensors(path: Path, head: bytes, size: int) -> ComoviError:
    if head.startswith(b"version "):
        return ComoviError(f"{path} is a Git LFS pointer of {size} bytes, not the weights; run `git lfs pull` there.")
    if head.startswith((b"PK", b"\x80")):
        return ComoviError(f"{path} is a PyTorch pickle file, not safetensors; rename it to .pt or convert it.")
    if head.startswith(b"GGUF"):
        return ComoviError(f"{path} is a GGUF file, which cannot be read; use the same model's safetensors file.")
    return ComoviError(f"{path} is not a complete safetensors file ({size:,} bytes); download or convert it again.")


def _main_file(folder: Path) -> Path:
    """The index, or the only safetensors file, of a folder."""
    indices = sorted(folder.glob("*.safetensors.index.json"))
    singles = sorted(folder.glob("*.safetensors"))
    candidates = indices or singles
    if len(candidates) != 1:
        what = "index" if indices else ".safetensors file"
        raise ComoviError(
            f"folder {folder} holds {len(candidates)} files that could be the {what} of one model; "
            "give the path of the file itself."
        )
    return candidates[0]


def _open_shards(index: Path) -> TensorFiles:
    """All shards that a Hugging Face style index lists."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = {name: index.parent / Path(file).name for name, file in weight_map.items()}
    except OSError as error:
        raise file_error(error, index, "read index") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ComoviError(f"{index} is not an index of safetensors shards (no weight_map in it).") from error
    entries: dict[str, Entry] = {}
    metadata: dict[str, str] = {}
    for shard in sorted(set(shards.values())):
        require_file(shard, f"shard of {index.name}")
        shard_entries, shard_metadata = read_header(shard)
        entries |= shard_entries
        metadata |= shard_metadata
    lost = [name for name in shards if name not in entries]
    if lost:
        raise ComoviError(f"{index} lists {len(lost)} tensors that its shards do not hold, the first is {lost[0]}.")
    return TensorFiles(index, {name: entries[name] for name in shards}, metadata)


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pt/.bin/.ckpt file; anything in it but tensors and plain containers is refused, unexecuted."""
    require_file(path, "checkpoint")
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ComoviError(
            f"{path} contains more than tensors, and such a file can run any program when it is opened; "
            "it was refused. Use a .safetensors file."
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise ComoviError(f"{path} is not a PyTorch checkpoint that can be read; use a .safetensors file.") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ComoviError(f"{path} is not a dictionary of tensors, so it is not a checkpoint of a network.")
    return {str(name): value for name, value in content.items()}


def write_weights(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, one tensor at a time, so that saving 20 GB needs memory for the largest tensor only.

    A mapping that makes its tensors when asked is asked twice for each: for its size, and to be written.
    """
    header: dict[str, Any] = {"__metadata__": {str(k): str(v) for k, v in metadata.items()}} if metadata else {}
    start = 0
    kinds = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    ordered = sorted(kinds, key=lambda name: -kinds[name][0].itemsize)  # keeps every tensor aligned
    for name in ordered:
        dtype, shape = kinds[name]
        stop = start + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in ordered:
            data = tensors[name].detach().cpu().contiguous().reshape(-1)
            if data.numel():
                file.write(memoryview(data.view(torch.uint8).numpy()))
