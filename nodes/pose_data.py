"""CoMoVi_MotionToPoseData: a body motion as the pose data that the core's own renders and builders take."""

from __future__ import annotations

from comfy_api.latest import io

from ..comovi_model.body.pose_data import pose_data_of
from ..comovi_model.motion_io import for_body
from .frames import Steps
from .schema import Body, BodyMotion, make_schema

PoseData = io.Custom("KIMODO_POSE_DATA")


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


NODES = [MotionToPoseData]
