"""CoMoVi_EstimateMotion and CoMoVi_FitKeypoints: the motion of one person, from a video or from its keypoints."""

from __future__ import annotations

from typing import Any

import numpy as np
from comfy_api.latest import io

from ..comovi_model.clean.pipeline import NO_SMOOTHING
from ..comovi_model.clean.smoothing import METHODS
from ..comovi_model.errors import ComoviError
from ..comovi_model.estimate.people import CHOICES
from ..comovi_model.estimate.people_from import in_every_frame, people_from_keypoints
from ..comovi_model.estimate.photo import Sources
from ..comovi_model.estimate.video import VideoSettings, estimate_video
from .choices import listed
from .estimators import Estimator
from .frames import Steps, frames_of
from .schema import ADVANCED, Body, BodyMotion, make_schema
from .shown_text import shown_text
from .who import Keypoints, focal_input, given_camera, lens_input, mask_of, people_of_frames, who_inputs

ONE_PERSON = tuple(choice for choice in CHOICES if choice != "all")
SMOOTHING = [NO_SMOOTHING, *METHODS]


def clip_inputs() -> list[io.Input]:
    """What is done with the poses of single frames."""
    return [
        io.Float.Input("fps", default=16.0, min=1.0, max=240.0, step=0.01, tooltip="Frames per second of the video."),
        io.Combo.Input(
            "smoothing",
            options=SMOOTHING,
            default="savgol",
            tooltip="Calms what flickers from frame to frame; 'none' leaves the poses as they were read, outliers too. "
            "'one-euro' keeps quick movements quick.",
        ),
        io.Float.Input(
            "strength", default=0.5, min=0.0, max=1.0, step=0.05, tooltip="Of the smoothing; 'paper' has only one."
        ),
        io.Float.Input(
            "longest_gap",
            default=0.5,
            min=0.0,
            max=10.0,
            step=0.1,
            tooltip="Seconds without the person that are filled in; longer gaps stay marked as not valid.",
        ),
        io.Boolean.Input(
            "lock_shape",
            default=True,
            optional=True,
            tooltip="One shape for the whole clip: the median of all frames, or off: the shape of the first frame. The "
            "body stays as large in the picture.",
            **ADVANCED,
        ),
    ]


def clip_outputs() -> list[io.Output]:
    return [
        BodyMotion.Output(display_name="motion", tooltip="In the camera's frame, with the camera of the video."),
        io.String.Output(display_name="report", tooltip="By which way, what was filled in, and what was assumed."),
    ]


class EstimateMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_EstimateMotion",
            "Estimate Motion",
            "estimate",
            description="Follows one person through a video and reads the body in every frame; one shape for the clip, "
            "gaps filled, smoothed. By your CameraHMR, else by keypoints, approximately.",
            search_aliases=["video to motion", "motion capture", "mocap", "smpl video", "track person", "hmr video"],
            has_intermediate_output=True,
            inputs=[
                io.Image.Input("images", tooltip="The frames of a video from one camera that stands still."),
                Body.Input("body", tooltip="The body that shall move so; from Load Body."),
                *clip_inputs()[:-1],
                *who_inputs(ONE_PERSON),
                Estimator.Input("estimator", optional=True, tooltip="Your CameraHMR, from Load CameraHMR."),
                focal_input(),
                clip_inputs()[-1],
                io.Int.Input(
                    "frames_at_once",
                    default=8,
                    min=1,
                    max=256,
                    optional=True,
                    tooltip="Crops that go through CameraHMR together; more need more memory.",
                    **ADVANCED,
                ),
                lens_input(),
            ],
            outputs=clip_outputs(),
        )

    @classmethod
    def validate_inputs(cls, who=None, smoothing=None):
        return listed(cls, {"who": who, "smoothing": smoothing})

    @classmethod
    def execute(
        cls, images, body, fps, smoothing, strength, longest_gap, who, index, people=None, mask=None, estimator=None,
        focal_px=0.0, lock_shape=True, frames_at_once=8, focal_from_keypoints=False,
    ) -> io.NodeOutput:  # fmt: skip
        frames = frames_of(images, "images").numpy()
        size = frames.shape[1:3]
        given = people_of_frames(people, size, len(frames))
        painted = mask_of(mask, size) if who == "mask" else None
        networks = None if estimator is None else estimator.ready()
        camera = given_camera(focal_px, size)
        sources = Sources(networks, camera=camera, lens_from_keypoints=focal_from_keypoints, chunk=frames_at_once)
        calm = smoothing != NO_SMOOTHING
        settings = VideoSettings(who, index, painted, None, lock_shape, calm, longest_gap, calm, smoothing, strength)
        steps = Steps(2 * len(frames))
        found = estimate_video(frames, body, sources, settings, fps=fps, people=given, on_progress=steps)
        report = "\n".join(found.report())
        return io.NodeOutput(found.motion, report, ui=shown_text(report))


