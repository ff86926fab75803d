"""What a person drags onto the ComfyUI canvas. The only room that knows ComfyUI.

Each file of NODE_FILES ends in a ``NODES`` list; the extension hands ComfyUI their sum.
"""

from __future__ import annotations

import logging
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
    "photo",
    "estimators",
    "find_people",
    "estimate_pose",
    "estimate_motion",
    "start_pose",
    "adjust_pose",
    "motion_map",
    "motion_from_map",
    "motion_files",
    "clean",
    "edit",
    "look",
    "show_motion",
    "join_clips",
    "pose_data",
)


class CoMoViExtension(ComfyExtension):
    async def on_load(self) -> None:
        """Teach the core's own model loaders our files too. Ours works without, so a failure is one line in the log."""
        try:
            import_module(".native.stock_loaders", __package__).register()
        except Exception as error:
            logging.getLogger(__name__).warning(
                "CoMoVi: the core's model loaders stay as they are (%s: %s); use 'Load CoMoVi Model'.",
                type(error).__name__,
                error,
            )

    async def get_node_list(self) -> list[type]:
        await self.on_load()  # an older ComfyUI never calls it; twice does no harm
        return [node for name in NODE_FILES for node in import_module(f".{name}", __package__).NODES]
