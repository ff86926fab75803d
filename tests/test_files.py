"""Outputs are whole or absent, and file errors are sentences."""

from __future__ import annotations

import errno

import pytest
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.files import atomic_folder, atomic_path, require_file, require_place


def test_a_finished_file_appears_under_its_name_only(tmp_path):
    with atomic_path(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("x")
        assert not (tmp_path / "new" / "a.txt").exists()
        assert temporary.suffix == ".txt"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("x")])
def test_an_interrupted_write_leaves_nothing_and_keeps_the_old_file(tmp_path, error):
    old = tmp_path / "a.txt"
    old.write_text("old")
    with pytest.raises(type(error)), atomic_path(old) as temporary:
        temporary.write_text("half")
        raise error
    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


def test_a_full_disk_is_one_sentence_that_names_the_target(tmp_path):
    with pytest.raises(ComoviError, match=r"a\.txt: the disk is full"), atomic_path(tmp_path / "n" / "a.txt") as p:
        p.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", str(p))
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_is_needed_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ComoviError, match="a file where a folder is needed"), atomic_path(tmp_path / "file" / "a") as p:
        p.write_text("x")
    with pytest.raises(ComoviError, match="a file where a folder is needed"), atomic_folder(tmp_path / "file"):
        pass


def test_a_folder_of_results_appears_together(tmp_path):
    target = tmp_path / "out"
    with atomic_folder(target) as folder:
        (folder / "a").write_text("1")
        (folder / "b").write_text("2")
        assert not (target / "a").exists()
    assert sorted(p.name for p in target.iterdir()) == ["a", "b"]


def test_a_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "x" / "out") as folder:
        (folder / "a").write_text("1")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_filled_folder_needs_overwrite_and_loses_nothing_else(tmp_path):
    (tmp_path / "mine").write_text("keep")
    (tmp_path / "a").write_text("old")
    with pytest.raises(ComoviError, match="--overwrite"), atomic_folder(tmp_path):
        pass
    with atomic_folder(tmp_path, overwrite=True) as folder:
        (folder / "a").write_text("new")
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / "mine").read_text() == "keep"
    assert len(list(tmp_path.iterdir())) == 2


def test_an_error_inside_a_folder_names_the_place_that_was_asked_for(tmp_path):
    with pytest.raises(ComoviError) as caught, atomic_folder(tmp_path / "out") as folder:
        raise ComoviError(f"cannot write {folder / 'a.png'}: the disk is full.")
    assert str(caught.value) == f"cannot write {tmp_path / 'out' / 'a.png'}: the disk is full."


def test_a_place_is_judged_before_the_work(tmp_path):
    (tmp_path / "file").write_text("x")
    assert require_place(tmp_path / "new" / "a.json") == tmp_path / "new" / "a.json"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    for path, words in [(tmp_path, "it is a folder"), (tmp_path / "file" / "a", "a file where a folder is needed")]:
        with pytest.raises(ComoviError, match=words):
            require_place(path)


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "nul"])
def test_an_unusable_input_file_is_named(tmp_path, kind):
    path = tmp_path / "input.npz"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "nul":
        path = tmp_path / "in\0put.npz"
    with pytest.raises(ComoviError, match="motion file .*put"):
        require_file(path, "motion file")


@pytest.mark.parametrize("name", ["\u52d5" * 83 + ".npz", "a." + "x" * 250])
def test_every_name_that_the_disk_takes_can_be_written(tmp_path, name):
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == [name]
