"""What a person drags onto the ComfyUI canvas. The only room that knows ComfyUI.

Each file of this room ends in a ``NODES`` list; the extension hands ComfyUI their sum.
"""

from __future__ import annotations

from comfy_api.latest import ComfyExtension

NODES: list[type] = []


class CoMoViExtension(ComfyExtension):
    async def get_node_list(self) -> list[type]:
        return NODES
