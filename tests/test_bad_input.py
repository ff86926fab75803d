"""Broken inputs, each made by hand: one clear sentence, exit status 2, no traceback, nothing half-written.

Every case is a function from an empty folder to the arguments of `comovi`, and words that the sentence must have.
"""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_comovi import cli
from comfyui_comovi.comovi_model.body.toy import toy_body
from PIL import Image
from safetensors.numpy import save_file

CASES: dict[str, tuple] = {}


def case(words: str):
    def register(make):
        assert make.__name__ not in CASES, make.__name__
        CASES[make.__name__] = (make, words)
        return make

    return register


class Hostile:
    def __reduce__(self):
        return os.system, ("echo hacked > /tmp/comovi_hacked",)


def put(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every path below `folder` with its content, so that both leftovers and damage are seen."""
    found: dict[str, bytes | None] = {}
    for path in sorted(folder.rglob("*")):
        is_file = path.is_file() and not path.is_symlink()
        found[str(path.relative_to(folder))] = path.read_bytes() if is_file else None
    return found


def assert_refused(capsys, folder: Path, argv: list, words: str) -> None:
    before = tree(folder)
    status = cli.main([str(item) for item in argv])
    captured = capsys.readouterr()
    assert status == 2, captured
    assert captured.err.startswith("comovi: "), captured.err
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.strip().endswith((".", "?")), captured.err
    assert "Traceback" not in captured.err
    assert words in captured.err, captured.err
    assert len(captured.err) < 600, captured.err
    assert tree(folder) == before


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


def weights(path: Path, **tensors: np.ndarray) -> Path:
    save_file(tensors or {"a.weight": np.zeros((4, 4), np.float32)}, path)
    return path


def with_header(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return put(path, len(text).to_bytes(8, "little") + text + data)


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


def toy_arrays() -> dict[str, np.ndarray]:
    body = toy_body(segments=4)
    names = ("v_template", "shapedirs", "J_regressor", "weights", "faces", "part_of_vertex")
    return {name: getattr(body, name).numpy().copy() for name in names}


def toy_file(path: Path, **changes) -> Path:
    arrays = {name: value for name, value in {**toy_arrays(), **changes}.items() if value is not None}
    np.savez(path, **arrays)
    return path


@case("asks for posix.system")
def a_hostile_body_pickle(d):
    return ["info", put(d / "smpl.pkl", pickle.dumps({"v_template": Hostile()}).replace(b"nt\n", b"posix\n"))]


@case("which no SMPL file needs")
def a_body_pickle_that_evaluates(d):
    return ["info", put(d / "smpl.pkl", b"cbuiltins\neval\n(S'1'\ntR.")]


@case("damaged or foreign file")
def a_truncated_body_pickle(d):
    return ["info", put(d / "smpl.pkl", pickle.dumps(toy_arrays())[:200])]


@case("expected a pickled dictionary")
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


# --- motions --------------------------------------------------------------------------------------------------------


def motion_file(path: Path, frames: int = 3, **changes) -> Path:
    rotations = np.broadcast_to(np.eye(3, dtype=np.float32), (frames, 24, 3, 3)).copy()
    rotations[:, 0] = np.diag([1.0, -1.0, -1.0])  # upright in a camera frame, whose y points down
    arrays = {
        "global_orient": rotations[:, 0],
        "body_pose": rotations[:, 1:],
        "betas": np.zeros(10, np.float32),
        "transl": np.tile(np.float32([0, 0, 4]), (frames, 1)),
        "fps": np.array(16.0),
        "frame": np.array("camera"),
        "body_model": np.array("toy"),
        "camera_K": np.array([[60.0, 0, 16], [0, 60, 24], [0, 0, 1]], np.float32),
        "image_size": np.array([32, 48]),
    }
    arrays = {name: value for name, value in {**arrays, **changes}.items() if value is not None}
    np.savez(path, **arrays)
    return path


def draw(d: Path, motion: Path, out: str = "map.mp4", body: Path | None = None, *more) -> list:
    return ["map", motion, "--out", d / out, "--body", body or toy_file(d / "toy.npz"), *more]


@case("motion file")
def a_missing_motion(d):
    return draw(d, d / "nothing.npz")


@case("damaged or foreign file")
def a_motion_that_is_no_archive(d):
    return draw(d, put(d / "m.npz", b"these are not the bytes of a zip file"))


@case("damaged or foreign file")
def a_truncated_motion(d):
    path = motion_file(d / "m.npz")
    return draw(d, put(path, path.read_bytes()[:-400]))


@case("damaged or foreign file")
def a_motion_with_pickled_objects(d):
    np.savez(d / "m.npz", global_orient=np.array([Hostile()], dtype=object))
    return draw(d, d / "m.npz")


@case("damaged or foreign file")
def a_motion_whose_data_is_flipped(d):
    path = motion_file(d / "m.npz")
    data = bytearray(path.read_bytes())
    data[600:640] = bytes(40)
    return draw(d, put(path, bytes(data)))


@case("damaged or foreign file")
def a_motion_archive_with_a_text_inside(d):
    with zipfile.ZipFile(d / "m.npz", "w") as archive:
        archive.writestr("global_orient.npy", "hello")
    return draw(d, d / "m.npz")


@case("got a single array")
def a_motion_that_is_one_array(d):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return draw(d, put(d / "m.npz", buffer.getvalue()))


@case("'body_pose' is missing")
def a_motion_without_joints(d):
    return draw(d, motion_file(d / "m.npz", body_pose=None))


@case("body_pose must be (3, 23, 3, 3)")
def a_motion_of_too_few_joints(d):
    return draw(d, motion_file(d / "m.npz", body_pose=np.zeros((3, 21, 3, 3), np.float32)))


@case("body_pose must be (3, 23, 3, 3)")
def a_motion_whose_parts_differ_in_length(d):
    return draw(d, motion_file(d / "m.npz", body_pose=np.zeros((4, 23, 3, 3), np.float32)))


@case("got NaN or infinite values")
def a_motion_with_nan_poses(d):
    poses = np.full((3, 23, 3, 3), np.nan, np.float32)
    return draw(d, motion_file(d / "m.npz", body_pose=poses))


@case("got NaN or infinite values")
def a_motion_at_infinity(d):
    return draw(d, motion_file(d / "m.npz", transl=np.full((3, 3), np.inf, np.float32)))


@case("must be rotation matrices")
def a_motion_of_mirrored_or_stretched_joints(d):
    return draw(d, motion_file(d / "m.npz", global_orient=np.tile(2 * np.eye(3, dtype=np.float32), (3, 1, 1))))


@case("motion rotations must be")
def a_motion_of_no_frames(d):
    return draw(d, motion_file(d / "m.npz", frames=0))


@case("betas must have shape (10,)")
def a_motion_with_three_betas(d):
    return draw(d, motion_file(d / "m.npz", betas=np.zeros(3, np.float32)))


@case("transl must have shape (3, 3)")
def a_motion_with_a_path_of_82_frames(d):
    return draw(d, motion_file(d / "m.npz", transl=np.zeros((82, 3), np.float32)))


@case("fps must be a positive number")
def a_motion_of_no_speed(d):
    return draw(d, motion_file(d / "m.npz", fps=np.array(0.0)))


@case("frame must be one of")
def a_motion_in_unknown_axes(d):
    return draw(d, motion_file(d / "m.npz", frame=np.array("left-handed")))


@case("positive focal lengths")
def a_motion_seen_by_a_camera_without_focal_length(d):
    return draw(d, motion_file(d / "m.npz", camera_K=np.zeros((3, 3), np.float32)))


@case("size must be at least 1x1")
def a_motion_seen_in_a_picture_of_no_size(d):
    return draw(d, motion_file(d / "m.npz", image_size=np.array([0, 0])))


@case("cannot be read")
def a_motion_whose_fields_are_words(d):
    return draw(d, motion_file(d / "m.npz", transl=np.array(["a", "b", "c"])))


@case("no camera")
def a_motion_without_a_camera(d):
    return draw(d, motion_file(d / "m.npz", camera_K=None, image_size=None))


@case("mean nothing to body")
def a_motion_of_another_figure(d):
    return draw(d, motion_file(d / "m.npz", betas=np.ones(10, np.float32), body_model=np.array("smpl_neutral")))


@case("neither a motion nor a body")
def an_archive_of_other_things(d):
    np.savez(d / "m.npz", images=np.zeros(3))
    return ["info", d / "m.npz"]


# --- pictures, videos, scenes ---------------------------------------------------------------------------------------


def picture(path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 32, 3), np.uint8)).save(path)
    return path


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


# --- places that cannot be written ----------------------------------------------------------------------------------


@case("a file where a folder is needed")
def an_output_below_a_file(d):
    put(d / "file", "x")
    return draw(d, motion_file(d / "m.npz"), "file/map.mp4")


@case("it is a folder where a file is needed")
def an_output_that_is_a_folder(d):
    (d / "map.mp4").mkdir()
    return draw(d, motion_file(d / "m.npz"))


@case("is not empty")
def an_output_folder_that_is_in_use(d):
    put(d / "file", "x")
    return draw(d, motion_file(d / "m.npz"), "")


@case("a motion map is a .mp4 video")
def an_output_of_unknown_kind(d):
    return draw(d, motion_file(d / "m.npz"), "map.gif")


@case("must be even")
def a_video_of_odd_width(d):
    return draw(d, motion_file(d / "m.npz"), "map.mp4", None, "--size", "33x48")


@case("do not fit into the picture")
def many_frames_in_one_picture(d):
    return draw(d, motion_file(d / "m.npz"), "map.png")


@case("/proc/comovi")
def an_output_where_nobody_may_write(d):
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc")
    return ["map", motion_file(d / "m.npz"), "--out", "/proc/comovi/map.mp4", "--body", toy_file(d / "toy.npz")]


@case("the disk is full")
def a_full_disk(d):
    return draw(d, motion_file(d / "m.npz"))


@pytest.fixture(autouse=True)
def _full_disk(request, monkeypatch):
    if "a_full_disk" not in request.node.name:
        return

    def fail(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(source))

    monkeypatch.setattr("comfyui_comovi.comovi_model.files.os.replace", fail)


# --- the statement --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_a_broken_input_is_one_sentence(name, tmp_path, capsys):
    make, words = CASES[name]
    argv = make(tmp_path)
    assert_refused(capsys, tmp_path, argv, words)
    assert not Path("/tmp/comovi_hacked").exists()


def test_there_are_at_least_sixty_cases():
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", ["a_motion_with_nan_poses", "safetensors_cut_in_the_data"])
def test_a_real_process_says_the_same(name, tmp_path, comovi_process):
    make, words = CASES[name]
    run = subprocess.run(comovi_process(*make(tmp_path)), capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("comovi: ")
    assert words in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
@pytest.mark.parametrize("out", ["map.mp4", "maps"])
def test_a_file_that_may_not_grow_is_a_sentence_and_leaves_nothing(out, tmp_path, comovi_process):
    """A real failing write, below every library: no file of this process may pass 60 bytes."""
    import resource

    argv = draw(tmp_path, motion_file(tmp_path / "m.npz"), out)
    before = tree(tmp_path)
    run = subprocess.run(
        comovi_process(*argv),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60)),
    )
    assert run.returncode == 2, run.stderr
    assert f"cannot write {tmp_path / out}" in run.stderr
    assert "larger than the file system allows" in run.stderr
    assert run.stderr.count("\n") == 1
    assert tree(tmp_path) == before


def test_the_sound_file_beside_the_broken_ones_is_accepted(tmp_path, capsys):
    assert cli.main([str(item) for item in draw(tmp_path, motion_file(tmp_path / "m.npz"))]) == 0
    assert (tmp_path / "map.mp4").stat().st_size > 500
    assert cli.main(["info", str(tmp_path / "map.mp4")]) == 0
    assert "3 frames of 32x48 at 16 per second" in capsys.readouterr().out
