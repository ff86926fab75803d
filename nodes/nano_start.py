"""CoMoVi_NanoStart: the first frame and the first pose that a clip of the nano model begins with."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..comovi_model.errors import ComoviError
from ..comovi_model.nano.prompts import DEFAULT_PROMPT, read_prompt
from ..comovi_model.nano.start import draw_start, picture_start
from .frames import batch_of, frames_of
from .schema import BodyMotion, make_schema
from .shown_text import shown_text


class NanoStart(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_NanoStart",
            "Draw Nano Start",
            "motion",
            description="Draws the person that the nano model starts from: clothes as the sentence names them, the "
            "rest by the seed. Give a pose, or a picture of your own, to start from that instead.",
            search_aliases=["first frame", "start image", "nano", "comovi", "initial frame", "quick start"],
            inputs=[
                io.String.Input(
                    "prompt",
                    default=DEFAULT_PROMPT,
                    multiline=True,
                    tooltip="The sentence of the clip. Only the colours of shirt and trousers are read here.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Chooses figure, place, camera and the colours that the sentence leaves open.",
                ),
                BodyMotion.Input(
                    "pose",
                    optional=True,
                    tooltip="Frame 0 of this motion is the first pose, instead of a neutral stance.",
                ),
                io.Image.Input(
                    "picture",
                    optional=True,
                    tooltip="Used as the first frame instead of a drawing: its middle at 128 x 192 pixels. Wire the "
                    "pose of the person in it as well; without one, somebody standing in the middle is assumed.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="first_frame", tooltip="128 x 192 pixels, for CoMoVi Conditioning."),
                BodyMotion.Output(display_name="start_pose", tooltip="The body in the first frame and its camera."),
                io.String.Output(display_name="notes", tooltip="What was assumed, and words that the model ignores."),
            ],
        )

    @classmethod
    def execute(cls, prompt, seed, pose=None, picture=None) -> io.NodeOutput:
        wish = read_prompt(prompt)
        first = None if pose is None else pose.slice(0, 1)
        if first is not None and not bool(first.valid[0]):
            raise ComoviError("frame 0 of the pose is marked as not valid (a placeholder); cut the motion first.")
        if picture is None:
            start = draw_start(wish.text, seed, first)
        else:
            start = picture_start(frames_of(picture[:1], "picture")[0].numpy(), first, "the picture")
        frame = batch_of(torch.from_numpy(start.frame.copy())[None])
        notes = [*wish.notices, *start.notices]
        said = "\n".join(notes)
        return io.NodeOutput(
            frame, start.pose, said or "Nothing had to be assumed.", ui=shown_text(said) if said else None
        )


NODES = [NanoStart]
