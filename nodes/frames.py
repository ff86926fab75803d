"""IMAGE batches as frames and back, and the progress bar of nodes that work frame by frame.

A batch is (F, H, W, 3) float32 in 0..1; frames are (F, H, W, 3) uint8.
"""

from __future__ import annotations

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ..comovi_model.errors import ComoviError


def frames_of(images: Tensor, name: str) -> Tensor:
    """A batch as uint8 frames on the CPU; a fourth channel is left out. `name` says in errors which input it was."""
    if images.dim() != 4 or images.shape[-1] not in (3, 4) or images.numel() == 0:
        raise ComoviError(f"{name} must be pictures (frames, height, width, 3), got {tuple(images.shape)}.")
    return torch.cat([_rounded(part, name) for part in images[..., :3].split(16)])


def _rounded(part: Tensor, name: str) -> Tensor:
    part = part.detach().cpu().float()
    if not bool(torch.isfinite(part).all()):
        raise ComoviError(f"{name} holds NaN or infinite numbers; look at the node that made it.")
    return (part * 255).round().clamp(0, 255).to(torch.uint8)


def batch_of(frames: Tensor) -> Tensor:
    """uint8 frames as a batch."""
    return frames.float() / 255


class Steps:
    """A progress bar that also ends the node as soon as a person presses the stop button."""

    def __init__(self, total: int) -> None:
        self.bar = comfy.utils.ProgressBar(total)
        check_interrupt()

    def __call__(self, done: int, total: int | None = None) -> None:
        check_interrupt()
        self.bar.update_absolute(done, total)


def check_interrupt() -> None:
    """Raises ComfyUI's own exception when the person has pressed stop; never catch it."""
    comfy.model_management.throw_exception_if_processing_interrupted()
