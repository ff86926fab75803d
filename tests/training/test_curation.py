"""Curation: scenes, scores and rules; two runners with one result; a stopped run goes on; poison is set aside."""

import importlib.util
import json
import os
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.video import write_video
from comfyui_comovi.training.curation import command
from comfyui_comovi.training.curation.command import LIST, QUARANTINE, curate, parse_rule
from comfyui_comovi.training.curation.records import Segment, read_segments, write_segments
from comfyui_comovi.training.curation.stages import CurateSettings, Rule, find_cuts, measure, split
from comfyui_comovi.training.data.prepare import find_jobs, prepare
from comfyui_comovi.training.data.timing import even_timeline
from data_parts import SETTINGS, numbered_pictures, numbered_video

SMALL = CurateSettings(frames=33)
WITH_RAY = importlib.util.find_spec("ray") is not None


def scenes(folder, name, seconds, fps=24):
    """Dark and light scenes in turn, in which a bright square goes its way."""
    pictures = []
    for number, length in enumerate(seconds):
        for index in range(int(length * fps)):
            picture = np.full((64, 96, 3), 40 if number % 2 == 0 else 190, np.uint8)
            picture[20:44, index % 70 : index % 70 + 24] = 255
            pictures.append(picture)
    write_video(folder / f"{name}.mp4", pictures, fps)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    scenes(folder, "cut", (2.5, 1.0, 4.5))
    scenes(folder, "plain", (4.5,), fps=30)
    scenes(folder, "tiny", (0.5,))
    still = np.full((100, 64, 64, 3), 90, np.uint8)
    write_video(folder / "still.mp4", still, 24)
    (folder / "poison.mp4").write_bytes((folder / "plain.mp4").read_bytes()[:700])
    return folder


def test_segments_follow_scenes_and_poison_is_set_aside(raw, tmp_path):
    made = curate(raw, tmp_path / "out", SMALL, workers=2)
    starts = {(one.video_id, one.number): one.start for one in made.segments}
    assert starts == {
        ("cut", 0): "0", ("cut", 1): "7/2",  # not in the scene of one second, nor across a cut
        ("plain", 0): "0", ("plain", 1): "33/16", ("still", 0): "0", ("still", 1): "33/16",
    }  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "out" / QUARANTINE).read_text().splitlines()]
    assert [row["id"] for row in rows] == ["poison", "tiny"]
    assert "is it a complete file?" in rows[0]["reason"] and "no scene of tiny.mp4 lasts 2 s" in rows[1]["reason"]
    assert read_segments(tmp_path / "out" / LIST) == list(made.segments)


def test_rules_drop_by_name_and_scores_are_noted_without_them(raw, tmp_path):
    noted = curate(raw, tmp_path / "noted", SMALL).segments
    assert all(one.kept for one in noted)
    movement = {one.video_id: one.scores["movement"] for one in noted}
    assert movement["still"] < 1e-3 < movement["plain"]
    ruled = curate(raw, tmp_path / "ruled", replace(SMALL, rules=(Rule("still", most=0.5),))).segments
    assert {one.video_id for one in ruled if not one.kept} == {"still"}
    assert "still is 1, wanted is at most 0.5" in next(one.dropped for one in ruled if not one.kept)


def test_a_run_that_was_killed_goes_on(raw, tmp_path, monkeypatch):
    calls = []

    def tripping(item, settings):
        calls.append(item.id)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(item, settings)

    real = command.curate_video
    monkeypatch.setattr(command, "curate_video", tripping)
    with pytest.raises(KeyboardInterrupt):
        curate(raw, tmp_path / "out", SMALL)
    assert not (tmp_path / "out" / LIST).exists()
    again = curate(raw, tmp_path / "out", SMALL)
    assert calls == ["cut", "plain", "poison", "poison", "still", "tiny"]  # what was finished is not done again
    straight = curate(raw, tmp_path / "straight", SMALL)
    assert again.segments == straight.segments and again.refused == straight.refused


@pytest.mark.skipif(not WITH_RAY, reason="Ray is not installed (extra [curate])")
@pytest.mark.skipif(not os.environ.get("COMOVI_TRAINING_TESTS"), reason="starts a Ray cluster: make test-training")
def test_the_ray_runner_writes_the_same_files(raw, tmp_path):
    for runner in ("local", "ray"):
        curate(raw, tmp_path / runner, SMALL, runner=runner, workers=2)
    for name in (LIST, QUARANTINE):
        one, two = ((tmp_path / runner / name).read_bytes() for runner in ("local", "ray"))
        assert one == two and one


