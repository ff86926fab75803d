"""Runs one function on many items in worker processes; an item that fails, kills its worker or hangs only costs itself.

Each worker is a fresh Python that loads this package from where it is and is fed one item after the other through a
pipe, so it works under any name the package was loaded by and on every system. Results come as they are ready.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ...comovi_model.errors import ComoviError

Item = TypeVar("Item")
Result = TypeVar("Result")
PACKAGE = Path(__file__).resolve().parents[2]

_START = """
import importlib.util, os, sys
name, root = sys.argv[1:3]
door = os.path.join(root, "__init__.py")
spec = importlib.util.spec_from_file_location(name, door, submodule_search_locations=[root])
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
importlib.import_module(name + ".training.curation.workers").serve()
"""


@dataclass(frozen=True)
class Failure:
    """Why an item has no result, as a sentence."""

    reason: str


@dataclass(frozen=True)
class Done(Generic[Item, Result]):
    """One item and what became of it."""

    index: int  # in the list of items
    item: Item
    result: Result | Failure


def attempt(function: Callable[[Item], Result], item: Item) -> Result | Failure:
    """The result, or the reason why there is none. A full disk is nobody's fault and ends the run."""
    try:
        return function(item)
    except ComoviError as error:
        if "disk is full" in str(error) or "quota" in str(error):
            raise
        return Failure(str(error))
    except MemoryError:
        return Failure("there was not enough memory for it.")
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        return Failure(f"an unexpected {type(error).__name__} ({said}); please report it with this file.")


def run_all(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, seconds: float | None = None
) -> Iterator[Done[Item, Result]]:
    """Every item once, in no order; `seconds` is the most that one may take. workers = 0 works in this process.

    `function` is one of a module of this package, or functools.partial of one, and everything must pickle.
    """
    if workers == 0:
        for index, item in enumerate(items):
            yield Done(index, item, attempt(function, item))
        return
    waiting: queue.SimpleQueue[tuple[int, Item] | None] = queue.SimpleQueue()
    for pair in enumerate(items):
        waiting.put(pair)
    ready: queue.SimpleQueue[Done[Item, Result] | BaseException | None] = queue.SimpleQueue()
    crew = [_Worker(function, seconds) for _ in range(min(workers, len(items)))]
    for worker in crew:
        waiting.put(None)
        threading.Thread(target=_feed, args=(worker, waiting, ready), daemon=True).start()
    try:
        working = len(crew)
        while working:
            done = ready.get()
            if done is None:
                working -= 1
            elif isinstance(done, BaseException):
                raise done
            else:
                yield done
    finally:
        for worker in crew:
            worker.close()


def _feed(worker: _Worker, waiting: queue.SimpleQueue, ready: queue.SimpleQueue) -> None:
    try:
        while (pair := waiting.get()) is not None:
            index, item = pair
            if worker.closed:
                return
            ready.put(Done(index, item, worker.do(item)))
    except BaseException as error:  # belongs to whoever reads the results
        if not worker.closed:
            ready.put(error)
    ready.put(None)


class _Worker:
    """One process; it is started when first needed, and again after it died."""

    def __init__(self, function: Callable[[Any], Any], seconds: float | None):
        self.function, self.seconds = function, seconds
        self.process: subprocess.Popen[bytes] | None = None
        self.closed = False
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the worker)

    def do(self, item: Any) -> Any:
        try:
            process = self.process or self._start()
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise ComoviError(f"a worker process could not be started ({error}).") from None
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self.seconds or 0, end)
        if self.seconds:
            timer.start()
        try:
            _send(process.stdin, item)
            answer = _receive(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            code = process.wait()
            self.process = None
            return Failure(f"it took longer than {self.seconds:g} s." if late.is_set() else self._obituary(code))
        finally:
            timer.cancel()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        name = __name__.split(".training.")[0]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-c", _START, name, str(PACKAGE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            env=environment,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        _send(process.stdin, self.function)
        _receive(process.stdout)  # loading takes seconds, and they are not the item's
        return process

    def _obituary(self, code: int) -> str:
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").strip().splitlines()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
        return f"the process that worked on it died ({how}{': ' + lines[-1][:200] if lines else ''})."

    def close(self) -> None:
        self.closed = True
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                with suppress(OSError):
                    assert pipe is not None
                    pipe.close()
        self.said.close()


def _send(pipe: Any, value: Any) -> None:
    data = pickle.dumps(value)
    pipe.write(len(data).to_bytes(8, "little") + data)
    pipe.flush()


def _receive(pipe: Any) -> Any:
    head = pipe.read(8)
    if len(head) < 8:
        raise EOFError
    return pickle.loads(pipe.read(int.from_bytes(head, "little")))


def serve() -> None:
    """What a worker does until its pipe is closed: read an item, answer with its result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not get between our answers
    import torch

    torch.set_num_threads(1)
    with suppress(EOFError, BrokenPipeError):
        function = _receive(sys.stdin.buffer)
        _send(answers, "ready")
        while True:
            item = _receive(sys.stdin.buffer)
            answer: Any
            try:
                answer = attempt(function, item)
            except BaseException as error:
                answer = error
            _send(answers, answer)
