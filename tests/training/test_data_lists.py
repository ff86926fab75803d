"""Lists of clips, the released code's list, buckets, and the order in which clips are read."""

import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.motion_io.reading import read_motion
from comfyui_comovi.training.cli import main
from comfyui_comovi.training.data.buckets import Bucket, choose_bucket, parse_bucket
from comfyui_comovi.training.data.cache import build_cache, encode_clip
from comfyui_comovi.training.data.dataset import CachedClips, assemble
from comfyui_comovi.training.data.encoders import load_encoders
from comfyui_comovi.training.data.manifest import (
    Clip,
    read_manifest,
    read_official,
    record_text,
    unique_id,
    write_manifest,
    write_official,
)
from comfyui_comovi.training.data.prepare import LIST, prepare
from comfyui_comovi.training.data.sampler import SamplePlan
from data_parts import SETTINGS, numbered_video


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("clips")
    (folder / "videos").mkdir()
    for name in ("a", "b"):
        numbered_video(folder / "videos", name, 24, 2.0)
    return prepare(folder / "videos", folder / "data", SETTINGS)


def clip(**changes):
    fields = {"id": "one", "rgb": Path("/clips/one.mp4"), "text": ("a person",), "frames": 81, "size": (1280, 704)}
    return Clip(**{**fields, "smpl": Path("/clips/one.npz"), **changes})


def test_a_list_comes_back_as_it_was_written_also_from_another_place(made, tmp_path):
    assert read_manifest(made.folder / LIST) == list(made.clips)
    moved = tmp_path / "moved"
    made.folder.rename(moved)
    try:
        clips = read_manifest(moved / LIST)
        assert all(one.rgb.is_file() and one.smpl.is_file() for one in clips)
    finally:
        moved.rename(made.folder)


def test_a_list_from_an_editor_and_sentences_with_odd_line_ends_are_read(tmp_path):
    clip = Clip("a", tmp_path / "a.mp4", ("she walks\u2028and waves\x85",), 33, (64, 64), smpl=tmp_path / "a.npz")
    (tmp_path / "list.jsonl").write_text(f"{record_text(clip, tmp_path)}\r\n", encoding="utf-8-sig", newline="")
    assert read_manifest(tmp_path / "list.jsonl") == [clip]


def test_names_are_taken_once():
    taken: set[str] = set()
    assert [unique_id(taken, name) for name in ("a", "a", "a-1", "A")] == ["a", "a-1", "a-1-1", "A-2"]


def test_mistakes_of_a_list_are_named_with_their_line(tmp_path):
    good = json.loads(record_text(clip(), tmp_path))
    for change, words in (
        ({"id": "a/b"}, "plain name"),
        ({"text": " "}, "has no sentence"),
        ({"frame": 3}, "unknown field 'frame'"),
        ({"format": "comovi-clips-9"}, "this version reads 'comovi-clips-1'"),
        ({"smpl": None}, "neither a motion map nor an smpl file"),
        ({"fps": "fast"}, "frames per second must be a number"),
        ({"size": [1280]}, "size must be"),
        ({"id": "first"}, "already in line 1"),
    ):
        path = tmp_path / "clips.jsonl"
        path.write_text(json.dumps({**good, "id": "first"}) + "\n\n" + json.dumps({**good, **change}) + "\n")
        with pytest.raises(ComoviError, match=f"line 3: .*{words}"):
            read_manifest(path)
    path.write_text("{'id': 1}\n")
    with pytest.raises(ComoviError, match="line 1: this is not JSON"):
        read_manifest(path)


