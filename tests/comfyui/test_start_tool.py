"""`make comfyui`: a ComfyUI with this pack, the browser on the first workflow, and nothing written into ComfyUI."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.parse

import pytest
from comfy_server import PACKAGE, client_module, default_flags

TOOL = PACKAGE / "tools" / "start_comfyui.py"
pytestmark = [
    pytest.mark.skipif(not TOOL.exists(), reason="runs in a checkout only"),
    pytest.mark.skipif(sys.platform == "win32", reason="the browser of this test is a shell script"),
]


def test_it_opens_the_browser_on_the_quick_start(comfyui_servers, tmp_path):
    install = comfyui_servers.install("new")
    opened, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > "{opened}"\n')
    browser.chmod(0o755)
    before = sorted(path.name for path in (install.home / "custom_nodes").iterdir())
    environment = {**os.environ, "COMFYUI_PATH": str(install.home), "BROWSER": f"{browser} %s"}
    flags = [*default_flags(), "--base-directory", str(tmp_path), "--database-url", "sqlite:///:memory:"]
    (tmp_path / "custom_nodes").mkdir()
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, str(TOOL), *flags, "--disable-api-nodes"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            until = time.monotonic() + 180
            while not (opened.exists() and opened.read_text().strip()):
                assert process.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()[-3000:]
                time.sleep(0.2)
            url = urllib.parse.urlsplit(opened.read_text().strip())
            assert url.query == "template=quick_start_nano&source=ComfyUI-CoMoVi"
            client = client_module.Client(url.netloc)
            assert "quick_start_nano" in client.get("/api/workflow_templates")["ComfyUI-CoMoVi"]
            assert "CoMoVi_LoadModel" in client.get("/object_info/CoMoVi_LoadModel")
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal
            process.wait(30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0
    assert sorted(path.name for path in (install.home / "custom_nodes").iterdir()) == before
    with pytest.raises(client_module.ClientError):
        client.get("/system_stats")


def test_it_says_where_it_looked(tmp_path):
    environment = {**os.environ, "COMFYUI_PATH": str(tmp_path / "nowhere")}
    run = subprocess.run([sys.executable, str(TOOL)], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 2 and f"COMFYUI_PATH={tmp_path / 'nowhere'}: no ComfyUI there" in run.stderr
