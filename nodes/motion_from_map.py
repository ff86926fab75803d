"""CoMoVi_MotionFromMap: the body motion that a motion map shows, found by fitting the body to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ..comovi_model.body.cameras import Camera
from ..comovi_model.body.map_colours import SHADINGS
from ..comovi_model.errors import ComoviError
from .choices import listed
from .frames import Steps, frames_of
from .schema import ADVANCED, Body, BodyMotion, make_schema


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
                Body.Input("body", tooltip="The body that the map shows."),
                io.Float.Input(
                    "fps",
                    default=16.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames per second of the map; CoMoVi's clips have 16.",
                ),
                BodyMotion.Input(
                    "start_pose",
                    optional=True,
                    tooltip="Where the body is in the first frame, with its camera. Without it the pose is searched, "
                    "which takes longer and may find the wrong one.",
                ),
                io.Float.Input(
                    "field_of_view",
                    default=40.0,
                    min=1.0,
                    max=150.0,
                    step=0.5,
                    optional=True,
                    tooltip="Used without a start pose: what the height of the map spans, in degrees.",
                    **ADVANCED,
                ),
                io.Combo.Input(
                    "shading",
                    options=list(SHADINGS),
                    default=SHADINGS[0],
                    optional=True,
                    tooltip="How the map was drawn; the models' own maps are 'phong_reference'.",
                    **ADVANCED,
                ),
            ],
            outputs=[
                BodyMotion.Output(display_name="motion", tooltip="The motion; frames that failed are marked."),
                io.String.Output(display_name="report", tooltip="How well each part of the clip could be read."),
            ],
        )

    @classmethod
    def validate_inputs(cls, shading=None):
        return listed(cls, {"shading": shading})

    @classmethod
    def execute(cls, motion_map, body, fps, start_pose=None, field_of_view=40.0, shading=SHADINGS[0]) -> io.NodeOutput:
        from ..comovi_model.fit.fit_map import FitSettings, fit_motion_map

        frames = frames_of(motion_map, "motion_map")
        begin: dict[str, Any] = {}
        known: dict[str, Any] = {}
        notes: list[str] = []
        if start_pose is None:
            begin["camera"] = Camera.from_fov(field_of_view, frames.shape[2], frames.shape[1])
        else:
            begin["start"] = start_pose.slice(0, 1)
            height, width = frames.shape[1:3]
            if start_pose.camera is not None and (note := start_pose.camera.stretched_by(width, height)):
                notes.append(f"Take care: {note}")
            known = start_pose.provenance
        settings = FitSettings(shading=shading)
        result = fit_motion_map(frames, body, **begin, fps=fps, on_progress=Steps(len(frames)), settings=settings)
        if result.motion.valid is not None and not bool(result.motion.valid.any()):
            raise ComoviError(
                "motion_map: no frame shows a body that could be read; give a map as 'Draw Motion Map' draws it, "
                "or the decoded second half of a CoMoVi latent."
            )
        motion = replace(result.motion, provenance={**known, **result.motion.provenance})
        return io.NodeOutput(motion, "\n".join([*notes, *result.report()]))


NODES = [MotionFromMap]
