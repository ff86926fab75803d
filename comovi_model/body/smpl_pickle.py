"""Reads the arrays of an SMPL `.pkl` without trusting it and without chumpy, scipy or pickled code.

A pickle is a small program that may call any function it can name. This unpickler resolves exactly the
names below, and every one of them to a harmless stand-in of ours: not even numpy's own reconstruction
functions run on data from the file. Everything else is refused by name.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ComoviError

_PLAIN_TYPES = ("b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")


def read_smpl_pickle(path: Path) -> dict[str, np.ndarray]:
    """Every entry of the pickled dictionary that is a numeric array (chumpy and sparse ones made dense)."""
    try:
        with path.open("rb") as file:
            content = _SmplUnpickler(file, encoding="latin1").load()
        if not isinstance(content, dict):
            raise ValueError(f"expected a dictionary, got {type(content).__name__}")
        arrays = {key: _to_array(value) for key, value in content.items() if isinstance(key, str)}
    except OSError as error:
        raise ComoviError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions.") from None
    except _Refused as error:
        raise ComoviError(f"{path}: {error}, which no SMPL file needs; do not trust this file.") from None
    except Exception as error:  # a damaged pickle can raise anything, and all of it means one thing
        reason = f"{type(error).__name__}: {error}"
        raise ComoviError(f"{path}: expected a pickled SMPL model, got a damaged or foreign file ({reason}).") from None
    return {key: value for key, value in arrays.items() if value is not None}


class _Refused(Exception):
    """The pickle names something that is not needed to describe arrays."""


class _Inert:
    """Takes any arguments and any state, keeps the state, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        self = super().__new__(cls)  # unpickling may skip __init__
        self.state = {}
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple):  # (dict, slots)
            state = state[0]
        self.state = state if isinstance(state, dict) else {}


class _Chumpy(_Inert):
    """chumpy.ch.Ch holds its array as `x`; chumpy.reordering.* select from another such object `a`."""


class _Sparse(_Inert):
    """scipy.sparse.csc_matrix or csr_matrix: data, indices, indptr, _shape."""


class _SparseCsr(_Sparse):
    """The row-major one."""


class _Type:
    """Stand-in for numpy.dtype: remembers kind and size, accepts plain numbers and 'O' only."""

    def __init__(self, code: str, *flags: Any) -> None:
        if code not in _PLAIN_TYPES and not (isinstance(code, str) and code in ("O", "O4", "O8")):
            raise ValueError(f"array type {code!r} is not a plain number")
        self.code = code
        self.order: Any = "="

    def __setstate__(self, state: tuple) -> None:
        _version, self.order, subarray, names, fields = state[:5]
        if self.order not in ("<", ">", "=", "|") or any(part is not None for part in (subarray, names, fields)):
            raise ValueError("structured array types are not expected")

    def numpy(self) -> np.dtype:
        return np.dtype(self.code).newbyteorder(self.order)


class _Array:
    """Stand-in for numpy.ndarray; `value` is the array, or None for an array of objects."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, fortran_order, content = state
        if not isinstance(dtype, _Type):
            raise ValueError("array without a type")
        if isinstance(content, list):
            return  # an array of objects: nothing an SMPL model needs
        content = content.encode("latin1") if isinstance(content, str) else content
        flat = np.frombuffer(content, dtype.numpy())
        self.value = flat.reshape(shape, order="F" if fortran_order else "C")


def _new_array(kind: type, shape: tuple, code: Any) -> _Array:
    if kind is not _Array:
        raise ValueError("only plain arrays are expected")
    return _Array()


def _filled_array(content: Any, dtype: _Type, shape: tuple, order: str, axes: Any = None) -> _Array:
    """Stand-in for numpy's _frombuffer (pickle protocol 5); axes is how an order "K" is transposed back."""
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", bytes(content)))
    if axes is not None and array.value is not None:
        array.value = array.value.transpose(axes)
    return array


def _number(dtype: _Type, content: bytes | str = b"") -> Any:
    content = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(content, dtype.numpy(), count=1)[0]


def _encode(text: str, encoding: str) -> bytes:
    """Stand-in for _codecs.encode, by which protocol 2 of Python 3 writes bytes; latin1 only."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"text encoding {encoding!r} is not expected")
    return text.encode("latin1")


def _new_object(kind: type, base: type, state: Any) -> Any:
    """Stand-in for copyreg._reconstructor (pickle protocols 0 and 1)."""
    if not (isinstance(kind, type) and issubclass(kind, _Inert)):
        raise ValueError("only chumpy and scipy.sparse objects are expected")
    return kind()


_ALLOWED: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _new_array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _number for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _filled_array for core in ("core", "_core")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    **{(module, "_reconstructor"): _new_object for module in ("copyreg", "copy_reg")},
    **{(module, "object"): _Inert for module in ("builtins", "__builtin__")},
    **{(module, "set"): set for module in ("builtins", "__builtin__")},
    ("collections", "OrderedDict"): dict,
}


class _SmplUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module == "chumpy" or module.startswith("chumpy."):
            return _Chumpy
        if module == "scipy.sparse" or module.startswith("scipy.sparse."):
            return _SparseCsr if name.startswith("csr") else _Sparse
        raise _Refused(f"the pickle asks for {module}.{name}")


def _to_array(value: Any) -> np.ndarray | None:
    """The array that an unpickled entry stands for, or None when it is not a numeric array."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, _Chumpy):
        return _chumpy_array(value.state)
    if isinstance(value, _Sparse):
        return _dense(value)
    return None


def _chumpy_array(state: dict) -> np.ndarray | None:
    if "x" in state:
        return _to_array(state["x"])
    source, index = _to_array(state.get("a")), _to_array(state.get("idxs"))
    if source is None or index is None or (index.size and not 0 <= index.min() <= index.max() < source.size):
        return None
    selected = source.ravel()[index]
    shape = state.get("preferred_shape")
    return selected.reshape(shape) if isinstance(shape, tuple) else selected


def _dense(value: _Sparse) -> np.ndarray | None:
    data, indices, pointers = (_to_array(value.state.get(key)) for key in ("data", "indices", "indptr"))
    shape = value.state.get("_shape", value.state.get("shape"))
    if data is None or indices is None or pointers is None or not isinstance(shape, tuple) or len(shape) != 2:
        return None
    rows_first = isinstance(value, _SparseCsr)
    major, minor = shape if rows_first else shape[::-1]
    if len(pointers) != major + 1 or len(data) != len(indices) or major * minor > 10**8:
        return None
    counts = np.diff(pointers)
    if (counts < 0).any() or counts.sum() != len(data):
        return None
    if len(data) and not 0 <= indices.min() <= indices.max() < minor:
        return None
    dense = np.zeros((major, minor), data.dtype)
    np.add.at(dense, (np.repeat(np.arange(major), counts), indices), data)
    return dense if rows_first else dense.T
