"""kill -9 at random moments of a run over two processes, ZeRO-3 with offload: `comovi-train kill-test` does more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from comfyui_comovi.training.kill_test import SETTINGS, survive
from comfyui_comovi.training.processes import environment, free_port

pytestmark = pytest.mark.skipif(
    not os.environ.get("COMOVI_TRAINING_TESTS"), reason="takes a minute or two: make test-training"
)


def test_a_run_survives_kills_to_the_bit(tmp_path):
    pytest.importorskip("deepspeed")
    worker = str(Path(__file__).with_name("engine_jobs.py"))

    def group(name: str, start: Path | None) -> list[subprocess.Popen]:
        job = {"name": name, "set": [*SETTINGS, "run.max_steps=16"]} | ({"start": str(start)} if start else {})
        command, port = [sys.executable, worker, str(tmp_path), json.dumps([job])], free_port()
        return [
            subprocess.Popen(command, env={**environment(rank, 2, port), "OMP_NUM_THREADS": "1"}) for rank in (0, 1)
        ]

    said: list[str] = []
    survive(group, tmp_path, 3, 5, said.append)
    assert "3 kills survived" in said[-1]
