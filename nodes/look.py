"""CoMoVi_MotionTo3D and CoMoVi_OverlayMotion: to look at a motion, in the 3D preview and on its video."""

from __future__ import annotations

import logging

import comfy_api.latest
from comfy_api.latest import io

from ..comovi_model.body.files.glb import save_glb
from ..comovi_model.body.upright import levelled
from ..comovi_model.errors import ComoviError
from ..comovi_model.motion_io import ROOTS, for_body
from ..comovi_model.motion_io.place import placed
from ..comovi_model.show.overlay import overlay_motion
from ..comovi_model.show.painter import STYLES
from .choices import listed
from .frames import Steps, check_interrupt
from .motion_map import check_size
from .output_files import next_file, prefix_problem
from .schema import Body, BodyMotion, make_schema

# The same socket name where the core has no such type, so that a graph keeps its wires.
Model3D = getattr(io, "File3DGLB", None) or io.Custom("FILE_3D_GLB")


class MotionTo3D(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_MotionTo3D",
            "Motion to 3D",
            "look",
            description="The moving body as a 3D file (GLB, with skeleton, skin and animation) for 'Preview 3D & "
            "Animation', Blender or a game engine.",
            search_aliases=["preview 3d", "glb", "gltf", "animation", "viewer", "skinned mesh", "avatar"],
            is_output_node=True,
            inputs=[
                BodyMotion.Input("motion", tooltip="The motion to show."),
                Body.Input("body", tooltip="The body that moves; the mannequin has the finer surface."),
                io.Combo.Input(
                    "root",
                    options=list(ROOTS),
                    default=ROOTS[0],
                    tooltip="centred: on the floor, starting at the origin, with its path. absolute: where the camera "
                    "saw it. off: on the spot, without a path.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="3d/comovi",
                    tooltip="Folder and beginning of the name, below the output folder.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="path", tooltip="The file, from the output folder: for Preview 3D."),
                Model3D.Output(display_name="model_3d", tooltip="The same file, for nodes that take 3D models."),
            ],
        )

    @classmethod
    def validate_inputs(cls, root=None, filename_prefix=None):
        named = listed(cls, {"root": root})
        return prefix_problem(filename_prefix) if named is True else named

    @classmethod
    def execute(cls, motion, body, root, filename_prefix) -> io.NodeOutput:
        check_interrupt()
        motion, _ = for_body(motion, body)
        target = next_file(filename_prefix, ".glb")
        save_glb(target.path, placed(levelled(motion, body), body, "yup", root), body, floor=False)
        path = str(target.path)
        types = comfy_api.latest.Types
        model = types.File3D(path, file_format="glb") if hasattr(types, "File3D") else path
        return io.NodeOutput(target.relative, model, ui=target.listing())


class OverlayMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_OverlayMotion",
            "Overlay Motion",
            "look",
            description="Draws the body over its video, frame by frame, to see how well both agree.",
            search_aliases=["overlay", "composite", "body on video", "check", "smpl overlay", "wireframe", "render"],
            inputs=[
                io.Image.Input("images", tooltip="The video; one picture alone serves every frame of the motion."),
                BodyMotion.Input("motion", tooltip="A motion with the camera of this video."),
                Body.Input("body", tooltip="The body that is drawn."),
                io.Float.Input(
                    "opacity",
                    default=0.7,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="0 shows the video alone, 1 hides what is behind the body.",
                ),
                io.Combo.Input(
                    "style",
                    options=list(STYLES),
                    default=STYLES[0],
                    tooltip="solid: a lit grey body. parts: a colour per body part. normals: as in the motion map. "
                    "wireframe: edges only.",
                ),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The video with the body.")],
        )

    @classmethod
    def validate_inputs(cls, style=None):
        return listed(cls, {"style": style})

    @classmethod
    def execute(cls, images, motion, body, opacity, style) -> io.NodeOutput:
        if images.dim() != 4 or images.shape[-1] < 3 or not images.numel():
            raise ComoviError(f"images must be pictures (frames, height, width, 3), got {tuple(images.shape)}.")
        if not bool(images.isfinite().all()):
            raise ComoviError("images holds NaN or infinite numbers; look at the node that made it.")
        check_size(max(len(images), len(motion)), images.shape[1], images.shape[2])
        if motion.camera is not None and (note := motion.camera.stretched_by(images.shape[2], images.shape[1])):
            logging.getLogger(__name__).warning("Overlay Motion: %s", note)
        steps = Steps(max(len(images), len(motion)))
        drawn = overlay_motion(images[..., :3], motion, body, opacity=opacity, style=style, on_frame=steps)
        return io.NodeOutput(drawn)


NODES = [MotionTo3D, OverlayMotion]