def test_the_released_list_goes_out_and_comes_back(made, tmp_path):
    path = write_official(tmp_path / "dataset.json", made.clips, tmp_path / "smpl")
    rows = json.loads(path.read_text())
    wanted = {"rgb_path", "motion_path", "first_frame", "motion_first_frame", "text", "type", "smpl_path"}
    assert set(rows[0]) == wanted and rows[0]["type"] == "video"
    record = np.load(rows[0]["smpl_path"], allow_pickle=True)["smpl"][3]  # as the released loader reads it
    assert {name: value.shape for name, value in record.items()} == {
        "global_orient": (1, 1, 3, 3), "body_pose": (1, 23, 3, 3), "betas": (1, 10), "camera": (1, 3)
    }  # fmt: skip

    back = read_official(path)
    for ours, theirs in zip(made.clips, back, strict=True):
        assert (theirs.rgb, theirs.motion, theirs.frames, theirs.size) == (ours.rgb, ours.motion, 33, (64, 64))
        assert theirs.fps == 16 and theirs.text == ours.text[:1]
        one, two = read_motion(ours.smpl).motion, read_motion(theirs.smpl).motion
        assert torch.allclose(one.rotations, two.rotations, atol=1e-6)
        assert torch.allclose(one.transl, two.transl, atol=1e-6)
    assert len({one.id for one in back}) == 2  # both are called rgb.mkv


def test_the_released_list_can_be_cached_as_it_is(made, tmp_path):
    path = write_official(tmp_path / "dataset.json", made.clips, tmp_path / "smpl")
    encoders = load_encoders("nano")
    built = build_cache(path, tmp_path / "cache", encoders)
    assert built.refused == () and len(CachedClips(tmp_path / "cache")) == 2
    ours = encode_clip(made.clips[0], encoders, torch.bfloat16)
    theirs = encode_clip(read_official(path)[0], encoders, torch.bfloat16)
    assert torch.equal(ours["video"], theirs["video"]) and torch.allclose(ours["pose"], theirs["pose"], atol=1e-6)


def test_a_clip_without_a_drawn_map_gets_one_from_its_poses(made):
    encoders = load_encoders("nano")
    drawn, given = (
        encode_clip(one, encoders, torch.float32) for one in (replace(made.clips[0], motion=None), made.clips[0])
    )
    assert (drawn["motion"] - given["motion"]).abs().mean() < 0.1 * given["motion"].abs().mean()


def test_an_official_clip_without_poses_is_refused_by_the_exporter(tmp_path):
    with pytest.raises(ComoviError, match="clip one lacks motion_path"):
        write_official(tmp_path / "dataset.json", [clip()])


def test_every_video_takes_the_bucket_of_the_most_similar_shape():
    buckets = [parse_bucket(text) for text in ("81x704x1280", "81x1280x704", "49x704x1280", "81x960x960")]
    for (width, height), wanted in (
        ((1920, 1080), "81x704x1280"),
        ((1080, 1920), "81x1280x704"),
        ((1000, 1000), "81x960x960"),
        ((4000, 1000), "81x704x1280"),
    ):
        assert str(choose_bucket(buckets, width, height)) == wanted
    assert Bucket(81, 704, 1280).latent == (21, 44, 80)
    for text, words in (("81x704", "written frames x"), ("82x704x1280", "1 \\+ 4 k"), ("81x720x1280", "is 704x1280")):
        with pytest.raises(ComoviError, match=words):
            parse_bucket(text)


class Clips:
    """A source of clips of two sizes that only knows their sizes."""

    def __init__(self, counts):
        self.kinds = [(9, 4, size) for size, count in counts.items() for _ in range(count)]

    def __len__(self):
        return len(self.kinds)

    def bucket_of(self, index):
        return self.kinds[index]


def test_an_epoch_holds_every_clip_and_a_batch_one_size():
    source = Clips({4: 13, 6: 7})
    plan = SamplePlan(source, micro=4, accumulate=1, world=1, seed=3)
    assert plan.per_epoch == 4 + 2
    for epoch in range(3):
        batches = [plan.indices(step, 0, 0) for step in range(6 * epoch, 6 * epoch + 6)]
        assert all(len(batch) == 4 and len({source.bucket_of(index) for index in batch}) == 1 for batch in batches)
        seen = Counter(index for batch in batches for index in batch)
        assert set(seen) == set(range(20)) and sum(seen.values()) == 24 and max(seen.values()) == 2
    first, second = ([plan.indices(6 * e + k, 0, 0) for k in range(6)] for e in (0, 1))
    assert first != second
    assert plan.epoch(9) == 1.5


