"""CoMoVi_DrawMotionMap and CoMoVi_PlaceMotion: from a motion to its map, and from a map to where the motion is."""

from __future__ import annotations

import comfy.model_management
import torch
from comfy_api.latest import io

from ..comovi_model.body.frames import check_same_body, in_frame
from ..comovi_model.body.map_colours import SHADINGS, to_uint8
from ..comovi_model.body.map_render import PIXELS_AT_ONCE, iter_motion_map
from ..comovi_model.errors import ComoviError
from ..comovi_model.place_in_map import place_in_map
from .choices import listed
from .frames import Steps, batch_of, frames_of
from .schema import Body, BodyMotion, make_schema
from .start_pose import same_shape

MOST_SAMPLES = 2**26  # of one picture


class DrawMotionMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_DrawMotionMap",
            "Draw Motion Map",
            "motion",
            description="Draws a motion as the model sees it: a colour for every body part and the direction of its "
            "surface, on white. A start pose gives the first motion map, a whole motion one frame each.",
            search_aliases=["motion map", "render body", "normals", "smpl", "pose map", "control", "segmentation"],
            inputs=[
                BodyMotion.Input(
                    "motion", tooltip="What to draw; it must have a camera (see Put Motion before Camera)."
                ),
                Body.Input("body", tooltip="The body that is drawn: the nano body for the nano model."),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=8192,
                    step=1,
                    tooltip="Pixels; 0 is the width of the motion's own camera. Give the width of the clip.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=8192,
                    step=1,
                    tooltip="Pixels; 0 is the height of the motion's own camera. Give the height of the clip.",
                ),
                io.Combo.Input(
                    "shading",
                    options=list(SHADINGS),
                    default=SHADINGS[0],
                    tooltip="'phong_reference' is lit like the maps that the models learned from; 'flat' shows the "
                    "bare colours of the paper.",
                ),
                io.Int.Input(
                    "smoothing",
                    default=1,
                    min=1,
                    max=4,
                    step=1,
                    tooltip="Samples per pixel in each direction, averaged. The nano model knows 2, the released "
                    "weights 1.",
                ),
            ],
            outputs=[io.Image.Output(display_name="motion_map", tooltip="One picture per frame of the motion.")],
        )

    @classmethod
    def validate_inputs(cls, shading=None):
        return listed(cls, {"shading": shading})

    @classmethod
    def execute(cls, motion, body, width, height, shading, smoothing) -> io.NodeOutput:
        check_same_body(body, motion)
        if motion.camera is None:
            raise ComoviError("this motion has no camera, so nothing says how it is seen; Put Motion before Camera.")
        width, height = width or motion.camera.width, height or motion.camera.height
        check_size(len(motion), height, width, smoothing)
        same_shape(motion.camera, width, height, "motion")
        seen = in_frame(motion, body, "camera")
        picture = torch.empty(len(seen), height, width, 3)
        groups = iter_motion_map(body, seen, height * smoothing, width * smoothing, shading, Steps(len(seen)))
        done = 0
        for group in groups:
            fine = group.unflatten(2, (width, smoothing)).unflatten(1, (height, smoothing)).mean((2, 4))
            picture[done : done + len(fine)] = batch_of(to_uint8(fine))  # as a picture file has it
            done += len(fine)
        return io.NodeOutput(picture)


def check_size(frames: int, height: int, width: int, smoothing: int = 1) -> None:
    """Refuses what would not fit into memory, where the system might otherwise end the whole server."""
    samples = height * width * smoothing**2
    at_once = min(frames * samples, max(samples, PIXELS_AT_ONCE))
    needed = 12 * frames * height * width + 150 * at_once  # bytes
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    if samples > MOST_SAMPLES or needed > free:
        raise ComoviError(
            f"{frames} frames of {width} x {height} pixels{f' with smoothing {smoothing}' * (smoothing > 1)} need "
            f"{needed / 2**30:.1f} GiB of memory or more, and {free / 2**30:.1f} are free; make the pictures smaller "
            "or the motion shorter."
        )


class PlaceMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_PlaceMotion",
            "Place Motion in Map",
            "motion",
            description="The pose that the model predicts has no path through the room. This reads it from the motion "
            "map: the body is drawn, compared with the map's silhouette and moved until both agree.",
            search_aliases=["root motion", "trajectory", "translation", "path", "root recovery", "foot slide"],
            inputs=[
                BodyMotion.Input("motion", tooltip="From Pose from Latent: right poses, all in the place of frame 0."),
                Body.Input("body", tooltip="The body that the map shows."),
                io.Image.Input("motion_map", tooltip="The decoded motion map of the same clip, as many frames."),
                io.Boolean.Input(
                    "floor",
                    default=True,
                    tooltip="Keeps the lowest point on the floor of frame 0, except in a clear jump.",
                ),
            ],
            outputs=[BodyMotion.Output(display_name="motion", tooltip="The motion with its path.")],
        )

    @classmethod
    def execute(cls, motion, body, motion_map, floor) -> io.NodeOutput:
        frames = frames_of(motion_map, "motion_map")
        return io.NodeOutput(place_in_map(body, motion, frames, floor, Steps(1)))


NODES = [DrawMotionMap, PlaceMotion]
