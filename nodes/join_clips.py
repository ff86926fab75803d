"""CoMoVi_JoinClips: two videos in a row, without the frames that the second one repeats."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..comovi_model.errors import ComoviError
from .schema import make_schema


class JoinClips(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_JoinClips",
            "Join Clips",
            "look",
            description="One clip after another as one batch of pictures. A clip that starts from the last frame of "
            "the one before repeats that frame, which is then left out.",
            search_aliases=["concatenate video", "concat", "append", "extend video", "longer", "chain", "batch images"],
            inputs=[
                io.Image.Input("first", tooltip="Plays first."),
                io.Image.Input("second", tooltip="Goes on from there; same width and height."),
                io.Int.Input(
                    "shared",
                    default=1,
                    min=0,
                    max=1024,
                    tooltip="How many frames at the start of the second clip the first one has shown already.",
                ),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="Both clips as one.")],
        )

    @classmethod
    def execute(cls, first: torch.Tensor, second: torch.Tensor, shared: int) -> io.NodeOutput:
        if first.shape[-1] != second.shape[-1]:  # one of them with transparency
            first, second = first[..., :3], second[..., :3]
        if first.shape[1:] != second.shape[1:]:
            sizes = " and ".join(f"{clip.shape[2]} x {clip.shape[1]}" for clip in (first, second))
            raise ComoviError(f"the clips are {sizes} pixels; scale one of them, so that both have the same size.")
        if shared >= len(second):
            raise ComoviError(f"shared is {shared}, but the second clip has only {len(second)} frames.")
        return io.NodeOutput(torch.cat([first, second[shared:].to(first)]))


NODES = [JoinClips]
