"""The time base: nothing drifts, nothing runs at another speed, pictures and poses and map are one moment."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.training.data.poses import load_body
from comfyui_comovi.training.data.prepare import prepare
from comfyui_comovi.training.data.prepare_clip import draw
from comfyui_comovi.training.data.timing import clip_starts, even_timeline, pick, timeline
from comfyui_comovi.training.data.video import read_all, scan_video
from data_parts import RATES, SETTINGS, numbered_video, numbers_of


@pytest.mark.parametrize("rate", RATES)
def test_every_frame_of_an_hour_is_within_half_a_source_frame(rate):
    rate = Fraction(rate)
    source = even_timeline(int(3600 * rate), rate)
    for start in clip_starts(source, 81)[::100]:
        picked = pick(source, 81, start)
        off = [abs(index / rate - (start + Fraction(k, 16))) for k, index in enumerate(picked)]
        assert max(off) <= 1 / (2 * rate)
        if rate > 16:
            assert len(set(picked)) == 81  # nothing is shown twice


@pytest.mark.parametrize("rate", RATES)
def test_pictures_poses_and_map_of_a_clip_show_the_same_source_frames(rate, tmp_path):
    motion = numbered_video(tmp_path, "clip", rate, 2.0)
    made = prepare(tmp_path, tmp_path / "out", SETTINGS)
    assert made.refused == () and len(made.clips) == 1
    clip, rate = made.clips[0], Fraction(rate)

    shown = numbers_of(read_all(clip.rgb))
    assert shown == pick(even_timeline(len(motion), rate), 33) == list(clip.source_index)
    assert all(abs(index / rate - Fraction(k, 16)) <= 1 / (2 * rate) for k, index in enumerate(shown))

    stored = BodyMotion.load(clip.smpl)
    assert stored.fps == 16 and stored.source_index.tolist() == shown
    assert torch.equal(stored.rotations, motion.rotations[shown]) and torch.equal(stored.transl, motion.transl[shown])

    drawn = read_all(clip.motion)
    assert np.array_equal(drawn, draw(load_body("nano"), stored, 64, 64, SETTINGS))
    assert all((a != b).any() for a, b in pairwise(drawn))  # so equal means the same moment


def test_milliseconds_of_matroska_are_seen_through(tmp_path):
    numbered_video(tmp_path, "film", "30000/1001", 2.0, lossless=True)
    facts = scan_video(tmp_path / "film.mkv")
    assert facts.time.rate == Fraction(30000, 1001)
    assert facts.time.times[60] == Fraction(60 * 1001, 30000)


def test_an_uneven_video_is_read_by_its_own_times():
    stamps = [0, 100, 130, 160, 400, 430, 460, 1000]  # milliseconds; the person held still, the phone slowed down
    source = timeline(stamps, Fraction(1, 1000), Fraction(15))
    assert [float(time) for time in source.times] == [stamp / 1000 for stamp in stamps]
    for k, index in enumerate(pick(source, 11, fps=Fraction(10))):
        others = [abs(time - Fraction(k, 10)) for time in source.times]
        assert others[index] == min(others)


def test_times_that_do_not_rise_are_refused():
    with pytest.raises(ComoviError, match="do not rise"):
        timeline([0, 2, 1], Fraction(1, 30), Fraction(30))


def test_a_video_that_is_a_frame_too_short_says_what_to_do_and_is_held_on_request():
    five_seconds = even_timeline(150, Fraction(30))  # a clip of the released data
    with pytest.raises(ComoviError, match=r"4\.967 s after.*need 5\.000 s; --hold-last 1"):
        pick(five_seconds, 81)
    held = pick(five_seconds, 81, hold=1)
    assert held[:80] == pick(five_seconds, 80) and held[80] == 149
    with pytest.raises(ComoviError, match="need"):
        pick(even_timeline(100, Fraction(30)), 81, hold=1)


def test_clips_follow_each_other_without_overlap_or_gap():
    source = even_timeline(1000, Fraction(25))
    starts = clip_starts(source, 81)
    assert starts == [Fraction(81 * n, 16) for n in range(7)]
    assert clip_starts(source, 81, most=2) == starts[:2]
    ends = [pick(source, 81, start)[-1] for start in starts]
    begins = [pick(source, 81, start)[0] for start in starts]
    assert all(1 <= b - a <= 2 for a, b in zip(ends[:-1], begins[1:], strict=True))
