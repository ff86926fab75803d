"""The command `comovi-train`: what it answers, and how it starts and ends several processes."""

from __future__ import annotations

import sys
import time

import pytest
from comfyui_comovi.training import processes
from comfyui_comovi.training.cli import VERBS, main


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--config", "nothing"], "no settings are called 'nothing'"),
        (["train", "--config", "nano", "--set", "optim.lrr=1"], "did you mean optim.lr?"),
        (["train", "--config", "nano", "--set", "engine.kind=single"], "data.train is empty"),
        (["resume", "nowhere"], "does not exist"),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments, words, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    assert left.value.code == 0
    assert f"comovi-train {verb}" in capsys.readouterr().out


def test_when_one_process_fails_the_others_are_ended(monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.2)
    code = "import os, sys, time; time.sleep(60 * int(os.environ['RANK'])); sys.exit(3)"
    begin = time.monotonic()
    group = processes.start_processes(2, [sys.executable, "-c", code])
    assert processes._wait(group) == 3
    assert [process.poll() is not None for process in group] == [True, True]
    assert time.monotonic() - begin < 50


def test_processes_are_told_where_they_are():
    places = [processes.environment(rank, 2, 1234) for rank in (0, 1)]
    assert [place["RANK"] for place in places] == ["0", "1"]
    assert {place["WORLD_SIZE"] for place in places} == {"2"}


def test_the_started_command_is_the_typed_one_without_its_number_of_processes():
    typed = ["train", "--processes", "2", "--config", "nano", "--processes=2", "--set", "run.name=a"]
    assert processes._without_processes(typed) == ["train", "--config", "nano", "--set", "run.name=a"]
