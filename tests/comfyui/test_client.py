"""The headless client that we ship, against a real server: messages, files, errors, Ctrl-C."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from comfy_server import PACKAGE, client_module

SCRIPT = PACKAGE / "workflows" / "comovi_client.py"


def call(server, *arguments, folder, **options):
    command = [sys.executable, str(SCRIPT), *map(str, arguments), "--server", f"127.0.0.1:{server.port}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False, **options)


def write(folder, graph, name="workflow.json"):
    (folder / name).write_text(json.dumps(graph.prompt()))
    return folder / name


def red_square(Graph, **image):
    g = Graph()
    made = g.add("EmptyImage", **{"width": 96, "height": 64, "batch_size": 2, "color": 0xFF0000, **image})
    return g, g.save_images(made)


def test_a_workflow_becomes_files_and_progress(comfyui, Graph, tmp_path):
    g, _ = red_square(Graph)
    done = call(comfyui, write(tmp_path, g), "--set", "EmptyImage.height=48", "--out", "results", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    files = [tmp_path / line for line in done.stdout.splitlines()]
    assert len(files) == 2 and all(file.parent.name == "results" and file.suffix == ".png" for file in files)
    from PIL import Image

    picture = np.asarray(Image.open(files[0]))
    assert picture.shape == (48, 96, 3) and (picture == [255, 0, 0]).all()
    assert "EmptyImage (1).height = 48" in done.stderr and "SaveImage (2)" in done.stderr
    assert sorted(os.listdir(tmp_path / "results")) == sorted(file.name for file in files)  # nothing half-written


def test_results_are_equal_to_what_the_server_wrote(comfyui, Graph):
    g, saved = red_square(Graph, color=0x00FF00)
    result = comfyui.run(g)
    file = result.files(saved)[0]
    assert result.content(saved) == (comfyui.base / "output" / file["subfolder"] / file["filename"]).read_bytes()
    assert result.images(saved).shape == (2, 64, 96, 3)


@pytest.mark.parametrize("way", ["--upload", "@FILE"])
def test_a_picture_is_uploaded_and_used(comfyui, Graph, tmp_path, way):
    from PIL import Image

    name = f"a picture {way.strip('-@')}.png"
    Image.new("RGB", (32, 16), (0, 0, 255)).save(tmp_path / name)
    g = Graph()
    loaded = g.add("LoadImage", image=name if way == "--upload" else "none.png")
    g.save_images(loaded)
    given = ["--upload", name] if way == "--upload" else ["--set", f"LoadImage.image=@{name}"]
    done = call(comfyui, write(tmp_path, g), *given, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.asarray(Image.open(tmp_path / done.stdout.strip())).tolist()[0][0] == [0, 0, 255]


def test_a_refused_workflow_names_node_and_input(comfyui, Graph, tmp_path):
    g, _ = red_square(Graph, width=-3)
    done = call(comfyui, write(tmp_path, g), folder=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("EmptyImage (1), input width: Value -3 smaller than min"), done.stderr
    g = Graph()
    g.save_images(g.add("NoSuchNode"))
    done = call(comfyui, write(tmp_path, g), folder=tmp_path)
    assert done.returncode == 2 and "NoSuchNode" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_failing_workflow_ends_in_one_sentence(comfyui, Graph, tmp_path):
    g = Graph()
    g.save_latent(g.add("Probe_Fail", text="x"))
    done = call(comfyui, write(tmp_path, g), folder=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines()[-1] == "Probe_Fail (1): this fails on purpose in two lines"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read as JSON"),
        ('{"nodes": [], "links": []}', "Export (API)"),
        ('{"1": 2}', "not a ComfyUI workflow"),
        ("[]", "not a ComfyUI workflow"),
        (None, "cannot be read"),
    ],
)
def test_files_that_are_no_workflow_are_refused(tmp_path, content, said):
    if content is not None:
        (tmp_path / "w.json").write_text(content)
    command = [sys.executable, str(SCRIPT), "w.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1


def test_no_server_and_bad_settings_are_told_apart(new_comfyui, Graph, tmp_path):
    g, _ = red_square(Graph)
    path = write(tmp_path, g)
    command = [sys.executable, str(SCRIPT), str(path), "--server", "127.0.0.1:9"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "No ComfyUI answers at 127.0.0.1:9" in done.stderr
    for setting, said in {
        "width=3": "NODE.INPUT=VALUE",
        "KSampler.seed=3": "No node is called 'KSampler'; there are: EmptyImage (1), SaveImage (2).",
        "1.depth=3": "EmptyImage (1) has no input 'depth'; it has width, height",
        "1.width=@nothing.png": "nothing.png cannot be read",
    }.items():
        done = call(new_comfyui, path, "--set", setting, folder=tmp_path)
        assert done.returncode == 2 and said in done.stderr, done.stderr


def test_ctrl_c_stops_the_workflow_on_the_server(new_comfyui, Graph, tmp_path):
    g = Graph()
    g.save_latent(g.add("Probe_Wait", seconds=60.0))
    path = write(tmp_path, g)
    command = [sys.executable, str(SCRIPT), str(path), "--server", f"127.0.0.1:{new_comfyui.port}"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "Probe_Wait" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    until = time.monotonic() + 10
    while new_comfyui.client.get("/queue")["queue_running"]:
        assert time.monotonic() < until, "the workflow still runs"
        time.sleep(0.1)


def test_the_server_keeps_reading_long_messages(new_comfyui, Graph):
    """Messages above 64 kB have another length field: an execution error carries its inputs as text."""
    g = Graph()
    g.save_latent(g.add("Probe_Fail", text="x" * 100_000))
    result = new_comfyui.run(g, check=False)
    assert result.failure["node_type"] == "Probe_Fail" and "on purpose" in result.error
    assert result.failure["current_inputs"]["text"] == ["x" * 100_000]


def test_the_module_says_what_the_server_said():
    errors = {"3": {"errors": [{"message": "Bad", "details": "y", "extra_info": {"input_name": "x"}}]}}
    prompt = {"3": {"class_type": "A", "_meta": {"title": "My A"}}}
    assert client_module.describe_node_errors(errors, prompt) == ["My A (3), input x: Bad: y"]


def test_what_a_server_repeats_for_every_input_is_said_once():
    """As ComfyUI does with what `validate_inputs` returns: one sentence for each input that the node looked at."""

    def refused(name: str, sentence: str, message: str = "Custom validation failed for node") -> dict:
        return {"message": message, "details": f"{name} - {sentence}", "extra_info": {"input_name": name}}

    sentence = "length is 82; it must be 4 n + 1 frames."
    said = [refused(name, sentence) for name in ("width", "length", "height")]
    other = refused("vae", "seen by nobody", "Return type mismatch")
    lines = client_module.describe_node_errors({"3": {"errors": [*said, other]}}, {"3": {"class_type": "A"}})
    assert lines == [
        "A (3), input length: Custom validation failed for node: length - length is 82; it must be 4 n + 1 frames.",
        "A (3), input vae: Return type mismatch: vae - seen by nobody",
    ]


def test_a_server_that_dies_is_a_sentence():
    """The connection is reset while the client waits for the next message."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        channels = []
        client = client_module.Client(f"127.0.0.1:{listener.getsockname()[1]}")
        caller = threading.Thread(target=lambda: channels.append(client.listen()))
        caller.start()
        server, _ = listener.accept()
        server.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        caller.join(10)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()
    with pytest.raises(client_module.ClientError, match="The server closed the connection"):
        channels[0].receive(10)
    channels[0].close()


