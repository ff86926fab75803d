"""Broken motions and places that cannot be written: one clear sentence, exit status 2, nothing half-written."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from bad_files import (
    Cases,
    Hostile,
    assert_refused,
    draw,
    motion_file,
    put,
    toy_file,
    tree,
)
from comfyui_comovi import cli

case = Cases()


# --- motions --------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", case)
def test_a_broken_input_is_one_sentence(name, tmp_path, capsys):
    make, words = case[name]
    assert_refused(capsys, tmp_path, make(tmp_path), words)
    assert not Path("/tmp/comovi_hacked").exists()


@pytest.mark.parametrize("name", ["a_motion_with_nan_poses", "an_output_below_a_file"])
def test_a_real_process_says_the_same(name, tmp_path, comovi_process):
    make, words = case[name]
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
    assert "Traceback" not in run.stderr
    sentence = run.stderr.splitlines()[-1]  # after the progress bar, which a slow machine shows
    assert f"comovi: cannot write {tmp_path / out}" in sentence
    assert "larger than the file system allows" in sentence
    assert tree(tmp_path) == before


def test_the_sound_file_beside_the_broken_ones_is_accepted(tmp_path, capsys):
    assert cli.main([str(item) for item in draw(tmp_path, motion_file(tmp_path / "m.npz"))]) == 0
    assert (tmp_path / "map.mp4").stat().st_size > 500
    assert cli.main(["info", str(tmp_path / "map.mp4")]) == 0
    assert "3 frames of 32x48 at 16 per second" in capsys.readouterr().out
