"""ComfyUI-CoMoVi: a picture, a pose and a sentence become a video, its motion map and a moving body.

Importing this file imports nothing else: not torch, not ComfyUI. It is therefore valid under any name that a loader
gives it (ComfyUI's path string, pip's ``comfyui_comovi``, pytest's ``__init__``).
"""

__version__ = "0.1.0"

WEB_DIRECTORY = "./nodes/web"  # ComfyUI serves the help pages from here, docs/<node id>.md


async def comfy_entrypoint():
    """ComfyUI calls this once to learn our nodes; the import waits until then."""
    from .nodes import CoMoViExtension

    return CoMoViExtension()
