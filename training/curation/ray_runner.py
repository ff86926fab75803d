"""The same as workers.run_all, on the machines of a Ray cluster (https://ray.io, the extra [curate]).

Ray's workers load this package from where it is here, so on several machines it must be at the same path, as on a
shared disk; the videos too. Results are the same as of the local runner, because the work is.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...comovi_model.errors import ComoviError
from .workers import PACKAGE, Done, Failure, Item, Result

INSTALL = "pip install 'comfyui-comovi[curate]' (Ray)"

_CALL = '''
def call(name, root, payload):
    """Runs in a Ray worker: loads the package by its place, then works on one item."""
    import importlib.util, os, pickle, sys
    if name not in sys.modules:
        door = os.path.join(root, "__init__.py")
        spec = importlib.util.spec_from_file_location(name, door, submodule_search_locations=[root])
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    workers = importlib.import_module(name + ".training.curation.workers")
    function, item = pickle.loads(payload)
    return pickle.dumps(workers.attempt(function, item))
'''


def run_on_ray(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int = 0,
    seconds: float | None = None,
    address: str | None = None,
) -> Iterator[Done[Item, Result]]:
    """Every item once, in no order. workers = 0 uses every core; `address` is that of a running cluster."""
    try:
        import ray
    except ImportError as error:
        raise ComoviError(f"the ray runner needs Ray ({error}); {INSTALL}.") from None
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(address=address, num_cpus=workers or None if address is None else None, include_dashboard=False,
                 log_to_driver=False, configure_logging=False)  # fmt: skip
    try:
        yield from _run(ray, function, items, workers, seconds)
    finally:
        if started_here:
            ray.shutdown()


def _run(
    ray: Any, function: Callable[[Item], Result], items: Sequence[Item], workers: int, seconds: float | None
) -> Iterator[Done[Item, Result]]:
    scope: dict[str, Any] = {"__name__": "__main__"}  # a function of no module travels as itself
    exec(_CALL, scope)
    remote = ray.remote(max_retries=0, num_cpus=1)(scope["call"])
    name = __name__.split(".training.")[0]
    most = 2 * (workers or int(ray.cluster_resources().get("CPU", 1)))
    waiting, late = list(enumerate(items))[::-1], set()
    running: dict[Any, tuple[int, Item, float]] = {}
    while waiting or running:
        while waiting and len(running) < most:
            index, item = waiting.pop()
            reference = remote.remote(name, str(PACKAGE), pickle.dumps((function, item)))
            running[reference] = (index, item, time.monotonic())
        ready, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
        for reference in ready:
            index, item, _ = running.pop(reference)
            try:
                result = pickle.loads(ray.get(reference))
            except ComoviError:
                raise
            except Exception as error:
                cause = getattr(error, "cause", None)
                if isinstance(cause, ComoviError):  # a full disk: nobody's fault
                    raise cause from None
                result = Failure(_why(error, reference in late, seconds))
            yield Done(index, item, result)
        for reference, (_, _, begun) in running.items():
            if seconds and reference not in late and time.monotonic() - begun > 2 * seconds:
                late.add(reference)  # it may have waited for as long as the one before it took
                ray.cancel(reference, force=True)


def _why(error: Exception, late: bool, seconds: float | None) -> str:
    if late:
        return f"it took longer than {seconds:g} s."
    said = " ".join(str(error).split())[:200]
    return f"the process that worked on it died ({type(error).__name__}: {said})."
