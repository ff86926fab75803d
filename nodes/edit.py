"""Cutting, retiming, joining, mirroring and holding motions: one node for each."""

from __future__ import annotations

from comfy_api.latest import io

from ..comovi_model.body.frames import pelvis_at_rest
from ..comovi_model.clean.edit import hold, mirror, reverse, trim
from ..comovi_model.clean.join import MANNERS, join
from ..comovi_model.clean.time_base import INTERPOLATIONS, resample
from ..comovi_model.errors import ComoviError
from .choices import listed
from .frames import check_interrupt
from .schema import ADVANCED, Body, BodyMotion, make_schema

SMOOTHEST_FIRST = tuple(reversed(INTERPOLATIONS))
MOST_FRAMES = 100_000


class ResampleMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_ResampleMotion",
            "Resample Motion",
            "motion",
            description="The same movement at another number of frames per second, or faster or slower. CoMoVi works "
            "at 16. Times are exact, so 30 to 16 and back stays in step with the sound.",
            search_aliases=["fps", "frame rate", "retime", "speed", "slow motion", "interpolate", "time stretch"],
            inputs=[
                BodyMotion.Input("motion", tooltip="The motion to retime."),
                io.Float.Input(
                    "fps",
                    default=16.0,
                    min=0.0,
                    max=1000.0,
                    step=0.001,
                    tooltip="Frames per second of the result; 0 keeps the rate. 29.97 is taken as 30000/1001 exactly.",
                ),
                io.Float.Input(
                    "speed",
                    default=1.0,
                    min=0.01,
                    max=100.0,
                    step=0.01,
                    tooltip="How many times as fast the person moves: 2 is twice as quick and half as long.",
                ),
                io.Combo.Input(
                    "interpolation",
                    options=list(SMOOTHEST_FIRST),
                    default=SMOOTHEST_FIRST[0],
                    tooltip="cubic passes through the frames without kinks; slerp turns at constant speed between two.",
                    **ADVANCED,
                ),
            ],
            outputs=[BodyMotion.Output(display_name="motion", tooltip="From the first to the last frame's time.")],
        )

    @classmethod
    def validate_inputs(cls, interpolation=None):
        return listed(cls, {"interpolation": interpolation})

    @classmethod
    def execute(cls, motion, fps, speed, interpolation) -> io.NodeOutput:
        check_interrupt()
        return io.NodeOutput(resample(motion.to("cpu"), fps or motion.fps, interpolation, speed))


class TrimMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_TrimMotion",
            "Trim Motion",
            "motion",
            description="Some frames of a motion, in order or backwards.",
            search_aliases=["cut", "crop", "range", "slice", "frames", "in point", "out point", "reverse", "shorten"],
            inputs=[
                BodyMotion.Input("motion", tooltip="The motion to cut."),
                io.Int.Input(
                    "start",
                    default=0,
                    min=-MOST_FRAMES,
                    max=MOST_FRAMES,
                    tooltip="First frame to keep: 0 is the first of the motion, -1 the last, -16 the last but 15.",
                ),
                io.Int.Input(
                    "length",
                    default=0,
                    min=0,
                    max=MOST_FRAMES,
                    tooltip="How many frames to keep; 0 keeps all up to the end.",
                ),
                io.Boolean.Input("backwards", default=False, tooltip="Play the kept frames from last to first."),
            ],
            outputs=[BodyMotion.Output(display_name="motion", tooltip="The frames that were kept.")],
        )

    @classmethod
    def execute(cls, motion, start, length, backwards) -> io.NodeOutput:
        first = start + len(motion) if start < 0 else start
        stop = first + length if length else len(motion)
        if not 0 <= first < len(motion) or stop > len(motion):
            raise ComoviError(
                f"start {start} and length {length} reach outside a motion of {len(motion)} frames "
                f"(0 to {len(motion) - 1}); make them smaller."
            )
        cut = trim(motion, first, stop)
        return io.NodeOutput(reverse(cut.to("cpu")) if backwards else cut)


class JoinMotions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_JoinMotions",
            "Join Motions",
            "motion",
            description="One motion after another. The second is turned and moved to where the first ends, and the "
            "seam is blended. Two single poses joined by a bridge are an in-between movement.",
            search_aliases=[
                "concatenate",
                "concat",
                "append",
                "blend",
                "transition",
                "in-between",
                "chain",
                "sequence",
            ],
            inputs=[
                BodyMotion.Input("first", tooltip="Plays first; its frame rate, axes, shape and camera are kept."),
                BodyMotion.Input("second", tooltip="Goes on from there; it is resampled and turned as needed."),
                Body.Input("body", tooltip="The body that moves."),
                io.Float.Input(
                    "blend",
                    default=0.3,
                    min=0.0,
                    max=60.0,
                    step=0.05,
                    tooltip="Seconds that the seam takes.",
                ),
                io.Combo.Input(
                    "manner",
                    options=list(MANNERS),
                    default=MANNERS[0],
                    tooltip="overlap fades from the end of the first into the start of the second; bridge keeps both "
                    "whole and makes up the movement between them.",
                ),
                io.Boolean.Input(
                    "align",
                    default=True,
                    tooltip="Turn the second about the vertical and move it along the floor, so that it goes on where "
                    "the first ends. Off: both stay where they are.",
                ),
            ],
            outputs=[BodyMotion.Output(display_name="motion", tooltip="Both motions as one.")],
        )

    @classmethod
    def validate_inputs(cls, manner=None):
        return listed(cls, {"manner": manner})

    @classmethod
    def execute(cls, first, second, body, blend, manner, align) -> io.NodeOutput:
        check_interrupt()
        return io.NodeOutput(join(first.to("cpu"), second.to("cpu"), body.to("cpu"), blend, manner, align))


class MirrorMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_MirrorMotion",
            "Mirror Motion",
            "motion",
            description="The motion as a mirror shows it: what the left hand did, the right hand does. A motion with a "
            "camera then fits the flipped video.",
            search_aliases=["flip", "left right", "symmetry", "swap sides", "reflect"],
            inputs=[
                BodyMotion.Input("motion", tooltip="The motion to mirror."),
                Body.Input("body", tooltip="The body that moves."),
            ],
            outputs=[BodyMotion.Output(display_name="motion", tooltip="The mirrored motion.")],
        )

    @classmethod
    def execute(cls, motion, body) -> io.NodeOutput:
        motion = motion.to("cpu")
        return io.NodeOutput(mirror(motion, pelvis_at_rest(body.to("cpu"), motion)))


class HoldPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_HoldPose",
            "Hold Pose",
            "motion",
            description="Holds the first or the last pose of a motion for more frames: a pause before or after the "
            "movement, or a still clip of a single pose.",
            search_aliases=["freeze", "pause", "repeat frame", "pad", "extend", "still", "wait"],
            inputs=[
                BodyMotion.Input("motion", tooltip="A motion, or a single pose from Start Pose or Trim Motion."),
                io.Int.Input("before", default=0, min=0, max=MOST_FRAMES, tooltip="Frames to add in front."),
                io.Int.Input("after", default=16, min=0, max=MOST_FRAMES, tooltip="Frames to add behind."),
            ],
            outputs=[BodyMotion.Output(display_name="motion", tooltip="The longer motion.")],
        )

    @classmethod
    def execute(cls, motion, before, after) -> io.NodeOutput:
        return io.NodeOutput(hold(motion.to("cpu"), before, after))


NODES = [ResampleMotion, TrimMotion, JoinMotions, MirrorMotion, HoldPose]
