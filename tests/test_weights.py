"""Weight files: what is read equals what was written, and every broken file is refused in one sentence."""

from __future__ import annotations

import json
import pickle
import struct

import pytest
import torch
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.wan.weights import DTYPES, open_weights, read_pickle, write_weights
from safetensors.torch import load_file, save_file


def some_tensors():
    return {
        "odd": torch.arange(3, dtype=torch.float16),
        "wide": torch.randn(2, 3, dtype=torch.float64),
        "half": torch.randn(5, 1).bfloat16(),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(7),
        "flags": torch.tensor([True, False]),
    }


def raw_file(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_what_is_written_is_read_again(tmp_path):
    tensors = some_tensors()
    write_weights(tmp_path / "a.safetensors", tensors, {"who": "me"})
    files = open_weights(tmp_path / "a.safetensors")
    assert files.metadata == {"who": "me"}
    assert set(files) == set(tensors)
    assert all(
        torch.equal(files[name], tensor) and files[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )


def test_the_official_library_reads_our_files_and_we_read_its(tmp_path):
    tensors = some_tensors()
    write_weights(tmp_path / "ours.safetensors", tensors, {})
    save_file(tensors, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    theirs, ours = load_file(tmp_path / "ours.safetensors"), open_weights(tmp_path / "theirs.safetensors")
    for name, tensor in tensors.items():
        assert torch.equal(theirs[name], tensor)
        assert torch.equal(ours[name], tensor)


@pytest.mark.parametrize("dtype", list(DTYPES.values()), ids=list(DTYPES))
def test_every_number_type_survives(tmp_path, dtype):
    tensor = torch.tensor([0, 1, 1, 0, 1]).to(dtype)
    write_weights(tmp_path / "a.safetensors", {"x": tensor}, {})
    assert torch.equal(open_weights(tmp_path / "a.safetensors")["x"].view(torch.uint8), tensor.view(torch.uint8))


def test_writing_into_a_mapped_tensor_changes_neither_the_file_nor_a_second_mapping(tmp_path):
    write_weights(tmp_path / "a.safetensors", {"x": torch.ones(4)}, {})
    files = open_weights(tmp_path / "a.safetensors")
    second = files.again()
    files["x"].zero_()
    assert torch.equal(second["x"], torch.ones(4))
    assert torch.equal(open_weights(tmp_path / "a.safetensors")["x"], torch.ones(4))


def test_shards_of_a_folder_are_one_checkpoint(tmp_path):
    write_weights(tmp_path / "m-1.safetensors", {"a": torch.ones(2)}, {})
    write_weights(tmp_path / "m-2.safetensors", {"b": torch.zeros(3)}, {})
    index = {"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps(index))
    for path in (tmp_path, tmp_path / "m.safetensors.index.json"):
        files = open_weights(path)
        assert files.shapes() == {"a": (2,), "b": (3,)}
        assert torch.equal(files["b"], torch.zeros(3))


def test_a_folder_with_one_file_is_that_file(tmp_path):
    write_weights(tmp_path / "only.safetensors", {"a": torch.ones(2)}, {})
    assert list(open_weights(tmp_path)) == ["a"]


def broken_files(folder):
    good = {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    write_weights(folder / "whole.safetensors", {"x": torch.ones(1000)}, {})
    whole = (folder / "whole.safetensors").read_bytes()
    (folder / "cut_data.safetensors").write_bytes(whole[:-1])
    (folder / "cut_header.safetensors").write_bytes(whole[:20])
    (folder / "four_bytes.safetensors").write_bytes(b"abcd")
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "text.safetensors").write_text("this is not a checkpoint at all, it is a sentence")
    (folder / "lfs.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    torch.save({"x": torch.ones(2)}, folder / "pickle.safetensors")
    (folder / "gguf.safetensors").write_bytes(b"GGUF" + bytes(100))
    raw_file(folder / "list.safetensors", [1, 2, 3])
    raw_file(folder / "no_json.safetensors", b"{not json}")
    raw_file(folder / "no_shape.safetensors", {"x": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8))
    raw_file(folder / "wrong_range.safetensors", {"x": {**good["x"], "data_offsets": [0, 4]}}, bytes(8))
    raw_file(folder / "negative.safetensors", {"x": {**good["x"], "shape": [-2]}}, bytes(8))
    raw_file(folder / "strange_dtype.safetensors", {"x": {**good["x"], "dtype": "F4"}}, bytes(8))
    raw_file(folder / "deep.safetensors", b"[" * 100_000)
    (folder / "none.index.json").write_text("{}")
    (folder / "lost_shard.index.json").write_text(json.dumps({"weight_map": {"a": "not_there.safetensors"}}))
    (folder / "lost_tensor.index.json").write_text(json.dumps({"weight_map": {"a": "whole.safetensors"}}))
    (folder / "no_file.safetensors").unlink(missing_ok=True)
    return [
        *sorted(path for path in folder.iterdir() if path.name != "whole.safetensors"),
        folder / "no_file.safetensors",
    ]


def test_every_broken_file_is_refused_in_one_sentence_that_names_it(tmp_path):
    paths = broken_files(tmp_path)
    assert len(paths) >= 19
    for path in [*paths, tmp_path]:
        with pytest.raises(ComoviError) as caught:
            open_weights(path)
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 400
        assert path.name in message


def test_a_cut_off_file_says_how_much_is_there(tmp_path):
    broken_files(tmp_path)
    with pytest.raises(ComoviError, match=r"promises 4,0\d\d bytes and the file has 4,0\d\d; download it again"):
        open_weights(tmp_path / "cut_data.safetensors")


def test_a_pickle_with_tensors_is_read_and_one_with_a_program_is_refused(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "good.pt")
    assert torch.equal(read_pickle(tmp_path / "good.pt")["a"], torch.ones(2))

    class Program:
        def __reduce__(self):
            return (print, ("this must never be printed",))

    torch.save({"a": Program()}, tmp_path / "hostile.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Program()))
    (tmp_path / "junk.pt").write_bytes(b"junk")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    for name in ("hostile", "raw", "junk", "list", "missing"):
        with pytest.raises(ComoviError, match=name):
            read_pickle(tmp_path / f"{name}.pt")


def test_a_failed_write_leaves_no_file(tmp_path):
    with pytest.raises(KeyError):
        write_weights(tmp_path / "a.safetensors", {"x": torch.ones(2, dtype=torch.complex64)}, {})
    assert list(tmp_path.iterdir()) == []
