"""Calls a script of checks in ComfyUI's own Python and reads what it found."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import comfyui_comovi
import pytest

PACKAGE = Path(comfyui_comovi.__file__).parent


def run_checks(servers, role: str, script: str, *extra: str) -> dict:
    """What `script` of this folder prints, for the ComfyUI of that role ("new" or "old"), and the role."""
    install = servers.install(role)
    done = subprocess.run(
        [str(install.python), "-W", "ignore", str(Path(__file__).with_name(script)), str(install.home), str(PACKAGE),
         *extra],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=install.home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(done.stdout.splitlines()[-1]), "role": role}


def figures(checks: dict, name: str) -> dict:
    """Those of one check; the test fails with what it raised, where it raised."""
    result = checks[name]
    if isinstance(result, dict) and isinstance(result.get("error"), str) and result["error"]:
        pytest.fail(result["error"], pytrace=False)
    return result
