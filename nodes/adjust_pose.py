"""CoMoVi_AdjustPose: a joint turned by hand, with a picture of what it does."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from ..comovi_model.body.adjust_pose import ADJUSTABLE, adjust_pose
from ..comovi_model.body.before_camera import Placement, stand_before_camera
from ..comovi_model.body.cameras import Camera
from ..comovi_model.motion_io import for_body
from ..comovi_model.show.overlay import overlay_motion
from .choices import listed
from .frames import check_interrupt, frames_of
from .schema import Body, BodyMotion, make_schema

PREVIEW = 512  # pixels of the longer side, where no picture is wired


class AdjustPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def angle(axis: str, tip: str) -> io.Input:
            return io.Float.Input(axis, default=0.0, min=-180.0, max=180.0, step=1.0, tooltip=tip)

        return make_schema(
            "CoMoVi_AdjustPose",
            "Adjust Pose",
            "motion",
            description="Turns one joint by hand, in every frame, and shows the result: for an estimated pose that is "
            "nearly right. Chain several for several joints.",
            search_aliases=["edit pose", "correct pose", "rotate joint", "pose editor", "fix pose", "bend", "tweak"],
            has_intermediate_output=True,
            inputs=[
                BodyMotion.Input("motion", tooltip="A pose or a motion."),
                Body.Input("body", tooltip="The body that is shown; from Load Body."),
                io.Combo.Input(
                    "joint", options=list(ADJUSTABLE), default="left elbow", tooltip="Left is the person's left."
                ),
                angle("x", "Degrees about the axis to the person's left: + bends a knee and leans the trunk forward."),
                angle("y", "Degrees about the axis upwards: + turns to the left; - bends the left elbow, + the right."),
                angle("z", "Degrees about the axis to the front: + raises the left arm, - the right one."),
                io.Boolean.Input("mirrored", default=False, tooltip="The same joint of the other side, mirrored, too."),
                io.Image.Input("image", optional=True, tooltip="The photo, to see the body over it."),
            ],
            outputs=[
                BodyMotion.Output(display_name="motion", tooltip="With the joint turned."),
                io.Image.Output(display_name="preview", tooltip="The body of the first frame, over the photo."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, joint=None):
        return listed(cls, {"joint": joint})

    @classmethod
    def execute(cls, motion, body, joint, x, y, z, mirrored, image=None) -> io.NodeOutput:
        check_interrupt()
        motion, _ = for_body(motion, body)
        adjusted = adjust_pose(motion, joint, (x, y, z), mirrored)
        first = adjusted.slice(0, 1)
        if image is not None and first.camera is not None:
            frame = frames_of(image[:1], "image")
            shown = first
        else:
            shown = first
            if first.camera is None:
                shown = stand_before_camera(body, first, Camera.from_fov(40.0, PREVIEW * 3 // 4, PREVIEW), Placement())
            camera = shown.camera
            assert camera is not None
            scale = PREVIEW / max(camera.width, camera.height)
            size = (max(1, round(camera.height * scale)), max(1, round(camera.width * scale)))
            frame = torch.full((1, *size, 3), 245, dtype=torch.uint8)
        preview = overlay_motion(frame.float() / 255, shown, body, opacity=0.85)
        return io.NodeOutput(adjusted, preview, ui=ui.PreviewImage(preview, cls=cls))


NODES = [AdjustPose]