class Answers(http.server.BaseHTTPRequestHandler):
    """A server that has finished the prompt "1" and kept one file of it."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"content")

    def log_message(self, *_):
        pass


def test_what_only_the_command_meets_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.json").write_text("{}")
    assert client_module.main(["w.json", "--server", "localhost:port"]) == 2
    assert "port" in capsys.readouterr().err.lower()
    outcome = client_module.Outcome("1", {"2": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}})
    monkeypatch.setattr(client_module.Client, "run", lambda *_, **__: outcome)
    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = ("--server", f"127.0.0.1:{server.server_port}")
        assert client_module.main(["w.json", *address, "--out", "w.json"]) == 2
        said = capsys.readouterr().err
        assert "w.json" in said and len(said.splitlines()) == 1
        assert client_module.main(["w.json", *address, "--out", "new"]) == 0
        server.shutdown()
    assert (tmp_path / "new" / "a.png").read_bytes() == b"content"


def test_the_commands_of_the_readme(new_comfyui, tmp_path):
    quick = PACKAGE / "workflows" / "api" / "quick_start_nano.json"
    wish = "What shall happen?.value=a man in a red shirt and blue trousers jumps"
    options = ("--out", "results", "--set", wish, "--set", "KSampler.seed=7")
    done = call(new_comfyui, quick, *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {".mp4", ".glb", ".npz"} <= {"." + line.rsplit(".", 1)[-1] for line in done.stdout.splitlines()}
    refused = call(new_comfyui, quick, "--set", "CoMoVi_Conditioning.length=82", folder=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (
        "CoMoVi Conditioning (11), input length: Custom validation failed for node: "
        "length - length is 82; it must be 4 n + 1 frames, for example 81."
    )
