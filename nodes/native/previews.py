"""Live previews that move: video and motion map side by side, while the sampler works.

ComfyUI's own preview is one picture a step of one latent frame. Browsers do not play an animated picture that is
painted on a canvas, where the web UI draws its nodes, so the clip is sent as ComfyUI sends any preview, one picture
after another in the clip's own tempo, from a thread that lives as long as the sampling run. Every client that knows
previews sees it, without code of ours in the browser.
"""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import latent_preview
import torch
from comfy.cli_args import LatentPreviewMethod, args
from PIL import Image
from torch import Tensor

from .latent_format import NanoLatent, motion_half, video_half
from .preview_colours import format_table, nano_pictures, table_pictures

PIXEL_FRAMES_A_SECOND = 16.0
Send = Callable[[Image.Image], None]


@dataclass
class Reel:
    """What is on show. The sampler's thread swaps the pictures, the player's thread reads them."""

    tempo: float  # pictures a second
    pictures: Tensor | None = None  # (T, H, W, 3) uint8
    position: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def picture(self) -> Image.Image:
        assert self.pictures is not None  # the player starts with the first pictures
        return Image.fromarray(self.pictures[self.position % len(self.pictures)].numpy())


class MovingPreview:
    """A sampler callback that calls the given one and keeps the clip of the last step playing until `close`."""

    def __init__(self, callback: Any, paint: Callable[[Tensor], Tensor], tempo: float, send: Send):
        self.callback, self.paint, self.send = callback, paint, send
        self.reel = Reel(tempo)
        self.player: threading.Thread | None = None
        weakref.finalize(self, self.reel.ended.set)  # a run that broke off drops its callback

    def __call__(self, step: int, x0: Tensor, *others: Any) -> Any:
        answer = self.callback(step, x0, *others) if self.callback is not None else None
        try:
            self.show(x0)
        except Exception as error:  # a picture on the way must never cost the result
            complain(error)
            self.close()
        return answer

    def show(self, x0: Tensor) -> None:
        """Put the pictures of a step on, one of them at once in the place of ComfyUI's own, and start to play."""
        if self.reel.ended.is_set():
            return
        self.reel.pictures = self.paint(x0)
        self.send(self.reel.picture())
        if self.player is None:
            self.player = threading.Thread(target=play, args=(self.reel, self.send), daemon=True, name="comovi preview")
            self.player.start()

    def close(self) -> None:
        """Stop playing, and wait until no more picture can leave (a few milliseconds)."""
        self.reel.ended.set()
        if self.player is not None and self.player is not threading.current_thread():
            self.player.join(timeout=2.0)


def play(reel: Reel, send: Send) -> None:
    """Send picture after picture, until the run ends."""
    try:
        while not reel.ended.wait(1 / reel.tempo):
            reel.position += 1
            send(reel.picture())
    except Exception as error:
        complain(error)


def complain(error: Exception) -> None:
    logging.getLogger(__name__).warning("no moving preview: %s: %s", type(error).__name__, error)


def wrap_callback(callback: Any, model: Any, steps: int = 0) -> Any:
    """The callback with moving previews around it; the callback itself where nobody watches.

    model: the ModelPatcher (or BaseModel) that is sampled. Call `close()` of what comes back when sampling ends.
    """
    del steps  # a reel has no length of its own
    if args.preview_method == LatentPreviewMethod.NoPreviews:
        return callback
    try:
        base = getattr(model, "model", model)
        send = send_to_client()
        painted = painter(base.latent_format, base.model_config.unet_config.get("branches", "both"))
    except Exception as error:  # as above: another ComfyUI may have another inside
        complain(error)
        return callback
    return callback if send is None or painted is None else MovingPreview(callback, *painted, send)


def painter(latent_format: Any, branches: str) -> tuple[Callable[[Tensor], Tensor], float] | None:
    """From the sampler's x0 (B, 96, F, h, w) to pictures (T, H, W, 3) of the first of the batch, and their tempo."""
    table = None if isinstance(latent_format, NanoLatent) else format_table(latent_format)
    if isinstance(latent_format, NanoLatent):
        one, tempo = nano_pictures, PIXEL_FRAMES_A_SECOND / 2
    elif table is not None:
        one, tempo = lambda half: table_pictures(half, table), PIXEL_FRAMES_A_SECOND / 4
    else:
        return None
    halves = [video_half] * (branches != "motion only") + [motion_half] * (branches != "video only")

    def paint(x0: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.cat([one(half(x0[:1])[0]) for half in halves], dim=2)

    return paint, tempo


def send_to_client() -> Send | None:
    """A function that sends a preview to whoever queued the prompt that is running; None outside a server.

    ComfyUI's own progress function is not used, because it also ends the calling thread when the user interrupts, and
    takes the interrupt back: that belongs to the sampler's thread.
    """
    from comfy_execution.progress import NodeState, get_progress_state
    from comfy_execution.utils import get_executing_context

    module = sys.modules.get("server")  # importing it would start to build one
    server, context = getattr(getattr(module, "PromptServer", None), "instance", None), get_executing_context()
    if server is None or context is None:
        return None
    registry, node_id, client = get_progress_state(), context.node_id, server.client_id

    def send(picture: Image.Image) -> None:
        entry = registry.nodes.get(node_id)
        if entry is None or entry["state"] != NodeState.Running:
            return
        preview = ("JPEG", picture, latent_preview.MAX_PREVIEW_RESOLUTION)
        registry.update_progress(node_id, entry["value"], entry["max"], preview)
        send_plain(server, client, preview)

    return send


def send_plain(server: Any, client: Any, preview: tuple[str, Image.Image, int]) -> None:
    """The same picture for clients that know only previews without a node's name."""
    from comfy_api import feature_flags
    from protocol import BinaryEventTypes

    if not feature_flags.supports_feature(server.sockets_metadata, client, "supports_preview_metadata"):
        server.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, preview, client)
