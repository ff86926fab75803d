"""CoMoVi_StartPose and CoMoVi_SetCamera: a body, or a whole motion, before a camera."""

from __future__ import annotations

from dataclasses import replace

import torch
from comfy_api.latest import io

from ..comovi_model.body.before_camera import FARTHEST, NEAREST, Placement, stand_before_camera, stand_like
from ..comovi_model.body.cameras import Camera
from ..comovi_model.body.motion import NUM_BETAS
from ..comovi_model.body.motion import BodyMotion as Motion
from ..comovi_model.body.named_poses import named_pose, pose_names
from ..comovi_model.errors import ComoviError
from ..comovi_model.motion_io import for_body
from ..comovi_model.nano.start import nano_neutral
from .choices import listed
from .schema import Body, BodyMotion, make_schema

NANO_NEUTRAL, FROM_MOTION = "nano neutral", "from motion"


def view_inputs(distance_tip: str) -> list[io.Input]:
    """The widgets that say how a body is seen."""
    return [
        io.Int.Input("width", default=704, min=16, max=8192, step=1, tooltip="Width of the picture in pixels."),
        io.Int.Input("height", default=1280, min=16, max=8192, step=1, tooltip="Height of the picture in pixels."),
        io.Float.Input(
            "field_of_view",
            default=40.0,
            min=1.0,
            max=150.0,
            step=0.5,
            tooltip="What the picture's height spans, in degrees. 40 is a normal lens, 60 a wide one, 10 a tele lens.",
        ),
        io.Float.Input("distance", default=0.0, min=0.0, max=100.0, step=0.05, tooltip=distance_tip),
        io.Float.Input(
            "turn",
            default=0.0,
            min=-360.0,
            max=360.0,
            step=1.0,
            tooltip="Turns the body round the vertical, in degrees; positive is to the person's left.",
        ),
        io.Float.Input(
            "across",
            default=0.5,
            min=-1.0,
            max=2.0,
            step=0.01,
            tooltip="Where the middle of the body is: 0 is the left edge of the picture, 1 the right edge.",
        ),
        io.Float.Input(
            "down",
            default=0.5,
            min=-1.0,
            max=2.0,
            step=0.01,
            tooltip="Where the middle of the body is: 0 is the top edge of the picture, 1 the bottom edge.",
        ),
    ]


def distance_problem(distance: object) -> str:
    """A sentence about a distance that `Placement` would refuse, or ""; None stands for a wired input."""
    if not isinstance(distance, (int, float)) or distance == 0 or NEAREST <= distance <= FARTHEST:
        return ""
    return f"distance is {distance:g} metres; it must be {NEAREST:g} to {FARTHEST:g}, or 0 to have one chosen."


class StartPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_StartPose",
            "Start Pose",
            "motion",
            description="One body before a camera: what a clip starts from. Choose a pose by name, or take one frame "
            "of a motion ('from motion'), for example the last one of the clip before.",
            search_aliases=["pose", "t-pose", "a-pose", "stance", "first pose", "character pose", "camera", "chain"],
            inputs=[
                Body.Input("body", tooltip="Whose pose it is; from Load Body."),
                io.Combo.Input(
                    "pose",
                    options=[*pose_names(), NANO_NEUTRAL, FROM_MOTION],
                    default=pose_names()[0],
                    tooltip="'nano neutral' is the stance and the camera that the nano model knows (128 x 192). 'from "
                    "motion' takes a frame of the wired motion.",
                ),
                *view_inputs("Metres from the camera, at least 0.3; 0 chooses one that fills the picture well."),
                BodyMotion.Input(
                    "motion",
                    optional=True,
                    tooltip="For 'from motion'. If it has a camera, its place and its camera are kept.",
                ),
                io.Int.Input(
                    "frame_index",
                    default=-1,
                    min=-100000,
                    max=100000,
                    optional=True,
                    tooltip="Which frame of the motion: 0 is the first, -1 the last.",
                ),
            ],
            outputs=[
                BodyMotion.Output(
                    display_name="start_pose", tooltip="One frame in the camera's frame, with the camera."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, pose=None, distance=None):
        named = listed(cls, {"pose": pose})
        return distance_problem(distance) or True if named is True else named

    @classmethod
    def execute(
        cls, body, pose, width, height, field_of_view, distance, turn, across, down, motion=None, frame_index=-1
    ) -> io.NodeOutput:
        if pose == NANO_NEUTRAL:
            neutral = nano_neutral(turn)
            return io.NodeOutput(replace(neutral, camera=same_shape(neutral.camera, width, height, "nano model")))
        if pose == FROM_MOTION:
            one, _ = for_body(_frame_of(motion, frame_index), body)
            if one.frame == "camera" and one.camera is not None:
                camera = same_shape(one.camera, width, height, "motion")
                return io.NodeOutput(replace(one, camera=camera))
        else:
            one = Motion(
                named_pose(pose)[None], torch.zeros(NUM_BETAS), torch.zeros(1, 3), "yup", body_model=body.shape_space
            )
        camera = Camera.from_fov(field_of_view, width, height)
        return io.NodeOutput(stand_before_camera(body, one, camera, Placement(distance, turn, across, down)))


class SetCamera(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_SetCamera",
            "Put Motion before Camera",
            "motion",
            description="Gives a motion a camera, so that its motion map can be drawn: a loaded BVH or AMASS motion "
            "has none. With a start pose, the motion begins exactly where that body stands.",
            search_aliases=["camera", "view", "place motion", "drive", "driving motion", "framing", "retarget"],
            inputs=[
                BodyMotion.Input("motion", tooltip="The motion to look at; its path through the room is kept."),
                Body.Input("body", tooltip="The body that moves; from Load Body."),
                *view_inputs(
                    "Metres from the camera in frame 0, at least 0.3; 0 chooses one that shows the whole clip."
                ),
                BodyMotion.Input(
                    "start_pose",
                    optional=True,
                    tooltip="The motion begins at this place, facing this way, seen by this camera; the numbers above "
                    "are then not used.",
                ),
            ],
            outputs=[BodyMotion.Output(display_name="motion", tooltip="The motion in the camera's frame.")],
        )

    @classmethod
    def validate_inputs(cls, distance=None):
        return distance_problem(distance) or True

    @classmethod
    def execute(
        cls, motion, body, width, height, field_of_view, distance, turn, across, down, start_pose=None
    ) -> io.NodeOutput:
        motion, _ = for_body(motion, body)
        if start_pose is not None:
            return io.NodeOutput(stand_like(body, motion, start_pose))
        camera = Camera.from_fov(field_of_view, width, height)
        return io.NodeOutput(stand_before_camera(body, motion, camera, Placement(distance, turn, across, down)))


def _frame_of(motion: Motion | None, index: int) -> Motion:
    if motion is None:
        raise ComoviError(f"the pose is '{FROM_MOTION}', but no motion is wired; wire one or choose a pose by name.")
    if not -len(motion) <= index < len(motion):
        raise ComoviError(
            f"frame_index {index} is not in a motion of {len(motion)} frames; give {-len(motion)} to {len(motion) - 1}."
        )
    index %= len(motion)
    if motion.valid is not None and not bool(motion.valid[index]):
        raise ComoviError(f"frame {index} of the motion is marked as not valid (a placeholder); choose another one.")
    return motion.slice(index, index + 1)


def same_shape(camera: Camera | None, width: int, height: int, owner: str) -> Camera:
    """The camera for a picture of another size, which must have the same shape."""
    assert camera is not None
    if abs(width * camera.height - height * camera.width) > 0.02 * width * camera.height:
        raise ComoviError(
            f"the {owner}'s camera sees {camera.width} x {camera.height} pixels, and {width} x {height} has another "
            f"shape; set width and height to {camera.width} and {camera.height} or a multiple of them."
        )
    return camera.resized(width, height)


NODES = [StartPose, SetCamera]
