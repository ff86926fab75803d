"""Preparing and caching, killed at random moments: what comes out in the end is what a straight run makes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import comfyui_comovi
import pytest
import torch
from comfyui_comovi.training.batch import Draw
from comfyui_comovi.training.cli import main
from comfyui_comovi.training.data.dataset import CachedClips
from comfyui_comovi.training.data.example import make_example

pytestmark = pytest.mark.skipif(
    not os.environ.get("COMOVI_TRAINING_TESTS"), reason="takes a minute: make test-training"
)
KILLS = 8


def process(words):
    """`comovi-train` on the code under test, in a session of its own so that its workers die with it."""
    root = os.path.dirname(comfyui_comovi.__file__)
    load = (
        "import sys, importlib.util as u\n"
        f"s = u.spec_from_file_location('comfyui_comovi', {os.path.join(root, '__init__.py')!r},"
        f" submodule_search_locations=[{root!r}])\n"
        "m = u.module_from_spec(s); sys.modules['comfyui_comovi'] = m; s.loader.exec_module(m)\n"
        "from comfyui_comovi.training.cli import main\nsys.exit(main())"
    )
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # sums of convolutions round differently over two
    return subprocess.Popen([sys.executable, "-c", load, *words], start_new_session=True, env=one_thread, **quiet)


def test_a_run_that_is_killed_again_and_again_ends_like_a_straight_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    make_example("videos", 6)
    common = ["--preset", "nano", "--cache", "--workers", "1"]
    begun = time.monotonic()
    assert main(["prepare", "videos", "--out", "straight", *common]) == 0
    whole = time.monotonic() - begun

    chance = random.Random(4)
    for _ in range(KILLS):
        run = process(["prepare", "videos", "--out", "killed", *common])
        time.sleep(chance.uniform(0.2, 1.0) * whole)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert main(["prepare", "videos", "--out", "killed", *common]) == 0

    assert not list((tmp_path / "killed").rglob("*.tmp-*"))  # what kills left behind is cleared away
    assert (tmp_path / "killed/clips.jsonl").read_text() == (tmp_path / "straight/clips.jsonl").read_text()
    one, two = (CachedClips(tmp_path / name / "cache") for name in ("straight", "killed"))
    a, b = (source.read(range(6), Draw(0, 0, 0, 0, 1)) for source in (one, two))
    assert a.names == b.names and a.sentences == b.sentences
    for name in ("video", "motion", "text", "pose", "betas"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
