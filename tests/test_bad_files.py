"""Broken weights, bodies, pictures: one clear sentence, exit status 2, no traceback, nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_files import (
    Cases,
    Hostile,
    assert_refused,
    picture,
    put,
    toy_arrays,
    toy_file,
    weights,
    with_header,
)

case = Cases()


# --- any file -------------------------------------------------------------------------------------------------------


@case("missing.safetensors does not exist")
def a_missing_file(d):
    return ["info", d / "missing.safetensors"]


@case("empty.npz is empty")
def an_empty_file(d):
    return ["info", put(d / "empty.npz", b"")]


@case("notes.txt is of a kind")
def a_file_of_unknown_kind(d):
    return ["info", put(d / "notes.txt", "hello")]


@case("not a usable path")
def a_name_with_a_nul(d):
    return ["info", f"{d}/a\0b.npz"]


@case("the name is too long")
def a_name_that_is_too_long(d):
    return ["info", d / ("a" * 5000 + ".npz")]


@case("symbolic links form a circle")
def links_in_a_circle(d):
    (d / "a.npz").symlink_to(d / "b.npz")
    (d / "b.npz").symlink_to(d / "a.npz")
    return ["info", d / "a.npz"]


@case("a file where a folder is needed")
def a_file_used_as_a_folder(d):
    put(d / "file", "x")
    return ["info", d / "file" / "a.npz"]


@case("files that could be the .safetensors file")
def a_folder_without_weights(d):
    return ["info", d]


@case("permission is denied")
def a_file_that_may_not_be_read(d):
    path = put(d / "secret.npz", "x")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    return ["info", path]


# --- safetensors ----------------------------------------------------------------------------------------------------


@case("is cut off")
def safetensors_cut_in_the_data(d):
    path = weights(d / "w.safetensors")
    return ["info", put(path, path.read_bytes()[:-10])]


@case("not a complete safetensors file")
def safetensors_cut_in_the_header(d):
    path = weights(d / "w.safetensors")
    return ["info", put(path, path.read_bytes()[:30])]


@case("not a complete safetensors file")
def safetensors_of_four_bytes(d):
    return ["info", put(d / "w.safetensors", b"\x01\x02\x03\x04")]


@case("not a complete safetensors file")
def safetensors_with_a_header_of_exabytes(d):
    return ["info", put(d / "w.safetensors", b"\xff" * 8 + b"{}" * 50)]


@case("not a complete safetensors file")
def safetensors_with_a_header_that_is_no_json(d):
    return ["info", with_header(d / "w.safetensors", b"{'a': 1}")]


@case("not a complete safetensors file")
def safetensors_with_a_deeply_nested_header(d):
    return ["info", with_header(d / "w.safetensors", b"[" * 100_000)]


@case("not a complete safetensors file")
def safetensors_whose_offsets_contradict_its_shapes(d):
    header = {"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 8]}}
    return ["info", with_header(d / "w.safetensors", header, b"12345678")]


@case("not a complete safetensors file")
def safetensors_with_a_negative_shape(d):
    header = {"a": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}}
    return ["info", with_header(d / "w.safetensors", header, b"12345678")]


@case("stores numbers as F4")
def safetensors_of_an_unknown_number_type(d):
    header = {"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}
    return ["info", with_header(d / "w.safetensors", header, b"1")]


@case("Git LFS pointer")
def a_git_lfs_pointer(d):
    return ["info", put(d / "w.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")]


@case("PyTorch pickle file")
def a_pickle_named_safetensors(d):
    return ["info", put(d / "w.safetensors", b"PK\x03\x04" + b"\0" * 40)]


@case("is not an index of safetensors shards")
def an_index_without_a_weight_map(d):
    return ["info", put(d / "model.safetensors.index.json", json.dumps({"weight_map": ["a", "b"]}))]


@case("does not exist")
def an_index_whose_shard_is_missing(d):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    return ["info", put(d / "model.safetensors.index.json", json.dumps(index))]


@case("tensors that its shards do not hold")
def an_index_that_lists_too_much(d):
    weights(d / "s.safetensors")
    index = {"weight_map": {"a.weight": "s.safetensors", "b.weight": "s.safetensors"}}
    return ["info", put(d / "model.safetensors.index.json", json.dumps(index))]


@case("is not a PyTorch checkpoint")
def a_hostile_checkpoint(d):
    return ["info", put(d / "w.pt", pickle.dumps({"blocks.0.weight": Hostile()}, protocol=2))]


@case("can run any program")
def a_hostile_checkpoint_as_torch_writes_it(d):
    torch.save({"a": torch.zeros(2), "b": Hostile()}, d / "w.pt")
    return ["info", d / "w.pt"]


@case("is not a PyTorch checkpoint")
def a_truncated_pickled_checkpoint(d):
    torch.save({"a": torch.zeros(200)}, d / "w.ckpt")
    return ["info", put(d / "w.ckpt", (d / "w.ckpt").read_bytes()[:500])]


@case("neither a CoMoVi nor a Wan2.2 checkpoint")
def a_foreign_checkpoint(d):
    return ["info", weights(d / "w.safetensors")]


@case("diffusers names")
def a_checkpoint_with_diffusers_names(d):
    tensors = {"condition_embedder.time_embedder.linear_1.weight": np.zeros((4, 4), np.float32)}
    return ["info", weights(d / "w.safetensors", **tensors)]


@case("the size of the network cannot be read off it")
def a_checkpoint_of_which_only_the_start_is_there(d):
    return [
        "info",
        weights(d / "w.safetensors", **{"patch_embedding.weight": np.zeros((256, 48, 1, 2, 2), np.float32)}),
    ]


@case("not valid JSON")
def a_broken_json_file(d):
    return ["info", put(d / "settings.json", "{'prompt': ")]


# --- bodies ---------------------------------------------------------------------------------------------------------


@case("asks for posix.system")
def a_hostile_body_pickle(d):
    return ["info", put(d / "smpl.pkl", pickle.dumps({"v_template": Hostile()}).replace(b"nt\n", b"posix\n"))]


@case("which no SMPL file needs")
def a_body_pickle_that_evaluates(d):
    return ["info", put(d / "smpl.pkl", b"cbuiltins\neval\n(S'1'\ntR.")]


@case("damaged or foreign file")
def a_truncated_body_pickle(d):
    return ["info", put(d / "smpl.pkl", pickle.dumps(toy_arrays())[:200])]


@case("expected a dictionary, got list")
def a_pickle_of_something_else(d):
    return ["info", put(d / "smpl.pkl", pickle.dumps([1, 2, 3]))]


@case("'v_template' is missing")
def a_body_pickle_without_vertices(d):
    return ["info", put(d / "smpl.pkl", pickle.dumps({"gender": "neutral"}))]


@case("v_template must be numbers of shape")
def a_body_of_flat_vertices(d):
    return ["info", toy_file(d / "body.npz", v_template=toy_arrays()["v_template"].ravel())]


@case("got 55 (SMPL-X)")
def a_body_of_another_kind(d):
    return ["info", toy_file(d / "body.npz", weights=np.zeros((1008, 55), np.float32))]


@case("v_template holds NaN")
def a_body_with_nan(d):
    arrays = toy_arrays()["v_template"]
    arrays[3, 1] = np.nan
    return ["info", toy_file(d / "body.npz", v_template=arrays)]


@case("faces must number vertices")
def a_body_whose_faces_leave_it(d):
    return ["info", toy_file(d / "body.npz", faces=toy_arrays()["faces"] + 99999)]


@case("joints are unknown")
def a_body_without_joints(d):
    return ["info", toy_file(d / "body.npz", J_regressor=None)]


@case("weights must be numbers")
def a_body_whose_weights_are_of_another(d):
    return ["info", toy_file(d / "body.npz", weights=toy_arrays()["weights"][:-1])]


# --- pictures, videos, scenes ---------------------------------------------------------------------------------------


@case("is damaged")
def a_truncated_picture(d):
    path = picture(d / "p.png")
    return ["info", put(path, path.read_bytes()[:600])]


@case("is not a picture")
def a_text_named_png(d):
    return ["info", put(d / "p.png", "hello")]


@case("cannot be read")
def a_text_named_mp4(d):
    return ["info", put(d / "v.mp4", "hello" * 100)]


@case("is not a GLB file")
def a_text_named_glb(d):
    return ["info", put(d / "s.glb", "hello" * 100)]


@case("damaged GLB")
def a_truncated_scene(d):
    return ["info", put(d / "s.glb", b"glTF" + (2).to_bytes(4, "little") + (10**6).to_bytes(4, "little") + bytes(40))]


# --- the statement --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", case)
def test_a_broken_input_is_one_sentence(name, tmp_path, capsys):
    make, words = case[name]
    assert_refused(capsys, tmp_path, make(tmp_path), words)
    assert not Path("/tmp/comovi_hacked").exists()


def test_the_broken_inputs_are_at_least_sixty():
    files = Path(__file__).parent.glob("test_bad_*.py")
    assert sum(file.read_text(encoding="utf-8").count("\n@case(") for file in files) >= 60
