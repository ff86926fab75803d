"""Pickles of SMPL: legacy ones read without chumpy or scipy, hostile and damaged ones do nothing."""

from __future__ import annotations

import io
import os
import pickle
import struct

import numpy as np
import pytest
from comfyui_comovi.comovi_model.body.smpl_pickle import _SmplUnpickler, read_smpl_pickle
from comfyui_comovi.comovi_model.errors import ComoviError


def some_arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    regressor = random.random((4, 9)) * (random.random((4, 9)) < 0.4)
    return {
        "v_template": random.random((9, 3)), "f": np.arange(12, dtype=np.uint32).reshape(4, 3),
        "shapedirs": random.random((9, 3, 2)), "posedirs": random.random((9, 3, 5)), "J_regressor": regressor,
        "weights": np.asfortranarray(random.random((9, 4))), "every_second": random.random((8, 6))[::2].T,
    }  # fmt: skip


class PickleWriter(pickle._Pickler):
    """Writes chumpy and scipy.sparse objects as Python 2 did, without either being installed."""

    def save_global(self, obj, name=None):
        self.write(pickle.GLOBAL + f"{obj.__module__}\n{obj.__name__}\n".encode())
        self.memoize(obj)


def foreign_class(module: str, name: str) -> type:
    return type(name, (), {"__module__": module})


def foreign(module: str, name: str, **state):
    value = foreign_class(module, name)()
    value.__dict__.update(state)
    return value


def csc(dense: np.ndarray):
    columns, rows = dense.T.nonzero()
    pointers = np.concatenate([[0], np.cumsum(np.bincount(columns, minlength=dense.shape[1]))]).astype(np.int32)
    return foreign(
        "scipy.sparse.csc", "csc_matrix", data=dense[rows, columns], indices=rows.astype(np.int32), indptr=pointers,
        _shape=dense.shape, maxprint=50,
    )  # fmt: skip


def legacy_pickle(arrays: dict, protocol: int = 2) -> bytes:
    """chumpy for three entries, a sparse regressor, strings and a nested dictionary, as in the published files."""
    content = dict(arrays)
    content["v_template"] = foreign("chumpy.ch", "Ch", x=arrays["v_template"], _itr=None, _dirty_vars=set())
    index = np.arange(arrays["posedirs"].size)
    source = foreign("chumpy.ch", "Ch", x=arrays["posedirs"])
    shape = arrays["posedirs"].shape
    content["posedirs"] = foreign("chumpy.reordering", "Select", a=source, idxs=index, preferred_shape=shape)
    content["shapedirs"] = foreign("chumpy.ch", "Ch", x=arrays["shapedirs"])
    content["J_regressor"] = csc(arrays["J_regressor"])
    content["bs_style"] = "lbs"
    content["training"] = {"objects": np.array([1, None, "x"], dtype=object), "scalar": np.float64(3)}
    file = io.BytesIO()
    PickleWriter(file, protocol).dump(content)
    return file.getvalue()


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_a_legacy_pickle_with_chumpy_and_sparse_arrays_reads_without_either(tmp_path, protocol):
    arrays = some_arrays()
    (tmp_path / "smpl.pkl").write_bytes(legacy_pickle(arrays, protocol))
    read = read_smpl_pickle(tmp_path / "smpl.pkl")
    assert read.keys() == arrays.keys()  # strings and dictionaries are left out
    assert all(np.array_equal(read[name], arrays[name]) and read[name].dtype == arrays[name].dtype for name in arrays)


def test_sparse_matrices_may_be_stored_by_rows(tmp_path):
    dense = some_arrays()["J_regressor"]
    by_columns = csc(dense.T)
    matrix = foreign("scipy.sparse._csr", "csr_matrix", **{**by_columns.__dict__, "_shape": dense.shape})
    file = io.BytesIO()
    PickleWriter(file, 2).dump({"J_regressor": matrix})
    (tmp_path / "smpl.pkl").write_bytes(file.getvalue())
    assert np.array_equal(read_smpl_pickle(tmp_path / "smpl.pkl")["J_regressor"], dense)


def test_bytes_of_python_2_are_read():
    """Python 2 stored the numbers of an array as str; latin1 gives the bytes back."""
    numbers = np.arange(6, dtype="<f8").reshape(2, 3)
    raw = numbers.tobytes()
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02K\x03\x86"
        b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + b"T" + struct.pack("<i", len(raw)) + raw + b"tb."
    )  # fmt: skip
    assert np.array_equal(_SmplUnpickler(io.BytesIO(content), encoding="latin1").load().value, numbers)


