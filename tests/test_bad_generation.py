"""Broken input to demo, generate, verify and evaluate: one clear sentence, exit status 2, nothing half-written."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_files import Cases, Hostile, assert_refused, put, weights

case = Cases()
GOLDEN = Path(__file__).parent / "golden"


def demo(d: Path, *more, out: str = "out") -> list:
    return ["demo", "--out", d / out, "--steps", "1", *more]


# --- demo and generate; more in test_bad_input_demo.py -------------------------------------------------------------


@case("is not a picture")
def a_video_as_first_frame(d):
    return demo(d, "--first-frame", put(d / "frame.mp4", b"\0\0\0\x1cftypisom" + bytes(200)))


@case("no.png")
def a_first_frame_without_pixels(d):
    ihdr = b"IHDR" + bytes(8) + b"\x08\x02\0\0\0"
    chunk = (13).to_bytes(4, "big") + ihdr + zlib.crc32(ihdr).to_bytes(4, "big")
    return demo(d, "--first-frame", put(d / "no.png", b"\x89PNG\r\n\x1a\n" + chunk))


@case("bomb.png")
def a_first_frame_of_a_billion_pixels(d):
    """A PNG header that promises 30000 x 30000 pixels and ends."""
    ihdr = b"IHDR" + (30000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    chunk = (13).to_bytes(4, "big") + ihdr + zlib.crc32(ihdr).to_bytes(4, "big")
    return demo(d, "--first-frame", put(d / "bomb.png", b"\x89PNG\r\n\x1a\n" + chunk))


@case("damaged or foreign file")
def a_hostile_first_pose(d):
    np.savez(d / "pose.npz", global_orient=np.array([Hostile()], dtype=object))
    return demo(d, "--first-pose", d / "pose.npz")


@case("/proc/comovi")
def a_result_folder_where_nobody_may_write(d):
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc")
    return ["demo", "--out", "/proc/comovi"]


def generate(d: Path, model: Path) -> list:
    return ["generate", "--prompt", "a person jumps", "--out", d / "out", "--model", model]


@case("is cut off")
def a_truncated_model(d):
    path = weights(d / "nano.safetensors")
    return generate(d, put(path, path.read_bytes()[:-7]))


@case("can run any program")
def a_hostile_model(d):
    torch.save({"a": torch.zeros(2), "b": Hostile()}, d / "model.pt")
    return generate(d, d / "model.pt")


# --- golden files ---------------------------------------------------------------------------------------------------


def golden(d: Path, **changes) -> list:
    """A copy of the real golden file with its description changed."""
    facts = json.loads((GOLDEN / "comovi_tiny_A.json").read_text(encoding="utf-8"))
    facts = {key: value for key, value in {**facts, **changes}.items() if value is not None}
    shutil.copy(GOLDEN / "comovi_tiny_A.safetensors", d / "g.safetensors")
    put(d / "g.json", json.dumps(facts))
    return ["verify", d / "g.safetensors"]


@case("is not a .safetensors file")
def a_golden_description_alone(d):
    return ["verify", put(d / "g.json", "{}")]


@case("has no g.json beside it")
def a_golden_file_without_description(d):
    return ["verify", weights(d / "g.safetensors")]


@case("is not valid JSON")
def a_golden_description_that_is_broken(d):
    put(d / "g.json", '{"kind": "comovi", ')
    return ["verify", weights(d / "g.safetensors")]


@case("is of kind 'poetry'")
def a_golden_file_of_unknown_kind(d):
    return golden(d, kind="poetry")


@case("holds no results to compare with")
def a_golden_file_of_foreign_tensors(d):
    argv = golden(d)
    weights(d / "g.safetensors")
    return argv


@case("damaged or incomplete golden file")
def a_golden_file_without_tolerances(d):
    return golden(d, tolerances=None)


@case("is cut off")
def a_truncated_golden_file(d):
    argv = golden(d)
    put(d / "g.safetensors", (d / "g.safetensors").read_bytes()[:-100])
    return argv


# --- evaluation -----------------------------------------------------------------------------------------------------


@case("a file where a folder is needed")
def a_report_below_a_file(d):
    put(d / "file", "x")
    return ["evaluate", "nano", "--count", "1", "--json", d / "file" / "report.json"]


@case("it is a folder where a file is needed")
def a_report_that_is_a_folder(d):
    (d / "report.json").mkdir()
    return ["evaluate", "nano", "--count", "1", "--json", d / "report.json"]


# --- the statement --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", case)
def test_a_broken_input_is_one_sentence(name, tmp_path, capsys):
    make, words = case[name]
    assert_refused(capsys, tmp_path, make(tmp_path), words)
    assert not Path("/tmp/comovi_hacked").exists()
