"""Queues a workflow on a ComfyUI server, shows its progress and fetches the results; needs nothing but Python.

python comovi_client.py workflow.json --server 127.0.0.1:8188 --set KSampler.seed=7 --set 12.image=@photo.png

workflow.json is in API format (in the web page: Workflow, Export (API)). As a library: ``Client(server).run(prompt)``.
Exit status: 0 done, 1 failed while it ran, 2 refused or not usable, 130 stopped by Ctrl-C, on the server as well.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import socket
import ssl
import sys
import time
import urllib.parse
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Listener = Callable[["Event"], None]
ENDINGS = ("execution_success", "execution_error", "execution_interrupted")


class ClientError(Exception):
    """Something given cannot be used, or the server does not answer as ComfyUI does; `details` is what it said."""

    def __init__(self, message: str, details: Json | None = None) -> None:
        super().__init__(message)
        self.details = details or {}


class PromptRefused(ClientError):
    """The server did not accept the workflow; `details` are its node_errors."""


class PromptFailed(ClientError):
    """A node failed while the workflow ran, or it was stopped; `details` is what the server sent."""


@dataclass(frozen=True)
class Event:
    """One message of the websocket. A preview has type "preview" and the bytes of a JPEG or PNG in `image`."""

    type: str
    data: Json
    image: bytes = b""


@dataclass(frozen=True)
class Outcome:
    """What a finished workflow left: `outputs` as in /history (node: ui), `warnings` about dropped parts."""

    prompt_id: str
    outputs: Json
    warnings: list[str] = field(default_factory=list)

    def files(self, *, temporary: bool = False) -> list[tuple[str, Json]]:
        """(node, {"filename", "subfolder", "type"}) of every file that the outputs name."""
        entries = [(node, e) for node, ui in self.outputs.items() for value in ui.values() for e in value]
        files = [(node, e) for node, e in entries if isinstance(e, dict) and e.get("filename")]
        return [(node, file) for node, file in files if temporary or file.get("type") != "temp"]


class WebSocket:
    """The client's side of RFC 6455, as far as ComfyUI's server needs it."""

    def __init__(self, stream: socket.socket, host: str, path: str) -> None:
        self.stream, self.buffer = stream, b""
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
        key = base64.b64encode(os.urandom(16)).decode()
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        stream.sendall("\r\n".join(lines).encode())
        while b"\r\n\r\n" not in self.buffer:
            self.buffer += self._more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        if head.split()[1:2] != [b"101"]:
            raise ClientError(f"The server refused the websocket: {head.splitlines()[0].decode(errors='replace')}")

    def _more(self) -> bytes:
        with suppress(ConnectionError):  # broken is as good as closed
            if piece := self.stream.recv(1 << 16):
                return piece
        raise ClientError("The server closed the connection.")

    def _take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self.buffer += self._more()
        piece, self.buffer = self.buffer[:count], self.buffer[count:]
        return piece

    def receive(self, timeout: float) -> tuple[bool, bytes]:
        """The next message as (is text, payload). After `timeout` seconds without one: TimeoutError, and it is over."""
        self.stream.settimeout(timeout)
        message, kind = b"", 0
        while True:
            first, size = self._take(2)
            size &= 127  # a server does not mask
            payload = self._take(size if size < 126 else int.from_bytes(self._take(2 if size == 126 else 8), "big"))
            opcode = first & 15
            if opcode == 8:
                raise ClientError("The server closed the websocket.")
            if opcode == 9:
                self._send(10, payload)
            elif opcode < 8:
                message, kind = message + payload, opcode or kind
                if first & 128:
                    return kind == 1, message

    def _send(self, opcode: int, payload: bytes) -> None:  # pong or close: at most 125 bytes
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self.stream.sendall(bytes([128 | opcode, 128 | len(payload)]) + mask + masked)

    def close(self) -> None:
        with suppress(OSError):
            self._send(8, (1000).to_bytes(2, "big"))
        self.stream.close()


class Client:
    """One ComfyUI server. Every method raises ClientError with a sentence when it cannot do its work."""

    def __init__(self, server: str = "127.0.0.1:8188") -> None:
        parts = urllib.parse.urlsplit(server if "://" in server else f"http://{server}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ClientError(f"The server is given as host:port or as http(s)://host:port, not as {server!r}.")
        self.secure, self.host, self.base = parts.scheme == "https", parts.hostname, parts.path.rstrip("/")
        self.port = parts.port or (443 if self.secure else 80 if "://" in server else 8188)
        self.name, self.id = f"{self.host}:{self.port}{self.base}", uuid.uuid4().hex

    def request(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, bytes]:
        """One HTTP request: (status, answer)."""
        make = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        connection = make(self.host, self.port, timeout=60)
        try:
            connection.request(method, self.base + path, body, {"Content-Type": kind} if kind else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ClientError(f"No ComfyUI answers at {self.name} ({error}); is it running?") from error
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        status, answer = self.request("GET", path)
        if status != 200:
            raise ClientError(f"GET {path} was answered with status {status}.")
        return json.loads(answer)

    def post(self, path: str, value: Json) -> tuple[int, bytes]:
        return self.request("POST", path, json.dumps(value).encode(), "application/json")

    def upload(self, path: Path | str, *, overwrite: bool = False, subfolder: str = "") -> str:
        """Put a file into the server's input folder; returns the name that a loading node takes."""
        path = Path(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ClientError(f"{path} cannot be read: {error.strerror}.") from None
        boundary = uuid.uuid4().hex
        part = f"--{boundary}\r\nContent-Disposition: form-data; name="
        fields = {"type": "input", "subfolder": subfolder, "overwrite": "true" if overwrite else "false"}
        head = "".join(f'{part}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
        quoted = path.name.replace('"', "%22")
        head += f'{part}"image"; filename="{quoted}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        status, answer = self.request("POST", "/upload/image", body, f"multipart/form-data; boundary={boundary}")
        if status != 200:
            raise ClientError(f"{path.name} could not be uploaded: status {status}, {answer[:200]!r}")
        stored = json.loads(answer)
        return "/".join(part for part in (stored.get("subfolder"), stored["name"]) if part)

    def queue(self, prompt: Json, **extra: Any) -> tuple[str, Json]:
        """Queue a workflow: (prompt id, node_errors of parts that the server leaves out)."""
        status, answer = self.post("/prompt", {"prompt": prompt, "client_id": self.id, **extra})
        try:
            said = json.loads(answer)
        except ValueError:
            raise ClientError(f"The server answered with status {status} and no JSON; is it ComfyUI?") from None
        errors, error = said.get("node_errors") or {}, said.get("error") or {}
        if status == 200:
            return said["prompt_id"], errors
        error = error if isinstance(error, dict) else {"message": error}
        reason = ": ".join(str(error[key]) for key in ("message", "details") if error.get(key))
        raise PromptRefused("\n".join(describe_node_errors(errors, prompt)) or reason, errors)

    def listen(self) -> WebSocket:
        """Open the websocket; do it before queueing, so that no message is missed."""
        try:
            stream = socket.create_connection((self.host, self.port), timeout=60)
            if self.secure:
                stream = ssl.create_default_context().wrap_socket(stream, server_hostname=self.host)
            return WebSocket(stream, f"{self.host}:{self.port}", f"{self.base}/ws?clientId={self.id}")
        except OSError as error:
            raise ClientError(f"No ComfyUI answers at {self.name} ({error}); is it running?") from error

    def run(self, prompt: Json, on_event: Listener | None = None, silence: float = 1e6, partial=False) -> Outcome:
        """Queue a workflow and wait for its end; Ctrl-C stops it on the server as well. `on_event` sees every message;
        `silence`: seconds between two before TimeoutError; `partial`: run even where parts are not valid."""
        channel, prompt_id, on_event = self.listen(), "", on_event or (lambda event: None)
        try:
            prompt_id, errors = self.queue(prompt)
            warnings = describe_node_errors(errors, prompt)
            if warnings and not partial:
                self.interrupt(prompt_id)
                raise PromptRefused("\n".join(warnings), errors)
            event = Event("queued", {"prompt_id": prompt_id})
            while event.type not in ENDINGS or event.data.get("prompt_id") != prompt_id:
                if event.data.get("prompt_id") in (None, prompt_id):  # not what another workflow does
                    on_event(event)
                event = read_event(*channel.receive(silence))
            on_event(event)
        except KeyboardInterrupt:
            if prompt_id:
                self.interrupt(prompt_id)
            raise
        finally:
            channel.close()
        node = node_name(prompt, event.data.get("node_id"))
        if event.type == "execution_error":
            message = " ".join(str(event.data.get("exception_message", "")).split())
            raise PromptFailed(f"{node}: {message or event.data.get('exception_type', 'failed')}", event.data)
        if event.type == "execution_interrupted":
            raise PromptFailed(f"{node}: stopped before it was done.", event.data)
        return Outcome(prompt_id, self.history(prompt_id).get("outputs", {}), warnings)

    def history(self, prompt_id: str) -> Json:
        """The server's record of a finished workflow; it may come a moment after the last message."""
        until = time.monotonic() + 10
        while not (record := self.get(f"/history/{prompt_id}").get(prompt_id)):
            if time.monotonic() > until:
                raise ClientError(f"The server finished {prompt_id} but keeps no record of it.")
            time.sleep(0.05)
        return record

    def interrupt(self, prompt_id: str) -> None:
        """Stop a workflow, whether it runs or still waits."""
        self.post("/queue", {"delete": [prompt_id]})
        self.post("/interrupt", {"prompt_id": prompt_id})

    def read(self, file: Json) -> bytes:
        """The content of one result file."""
        query = {name: file.get(name, "") for name in ("filename", "subfolder", "type")}
        status, content = self.request("GET", f"/view?{urllib.parse.urlencode(query)}")
        if status != 200:
            raise ClientError(f"{file.get('filename')} could not be fetched: status {status}.")
        return content

    def fetch(self, outcome: Outcome, folder: Path | str, *, temporary: bool = False) -> list[Path]:
        """Write the result files into a folder, each whole or not at all; returns their paths."""
        folder, written = Path(folder), []
        folder.mkdir(parents=True, exist_ok=True)
        for node, file in outcome.files(temporary=temporary):
            target = folder / Path(file["filename"].replace("\\", "/")).name
            if target in written:
                target = target.with_name(f"{node.replace(':', '_')}_{target.name}")
            partial = target.with_name(f".{target.name}.part")
            try:
                partial.write_bytes(self.read(file))
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)
            written.append(target)
        return written


def read_event(text: bool, message: bytes) -> Event:
    """A websocket message as an event: JSON is {type, data}; binary is a number that says what follows."""
    if text:
        said = json.loads(message)
        return Event(said["type"], said.get("data") or {})
    kind = int.from_bytes(message[:4], "big")
    skip = {1: 8, 4: 8 + int.from_bytes(message[4:8], "big")}.get(kind)
    return Event("preview", {}, message[skip:]) if skip else Event("binary", {"kind": kind}, message[4:])


def node_name(prompt: Json, node_id: Any) -> str:
    """How a person calls a node: its title and id, e.g. ``Load Video (12)``."""
    node = prompt.get(str(node_id)) or {}
    title = (node.get("_meta") or {}).get("title") or node.get("class_type") or "node"
    return f"{title} ({node_id})"


def describe_node_errors(errors: Json, prompt: Json) -> list[str]:
    """One line for each thing that is wrong; what the server repeats for every input of a node is said of its own."""
    lines: dict[Any, str] = {}
    for node_id, error in ((node_id, error) for node_id, entry in errors.items() for error in entry.get("errors", ())):
        name, details = (error.get("extra_info") or {}).get("input_name"), str(error.get("details") or "")
        place = node_name(prompt, node_id) + (f", input {name}" if name else "")
        key = (node_id, error.get("message"), details.removeprefix(f"{name} - "))  # begins with its own input
        if key not in lines or key[2].startswith(f"{name} "):
            lines[key] = f"{place}: {error.get('message')}" + (f": {details}" if details not in ("", name) else "")
    return list(lines.values())


def find_node(prompt: Json, name: str) -> str:
    """A node by its id, else by its title or class where only one node has it."""
    titles = {key: {(node.get("_meta") or {}).get("title"), node.get("class_type")} for key, node in prompt.items()}
    found = [name] if name in prompt else [key for key, names in titles.items() if name in names]
    if len(found) == 1:
        return found[0]
    known = ", ".join(node_name(prompt, key) for key in (found or prompt))
    raise ClientError(f"{'Several nodes are' if found else 'No node is'} called {name!r}; there are: {known}.")


def set_input(prompt: Json, setting: str, client: Client) -> str:
    """Carry out NODE.INPUT=VALUE on a workflow; VALUE is text, JSON, or @FILE, which is uploaded. Says what it did."""
    place, equals, text = setting.partition("=")
    name, dot, input_name = place.rpartition(".")
    if not (equals and dot and name and input_name):
        raise ClientError(f"--set takes NODE.INPUT=VALUE, not {setting!r}.")
    node_id = find_node(prompt, name)
    inputs, kind = prompt[node_id].setdefault("inputs", {}), prompt[node_id]["class_type"]
    if input_name not in inputs:
        described = client.get(f"/object_info/{urllib.parse.quote(kind)}").get(kind, {}).get("input", {})
        names = [key for part in ("required", "optional") for key in described.get(part, {})]
        if input_name not in names:
            raise ClientError(f"{node_name(prompt, node_id)} has no input {input_name!r}; it has {', '.join(names)}.")
    value: Any = client.upload(text[1:]) if text.startswith("@") else text
    if not text.startswith("@") and not isinstance(inputs.get(input_name), str):
        with suppress(ValueError):
            value = json.loads(text)
    inputs[input_name] = value
    return f"{node_name(prompt, node_id)}.{input_name} = {value}\n"


def read_workflow(path: Path | str) -> Json:
    """An API-format workflow from a file; what the web page saves by default is another format and is refused."""
    try:
        prompt = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClientError(f"{path} cannot be read as JSON: {error}.") from None
    if isinstance(prompt, dict) and "nodes" in prompt and "links" in prompt:
        raise ClientError(f"{path} is in the web page's own format; export it with Workflow, Export (API).")
    if not isinstance(prompt, dict) or not all(isinstance(n, dict) and "class_type" in n for n in prompt.values()):
        raise ClientError(f"{path} is not a ComfyUI workflow in API format.")
    return prompt


def show_progress(event: Event, prompt: Json) -> None:
    """On stderr what the server does: one line that changes on a terminal, one line a node elsewhere."""
    live, name = sys.stderr.isatty(), node_name(prompt, event.data.get("node"))
    if event.type == "executing" and event.data.get("node"):
        sys.stderr.write(f"\r\x1b[K{name}" if live else f"{name}\n")
    elif event.type == "progress" and live:
        sys.stderr.write(f"\r\x1b[K{name}: {event.data.get('value')} of {event.data.get('max')}")
    elif event.type in ENDINGS and live:
        sys.stderr.write("\r\x1b[K")
    sys.stderr.flush()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("workflow", help="a workflow in API format")
    add("--server", default="127.0.0.1:8188", help="host:port, or http(s)://... (default: %(default)s)")
    settings = "change an input; NODE is an id, title or class; VALUE may be @FILE, which is uploaded"
    add("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", dest="settings", help=settings)
    upload = "upload a file that the workflow names; where its name is taken, the workflow follows the new one"
    add("--upload", action="append", default=[], metavar="FILE", help=upload)
    add("--out", default=".", metavar="DIR", help="folder for the results (default: here)")
    add("--previews", action="store_true", help="fetch what nodes only preview, too")
    add("--partial", action="store_true", help="run what is valid and leave the rest out")
    arguments = parser.parse_args(argv)
    try:
        client = Client(arguments.server)
        prompt = read_workflow(arguments.workflow)
        for path in arguments.upload:
            stored = client.upload(path)
            for node in prompt.values():
                inputs = node.get("inputs", {})
                inputs.update({key: stored for key, value in inputs.items() if value == Path(path).name})
        for setting in arguments.settings:
            sys.stderr.write(set_input(prompt, setting, client))
        outcome = client.run(prompt, lambda event: show_progress(event, prompt), partial=arguments.partial)
        sys.stderr.writelines(f"left out: {warning}\n" for warning in outcome.warnings)
        for node, ui in outcome.outputs.items():
            sys.stdout.writelines(f"{node_name(prompt, node)}: {text}\n" for text in ui.get("text", ()))
        for path in client.fetch(outcome, arguments.out, temporary=arguments.previews):
            sys.stdout.write(f"{path}\n")
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        return 130
    except (ClientError, OSError, ValueError) as error:  # the others: a place that cannot be written, a wrong port
        sys.stderr.write(f"{error}\n")
        return 1 if isinstance(error, PromptFailed) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
