"""Arrays out of pickles from strangers: harmless stand-ins for the few names that describe arrays.

A pickle is a small program that may call any function it can name. `ArrayUnpickler` resolves exactly the names below,
and every one of them to a stand-in of ours: not even numpy's own reconstruction functions run on data from the file.
Everything else is refused by name. It is the Python unpickler, because the C one can be made to reserve any amount of
memory by one opcode (LONG_BINPUT).
"""

from __future__ import annotations

import pickle
from typing import Any, ClassVar

import numpy as np

PLAIN_TYPES = ("b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")


class Refused(Exception):
    """The pickle names something that is not needed to describe arrays."""


class Inert:
    """Takes any arguments and any state, keeps the state, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        self = super().__new__(cls)  # unpickling may skip __init__
        self.state = {}
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple):  # (dict, slots)
            state = state[0]
        self.state = state if isinstance(state, dict) else {}


class PickledType:
    """Stand-in for numpy.dtype: remembers kind and size; plain numbers, text ('U8', 'S8') and objects ('O') only."""

    def __init__(self, code: str, *flags: Any) -> None:
        text = isinstance(code, str) and code[:1] in ("U", "S") and code[1:].isdigit()
        if code not in PLAIN_TYPES and not text and code not in ("O", "O4", "O8"):
            raise ValueError(f"array type {code!r} is not a plain number")
        self.code = code
        self.order: Any = "="

    def __setstate__(self, state: tuple) -> None:
        _version, self.order, subarray, names, fields = state[:5]
        if self.order not in ("<", ">", "=", "|") or any(part is not None for part in (subarray, names, fields)):
            raise ValueError("structured array types are not expected")

    @property
    def plain(self) -> bool:
        return self.code in PLAIN_TYPES

    def numpy(self) -> np.dtype:
        return np.dtype(self.code).newbyteorder(self.order)


class PickledArray:
    """Stand-in for numpy.ndarray; `value` is an array of numbers, `objects` the list of an array of objects."""

    value: np.ndarray | None = None
    objects: list | None = None
    shape: tuple = ()

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, fortran_order, content = state
        if not isinstance(dtype, PickledType):
            raise ValueError("array without a type")
        if isinstance(content, list):
            self.objects, self.shape = content, shape
            return
        if not dtype.plain:
            return  # text: nothing that we need
        content = content.encode("latin1") if isinstance(content, str) else content
        flat = np.frombuffer(content, dtype.numpy())
        self.value = flat.reshape(shape, order="F" if fortran_order else "C")


def _new_array(kind: type, shape: tuple, code: Any) -> PickledArray:
    if kind is not PickledArray:
        raise ValueError("only plain arrays are expected")
    return PickledArray()


def _filled_array(content: Any, dtype: PickledType, shape: tuple, order: str, axes: Any = None) -> PickledArray:
    """Stand-in for numpy's _frombuffer (pickle protocol 5); axes is how an order "K" is transposed back."""
    array = PickledArray()
    array.__setstate__((1, shape, dtype, order == "F", bytes(content)))
    if axes is not None and array.value is not None:
        array.value = array.value.transpose(axes)
    return array


def pickled_number(dtype: PickledType, content: bytes | str = b"") -> Any:
    content = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(content, dtype.numpy(), count=1)[0]


def _encode(text: str, encoding: str) -> bytes:
    """Stand-in for _codecs.encode, by which protocol 2 of Python 3 writes bytes; latin1 only."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"text encoding {encoding!r} is not expected")
    return text.encode("latin1")


def _new_object(kind: type, base: type, state: Any) -> Any:
    """Stand-in for copyreg._reconstructor (pickle protocols 0 and 1)."""
    if not (isinstance(kind, type) and issubclass(kind, Inert)):
        raise ValueError("only chumpy and scipy.sparse objects are expected")
    return kind()


ALLOWED: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _new_array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): pickled_number for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _filled_array for core in ("core", "_core")},
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): PickledType,
    ("_codecs", "encode"): _encode,
    **{(module, "_reconstructor"): _new_object for module in ("copyreg", "copy_reg")},
    **{(module, "object"): Inert for module in ("builtins", "__builtin__")},
    **{(module, "set"): set for module in ("builtins", "__builtin__")},
    ("collections", "OrderedDict"): dict,
}


_PythonUnpickler: Any = pickle._Unpickler  # public only as the fallback of the C one


class ArrayUnpickler(_PythonUnpickler):
    """Knows arrays, numbers and plain containers; subclasses add names to `allowed`."""

    allowed: ClassVar[dict[tuple[str, str], Any]] = ALLOWED
    dispatch: ClassVar[dict[int, Any]] = dict(_PythonUnpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.allowed:
            return self.allowed[module, name]
        raise Refused(f"the pickle asks for {module}.{name}")

    def load_build(self) -> None:
        """State goes to instances of our stand-ins only: never to the classes and functions themselves."""
        target = self.stack[-2]
        if isinstance(target, (dict, set)):
            self.stack.pop()  # attributes of an OrderedDict
        elif isinstance(target, (Inert, PickledType, PickledArray)):
            super().load_build()
        else:
            raise Refused(f"the pickle changes a {type(target).__name__}")

    dispatch[pickle.BUILD[0]] = load_build
