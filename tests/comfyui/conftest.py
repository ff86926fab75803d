"""Fixtures for tests against real ComfyUI servers. Nothing here is a mock.

``comfyui``        a running server; the test runs twice, on the newest ComfyUI and on the oldest supported one
``new_comfyui``    only the newest          ``old_comfyui``    only the oldest
``start_comfyui``  ``with start_comfyui("new", "--use-split-cross-attention") as server:`` a short-lived one with flags
``Graph``          builds API prompts: comfy_graph.py. ``nano``: the usual nodes of a nano prompt: nano_graph.py

A server starts on first use, serves all tests of the session and is stopped at its end: do not count on its queue,
input folder or caches being empty. Its methods and what a prompt returns: comfy_server.py (``server.run(graph)`` ->
``Result`` with ``.latent(node)``, ``.images(node)``, ``.text(node)``, ``.content(node)``, ``.previews``, ``.error``).
Write results out with stock SaveLatent and SaveImage and check the numbers.

    def test_something(comfyui, Graph):
        g = Graph()
        image = g.add("EmptyImage", width=64, height=64, batch_size=1, color=255)
        saved = g.save_images(image)
        assert comfyui.run(g).images(saved)[0, 0, 0, 2] == 1

Where ComfyUI is looked for: comovi_model/comfyui_install.py (COMFYUI_PATH, COMFYUI_OLD_PATH, ~/comfy). Where there is
none the tests skip and say so. COMFYUI_TEST_FLAGS replaces ``--cpu``, e.g. by nothing on a machine with a GPU.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import comfyui_comovi
import pytest
import torch
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.comfyui_install import Search, find_comfyui, find_old_comfyui
from comfyui_comovi.comovi_model.nano.actions import ACTION_NAMES, ActionRequest
from comfyui_comovi.comovi_model.nano.people import load_nano_body as drawn_body
from comfyui_comovi.comovi_model.nano.scene import HEIGHT, WIDTH, sample_scene

sys.path.append(str(Path(__file__).parent))

import comfy_graph
import comfy_server

CLIENT = Path(comfyui_comovi.__file__).parent / "workflows" / "comovi_client.py"
SEARCHES = {"new": find_comfyui, "old": find_old_comfyui}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-snapshot", action="store_true", help="note new nodes in schema_snapshot.json")


def pytest_terminal_summary(terminalreporter) -> None:
    """One plain line for each ComfyUI: used, or where it was looked for."""
    for role, find in SEARCHES.items():
        search = find()
        found = f"{search.install.version} in {search.install.home}" if search.install else "none found"
        terminalreporter.write_line(f"ComfyUI, {role}: {found}. Looked: {'; '.join(search.looked)}")


def describe(role: str, search: Search) -> str:
    which = "the newest" if role == "new" else "the oldest supported"
    return f"no ComfyUI ({which}) to test with; looked: {'; '.join(search.looked)}"


class Servers:
    """Starts each server once, on first use, and stops them all."""

    def __init__(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        self.folders, self.running = tmp_path_factory, {}

    def install(self, role: str):
        search = SEARCHES[role]()
        if search.install is None:
            named = "COMFYUI_PATH" if role == "new" else "COMFYUI_OLD_PATH"
            if os.environ.get(named):
                pytest.fail(describe(role, search), pytrace=False)
            pytest.skip(describe(role, search))
        return search.install

    def start(self, role: str, *flags: str, **options) -> comfy_server.Server:
        install = self.install(role)
        base = self.folders.mktemp(f"ComfyUI {role}")
        return comfy_server.Server(install, base, flags or comfy_server.default_flags(), **options)

    def get(self, role: str) -> comfy_server.Server:
        server = self.running.get(role)
        if isinstance(server, Exception):
            pytest.fail(f"the server did not start: {server}", pytrace=False)
        if server is None:
            try:
                server = self.running[role] = self.start(role)
            except RuntimeError as error:
                self.running[role] = error
                raise
        assert server.alive(), f"ComfyUI died (status {server.process.returncode}):\n{server.log_tail(80)}"
        return server

    def stop(self) -> list[str]:
        """Stop all; returns the lines of their logs that complain about us."""
        complaints = []
        for role, server in self.running.items():
            if not isinstance(server, Exception):
                server.stop()
                lines = [line for line in server.log().splitlines() if comfy_server.FOLDER_NAME in line]
                complaints += [f"{role}: {line}" for line in lines if comfy_server.COMPLAINTS.search(line)]
        return complaints


@pytest.fixture(scope="session")
def comfyui_servers(tmp_path_factory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory)
    complaints: list[str] = []
    try:
        yield servers
    finally:
        complaints = servers.stop()
    assert complaints == [], "the servers' logs complain about our nodes"


@pytest.fixture(scope="session", params=["new", "old"])
def comfyui(request, comfyui_servers) -> comfy_server.Server:
    return comfyui_servers.get(request.param)


@pytest.fixture
def new_comfyui(comfyui_servers) -> comfy_server.Server:
    return comfyui_servers.get("new")


@pytest.fixture
def old_comfyui(comfyui_servers) -> comfy_server.Server:
    return comfyui_servers.get("old")


@pytest.fixture
def start_comfyui(comfyui_servers):
    @contextmanager
    def start(role: str, *flags: str, **options) -> Iterator[comfy_server.Server]:
        server = comfyui_servers.start(role, *flags, **options)
        try:
            yield server
        finally:
            server.stop()

    return start


@pytest.fixture(scope="session")
def Graph() -> type[comfy_graph.Graph]:
    return comfy_graph.Graph


@pytest.fixture(scope="session")
def nano():
    """``nano(server, **options)``: a graph with all nodes up to the latent, ready to sample."""
    import nano_graph  # torch and the nano start are needed only here

    return nano_graph.NanoGraph.begin


@pytest.fixture(scope="module")
def motion() -> BodyMotion:
    """A step to the left of a drawn person, every fourth frame, in the camera frame."""
    scene = sample_scene(11, drawn_body(), ActionRequest(ACTION_NAMES.index("step_aside"), "left", ""))
    rotations, transl = (torch.from_numpy(array).float()[::4] for array in scene.camera_motion(drawn_body()))
    camera = Camera(torch.from_numpy(scene.camera.K).float(), WIDTH, HEIGHT)
    return BodyMotion(rotations, torch.from_numpy(scene.betas).float(), transl, "camera", camera, 16.0, "mannequin-v1")
