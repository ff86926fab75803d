"""A real ComfyUI server in a scratch folder, with this checkout as a custom node, and what the tests ask of it."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfyui_comovi
import numpy as np
import safetensors.torch
import torch
from PIL import Image

PACKAGE = Path(comfyui_comovi.__file__).resolve().parent
HERE = Path(__file__).resolve().parent
FOLDER_NAME = "ComfyUI-CoMoVi-main.v2"  # a folder may be called anything: dashes and dots are common
# What may never stand in a server's log beside our folder's name.
COMPLAINTS = re.compile(r"deprecat|FutureWarning|IMPORT FAILED|Cannot import", re.IGNORECASE)
START_LIMIT = 180  # seconds; 7 on a quiet machine
SILENCE_LIMIT = 240  # seconds without a word from the server during a prompt


def _load_client():
    """The headless client that we ship is what the tests talk through."""
    spec = importlib.util.spec_from_file_location("comovi_client", PACKAGE / "workflows" / "comovi_client.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["comovi_client"] = module
    spec.loader.exec_module(module)
    return module


client_module = _load_client()


def default_flags() -> tuple[str, ...]:
    return tuple(os.environ.get("COMFYUI_TEST_FLAGS", "--cpu").split())


@dataclass
class Result:
    """What one prompt did. `error` is "" when all went well; `node_errors` what validation said."""

    server: Server
    outcome: Any = None
    error: str = ""
    node_errors: dict[str, Any] = field(default_factory=dict)
    failure: dict[str, Any] = field(default_factory=dict)  # the data of execution_error or execution_interrupted
    events: list[Any] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def outputs(self) -> dict[str, Any]:
        return self.outcome.outputs if self.outcome else {}

    @property
    def previews(self) -> list[Image.Image]:
        """The pictures that came while it ran."""
        return [Image.open(io.BytesIO(event.image)) for event in self.events if event.type == "preview"]

    def progress(self, node: Any) -> list[tuple[int, int]]:
        """(value, max) of every progress message of one node."""
        data = [event.data for event in self.events if event.type == "progress"]
        return [(int(d["value"]), int(d["max"])) for d in data if d.get("node") == str(node_id(node))]

    def executed(self) -> list[str]:
        """The ids of the nodes that ran, in order; cached ones are not among them."""
        return [e.data["node"] for e in self.events if e.type == "executing" and e.data.get("node")]

    def files(self, node: Any) -> list[dict[str, str]]:
        """The files that a node lists: {"filename", "subfolder", "type"} each."""
        assert not self.error, self.error
        wanted = str(node_id(node))
        return [file for owner, file in self.outcome.files(temporary=True) if owner == wanted]

    def content(self, node: Any, index: int = 0) -> bytes:
        """The content of a file that a node lists, fetched over HTTP."""
        files = self.files(node)
        assert files, f"node {node_id(node)} lists no file; it shows {self.outputs.get(str(node_id(node)))}"
        return self.server.client.read(files[index])

    def save(self, node: Any, folder: Path, index: int = 0) -> Path:
        """The same, as a file with its own name."""
        path = folder / self.files(node)[index]["filename"]
        path.write_bytes(self.content(node, index))
        return path

    def latent(self, node: Any) -> torch.Tensor:
        """The tensor that a SaveLatent node wrote."""
        return safetensors.torch.load(self.content(node))["latent_tensor"]

    def images(self, node: Any) -> np.ndarray:
        """(F, H, W, 3) in 0 to 1 of a SaveImage or PreviewImage node."""
        pictures = [Image.open(io.BytesIO(self.server.client.read(file))) for file in self.files(node)]
        return np.stack([np.asarray(picture.convert("RGB"), dtype=np.float32) / 255 for picture in pictures])

    def text(self, node: Any) -> str:
        """All text that a node shows."""
        assert not self.error, self.error
        return "\n".join(str(text) for text in self.outputs[str(node_id(node))].get("text", ()))

    def calls(self, node: Any) -> list[int]:
        """Rows of each network call that a Probe_ShowCalls node counted."""
        return json.loads(self.text(node))["rows"]


def node_id(node: Any) -> str:
    return getattr(node, "id", node)


class Server:
    """One running ComfyUI. `base` is its scratch folder; models, input and output are in it."""

    def __init__(self, install: Any, base: Path, flags: tuple[str, ...] = (), pack: Path | None = PACKAGE) -> None:
        self.install, self.base, self.flags = install, base, flags
        for name in ("custom_nodes", "models", "input", "output", "temp", "user"):
            (base / name).mkdir(parents=True, exist_ok=True)
        if pack is not None:
            link_or_copy(pack, base / "custom_nodes" / FOLDER_NAME)
            link_or_copy(HERE / "probe_pack", base / "custom_nodes" / "probe_pack")
        self.log_file = base / "server.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.client = client_module.Client(f"127.0.0.1:{self.port}")
        self.process = self._start()

    def _start(self) -> subprocess.Popen:
        command = [str(self.install.python), "-u", str(self.install.home / "main.py")]
        command += ["--base-directory", str(self.base), "--port", str(self.port), "--disable-auto-launch"]
        command += ["--disable-api-nodes", "--database-url", "sqlite:///:memory:", "--preview-method", "auto"]
        self.command = [*command, *self.flags]
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
        environment |= {"PYTHONUTF8": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        started = time.monotonic()
        with self.log_file.open("wb") as log:
            process = subprocess.Popen(
                self.launch_command(),
                cwd=self.install.home,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        while time.monotonic() < started + START_LIMIT:
            if process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended with status {process.returncode} at start:\n{self.log_tail()}")
            try:
                self.client.get("/system_stats")
            except client_module.ClientError:
                time.sleep(0.1)
                continue
            self.start_seconds = time.monotonic() - started
            return process
        process.kill()
        raise RuntimeError(f"ComfyUI did not answer within {START_LIMIT} s:\n{self.log_tail()}")

    def launch_command(self) -> list[str]:
        """--small-memory is ours: it runs main.py as if the CPU were a GPU with little memory."""
        if "--small-memory" not in self.command:
            return self.command
        rest = [part for part in self.command if part != "--small-memory"]
        return [*rest[:2], str(HERE / "small_memory.py"), *rest[2:]]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def alive(self) -> bool:
        return self.process.poll() is None

    def run(self, prompt: Any, *, check: bool = True, on_event: Any = None) -> Result:
        """Queue a Graph (or an API prompt), wait for its end. With `check` anything but success fails the test."""
        prompt = prompt.prompt() if hasattr(prompt, "prompt") else prompt
        result = Result(self)

        def keep(event: Any) -> None:
            result.events.append(event)
            if on_event is not None:
                on_event(event)

        started = time.monotonic()
        try:
            result.outcome = self.client.run(prompt, keep, silence=SILENCE_LIMIT)
        except client_module.PromptRefused as error:
            result.error, result.node_errors = str(error), error.details
        except client_module.PromptFailed as error:
            result.error, result.failure = str(error), error.details
        except (client_module.ClientError, TimeoutError) as error:
            raise AssertionError(f"{error}\n{self.log_tail()}") from error
        result.seconds = time.monotonic() - started
        if check and result.error:
            trace = "".join(result.failure.get("traceback", []))
            raise AssertionError(f"{result.error}\n{trace}\n--- log\n{self.log_tail(15)}")
        return result

    def object_info(self) -> dict[str, Any]:
        """What the server says about all its nodes, read once."""
        if not hasattr(self, "_object_info"):
            self._object_info = self.client.get("/object_info")
        return self._object_info

    def has(self, node_class: str) -> bool:
        return node_class in self.object_info()

    def upload(self, content: bytes | Path, name: str | None = None) -> str:
        """Put a file into the input folder over HTTP; returns the name for a loading node."""
        if isinstance(content, Path):
            return self.client.upload(content, overwrite=True)
        folder = self.base / "to_upload"
        folder.mkdir(exist_ok=True)
        path = folder / (name or "file")
        path.write_bytes(content)
        return self.client.upload(path, overwrite=True)

    def upload_image(self, pixels: np.ndarray, name: str) -> str:
        """Upload an (H, W, 3) picture in 0 to 1 as a PNG."""
        buffer = io.BytesIO()
        Image.fromarray((np.asarray(pixels).clip(0, 1) * 255).round().astype(np.uint8)).save(buffer, "PNG")
        return self.upload(buffer.getvalue(), name)

    def forget(self) -> None:
        """Empty the caches, so that the next prompt runs every node and loads models afresh."""
        self.client.post("/free", {"unload_models": True, "free_memory": True})
        time.sleep(0.2)  # the worker does it when it next wakes


def link_or_copy(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source, target_is_directory=True)
    except OSError:  # Windows without the right to make links
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__"))


def _die_with_parent() -> None:
    """On Linux a server ends with the tests, even when they are killed."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
