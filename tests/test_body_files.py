"""Body model files: every form of an SMPL file reads the same, and every array is checked."""

from __future__ import annotations

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


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_pickle_of_plain_arrays_reads_as_the_body(tmp_path, protocol):
    model = small_body()
    (tmp_path / "SMPL_NEUTRAL.pkl").write_bytes(pickle.dumps(smpl_arrays(model), protocol))
    loaded = load_body_model(str(tmp_path / "SMPL_NEUTRAL.pkl"))
    assert same(loaded, model)
    assert loaded.name == "smpl_neutral" and loaded.closed


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


def test_the_segmentation_beside_the_file_names_the_parts(tmp_path):
    model = small_body()
    np.savez(tmp_path / "body.npz", **smpl_arrays(model))
    part = np.arange(len(model.v_template)) % 24
    table = {name: np.flatnonzero(part == r).tolist() for r, name in enumerate(parts.PART_NAMES)}
    (tmp_path / "smpl_vert_segmentation.json").write_text(json.dumps(table))
    assert read_body_model(tmp_path / "body.npz").part_of_vertex.tolist() == part.tolist()


def test_without_a_segmentation_the_strongest_joint_names_the_part(tmp_path):
    model = small_body()
    np.savez(tmp_path / "body.npz", **smpl_arrays(model))
    loaded = read_body_model(tmp_path / "body.npz")
    head = model.weights.argmax(1) == parts.JOINT_NAMES.index("head")
    assert (loaded.part_of_vertex[head] == parts.PART_NAMES.index("head")).all()
    assert set(loaded.part_of_vertex.tolist()) == set(range(24))


def test_real_smpl_files_read_like_smplx_reads_them():
    """Runs where someone has the files: SMPL_MODEL names a .pkl."""
    path = os.environ.get("SMPL_MODEL")
    if not path:
        pytest.skip("set SMPL_MODEL to a real SMPL .pkl to compare with smplx")
    smplx = pytest.importorskip("smplx")
    ours, theirs = read_body_model(path), smplx.create(path, "smpl")
    assert (ours.v_template - theirs.v_template).abs().max() < 1e-6
    assert replace(ours, name="x").posedirs.shape == (207, 20670)
