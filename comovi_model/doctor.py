"""What is installed here, what will be used and why, what is missing and how to get it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from .comfyui_install import find_comfyui, find_old_comfyui

OLDEST = [0, 3, 64]  # of ComfyUI
NEEDED = {  # distribution: what it is for
    "torch": "runs the model",
    "numpy": "arrays",
    "pillow": "pictures",
    "safetensors": "weights",
    "av": "videos",
    "tqdm": "progress bars",
}
OPTIONAL = {  # distribution: (what it adds, what is used without it, how to get it)
    "triton": ("fused kernels on a GPU, where COMOVI_KERNELS asks", "plain torch", "pip install triton"),
    "comfy-kitchen": ("ComfyUI's kernels, the second choice", "plain torch", "pip install comfy-kitchen packaging"),
    "nvdiffrast": (
        "motion maps drawn on the GPU",
        "our own rasteriser",
        "pip install --no-build-isolation git+https://github.com/NVlabs/nvdiffrast (it is not on PyPI)",
    ),
    "smplx": ("a second opinion in the tests", "our own body model", "pip install smplx"),
    "numba": ("fast synthetic training clips", "plain torch, slower", "pip install numba"),
}
ASSETS = {  # file in assets/: what it is
    "mannequin.safetensors": "the built-in body, CC0",
    "nano_body.safetensors": "the same with fewer faces, for small pictures",
    "nano.safetensors": "the nano dual-branch network",
    "nano_text.safetensors": "the nano text encoder",
    "nano_autoencoder.safetensors": "the nano video autoencoder",
    "finder.safetensors": "the person finder of comovi estimate",
    "lifter.safetensors": "from keypoints to a body",
    "lifter_prior.safetensors": "how people hold their joints, for the same",
    "mhr_surface.safetensors": "from SAM 3D Body's mesh to ours",
}


def examine() -> tuple[list[str], bool]:
    """Return the report's lines, and whether everything that is needed is there."""
    libraries, healthy = _libraries()
    assets, complete = _assets()
    sections = [
        ("This machine", _machine()),
        ("Libraries", libraries),
        ("Devices", _devices()),
        ("Back ends", _back_ends()),
        ("Assets", assets),
        ("ComfyUI", _comfyui()),
    ]
    lines = [line for title, body in sections for line in (title, *(f"  {text}" for text in body), "")]
    verdict = (
        "Everything that is needed is here." if healthy and complete else "Something needed is missing (see above)."
    )
    return [*lines, verdict], healthy and complete


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine() -> list[str]:
    from .. import __version__

    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB of memory"
    python = f"comovi {__version__}, Python {platform.python_version()}"
    return [python, f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{memory}"]


def _libraries() -> tuple[list[str], bool]:
    lines, healthy = [], True
    for name, purpose in NEEDED.items():
        version = _version(name)
        healthy &= version is not None
        state = version or "MISSING"
        lines.append(f"{name:<12} {state:<16} {purpose}" + ("" if version else f"; to install: pip install {name}"))
    for name, (purpose, instead, how) in OPTIONAL.items():
        version = _version(name)
        if version:
            lines.append(f"{name:<12} {version:<16} {purpose}")
        else:
            lines.append(f"{name:<12} {'not installed':<16} {purpose}; without it: {instead}; to get it: {how}")
    return lines, healthy


def _devices() -> list[str]:
    try:
        import torch
    except ImportError as error:
        return [f"torch cannot be imported ({error}), so no device can be used"]
    lines = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        capability = f"sm_{properties.major}{properties.minor}"
        lines.append(f"cuda:{index:<7} {properties.name}, {properties.total_memory / 2**30:.0f} GiB, {capability}")
    if not lines:
        reason = "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no working GPU"
        lines.append(f"{'cuda':<12} none: {reason}")
    if torch.backends.mps.is_available():
        lines.append(f"{'mps':<12} Apple GPU")
    lines.append(f"{'cpu':<12} {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    # No verb moves to a GPU: the nano model takes seconds. The network and the maps follow their tensors.
    chosen = "cpu, for every comovi verb"
    chosen += "; networks and motion maps in Python run where their tensors are" if torch.cuda.is_available() else ""
    return [*lines, f"{'used':<12} {chosen}"]


def _back_ends() -> list[str]:
    try:
        import torch

        from ..kernels import attention_libraries
        from ..kernels.dense_attention import SMALL_SCORES
        from ..kernels.dispatch import explain
        from .body.rasterise_nvdiffrast import installed
    except ImportError as error:
        return [f"cannot be examined ({error})"]
    cuda = torch.cuda.is_available()
    fused = attention_libraries.explain().removeprefix("attention: ")
    small = f"two matrix products up to {SMALL_SCORES / 2**20:.0f} M scores (measured faster), above that torch's own"
    if cuda and installed():
        raster = "our z-buffer on the CPU, nvdiffrast for bodies on a GPU, because it is installed"
    else:
        raster = f"our z-buffer, because {'nvdiffrast is not installed' if cuda else 'there is no CUDA device'}"
    return [
        f"{'attention':<12} {f'on a GPU {fused}; on the CPU {small}' if cuda else small}",
        *(f"{'kernels' if i == 0 else '':<12} {line}" for i, line in enumerate(explain("cuda" if cuda else "cpu"))),
        f"{'motion maps':<12} {raster}",
    ]


def _assets() -> tuple[list[str], bool]:
    folder = Path(__file__).parent / "assets"
    lines, complete = [], True
    for name, purpose in ASSETS.items():
        lines.append(_asset_line(folder / name, purpose))
        complete &= (folder / name).exists()
    lines.append("a real SMPL body is not shipped (its licence forbids it): get SMPL_NEUTRAL.npz or .pkl from the")
    lines.append("  authors' site (smpl.is.tue.mpg.de) and pass it with --body; without it the mannequin is used")
    return lines, complete


def _asset_line(path: Path, purpose: str) -> str:
    if not path.exists():
        return f"{path.name:<30} MISSING: {purpose}; reinstall the package, or clone it again"
    return f"{path.name:<30} {path.stat().st_size / 1e6:5.1f} MB  {purpose}"


def _comfyui() -> list[str]:
    package = Path(__file__).resolve().parent.parent
    lines = []
    for search, role in ((find_comfyui(), "used by tests and make comfyui"), (find_old_comfyui(), "oldest for tests")):
        if search.install is None:
            lines.append(f"none {role}; looked: {'; '.join(search.looked)}")
            continue
        home, version = search.install.home, search.install.version
        lines.append(f"{home} {_version_note(version)}, {role}; its Python is {search.install.python}")
        copies = _copies(home, package)
        lines += [f"  this pack is in its custom_nodes as {name}" for name in copies]
    if package.parent.name == "custom_nodes":
        lines.append(f"this copy is a custom node of the ComfyUI at {package.parent.parent}")
    lines.append("the comovi command needs no ComfyUI; to use this copy in one, clone it into its custom_nodes folder,")
    lines.append("  or: make comfyui, which shows it to your ComfyUI without writing there")
    return lines


def _version_note(version: str) -> str:
    """A version with a warning when it is older than what the nodes were tested with."""
    if not version:
        return "(version unknown)"
    numbers = [int(part) for part in version.split(".") if part.isdigit()]
    return f"{version} (too old: {'.'.join(map(str, OLDEST))} is needed)" if numbers < OLDEST else version


def _copies(home: Path, package: Path) -> list[str]:
    """Folder names below custom_nodes that are this checkout, or another copy of this pack."""
    nodes = home / "custom_nodes"
    entries = sorted(nodes.iterdir()) if nodes.is_dir() else []
    return [
        entry.name if entry.resolve() == package else f"{entry.name} (another copy)"
        for entry in entries
        if entry.resolve() == package or (entry / "comovi_model" / "comfyui_install.py").is_file()
    ]
