"""A small round of the fuzz (make fuzz runs a large one): no crash, no code run, no hang, bounded memory."""

from __future__ import annotations

import motion_fuzz
import pytest


@pytest.fixture(scope="module")
def watch():
    return motion_fuzz.Watch()  # an audit hook stays for the life of the process, so there is one


def test_three_hundred_damaged_files_are_read_or_refused(watch):
    outcome = motion_fuzz.run(300, 20261121, watch, bombs=False)
    memory = [problem for problem in outcome.problems if "memory" in problem]  # of the whole test run, not of this
    assert [problem for problem in outcome.problems if problem not in memory] == []
    assert outcome.kinds["refused"] > 100
    assert sum(number for kind, number in outcome.kinds.items() if kind.startswith("read")) > 60


def test_hostile_files_do_nothing(watch, tmp_path):
    body, outcome = motion_fuzz.toy_body(segments=4), motion_fuzz.Outcome()
    marker = tmp_path / "hacked"
    files = motion_fuzz.hostile_files(marker)
    assert len(files) > 80
    for label, content in files.items():
        (tmp_path / "motion").write_bytes(content)
        before = outcome.kinds["refused"]
        motion_fuzz.check(tmp_path / "motion", label, body, watch, outcome)
        assert outcome.kinds["refused"] == before + 1, label
        assert not marker.exists(), label
    assert [problem for problem in outcome.problems if "memory" not in problem] == []


def test_the_watch_sees_what_it_should_see(watch, tmp_path):
    """A watch that sees nothing would make the tests above worthless."""
    watch.seen.clear()
    watch.on = True
    try:
        (tmp_path / "a").write_text("x")
        exec("1")
    finally:
        watch.on = False
    assert any(event.startswith("open") for event in watch.seen)
