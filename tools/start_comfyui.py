"""Starts the ComfyUI of this machine with this checkout as a custom node, and opens it on the first workflow.

python tools/start_comfyui.py [ComfyUI flags]        also: make comfyui ARGS='--port 8200'

Your ComfyUI, its models, settings and outputs are used as they are; nothing is written into its folder: the checkout is
named to it as a further place of custom nodes. Needs only the Python that runs it.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW = "quick_start_nano"
NAME = "ComfyUI-CoMoVi"  # of the pack's folder, as ComfyUI sees it
NEEDED = {"torch": "torch", "numpy": "numpy", "PIL": "pillow", "safetensors": "safetensors", "av": "av", "tqdm": "tqdm"}
DEVICE_FLAGS = {"--cpu", "--gpu-only", "--highvram", "--lowvram", "--novram", "--directml", "--cuda-device"}
PORT = 8188


def find_comfyui():
    """comovi_model/comfyui_install.py, without importing the package: no torch is needed here."""
    path = ROOT / "comovi_model" / "comfyui_install.py"
    spec = importlib.util.spec_from_file_location("comfyui_install", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["comfyui_install"] = module
    spec.loader.exec_module(module)
    return module.find_comfyui()


def ask(python: Path) -> dict[str, object]:
    """What ComfyUI's Python has: names of missing packages, and whether torch finds something faster than the CPU."""
    code = (
        "import importlib.util as u, json\n"
        f"missing = [d for m, d in {NEEDED!r}.items() if u.find_spec(m) is None]\n"
        "fast = False\n"
        "if 'torch' not in missing:\n"
        "    import torch\n"
        "    others = [getattr(torch, n, None) for n in ('xpu', 'npu', 'mlu')] + [torch.backends.mps]\n"
        "    fast = torch.cuda.is_available() or any(o is not None and o.is_available() for o in others)\n"
        "print(json.dumps({'missing': missing, 'fast': fast}))"
    )
    run = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"The Python of ComfyUI does not run: {python}\n{run.stderr.strip()}")
    return json.loads(run.stdout.splitlines()[-1])


def free_port(wanted: int) -> int:
    for port in range(wanted, wanted + 50):
        with socket.socket() as test:
            if test.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise SystemExit(f"No free port from {wanted} on; name one with --port.")


def pack_flags(home: Path, folder: Path) -> tuple[list[str], str]:
    """The flags that show ComfyUI this checkout, and the name it has there; none where it is installed already."""
    for installed in (home / "custom_nodes").iterdir():
        if installed.resolve() == ROOT:
            return [], installed.name
        if (installed / "comovi_model").is_dir():
            print(
                f"note: {installed} is another copy of this pack; ComfyUI will load that one too. Remove one of them."
            )
    nodes = folder / "custom_nodes"
    nodes.mkdir()
    try:
        (nodes / NAME).symlink_to(ROOT, target_is_directory=True)
    except OSError:  # Windows without the right to make links
        shutil.copytree(ROOT, nodes / NAME, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__"))
    config = folder / "comovi_paths.yaml"
    config.write_text(json.dumps({"comovi": {"custom_nodes": str(nodes)}}), encoding="utf-8")  # JSON is YAML as well
    return ["--extra-model-paths-config", str(config)], NAME


def address(server: str, pack: str) -> str:
    """The page that opens the workflow: newer web pages load a template that the address names."""
    return f"{server}/?template={WORKFLOW}&source={pack}"


def open_when_ready(server: str, pack: str, process: subprocess.Popen) -> None:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server}/api/workflow_templates", timeout=5) as answer:
                known = json.load(answer)
        except (OSError, urllib.error.URLError, ValueError):
            time.sleep(0.3)
            continue
        loaded = "with" if WORKFLOW in known.get(pack, ()) else "without"
        print(f"\nComfyUI runs {loaded} CoMoVi's workflows: {address(server, pack)}")
        print(
            f"Where that opens an empty page: Workflow, Browse Templates, {pack}, {WORKFLOW}. Ctrl-C ends it.\n",
            flush=True,
        )
        webbrowser.open(address(server, pack))
        return


def main(arguments: list[str]) -> int:
    search = find_comfyui()
    if search.install is None:
        advice = "Install one (pip install comfy-cli; comfy install), or say where it is: COMFYUI_PATH=/path/to/ComfyUI"
        print("No ComfyUI was found. Looked:", *search.looked, advice, sep="\n  ", file=sys.stderr)
        return 2
    install = search.install
    has = ask(install.python)
    if has["missing"]:
        print(
            f"ComfyUI's Python lacks {', '.join(has['missing'])}. To install: "
            f"{install.python} -m pip install -r {ROOT / 'requirements.txt'}",
            file=sys.stderr,
        )
        return 2
    names = {argument.split("=")[0] for argument in arguments}
    flags = ["--disable-auto-launch"]
    if not has["fast"] and not names & DEVICE_FLAGS:
        flags.append("--cpu")
    if "--preview-method" not in names:
        flags += ["--preview-method", "auto"]
    if "--port" in names:
        given = " ".join(arguments).replace("=", " ").split()
        port = int(given[given.index("--port") + 1])
    else:
        port = free_port(PORT)
        flags += ["--port", str(port)]
    with tempfile.TemporaryDirectory(prefix="comovi_") as folder:
        more, pack = pack_flags(install.home, Path(folder))
        command = [str(install.python), str(install.home / "main.py"), *flags, *more, *arguments]
        print(f"ComfyUI {install.version} in {install.home}, with {ROOT}\n{' '.join(command)}", flush=True)
        process = subprocess.Popen(command, cwd=install.home)
        opener = threading.Thread(target=open_when_ready, args=(f"http://127.0.0.1:{port}", pack, process), daemon=True)
        opener.start()
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()
            return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
