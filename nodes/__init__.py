"""What a person drags onto the ComfyUI canvas. The only room that knows ComfyUI.

Each file of NODE_FILES ends in a ``NODES`` list; the extension hands ComfyUI their sum.
"""

from __future__ import annotations

from importlib import import_module

from comfy_api.latest import ComfyExtension

NODE_FILES: tuple[str, ...] = (
    # one module name a line, in the order in which the menu shows them
    "load_model",
    "load_nano",
    "lora",
    "model_report",
    "conditioning",
    "latents",
    "official_sampling",
    "pose_from_latent",
    "bodies",
    "nano_start",
    "start_pose",
    "motion_map",
    "motion_from_map",
    "motion_files",
    "clean",
    "edit",
    "look",
    "show_motion",
    "pose_data",
)


class CoMoViExtension(ComfyExtension):
    async def get_node_list(self) -> list[type]:
        return [node for name in NODE_FILES for node in import_module(f".{name}", __package__).NODES]
