"""CoMoVi_MotionFromMap: the body motion that a motion map shows, found by fitting the body to it."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from .frames import Steps, check_interrupt, frames_of
from .schema import Body, BodyMotion, make_schema


class MotionFromMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_MotionFromMap",
            "Motion from Map",
            "motion",
            description="Fits the body to every frame of a motion map: pose and path, without any prediction of the "
            "model. For maps of a video, of another program, or to check the model's own pose.",
            search_aliases=["fit", "smplify", "motion capture", "mocap", "pose estimation", "map to motion"],
            inputs=[
                io.Image.Input("motion_map", tooltip="Frames of a motion map on white, all of one person."),
                BodyMotion.Input("start_pose", tooltip="Where the body is in the first frame, with its camera."),
                Body.Input("body", tooltip="The body that the map shows."),
                io.Float.Input(
                    "fps",
                    default=16.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames per second of the map; CoMoVi's clips have 16.",
                ),
            ],
            outputs=[
                BodyMotion.Output(display_name="motion", tooltip="The motion; frames that failed are marked."),
                io.String.Output(display_name="report", tooltip="How well each part of the clip could be read."),
            ],
        )

    @classmethod
    def execute(cls, motion_map, start_pose, body, fps) -> io.NodeOutput:
        from ..comovi_model.fit.fit_map import fit_motion_map

        frames = frames_of(motion_map, "motion_map")
        start = start_pose.slice(0, 1)
        check_interrupt()
        result = fit_motion_map(frames, body, start, fps=fps, on_progress=Steps(len(frames)))
        motion = replace(result.motion, provenance={**start.provenance, **result.motion.provenance})
        return io.NodeOutput(motion, "\n".join(result.report()))


NODES = [MotionFromMap]
