"""`comovi-train eval`: from files to a table: random embeddings, a published evaluator's files, VBench."""

import json
import pickle
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.nano.people import load_nano_body
from comfyui_comovi.comovi_model.nano.scene import sample_scene
from comfyui_comovi.training.cli import main
from comfyui_comovi.training.eval.captions import Caption, read_captions
from comfyui_comovi.training.eval.embedders import TAGS, PublishedEmbedder, RandomEmbedder, tag_number
from comfyui_comovi.training.eval.matching_network import MatchingNetwork
from comfyui_comovi.training.eval.motion_eval import evaluate_motions, features_of_file
from comfyui_comovi.training.eval.video_eval import DIMENSIONS, evaluate_videos

CLIPS = 5


def write_motions(folder: Path, first_seed: int) -> None:
    folder.mkdir()
    body = load_nano_body()
    for number in range(CLIPS):
        scene = sample_scene(first_seed + number, body)
        rotations, transl = scene.camera_motion(body)
        motion = BodyMotion(
            torch.from_numpy(rotations).float(), torch.zeros(10), torch.from_numpy(transl).float(), fps=16.0
        )
        motion.save(folder / f"clip{number}.npz")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    write_motions(folder / "real", 920_000_000)
    write_motions(folder / "other", 930_000_000)
    lines = [
        json.dumps({"id": f"clip{i}", "text": [f"a person does number {i}", "someone moves"]}) for i in range(CLIPS)
    ]
    (folder / "clips.jsonl").write_text("\n".join(lines))
    return folder


def results_of(place, generated, *more):
    out = place / "results.json"
    assert main(["eval", "motion", str(place / generated), "--real", str(place / "real"), "--captions",
                 str(place / "clips.jsonl"), "--repeats", "3", "--out", str(out), *more]) == 0  # fmt: skip
    return json.loads(out.read_text())


def test_real_motions_have_no_distance_to_themselves_and_others_have(place, capsys):
    same = results_of(place, "real")
    assert same["generated"]["fid"]["mean"] == pytest.approx(0, abs=1e-6)
    assert same["comparable"] is False and same["pool"] == CLIPS and same["clips"] == CLIPS
    table = capsys.readouterr().out
    assert "| CoMoVi | 0.349 |" in table and "NOT comparable" in table
    assert results_of(place, "other")["generated"]["fid"]["mean"] > 0.01
    assert main(["eval", "table", str(place / "results.json")]) == 0
    assert "| this run |" in capsys.readouterr().out


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory):
    """A folder as users have it, with random numbers."""
    folder = tmp_path_factory.mktemp("evaluator")
    torch.manual_seed(0)
    network = MatchingNetwork()
    torch.save(
        {name: part.state_dict() for name, part in network.named_children()} | {"epoch": 3}, folder / "finest.tar"
    )
    np.save(folder / "mean.npy", np.zeros(263))
    np.save(folder / "std.npy", np.ones(263))
    words = ["unk", "sos", "eos", "person", "walk"]
    np.save(folder / "our_vab_data.npy", np.random.default_rng(0).standard_normal((len(words), 300)))
    (folder / "our_vab_words.pkl").write_bytes(pickle.dumps(words))
    (folder / "our_vab_idx.pkl").write_bytes(pickle.dumps({word: i for i, word in enumerate(words)}))
    return folder


def test_the_published_evaluator_reads_tagged_captions(place, evaluator):
    texts = place / "texts"
    texts.mkdir(exist_ok=True)
    for number in range(CLIPS):
        line = f"a person walks {number}#a/DET person/NOUN walk/VERB#0.0#0.0"
        (texts / f"clip{number}.txt").write_text(line + "\n")
    out = place / "published.json"
    assert main(["eval", "motion", str(place / "other"), "--real", str(place / "real"), "--captions", str(texts),
                 "--evaluator", str(evaluator), "--repeats", "2", "--out", str(out)]) == 0  # fmt: skip
    results = json.loads(out.read_text())
    assert results["embedder"].startswith("humanml3d:") and results["comparable"] is False  # no skeleton to rescale to
    assert results["real"]["r1"]["mean"] <= results["real"]["r3"]["mean"] <= 1


def test_words_with_tags_of_their_own_keep_them():
    assert TAGS[tag_number("walk", "VERB")] == "Act" and TAGS[tag_number("left", "ADJ")] == "Loc"
    assert TAGS[tag_number("person", "NOUN")] == "NOUN" and TAGS[tag_number("person", "SYM")] == "OTHER"


class Evil:
    def __reduce__(self):
        return (Path("/tmp/executed-by-a-pickle").touch, ())


