"""Reads the arrays of an SMPL `.pkl` without trusting it and without chumpy, scipy or pickled code.

Nothing named in the file is run: see pickled_arrays.py. To the stand-ins there, chumpy's and scipy's are added.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ComoviError
from .pickled_arrays import ArrayUnpickler, Inert, PickledArray, Refused


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
    except Refused as error:
        raise ComoviError(f"{path}: {error}, which no SMPL file needs; do not trust this file.") from None
    except Exception as error:  # a damaged pickle can raise anything, and all of it means one thing
        reason = f"{type(error).__name__}: {error}"
        raise ComoviError(f"{path}: expected a pickled SMPL model, got a damaged or foreign file ({reason}).") from None
    return {key: value for key, value in arrays.items() if value is not None}


class _Chumpy(Inert):
    """chumpy.ch.Ch holds its array as `x`; chumpy.reordering.* select from another such object `a`."""


class _Sparse(Inert):
    """scipy.sparse.csc_matrix or csr_matrix: data, indices, indptr, _shape."""


class _SparseCsr(_Sparse):
    """The row-major one."""


class _SmplUnpickler(ArrayUnpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "chumpy" or module.startswith("chumpy."):
            return _Chumpy
        if module == "scipy.sparse" or module.startswith("scipy.sparse."):
            return _SparseCsr if name.startswith("csr") else _Sparse
        return super().find_class(module, name)


def _to_array(value: Any) -> np.ndarray | None:
    """The array that an unpickled entry stands for, or None when it is not a numeric array."""
    if isinstance(value, PickledArray):
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
