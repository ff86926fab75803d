"""CoMoVi_MotionToPoseData and CoMoVi_PoseDataToMotion: the door to the core's own body nodes, in both directions."""

from __future__ import annotations

from collections.abc import Mapping

from comfy_api.latest import io

from ..comovi_model.body.pose_data import pose_data_of
from ..comovi_model.errors import ComoviError
from ..comovi_model.motion_io import for_body
from ..comovi_model.motion_io.mhr import motion_from_mhr
from .frames import Steps, check_interrupt
from .schema import Body, BodyMotion, make_schema

PoseData = io.Custom("KIMODO_POSE_DATA")  # skeletons that are not the core's own
EstimatedPoseData = io.Custom("MHR_POSE_DATA")  # what SAM 3D Body sees


class MotionToPoseData(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_MotionToPoseData",
            "Body Motion to Pose Data",
            "look",
            description="Opens the core's own body nodes for a motion, where this ComfyUI has them: mesh, OpenPose and "
            "SCAIL renders (SAM 3D Body render), and 3D animation files (GLB, BVH).",
            search_aliases=["openpose", "scail", "sam 3d body", "kimodo", "pose data", "controlnet", "dwpose", "mhr"],
            inputs=[
                BodyMotion.Input("motion", tooltip="The motion; with a camera, renders match its video."),
                Body.Input("body", tooltip="The body whose skeleton and skin the other nodes get."),
            ],
            outputs=[PoseData.Output(display_name="pose_data", tooltip="For nodes that take Kimodo's pose data.")],
        )

    @classmethod
    def execute(cls, motion, body) -> io.NodeOutput:
        motion, _ = for_body(motion, body)
        return io.NodeOutput(pose_data_of(motion, body, Steps(len(motion))))


class PoseDataToMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_PoseDataToMotion",
            "Pose Data to Body Motion",
            "motion",
            description="Takes over the people that the core's SAM 3D Body sees in pictures, where this ComfyUI has "
            "it: one picture gives a start pose with its camera, a video a motion.",
            search_aliases=["sam 3d body", "mhr", "estimate pose", "pose estimation", "video to motion", "mocap"],
            inputs=[
                EstimatedPoseData.Input("pose_data", tooltip="From Run SAM3D Body Prediction."),
                Body.Input("body", tooltip="The body that shall stand so."),
                io.Int.Input("person", default=0, min=0, max=63, tooltip="Which person, if there are several."),
                io.Float.Input(
                    "fps", default=16.0, min=1.0, max=240.0, step=0.01, tooltip="Frames per second of the video."
                ),
            ],
            outputs=[
                BodyMotion.Output(display_name="motion", tooltip="In the camera's frame, with the camera."),
                io.String.Output(display_name="info", tooltip="What was assumed, and where the person is missing."),
            ],
        )

    @classmethod
    def execute(cls, pose_data, body, person, fps) -> io.NodeOutput:
        if not isinstance(pose_data, Mapping):
            raise ComoviError(f"pose_data must be the pose data of SAM 3D Body, got {type(pose_data).__name__}.")
        check_interrupt()
        motion, notes = motion_from_mhr(pose_data, body, fps=fps, person=person)
        return io.NodeOutput(motion, "\n".join(notes))


NODES = [MotionToPoseData, PoseDataToMotion]
