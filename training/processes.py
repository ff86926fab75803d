"""Starts the same command in several processes on this machine, and ends them together.

For one machine this is all that torchrun does; on several machines use torchrun or Slurm (training/launch).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from ..comovi_model.errors import ComoviError

GRACE = 600.0  # seconds that processes get to save after someone asked to stop
PATIENCE = 20.0  # seconds that the others get to notice that one has failed


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    """What torch.distributed reads."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // world))
    return {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": threads,
    }


def start_processes(world: int, command: Sequence[str]) -> list[subprocess.Popen]:
    port = free_port()
    return [subprocess.Popen(command, env=environment(rank, world, port)) for rank in range(world)]


def run_processes(world: int) -> int:
    """This very command in `world` processes; the first exit status that is not 0. One failure ends the rest."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ComoviError("--processes starts processes of its own; under torchrun or Slurm leave it out.")
    command = [sys.executable, "-m", str(__package__), *_without_processes(sys.argv[1:])]
    running = start_processes(world, command)

    def pass_on(number: int, frame: object) -> None:
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _wait(running)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(running: list[subprocess.Popen]) -> int:
    status, deadline = 0, None
    while any(process.poll() is None for process in running):
        for process in running:
            code = process.poll()
            if code and not status:
                status = code if code > 0 else 128 - code
                deadline = time.monotonic() + (GRACE if status == 130 else PATIENCE)
        if deadline is not None and time.monotonic() > deadline:
            for process in running:
                if process.poll() is None:
                    process.kill()
        time.sleep(0.1)
    codes = [process.returncode for process in running]
    return status or next((code if code > 0 else 128 - code for code in codes if code), 0)


def _without_processes(arguments: Sequence[str]) -> list[str]:
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == "--processes":
            skip = True
        elif not argument.startswith("--processes="):
            kept.append(argument)
    return kept
