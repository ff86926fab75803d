"""Result files of other programs as plain trees: pickle, joblib, torch and numpy, with nothing in them run.

A tree is made of dict, list, numpy arrays of numbers, numbers and text. Memory stays in proportion to the file: arrays
are views of its bytes, tensors that would unfold to more are refused.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from typing import Any, BinaryIO, ClassVar

import numpy as np

from ..body.pickled_arrays import ALLOWED, ArrayUnpickler, Inert, PickledArray, PickledType, Refused
from ..errors import ComoviError
from .limits import LARGEST_FILE, MOST_NODES, MOST_NUMBERS, Budget

_STORAGES = {
    "Float": "f4", "Double": "f8", "Half": "f2", "Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1", "Byte": "u1",
    "Bool": "b1", "BFloat16": "bf",
}  # fmt: skip
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class _StorageKind:
    """Stand-in for torch.FloatStorage and its kin."""

    def __init__(self, code: str) -> None:
        self.code = code


class _Storage:
    """The numbers of a tensor; filled before the tree is read."""

    def __init__(self, kind: _StorageKind) -> None:
        self.kind, self.content = kind, b""

    def numbers(self) -> np.ndarray:
        if self.kind.code == "bf":  # bfloat16 is the upper half of a float32
            halves = np.frombuffer(self.content, "<u2")
            return (halves.astype("<u4") << 16).view("<f4")
        return np.frombuffer(self.content, np.dtype(self.kind.code).newbyteorder("<"))


class _Tensor:
    """Stand-in for torch.Tensor: a storage and how it is laid out."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any) -> None:
        if not isinstance(storage, _Storage):
            raise ValueError("tensor without a storage")
        self.storage = storage
        self.offset, self.size, self.stride = int(offset), [int(side) for side in size], [int(step) for step in stride]

    def array(self) -> np.ndarray:
        """A view, so that a tensor that repeats its numbers (stride 0) stays small."""
        offset, size, stride = self.offset, self.size, self.stride
        numbers = self.storage.numbers()
        if len(size) != len(stride) or len(size) > 16 or min([offset, *size, *stride]) < 0:
            raise ValueError("a tensor has an impossible layout")
        count = int(np.prod(size, dtype=object))
        last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True)) if count else 0
        if count and last >= len(numbers):
            raise ValueError("a tensor reaches beyond its data")
        steps = [step * numbers.itemsize for step in stride]
        start = numbers[min(offset, len(numbers)) :]
        return np.lib.stride_tricks.as_strided(start, size, steps, writeable=False)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> _Tensor:
    return _Tensor(storage, offset, size, stride)


def _parameter(data: Any, *rest: Any) -> Any:
    return data


def _storage_bytes(content: bytes) -> Any:
    """Stand-in for torch.storage._load_from_bytes: a whole legacy torch file inside the pickle."""
    return _legacy_torch(io.BytesIO(bytes(content)))


class _JoblibArray(Inert):
    """joblib.numpy_pickle.NumpyArrayWrapper: the numbers follow in the file."""

    def read(self, file: BinaryIO) -> np.ndarray | None:
        dtype, shape = self.state.get("dtype"), self.state.get("shape")
        if not isinstance(dtype, PickledType) or not isinstance(shape, tuple) or not all(type(n) is int for n in shape):
            raise ValueError("an array of joblib without type or shape")
        if dtype.code.startswith("O"):
            return _load(file)
        if self.state.get("numpy_array_alignment_bytes") is not None:
            padding = file.read(1)
            file.read(padding[0] if padding else 0)
        count = int(np.prod(shape, dtype=object))
        size = count * np.dtype(dtype.code).itemsize
        if min(shape, default=0) < 0 or size > LARGEST_FILE:
            raise ValueError(f"an array of impossible shape {shape}")
        content = file.read(size)
        if len(content) != size:
            raise ValueError("the file ends inside an array")
        if not dtype.plain:
            return None
        return np.frombuffer(content, dtype.numpy()).reshape(
            shape, order="F" if self.state.get("order") == "F" else "C"
        )


class ResultUnpickler(ArrayUnpickler):
    """Arrays, torch tensors and joblib's arrays; persistent_load is given by the kind of torch file."""

    allowed: ClassVar[dict[tuple[str, str], Any]] = {
        **ALLOWED,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_tensor"): _tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch.storage", "_load_from_bytes"): _storage_bytes,
        ("torch", "Size"): tuple,
        ("torch", "device"): lambda *names: "cpu",
        ("joblib.numpy_pickle", "NumpyArrayWrapper"): _JoblibArray,
        ("pathlib", "PosixPath"): lambda *parts: "/".join(map(str, parts)),
        ("pathlib", "WindowsPath"): lambda *parts: "/".join(map(str, parts)),
        ("collections", "defaultdict"): lambda *factory: {},
        ("builtins", "list"): list,
        ("builtins", "dict"): dict,
        ("builtins", "slice"): lambda *ends: None,
        **{("torch", f"{name}Storage"): _StorageKind(code) for name, code in _STORAGES.items()},
    }
    dispatch: ClassVar[dict[int, Any]] = dict(ArrayUnpickler.dispatch)

    def __init__(self, file: BinaryIO, storages: dict[str, _Storage] | None = None) -> None:
        super().__init__(file, encoding="latin1")
        self.file = file
        self.storages = {} if storages is None else storages

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], _StorageKind):
            raise Refused(f"the pickle refers to {str(pid)[:80]}")
        return self.storages.setdefault(str(pid[2]), _Storage(pid[1]))

    def load_build(self) -> None:
        super().load_build()
        if isinstance(self.stack[-1], _JoblibArray):
            self.stack[-1] = self.stack[-1].read(self.file)

    dispatch[pickle.BUILD[0]] = load_build


