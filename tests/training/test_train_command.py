"""The command `comovi-train`: what it answers, and how it starts and ends several processes."""

from __future__ import annotations

import sys
import time

import pytest
from comfyui_comovi.training import processes
from comfyui_comovi.training.cli import VERBS, main
from comfyui_comovi.training.config_file import load_config, write_resolved


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--config", "nothing"], "no settings are called 'nothing'"),
        (["train", "--config", "nano", "--set", "optim.lrr=1"], "did you mean optim.lr?"),
        (["train", "--config", "nano", "--set", "engine.kind=single"], "data.train is empty"),
        (["resume", "nowhere"], "does not exist"),
        (["eval", "table", "nowhere"], "does not exist"),
        (["example", "nowhere", "--seconds", "0"], "must last at least 0.1 s"),
        (["plan", "--gpus-per-host", "0"], "--gpus-per-host is 0"),
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


def test_processes_do_not_start_processes(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "--config", "nano", "--processes", "2"]) == 2
    assert "under torchrun or Slurm leave it out" in capsys.readouterr().err


def test_an_option_that_is_cut_short_is_refused():
    with pytest.raises(SystemExit):  # --proc 2 would be handed on to every process, and each would start two more
        main(["train", "--config", "nano", "--proc", "2"])


def test_a_run_may_have_a_number_for_a_name(tmp_path, capsys):
    write_resolved(load_config("tiny_cpu", [f"run.out={tmp_path}"]), tmp_path / "2024")
    assert main(["resume", str(tmp_path / "2024")]) == 2
    assert "has no complete checkpoint" in capsys.readouterr().err


def test_every_process_tells_what_only_it_knows(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("RANK", "3")
    assert main(["cache", str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["resume", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err == ""


def test_the_started_command_is_the_typed_one_without_its_number_of_processes():
    typed = ["train", "--processes", "2", "--config", "nano", "--processes=2", "--set", "run.name=a"]
    assert processes._without_processes(typed) == ["train", "--config", "nano", "--set", "run.name=a"]