def test_without_ray_the_ray_runner_says_what_to_install(raw, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ComoviError, match=r"needs Ray .*pip install 'comfyui-comovi\[curate\]'"):
        curate(raw, tmp_path / "out", SMALL, runner="ray")


def test_prepare_makes_clips_of_what_was_kept(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    motion = numbered_video(folder, "walk", 24, 6.4)
    pictures = numbered_pictures(len(motion)) // 5  # bands of black and white in turn would be cuts
    write_video(folder / "walk.mp4", pictures, 24)
    curated = curate(folder, tmp_path / "curated", replace(SMALL, clips_per_video=0))
    assert len(curated.segments) == 3
    made = prepare(tmp_path / "curated" / LIST, tmp_path / "data", SETTINGS)
    assert [clip.id for clip in made.clips] == ["walk-00", "walk-01", "walk-02"]
    assert made.clips[1].source_index[0] == 49  # 49.5, of two frames as near the earlier


def listed(folder, **changes):
    """A list of two segments of one video."""
    for suffix in (".mp4", ".npz"):
        (folder / f"walk{suffix}").write_text("x")
    segment = Segment(folder / "walk.mp4", "walk", 0, "0", 33, "16", ("she walks",))
    other = replace(segment, number=1, start="3", text=("she runs",))
    return write_segments(folder / LIST, [replace(segment, **changes), other])


def test_every_segment_keeps_its_own_sentence(tmp_path):
    jobs, _ = find_jobs(listed(tmp_path), SETTINGS, tmp_path / "clips")
    assert [job.texts for job in jobs] == [(("she walks",), ("she runs",))]


def test_a_sentence_may_hold_any_sign(tmp_path):
    jobs, _ = find_jobs(listed(tmp_path, text=("she walks\u2028and waves\x85",)), SETTINGS, tmp_path / "clips")
    assert jobs[0].texts[0] == ("she walks\u2028and waves\x85",)


def test_clips_longer_than_their_segments_are_refused(tmp_path):
    with pytest.raises(ComoviError, match=r"segments of 17 frames at 16 .* curate with --frames 33 --fps 16"):
        find_jobs(listed(tmp_path, frames=17), SETTINGS, tmp_path / "clips")


def test_segments_that_make_no_sense_are_refused():
    with pytest.raises(ComoviError, match="at least 2 frames"):
        CurateSettings(frames=0)


def test_a_gradual_or_busy_picture_is_no_cut():
    rng = np.random.default_rng(0)
    fade = np.linspace(0, 1, 60)[:, None, None] * np.ones((60, 12, 20))
    assert find_cuts(fade) == []
    assert find_cuts(rng.random((60, 12, 20))) == []  # every change is large, none stands out
    fade[30:] = 0.1
    assert find_cuts(fade) == [30]


def test_segments_never_cross_a_cut():
    time = even_timeline(480, Fraction(24))
    starts = split(time, [100, 260], 33, Fraction(16), 0)
    spans = [(int(start * 24), int((start + 2) * 24)) for start in starts]
    assert len(spans) == 2 + 3 + 4
    assert not any(first < cut <= last for first, last in spans for cut in (100, 260))
    assert split(time, [100, 260], 33, Fraction(16), 2) == starts[:2]


def test_scores_know_a_still_from_a_moving_picture():
    pictures = numbered_pictures(33)[..., 0].astype(np.float32) / 255
    moving, still = measure(pictures), measure(np.repeat(pictures[:1], 33, 0))
    assert moving["movement"] > 0.01 and still["movement"] == 0
    assert moving["still"] == 0 and still["still"] == 1


def test_rules_are_read_and_misspelt_ones_refused():
    assert parse_rule("movement:0.004") == Rule("movement", least=0.004)
    assert parse_rule("still::0.5") == Rule("still", most=0.5)
    assert parse_rule("people:1:1") == Rule("people", 1, 1)
    for text, words in (("movement", "score:least:most"), ("beauty:1", "unknown score 'beauty'"), ("still:x", "got")):
        with pytest.raises(ComoviError, match=words):
            parse_rule(text)
    with pytest.raises(ComoviError, match="--find-people"):
        CurateSettings(rules=(Rule("people", 1, 1),))


def test_other_settings_in_the_same_folder_are_refused_by_name(raw, tmp_path):
    curate(raw, tmp_path / "out", SMALL)
    with pytest.raises(ComoviError, match="clips_per_video = 2, and now it is 1"):
        curate(raw, tmp_path / "out", replace(SMALL, clips_per_video=1))