def test_the_order_is_the_same_for_every_split_of_a_step():
    source = Clips({4: 50, 6: 30})
    plans = [SamplePlan(source, 3, accumulate, world, 1) for accumulate, world in ((8, 1), (4, 2), (2, 4), (1, 8))]
    for step in range(20):
        slots = [
            [plan.indices(step, micro, rank) for micro in range(plan.accumulate) for rank in range(plan.world)]
            for plan in plans
        ]
        assert slots[0] == slots[1] == slots[2] == slots[3]


def test_any_step_can_be_asked_for_first():
    plan, fresh = (SamplePlan(Clips({4: 9}), 2, 2, 2, 5) for _ in range(2))
    order = [plan.indices(step, 1, 1) for step in range(40)]
    assert [fresh.indices(step, 1, 1) for step in reversed(range(40))] == order[::-1]
    assert SamplePlan(Clips({4: 9}), 2, 2, 2, 6).indices(0, 1, 1) != order[0]


def test_a_batch_of_two_sizes_is_refused_and_texts_are_padded_with_zeros():
    def row(width, words):
        latent = torch.ones(2, 3, 4, width)
        return {"video": latent, "motion": latent, "first_video": latent[:, :1], "first_motion": latent[:, :1],
                "text": torch.ones(words, 5)}  # fmt: skip

    batch = assemble(["a", "b"], ["x", "y"], [row(4, 2), row(4, 3)])
    assert batch.text.shape == (2, 3, 5) and batch.text[0, 2:].abs().sum() == 0
    assert batch.text_length.tolist() == [2, 3] and batch.pose is None
    with pytest.raises(ComoviError, match="clips of one size"):
        assemble(["a", "b"], ["x", "y"], [row(4, 2), row(6, 2)])


def test_write_manifest_is_ordered(tmp_path):
    clips = [clip(id=name, fps=Fraction(30000, 1001)) for name in ("b", "c", "a")]
    path = write_manifest(tmp_path / "clips.jsonl", clips)
    assert [one.id for one in read_manifest(path)] == ["a", "b", "c"]
    assert read_manifest(path)[0].fps == Fraction(30000, 1001)


def test_the_data_command_checks_exports_and_imports(made, tmp_path, capsys):
    assert main(["data", "check", str(made.folder)]) == 0
    assert "2 clips, 0 problems" in capsys.readouterr().out
    assert main(["data", "export", str(made.folder), "--out", str(tmp_path / "dataset.json")]) == 0
    assert main(["data", "import", str(tmp_path / "dataset.json"), "--out", str(tmp_path / "clips.jsonl")]) == 0
    assert [one.id for one in read_manifest(tmp_path / "clips.jsonl")] == ["rgb", "rgb-1"]
    wrong = [replace(made.clips[0], frames=29), replace(made.clips[1], rgb=tmp_path / "lost.mkv")]
    write_manifest(tmp_path / "wrong.jsonl", wrong)
    assert main(["data", "check", str(tmp_path / "wrong.jsonl")]) == 1
    said = capsys.readouterr().out
    assert "a-00: rgb has 33 frames of 64x64" in said and "a-00: 33 poses for 29 frames" in said
    assert "b-00: " in said and "lost.mkv" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("prepare nowhere --out x", "nowhere does not exist; give a folder of videos"),
        ("prepare . --out x --size 81x700x1280", "multiples of 32"),
        ("prepare . --out x", "holds no video"),
        ("cache .", "holds no clips.jsonl; make clips with comovi-train prepare"),
        ("cache . --check", "is no cache"),
        ("data export . --out x.json", "holds no clips.jsonl"),
        ("curate . --out x --rule beauty:1", "unknown score 'beauty'"),
        ("example x --count 0", "at least 1"),
    ],
)
def test_bad_input_is_one_sentence_and_status_two(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []  # nothing half-made is left