class Gadget:
    """A pickle that calls a function by name."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def by_name(module: str, name: str):
    return foreign_class(module, name)


MARK = "comovi_was_here"
HOSTILE = {
    "posix.system": Gadget(os.system, f"touch {MARK}"),
    "builtins.eval": Gadget(eval, f"open('{MARK}', 'w')"),
    "builtins.exec": Gadget(exec, f"open('{MARK}', 'w')"),
    "builtins.getattr": Gadget(getattr, (), "count"),
    "builtins.__import__": Gadget(__import__, "os"),
    "builtins.open": Gadget(by_name("builtins", "open"), MARK, "w"),
    "subprocess.Popen": Gadget(by_name("subprocess", "Popen"), ["touch", MARK]),
    "numpy.load": Gadget(by_name("numpy", "load"), MARK),
    "numpy.testing._private.utils.runstring": Gadget(by_name("numpy.testing._private.utils", "runstring"), "1", {}),
    "numpy.f2py.crackfortran.myeval": Gadget(by_name("numpy.f2py.crackfortran", "myeval"), "1"),
    "torch._load_global_deps": Gadget(by_name("torch", "_load_global_deps")),
    "pickle.loads": Gadget(pickle.loads, pickle.dumps(1)),
    "functools.partial": Gadget(by_name("functools", "partial"), 1),
    "operator.attrgetter": Gadget(by_name("operator", "attrgetter"), "system"),
    "scipy.io.loadmat": Gadget(by_name("scipy.io", "loadmat"), MARK),
    "scipy.sparsetools.x": Gadget(by_name("scipy.sparsetools", "x")),
    "chumpyx.y": Gadget(by_name("chumpyx", "y")),
    "numpy.core.multiarray.fromfile": Gadget(by_name("numpy.core.multiarray", "fromfile"), MARK),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("protocol", [0, 2])
def test_hostile_pickles_are_refused_by_name_and_run_nothing(tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    file = io.BytesIO()
    PickleWriter(file, protocol).dump({"v_template": np.zeros((5, 3)), "extra": HOSTILE[name]})
    (tmp_path / "body.pkl").write_bytes(file.getvalue())
    with pytest.raises(ComoviError, match="do not trust this file") as error:
        read_smpl_pickle(tmp_path / "body.pkl")
    module = name.rpartition(".")[0]
    assert module.replace("posix", "") in str(error.value)
    assert not (tmp_path / MARK).exists()


def test_dotted_names_do_not_reach_around_the_list(tmp_path):
    """Protocol 4 may ask for an attribute of an attribute: numpy . 'ndarray.__init_subclass__'."""
    for module, name in (("numpy", "ndarray.tofile"), ("numpy", "dtype.__class__"), ("builtins", "set.__class__")):
        content = (
            b"\x80\x04" + b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)) + b"\x93."
        )
        (tmp_path / "body.pkl").write_bytes(content)
        with pytest.raises(ComoviError, match="do not trust"):
            read_smpl_pickle(tmp_path / "body.pkl")


@pytest.mark.parametrize("module", ["chumpy.os", "scipy.sparse.os"])
def test_stand_ins_hold_no_functions(tmp_path, monkeypatch, module):
    """Names below chumpy and scipy.sparse become inert objects, whatever they are called with."""
    monkeypatch.chdir(tmp_path)
    file = io.BytesIO()
    call = Gadget(by_name(module, "system"), f"touch {MARK}")
    PickleWriter(file, 2).dump({"v_template": foreign("chumpy.ch", "Ch", x=call), "f": call, "good": np.arange(3)})
    (tmp_path / "body.pkl").write_bytes(file.getvalue())
    assert list(read_smpl_pickle(tmp_path / "body.pkl")) == ["good"]
    assert not (tmp_path / MARK).exists()


def test_objects_that_hold_themselves_end_in_one_sentence(tmp_path):
    loop = foreign("chumpy.ch", "Ch")
    loop.x = loop
    file = io.BytesIO()
    PickleWriter(file, 2).dump({"v_template": loop})
    (tmp_path / "body.pkl").write_bytes(file.getvalue())
    with pytest.raises(ComoviError, match="body.pkl"):
        read_smpl_pickle(tmp_path / "body.pkl")


BROKEN_PICKLES = {
    "empty": b"", "text": b"hello", "zip": b"PK\x03\x04", "list": pickle.dumps([1, 2]),
    "cut": pickle.dumps({"a": "b" * 99})[:-9],
    "huge": b"\x80\x02X\xff\xff\xff\x7fabc.", "stack": b"\x80\x02R.", "memo": b"\x80\x02h\x07.",
    "persistent": b"\x80\x02K\x01Q.",
    "type": b"\x80\x02cnumpy\ndtype\nU\x03V99\x85R.",
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_PICKLES)
def test_damaged_pickles_give_one_sentence(tmp_path, name):
    (tmp_path / f"{name}.pkl").write_bytes(BROKEN_PICKLES[name])
    with pytest.raises(ComoviError, match=name):
        read_smpl_pickle(tmp_path / f"{name}.pkl")


def sparse_with(**changes):
    matrix = csc(np.eye(24, 200))
    matrix.__dict__.update(changes)
    return matrix


@pytest.mark.parametrize(
    "changes",
    [
        {"indices": np.full(24, 99)}, {"indptr": np.zeros(3, int)}, {"_shape": (10**7, 10**7)}, {"_shape": 5},
        {"data": "x"},
    ],
)  # fmt: skip
def test_damaged_sparse_matrices_are_left_out(tmp_path, changes):
    file = io.BytesIO()
    PickleWriter(file, 2).dump({"J_regressor": sparse_with(**changes), "good": np.arange(3)})
    (tmp_path / "body.pkl").write_bytes(file.getvalue())
    assert list(read_smpl_pickle(tmp_path / "body.pkl")) == ["good"]
