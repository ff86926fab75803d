"""Runs the tests on this checkout, under the name `comfyui_comovi`, with nothing installed.

It makes the same call that ComfyUI makes for a custom node. Copied elsewhere (no `__init__.py` above this folder), the
tests use the installed package instead.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "comfyui_comovi"

# Two cores are common where tests run; spinning OpenMP threads make several processes slow each other down.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Without a GPU, Triton kernels are interpreted. Triton reads this once, when it is first imported by anything.
if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A shell starts what it puts into the background with Ctrl-C ignored, and processes hand that on: tests that send it
# would wait in vain.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _use_checkout() -> None:
    spec = importlib.util.spec_from_file_location(PACKAGE, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)


sys.path.append(str(Path(__file__).parent))  # for bad_files.py, which several test files share

if (ROOT / "__init__.py").exists() and PACKAGE not in sys.modules:
    # `python -m pytest` puts the checkout on sys.path, where our nodes/ would hide ComfyUI's nodes.py.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    _use_checkout()
elif PACKAGE not in sys.modules:
    importlib.import_module(PACKAGE)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs a CUDA device")  # also where pyproject.toml is not


@pytest.fixture(scope="session")
def comovi_process():
    """A function that returns the command line of a process running `comovi` on the code under test."""
    package = Path(sys.modules[PACKAGE].__file__ or "").parent
    load = (
        "import sys, importlib.util as u\n"
        f"s = u.spec_from_file_location({PACKAGE!r}, {str(package / '__init__.py')!r},"
        f" submodule_search_locations=[{str(package)!r}])\n"
        f"m = u.module_from_spec(s); sys.modules[{PACKAGE!r}] = m; s.loader.exec_module(m)\n"
    )
    run = f"sys.argv[0] = 'comovi'\nfrom {PACKAGE}.cli import main\nsys.exit(main())"

    def command(*argv: object, before: str = "") -> list[str]:
        return [sys.executable, "-c", f"{load}{before}\n{run}", *map(str, argv)]

    return command