class FitKeypoints(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_FitKeypoints",
            "Fit Keypoints",
            "estimate",
            description="A body, or a motion, from the keypoints that DWPose, OpenPose or SDPose see (POSE_KEYPOINT). "
            "Approximate: right in the picture, the likeliest in depth, of average shape.",
            search_aliases=["dwpose", "openpose", "pose keypoint", "2d to 3d", "lift pose", "smplify", "sdpose"],
            has_intermediate_output=True,
            inputs=[
                Keypoints.Input("keypoints", tooltip="One picture gives a pose, the frames of a video a motion."),
                Body.Input("body", tooltip="The body that shall stand so; from Load Body."),
                *clip_inputs()[:-1],
                io.Combo.Input(
                    "who",
                    options=["largest", "index", "left to right"],
                    default="largest",
                    tooltip="Which person, where there are several.",
                ),
                io.Int.Input("index", default=0, min=0, max=63, tooltip="For 'index' and 'left to right'; from 0."),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture or video that they belong to, where its size is not that of their canvas.",
                ),
                focal_input(),
                clip_inputs()[-1],
                lens_input(),
            ],
            outputs=clip_outputs(),
        )

    @classmethod
    def validate_inputs(cls, who=None, smoothing=None):
        return listed(cls, {"who": who, "smoothing": smoothing})

    @classmethod
    def execute(
        cls, keypoints, body, fps, smoothing, strength, longest_gap, who, index, image=None, focal_px=0.0,
        lock_shape=True, focal_from_keypoints=False,
    ) -> io.NodeOutput:  # fmt: skip
        records = _records(keypoints)
        size = _canvas(records) if image is None else (int(image.shape[1]), int(image.shape[2]))
        people = in_every_frame(lambda frame: people_from_keypoints(records, size, frame), len(records))
        blank = [np.zeros((*size, 3), np.uint8)] * len(records)
        camera = given_camera(focal_px, size)
        sources = Sources(camera=camera, lens_from_keypoints=focal_from_keypoints, no_picture=True)
        calm = smoothing != NO_SMOOTHING
        settings = VideoSettings(
            who, index, None, "keypoints", lock_shape, calm, longest_gap, calm, smoothing, strength
        )
        steps = Steps(2 * len(records))
        found = estimate_video(blank, body, sources, settings, fps=fps, people=people, on_progress=steps)
        report = "\n".join(found.report())
        return io.NodeOutput(found.motion, report, ui=shown_text(report))


def _records(keypoints: Any) -> list[dict[str, Any]]:
    """One for each frame."""
    records = [keypoints] if isinstance(keypoints, dict) else keypoints
    if not isinstance(records, (list, tuple)) or not records or not isinstance(records[0], dict):
        raise ComoviError("keypoints must be POSE_KEYPOINT: a list of frames with people, as DWPose gives it.")
    return list(records)


def _canvas(records: list[dict[str, Any]]) -> tuple[int, int]:
    """(height, width) of the first frame."""
    try:
        height, width = (int(records[0].get(name) or 0) for name in ("canvas_height", "canvas_width"))
    except (TypeError, ValueError, OverflowError):
        height = width = 0
    if not (16 <= height <= 16384 and 16 <= width <= 16384):
        raise ComoviError("the keypoints do not say how large their picture is; wire the picture into image.")
    return height, width


NODES = [EstimateMotion, FitKeypoints]
