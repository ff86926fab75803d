"""Makes a script that runs in ComfyUI's own Python ready: ComfyUI on the CPU, our pack importable as `comovi_pack`.

The script is called with COMFYUI PACKAGE and whatever else it wants, and begins with

    import in_comfy
    # isort: split

after which `import comfy...` and `from comovi_pack... import ...` work; in_comfy.EXTRA holds the other arguments.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from typing import Any

home, package, *EXTRA = sys.argv[1:]
sys.argv[1:] = []
sys.path.insert(0, home)
from comfy.cli_args import args  # noqa: E402

args.cpu = True

spec = importlib.util.spec_from_file_location(
    "comovi_pack", str(Path(package) / "__init__.py"), submodule_search_locations=[package]
)
assert spec is not None
assert spec.loader is not None
pack = sys.modules["comovi_pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)


def pack_nodes() -> dict[str, Any]:
    """The pack's nodes by their ids, as ComfyUI collects them."""
    extension = asyncio.run(pack.comfy_entrypoint())
    return {node.define_schema().node_id: node for node in asyncio.run(extension.get_node_list())}


def sentence(work):
    """What a refusal says; empty where nothing was refused."""
    try:
        work()
    except ValueError as error:
        return str(error)
    return ""