def _load(file: BinaryIO, storages: dict[str, _Storage] | None = None) -> Any:
    return ResultUnpickler(file, storages).load()


def read_pickle(content: bytes) -> Any:
    """A pickle, a joblib dump or a torch file of the old kind -> tree."""
    file = io.BytesIO(content)
    first = _load(file)
    if first == _LEGACY_MAGIC:
        file.seek(0)
        first = _legacy_torch(file)
    return plain_tree(first)


def _legacy_torch(file: BinaryIO) -> Any:
    """torch.save before version 1.6: magic number, version, system, content, keys, then the numbers."""
    if _load(file) != _LEGACY_MAGIC:
        raise ValueError("expected a torch file")
    _load(file)
    _load(file)
    storages: dict[str, _Storage] = {}
    content = _load(file, storages)
    for key in _load(file):
        storage = storages.get(str(key))
        (count,) = struct.unpack("<q", file.read(8))
        if storage is None or not 0 <= count <= LARGEST_FILE:
            raise ValueError("a torch file with numbers that belong to nothing")
        width = 2 if storage.kind.code == "bf" else np.dtype(storage.kind.code).itemsize
        storage.content = file.read(count * width)
    return content


def read_torch_zip(archive: zipfile.ZipFile) -> Any:
    """torch.save since version 1.6: a zip of one pickle and one member per storage -> tree."""
    budget = Budget()
    pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
    folder = pickled[: -len("data.pkl")]
    storages: dict[str, _Storage] = {}
    content = _load(io.BytesIO(member(archive, pickled, budget)), storages)
    for key, storage in storages.items():
        storage.content = member(archive, f"{folder}data/{key}", budget)
    return plain_tree(content)


def member(archive: zipfile.ZipFile, name: str, budget: Budget) -> bytes:
    """One member of a zip; its declared size is checked first, and no more than that is unpacked."""
    budget.take(archive.getinfo(name).file_size)
    return archive.read(name)


def read_npy(content: bytes) -> Any:
    """One array of numpy -> array, or the tree of an array of objects."""
    file = io.BytesIO(content)
    shape, fortran, dtype = _npy_header(file)
    rest = content[file.tell() :]
    if dtype.hasobject:
        return plain_tree(_load(io.BytesIO(rest)))
    count = int(np.prod(shape, dtype=object))
    if count * dtype.itemsize > len(rest):
        raise ValueError(f"the header promises an array of shape {shape}, but only {len(rest)} bytes follow")
    if dtype.kind in "US" and count:
        text = np.frombuffer(rest, dtype, 1)[0]
        return text.decode("latin1") if isinstance(text, bytes) else str(text)
    if dtype.kind not in "fiub":
        return None
    return np.frombuffer(rest, dtype, count).reshape(shape, order="F" if fortran else "C")


def _npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"unknown version {version} of numpy's format")
    readers = (np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0)
    return readers[version > (1, 0)](file, max_header_size=10_000)


def read_npz(archive: zipfile.ZipFile, unwanted: frozenset[str] = frozenset({"verts", "vertices"})) -> dict[str, Any]:
    """Every array of an npz; `unwanted` ones are large and not needed."""
    budget, found = Budget(), {}
    for name in archive.namelist():
        key = name.removesuffix(".npy")
        if key == name or key in unwanted:
            continue
        with archive.open(name) as file:
            head = file.read(20_000)
        shape = _npy_header(io.BytesIO(head))[0]
        if int(np.prod(shape, dtype=object)) > MOST_NUMBERS:
            raise ComoviError(f"array {key!r} has shape {shape}, more than any motion; cut it into shorter ones.")
        found[key] = read_npy(member(archive, name, budget))
    return found


def plain_tree(value: Any) -> Any:
    """Stand-ins become arrays and lists. What is shared in the pickle stays shared, so a tree cannot unfold."""
    return _Plainer().convert(value, 0)


class _Plainer:
    def __init__(self) -> None:
        self.done: dict[int, Any] = {}
        self.keep: list[Any] = []  # so that no id is used twice
        self.nodes = 0

    def convert(self, value: Any, depth: int) -> Any:
        if isinstance(value, (str, bytes, bool, int, float, type(None), np.ndarray, np.generic)):
            return value
        if id(value) in self.done:
            return self.done[id(value)]
        self.nodes += 1
        if depth > 40 or self.nodes > MOST_NODES:
            raise ValueError("it is nested too deeply or has too many parts")
        self.done[id(value)] = None  # a structure that holds itself
        result = self._made(value, depth + 1)
        self.done[id(value)] = result
        self.keep.append(value)
        return result

    def _made(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return {
                key if isinstance(key, (str, int)) else str(key)[:200]: self.convert(item, depth)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple, set)):
            return [self.convert(item, depth) for item in value]
        if isinstance(value, _Tensor):
            return value.array()
        if isinstance(value, _Storage):
            return value.numbers()
        if isinstance(value, PickledArray):
            if value.objects is None:
                return value.value
            items = self.convert(value.objects, depth)
            return items[0] if value.shape == () and len(items) == 1 else items
        return None  # an object that we have no use for
