"""CoMoVi_CleanMotion: the usual repairs of estimated or generated motion, in the order that works."""

from __future__ import annotations

from comfy_api.latest import io

from ..comovi_model.clean.pipeline import NO_SMOOTHING, CleanSettings, clean_motion
from .choices import listed
from .frames import Steps
from .schema import ADVANCED, Body, BodyMotion, make_schema

SMOOTHINGS = ("gaussian", "savgol", "one-euro", "paper", NO_SMOOTHING)


class CleanMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_CleanMotion",
            "Clean Motion",
            "motion",
            description="Mends a motion: poses that jump, missing frames, shaking, a floor that is not level, feet "
            "that slide. Each step can be switched off; the report says what it did.",
            search_aliases=[
                "smooth",
                "denoise",
                "jitter",
                "foot lock",
                "foot skate",
                "foot sliding",
                "ground",
                "floor",
                "outlier",
                "fill gaps",
                "interpolate",
                "savgol",
                "one euro",
                "gaussian",
                "shape lock",
                "mocap cleanup",
            ],
            inputs=[
                BodyMotion.Input("motion", tooltip="The motion to mend; it is not changed itself."),
                Body.Input("body", tooltip="The body that moves: its legs and soles tell what standing is."),
                io.Boolean.Input(
                    "outliers",
                    default=True,
                    tooltip="Poses that jump away for a few frames and back are replaced by what lies around them.",
                ),
                io.Boolean.Input(
                    "fill",
                    default=True,
                    tooltip="Frames without a pose, also those that the file lacks, are filled from their neighbours.",
                ),
                io.Combo.Input(
                    "smoothing",
                    options=list(SMOOTHINGS),
                    default=SMOOTHINGS[0],
                    tooltip="gaussian is the calmest; savgol keeps peaks; one-euro calms still parts and leaves quick "
                    "ones quick; paper is the light filter of the released data (rotations only).",
                ),
                io.Float.Input(
                    "strength",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Of the smoothing. It stands for a time, so it means the same at every frame rate; paper "
                    "has only one.",
                ),
                io.Boolean.Input(
                    "foot_lock",
                    default=True,
                    tooltip="Feet that stand stay where they are, and the legs bend to suit; a pelvis too high sinks.",
                ),
                io.Boolean.Input(
                    "ground",
                    default=False,
                    tooltip="Stands the motion on the floor: y up, floor at 0, start above the origin. The camera is "
                    "given up, so switch it off where the motion is to fit a video or motion map.",
                ),
                io.Float.Input(
                    "max_gap",
                    default=0.5,
                    min=0.0,
                    max=60.0,
                    step=0.05,
                    tooltip="The longest gap that is filled, in seconds; longer ones stay empty.",
                    **ADVANCED,
                ),
                io.Boolean.Input(
                    "steady_depth",
                    default=False,
                    optional=True,
                    tooltip="Steadies how far the person is from the camera and keeps the place in the picture. For "
                    "motions that were estimated frame by frame, in the camera's frame only.",
                    **ADVANCED,
                ),
                BodyMotion.Input(
                    "same_person",
                    optional=True,
                    tooltip="Another clip of this person: the motion gets the shape (betas) in the middle of both.",
                ),
            ],
            outputs=[
                BodyMotion.Output(
                    display_name="motion", tooltip="The mended motion; longer if the file lacked frames."
                ),
                io.String.Output(display_name="report", tooltip="What each step did, with figures."),
            ],
        )

    @classmethod
    def validate_inputs(cls, smoothing=None):
        return listed(cls, {"smoothing": smoothing})

    @classmethod
    def execute(
        cls,
        motion,
        body,
        outliers,
        fill,
        smoothing,
        strength,
        foot_lock,
        ground,
        max_gap,
        steady_depth=False,
        same_person=None,
    ) -> io.NodeOutput:
        settings = CleanSettings(
            outliers=outliers,
            fill=fill,
            max_gap_seconds=max_gap,
            steady_depth=steady_depth,
            smoothing=smoothing,
            strength=strength,
            shape_of=() if same_person is None else (same_person.to("cpu"),),
            ground=ground,
            foot_lock=foot_lock,
        )
        result = clean_motion(motion.to("cpu"), body.to("cpu"), settings, Steps(1))
        return io.NodeOutput(result.motion, "\n".join(result.report))


NODES = [CleanMotion]
