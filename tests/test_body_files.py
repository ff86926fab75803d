"""Body model files: every form of a real SMPL file reads the same, hostile and damaged ones do nothing."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body import parts
from comfyui_comovi.comovi_model.body.body_files import is_closed, read_body_model, regressor_for_joints
from comfyui_comovi.comovi_model.body.smpl import BodyModel, load_body_model
from comfyui_comovi.comovi_model.body.toy import JOINTS, toy_body, uv_sphere
from comfyui_comovi.comovi_model.errors import ComoviError

TREE = np.array([[4294967295, *parts.PARENTS[1:]], range(24)], dtype=np.uint32)


def small_body() -> BodyModel:
    return toy_body(posedirs=True, segments=3)


def smpl_arrays(model: BodyModel) -> dict[str, np.ndarray]:
    """As the entries of an SMPL file."""
    num_vertices = len(model.v_template)
    return {
        "v_template": model.v_template.double().numpy(), "f": model.faces.numpy().astype(np.uint32),
        "shapedirs": model.shapedirs.double().numpy(), "weights": model.weights.double().numpy(),
        "posedirs": model.posedirs.T.reshape(num_vertices, 3, 207).double().numpy(),
        "J_regressor": model.J_regressor.double().numpy(), "J": JOINTS.numpy(), "kintree_table": TREE,
    }  # fmt: skip


def same(a: BodyModel, b: BodyModel) -> bool:
    names = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "faces", "part_of_vertex")
    return all(torch.allclose(getattr(a, name).double(), getattr(b, name).double(), atol=1e-6) for name in names)


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


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_legacy_pickle_with_chumpy_and_sparse_arrays_reads_without_either(tmp_path, protocol):
    model = small_body()
    (tmp_path / "SMPL_NEUTRAL.pkl").write_bytes(legacy_pickle(smpl_arrays(model), protocol))
    loaded = load_body_model(str(tmp_path / "SMPL_NEUTRAL.pkl"))
    assert same(loaded, model)
    assert loaded.name == "smpl_neutral" and loaded.closed


def test_bytes_of_python_2_are_read():
    """Python 2 stored the numbers of an array as str; latin1 gives the bytes back."""
    from comfyui_comovi.comovi_model.body.smpl_pickle import _SmplUnpickler

    numbers = np.arange(6, dtype="<f8").reshape(2, 3)
    raw = numbers.tobytes()
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02K\x03\x86"
        b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + b"T" + struct.pack("<i", len(raw)) + raw + b"tb."
    )  # fmt: skip
    assert np.array_equal(_SmplUnpickler(io.BytesIO(content), encoding="latin1").load().value, numbers)


def test_npz_and_safetensors_read_the_same(tmp_path):
    from safetensors.numpy import save_file

    model = small_body()
    arrays = smpl_arrays(model)
    np.savez(tmp_path / "body.npz", **arrays)
    ours = {name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items() if name != "f"}
    ours["faces"] = arrays["f"].astype(np.int32)
    del ours["kintree_table"]
    ours["part_of_vertex"] = model.part_of_vertex.numpy().astype(np.uint8)
    save_file(ours, str(tmp_path / "body.safetensors"), {"name": "my-body"})
    assert same(read_body_model(tmp_path / "body.npz"), model)
    assert same(read_body_model(tmp_path / "body.safetensors"), model)
    assert read_body_model(tmp_path / "body.safetensors").name == "my-body"


def test_half_precision_files_give_weights_that_sum_to_one(tmp_path):
    from safetensors.torch import save_file

    model = toy_body()
    tensors = {"v_template": model.v_template, "weights": model.weights.half(), "faces": model.faces, "J": JOINTS}
    save_file(tensors, str(tmp_path / "small.safetensors"))
    loaded = read_body_model(tmp_path / "small.safetensors")
    assert torch.allclose(loaded.weights.sum(1), torch.ones(len(loaded.weights)), atol=1e-6)
    assert loaded.posedirs is None and loaded.num_betas == 0
    assert torch.allclose(loaded.J_regressor @ loaded.v_template, JOINTS, atol=1e-5)


def test_a_regressor_is_found_for_given_joints():
    model = toy_body()
    regressor = regressor_for_joints(model.v_template, model.weights, JOINTS + 0.01)
    assert torch.allclose(regressor @ model.v_template, JOINTS + 0.01, atol=1e-5)
    assert torch.allclose(regressor.sum(1), torch.ones(24), atol=1e-5)


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
        read_body_model(tmp_path / "body.pkl")
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
            read_body_model(tmp_path / "body.pkl")


def test_stand_ins_hold_no_functions(tmp_path):
    """Names below chumpy and scipy.sparse become inert objects, whatever they are called with."""
    content = {"v_template": foreign("chumpy.ch", "Ch", x=Gadget(by_name("chumpy.os", "system"), f"touch {MARK}"))}
    file = io.BytesIO()
    PickleWriter(file, 2).dump(content)
    (tmp_path / "body.pkl").write_bytes(file.getvalue())
    with pytest.raises(ComoviError, match="v_template"):
        read_body_model(tmp_path / "body.pkl")
    assert not (tmp_path / MARK).exists()


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
        read_body_model(tmp_path / f"{name}.pkl")


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
def test_damaged_sparse_matrices_are_refused(tmp_path, changes):
    arrays = smpl_arrays(small_body())
    del arrays["J"]
    file = io.BytesIO()
    PickleWriter(file, 2).dump({**arrays, "J_regressor": sparse_with(**changes)})
    (tmp_path / "body.pkl").write_bytes(file.getvalue())
    with pytest.raises(ComoviError, match="J_regressor"):
        read_body_model(tmp_path / "body.pkl")


BROKEN_ARRAYS = {
    "v_template must be": lambda count: {"v_template": np.zeros((count, 2))},
    "holds NaN": lambda count: {"v_template": np.full((count, 3), np.nan)},
    "must be numbers": lambda count: {"v_template": np.full((count, 3), "x")},
    "55 .SMPL-X.": lambda count: {"weights": np.zeros((count, 55))},
    "weights must be": lambda count: {"weights": np.zeros((5, 24))},
    "number vertices": lambda count: {"f": np.full((4, 3), count)},
    "faces must be": lambda count: {"f": np.zeros((4, 4), int)},
    "shapedirs": lambda count: {"shapedirs": np.zeros((count, 10))},
    "posedirs": lambda count: {"posedirs": np.zeros((count, 3, 9))},
    "kintree_table": lambda count: {"kintree_table": TREE[:, ::-1]},
    "J_regressor": lambda count: {"J_regressor": np.zeros((22, count))},
}


@pytest.mark.parametrize("message", BROKEN_ARRAYS)
def test_arrays_of_wrong_shape_or_content_are_named(tmp_path, message):
    arrays = smpl_arrays(small_body())
    np.savez(tmp_path / "body.npz", **{**arrays, **BROKEN_ARRAYS[message](len(arrays["v_template"]))})
    with pytest.raises(ComoviError, match=message):
        read_body_model(tmp_path / "body.npz")


def test_foreign_files_are_refused(tmp_path):
    (tmp_path / "body.fbx").write_bytes(b"x")
    (tmp_path / "body.npz").write_bytes(b"not a zip")
    (tmp_path / "body.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    np.savez(tmp_path / "motion.npz", poses=np.zeros((3, 72)))
    np.savez(tmp_path / "objects.npz", v_template=np.array([{}], dtype=object))
    for name in ("body.fbx", "body.npz", "body.safetensors", "motion.npz", "objects.npz", "absent.pkl"):
        with pytest.raises(ComoviError, match=name):
            read_body_model(tmp_path / name)


def test_closed_surfaces_are_recognised():
    _, faces = uv_sphere(6, 8)
    assert is_closed(faces)
    assert not is_closed(faces[1:])
    assert not is_closed(torch.cat([faces[:1].flip(1), faces[1:]]))


def segmentation(num_vertices: int) -> dict[str, list[int]]:
    """Every vertex once, in the order of the parts."""
    part = np.arange(num_vertices) * 24 // num_vertices
    return {name: np.flatnonzero(part == r).tolist() for r, name in enumerate(parts.PART_NAMES)}


def test_the_segmentation_beside_the_file_decides_and_its_later_names_win(tmp_path):
    model = small_body()
    np.savez(tmp_path / "body.npz", **smpl_arrays(model))
    table = segmentation(len(model.v_template))
    shared = table["head"][0]
    table["neck"].append(shared)  # neck comes after head
    table["rightHand"].append(shared)  # and rightHand before it
    (tmp_path / "smpl_vert_segmentation.json").write_text(json.dumps(table))
    loaded = read_body_model(tmp_path / "body.npz")
    assert loaded.part_of_vertex[shared] == parts.PART_NAMES.index("neck")
    assert loaded.part_of_vertex[table["head"][1]] == parts.PART_NAMES.index("head")
    reordered = dict(sorted(table.items()))  # head, ..., neck, ..., rightHand: the order of the file decides
    (tmp_path / "smpl_vert_segmentation.json").write_text(json.dumps(reordered))
    assert read_body_model(tmp_path / "body.npz").part_of_vertex[shared] == parts.PART_NAMES.index("rightHand")


def test_without_a_segmentation_the_strongest_joint_names_the_part(tmp_path):
    model = small_body()
    np.savez(tmp_path / "body.npz", **smpl_arrays(model))
    loaded = read_body_model(tmp_path / "body.npz")
    head = model.weights.argmax(1) == parts.JOINT_NAMES.index("head")
    assert (loaded.part_of_vertex[head] == parts.PART_NAMES.index("head")).all()
    assert set(loaded.part_of_vertex.tolist()) == set(range(24))


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.pop("head"), lambda table: table.update(tail=[1]), lambda table: table["head"].clear(),
        lambda table: table.update(head=[10**6]), lambda table: table.update(head="all"),
        lambda table: table.update(head=[1.5]),
    ],
)  # fmt: skip
def test_broken_segmentations_are_refused(tmp_path, change):
    table = segmentation(100)
    change(table)
    (tmp_path / "s.json").write_text(json.dumps(table))
    with pytest.raises(ComoviError, match="s.json"):
        parts.parts_from_segmentation(tmp_path / "s.json", 100)


def test_segmentations_that_are_no_json_are_refused(tmp_path):
    for content in (b"{", b"[1]", b"\xff\xfe", b"[" * 100000):
        (tmp_path / "s.json").write_bytes(content)
        with pytest.raises(ComoviError, match="s.json"):
            parts.parts_from_segmentation(tmp_path / "s.json", 100)


def test_the_order_of_parts_is_the_one_that_fixes_the_colours():
    order = "rightHand rightUpLeg leftArm leftLeg leftToeBase leftFoot spine1 spine2 leftShoulder rightShoulder "
    order += "rightFoot head rightArm leftHandIndex1 rightLeg rightHandIndex1 leftForeArm rightForeArm neck "
    order += "rightToeBase spine leftUpLeg leftHand hips"
    assert order.split() == list(parts.PART_NAMES)
    assert sorted(parts.PART_OF_JOINT) == list(range(24))
    assert all(parts.JOINT_OF_PART[part] == joint for joint, part in enumerate(parts.PART_OF_JOINT))
    assert parts.PART_NAMES[parts.PART_OF_JOINT[parts.JOINT_NAMES.index("left_elbow")]] == "leftForeArm"
    assert len(set(parts.part_palette())) == 24


def test_real_smpl_files_read_like_smplx_reads_them():
    """Runs where someone has the files: SMPL_MODEL names a .pkl."""
    path = os.environ.get("SMPL_MODEL")
    if not path:
        pytest.skip("set SMPL_MODEL to a real SMPL .pkl to compare with smplx")
    smplx = pytest.importorskip("smplx")
    ours, theirs = read_body_model(path), smplx.create(path, "smpl")
    assert (ours.v_template - theirs.v_template).abs().max() < 1e-6
    assert replace(ours, name="x").posedirs.shape == (207, 20670)