def test_hostile_and_missing_files_are_refused_in_one_sentence(evaluator, tmp_path):
    for path in evaluator.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "our_vab_idx.pkl").write_bytes(pickle.dumps({"unk": Evil()}))
    with pytest.raises(ComoviError, match="refused"):
        PublishedEmbedder(tmp_path)
    torch.save({"movement_encoder": Evil()}, tmp_path / "finest.tar")
    with pytest.raises(ComoviError, match="plain tensors"):
        PublishedEmbedder(tmp_path)
    (tmp_path / "std.npy").unlink()
    with pytest.raises(ComoviError, match=r"lacks std\.npy"):
        PublishedEmbedder(tmp_path)
    assert not Path("/tmp/executed-by-a-pickle").exists()
    (tmp_path / "bad.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(ComoviError, match="line 1"):
        read_captions(tmp_path / "bad.jsonl")


def other_python(folder: Path, source: str) -> Path:
    """An interpreter in whose environment a package `vbench` is installed."""
    package = folder / "site" / "vbench"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(source)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder / "site"}" exec "{sys.executable}" "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IEXEC)
    return python


WRITES = """
import json, os
class VBench:
    def __init__(self, device, info, out): self.out = out
    def evaluate(self, videos_path, name, dimension_list, mode):
        assert mode == "custom_input"
        rows = [{"video_path": os.path.join(videos_path, v), "video_results": 0.5} for v in os.listdir(videos_path)]
        with open(os.path.join(self.out, name + "_eval_results.json"), "w") as file:
            json.dump({d: [0.25, rows] for d in dimension_list}, file)
"""


def test_vbench_runs_with_its_own_python_and_its_failures_are_told(tmp_path, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "a.mp4").write_bytes(b"")
    python = other_python(tmp_path / "good", WRITES)
    assert main(["eval", "video", str(videos), "--python", str(python), "--out", str(tmp_path / "v.json")]) == 0
    results = json.loads((tmp_path / "v.json").read_text())
    assert set(results["generated"]) == set(DIMENSIONS)
    assert results["generated"]["imaging_quality"] == {"mean": 0.25, "videos": {"a": 0.5}}
    assert "| this run | 0.250" in capsys.readouterr().out
    broken = other_python(tmp_path / "broken", "raise RuntimeError('no weights here')")
    with pytest.raises(ComoviError, match="no weights here"):
        evaluate_videos(videos, broken)
    with pytest.raises(ComoviError, match="cannot be started"):
        evaluate_videos(videos, tmp_path / "nowhere")
    with pytest.raises(ComoviError, match="holds no videos"):
        evaluate_videos(tmp_path, python)


def test_vbench_s_python_may_be_named_from_where_one_is(tmp_path, monkeypatch):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"")
    python = other_python(tmp_path / "good", WRITES)
    monkeypatch.chdir(tmp_path)
    assert evaluate_videos(Path("videos"), python.relative_to(tmp_path))["clips"] == 1


def test_captions_of_a_part_are_not_captions_of_the_clip(tmp_path):
    lines = (
        "a man walks#a/DET man/NOUN walk/VERB#0.0#0.0\nhe turns#he/PRON turn/VERB#2.5#4.0\nhe sits#sit/VERB#nan#nan\n"
    )
    (tmp_path / "a.txt").write_text(lines)
    assert [caption.text for caption in read_captions(tmp_path)["a"]] == ["a man walks", "he sits"]
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ComoviError, match="not text in UTF-8"):
        read_captions(tmp_path)


def test_a_file_that_is_no_array_is_a_sentence(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"nothing")
    with pytest.raises(ComoviError, match="is no array of numbers"):
        features_of_file(tmp_path / "a.npy", None, None)


def test_a_short_motion_is_left_out_whichever_set_it_is_in():
    rng = np.random.default_rng(0)
    real = {name: rng.standard_normal((60, 263)) for name in "abc"}
    made = {name: rng.standard_normal((60, 263)) for name in "abc"}
    real["a"], made["b"] = real["a"][:9], made["b"][:9]
    told = {name: [Caption("a person walks")] for name in "abc"}
    results = evaluate_motions(made, real, told, RandomEmbedder(), repeats=1)
    assert (results["clips"], results["real_clips"], results["left_out"]) == (2, 2, 2)


def test_the_doctor_says_what_is_missing(evaluator, capsys):
    assert main(["eval", "doctor", "--evaluator", str(evaluator)]) == 0
    said = capsys.readouterr().out
    assert "there   finest.tar" in said and "missing target_skeleton.npy" in said and "motion_smoothness" in said
