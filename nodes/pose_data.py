"""The door to the core's own body nodes, in both directions.

CoMoVi_MotionToPoseData, CoMoVi_PoseDataToMotion and CoMoVi_PoseDataToMap.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from comfy_api.latest import io

from ..comovi_model.body.map_colours import SHADINGS, to_uint8
from ..comovi_model.body.pose_data import pose_data_of
from ..comovi_model.errors import ComoviError
from ..comovi_model.motion_io import for_body
from ..comovi_model.motion_io.mhr import camera_of, motion_from_mhr, read_people
from ..comovi_model.motion_io.mhr_surface import draw_surface_map, fits_surface
from .choices import listed
from .frames import Steps, batch_of
from .motion_map import check_size
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
        steps = Steps(1)  # the data say how many there are
        motion, notes = motion_from_mhr(pose_data, body, fps=fps, person=person, on_frame=steps)
        return io.NodeOutput(motion, "\n".join(notes))


class PoseDataToMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_PoseDataToMap",
            "Pose Data to Motion Map",
            "motion",
            description="Draws the surface that the core's SAM 3D Body sees as a motion map. No pose is fitted, "
            "so nothing is lost on the way. With an SMPL body in SMPL's own faces and parts.",
            search_aliases=["sam 3d body", "mhr", "motion map", "mesh to map", "normals", "body map"],
            inputs=[
                EstimatedPoseData.Input("pose_data", tooltip="From Run SAM3D Body Prediction."),
                io.Int.Input("person", default=0, min=0, max=63, tooltip="Which person, if there are several."),
                io.Combo.Input(
                    "shading",
                    options=list(SHADINGS),
                    default=SHADINGS[0],
                    tooltip="'phong_reference' is lit like the maps that the models learned from; 'flat' shows the "
                    "bare colours of the paper.",
                ),
                Body.Input(
                    "body",
                    optional=True,
                    tooltip="An SMPL file: the map is then as the released weights know it. Without one MHR's own mesh "
                    "is drawn, in nearly the same parts.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="motion_map", tooltip="One picture per frame; white where nobody is."),
                io.String.Output(display_name="info", tooltip="What was drawn."),
            ],
        )

    @classmethod
    def validate_inputs(cls, shading=None):
        return listed(cls, {"shading": shading})

    @classmethod
    def execute(cls, pose_data, person, shading, body=None) -> io.NodeOutput:
        people = read_people(pose_data, person)
        notes: list[str] = []
        camera = camera_of(people.records, pose_data.get("image_size"), notes)
        if camera is None:
            raise ComoviError("pose_data does not say its picture's size and focal length, so nothing can be drawn.")
        check_size(people.count, camera.height, camera.width)
        steps = Steps(len(people.records))
        drawn = draw_surface_map(
            people.surfaces(), pose_data.get("faces"), camera, body, shading=shading, on_frame=steps
        )
        picture = torch.ones(people.count, camera.height, camera.width, 3)
        picture[people.found] = batch_of(to_uint8(drawn))  # as a picture file has it
        kind = f"{body.name}'s faces" if body is not None and fits_surface(body) else "MHR's own mesh, in our parts"
        info = [f"{len(people.found)} of {people.count} frames, {people.unit_name}, {kind}", *notes]
        return io.NodeOutput(picture, "\n".join(info))


NODES = [MotionToPoseData, PoseDataToMotion, PoseDataToMap]
