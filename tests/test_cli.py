"""The command answers at once, explains itself, and its exit status can be relied on."""

from __future__ import annotations

import io
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_comovi import __version__, cli
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.images import write_image

VERBS = ["demo", "generate", "info", "map", "convert", "clean", "show", "doctor", "verify", "evaluate"]


def help_of(capsys, *argv):
    assert cli.main([*argv, "--help"]) == 0
    return capsys.readouterr().out


def test_help_names_every_verb_and_shows_examples(capsys):
    text = help_of(capsys)
    assert all(f"\n  comovi {verb}" in text for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(capsys, verb):
    assert f"comovi {verb}" in help_of(capsys, verb)
    assert "examples:\n  comovi " + verb in help_of(capsys, verb)


def test_every_example_in_a_help_is_a_valid_command():
    for line in (line for examples in cli.VERB_EXAMPLES.values() for line in examples):
        assert cli.build_parser().parse_args(shlex.split(line)[1:])


@pytest.mark.skipif(os.name != "posix", reason="needs the processor time of children")
def test_help_is_instant(comovi_process):
    """Processor time, because a busy machine makes everything late; measured 50 ms, most of it Python itself."""
    before = os.times()
    assert subprocess.run(comovi_process("--help"), capture_output=True, check=False).returncode == 0
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.5


def test_version_is_printed(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"comovi {__version__}"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "VERB"),
        (["dance"], "invalid choice: 'dance'"),
        (["demo", "--seed", "one"], "--seed: expected a whole number"),
        (["demo", "--seed", "-1"], "--seed: expected a whole number"),
        (["demo", "--seed", str(2**63)], "--seed: expected a whole number"),
        (["demo", "--steps", "0"], "--steps: expected a whole number from 1 to 1000"),
        (["demo", "--steps", "1e9"], "--steps"),
        (["demo", "--guidance", "nan"], "--guidance: expected a number from 0 to 30"),
        (["demo", "--guidance", "inf"], "--guidance"),
        (["demo", "--prompt"], "--prompt: expected one argument"),
        (["demo", "--colour", "red"], "--colour red"),
        (["generate"], "--prompt"),
        (["info"], "FILE"),
        (["map", "a.npz"], "--out"),
        (["map", "a.npz", "--out", "b", "--size", "704"], "expected WIDTHxHEIGHT"),
        (["map", "a.npz", "--out", "b", "--size", "0x9"], "expected WIDTHxHEIGHT"),
        (["map", "a.npz", "--out", "b", "--size", "99999x99999"], "expected WIDTHxHEIGHT"),
        (["map", "a.npz", "--out", "b", "--shading", "toon"], "invalid choice: 'toon'"),
        (["verify"], "FILE"),
        (["evaluate", "giant"], "invalid choice: 'giant'"),
        (["evaluate", "nano", "--count", "0"], "--count: expected a whole number from 1"),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_status_2(capsys, argv, words):
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("comovi: ")
    assert captured.err.count("\n") == 1
    assert words in captured.err


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (ComoviError("frame 3\nis odd."), 2, "comovi: frame 3 is odd.\n"),
        (KeyboardInterrupt(), 130, "comovi: stopped; nothing was left half-written.\n"),
        (MemoryError(), 2, "not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory."), 2, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "not enough memory"),
        (OSError(28, "No space left on device", "out.mp4"), 2, "out.mp4: the disk is full"),
    ],
)
def test_every_kind_of_failure_has_its_sentence_and_status(capsys, monkeypatch, error, status, words):
    def fail():
        raise error

    monkeypatch.setattr("comfyui_comovi.comovi_model.doctor.examine", fail)
    assert cli.main(["doctor"]) == status
    assert words in capsys.readouterr().err


def test_our_own_mistakes_keep_their_traceback(monkeypatch):
    monkeypatch.setattr("comfyui_comovi.comovi_model.doctor.examine", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor"])


def test_doctor_reports_libraries_devices_back_ends_and_assets(capsys):
    assert cli.main(["doctor"]) in (0, 1)
    text = capsys.readouterr().out
    for title in ("This machine", "Libraries", "Devices", "Back ends", "Assets", "ComfyUI"):
        assert f"\n{title}\n" in f"\n{text}"
    assert "nvdiffrast" in text
    shipped = Path(cli.__file__).parent.glob("comovi_model/assets/*.safetensors")
    assert [path.name for path in shipped if path.name not in text] == []


def test_a_reader_that_stops_early_is_no_error(comovi_process):
    process = subprocess.Popen(comovi_process("--help"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_a_sentence(comovi_process, tmp_path):
    write_image(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8))
    with open("/dev/full", "w") as full:
        run = subprocess.run(comovi_process("info", tmp_path / "a.png"), stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 2
    assert run.stderr == "comovi: cannot use its output: the disk is full; free some space or choose another folder.\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_kill_stop_with_one_line_and_status_130(number, comovi_process):
    code = "import time, comfyui_comovi.comovi_model.doctor as d\ndef wait():\n    print('up', flush=True)\n"
    code += "    time.sleep(60)\nd.examine = wait\n"
    process = subprocess.Popen(
        comovi_process("doctor", before=code), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "comovi: stopped; nothing was left half-written.\n")


def test_names_that_the_console_cannot_show_are_spelled_out(tmp_path, monkeypatch):
    path = write_image(tmp_path / "\u52d5.png", np.zeros((4, 6, 3), np.uint8))
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")  # what a redirected console of Windows has
    monkeypatch.setattr(sys, "stdout", pipe)
    assert cli.main(["info", str(path)]) == 0
    assert b"\\u52d5.png" in pipe.buffer.getvalue() and b"6x4 pixels" in pipe.buffer.getvalue()
