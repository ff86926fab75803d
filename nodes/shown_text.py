"""Text on the face of a node: what a report says, readable without another node.

The result of a node may carry text, which the API and the history hand out; the web UI does not draw it. What it draws
is the text that a running node reports about itself, so both are given.
"""

from __future__ import annotations

import sys

from comfy_api.latest import ui
from comfy_execution.utils import get_executing_context


def shown_text(text: str) -> ui.PreviewText:
    """Put `text` on the node that is running; give what comes back to NodeOutput(..., ui=...)."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    context = get_executing_context()
    if server is not None and context is not None and hasattr(server, "send_progress_text"):
        server.send_progress_text(text, context.node_id, server.client_id)
    return ui.PreviewText(text)
