"""CoMoVi_LoadPhoto: a photo from the input folder with the focal length that its camera wrote down, or an example."""

from __future__ import annotations

import os

import folder_paths
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..comovi_model.errors import ComoviError
from ..comovi_model.estimate.photo_camera import photo_camera, read_exif
from ..comovi_model.images import read_image
from ..comovi_model.nano.example_picture import POSES, example_picture
from .choices import listed
from .frames import batch_of, check_interrupt
from .input_files import file_state, named_file
from .schema import BodyMotion, make_schema

EXAMPLES = {f"{name} (example)": name for name in POSES}
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def photos() -> list[str]:
    """Pictures of the input folder, after our examples."""
    folder = folder_paths.get_input_directory()
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [*EXAMPLES, *sorted(name for name in names if name.lower().endswith(SUFFIXES))]


def photo_path(choice: str) -> str:
    path = named_file(choice, SUFFIXES)
    if path is None:
        raise ComoviError(f"picture {str(choice)[:120]!r} is not in ComfyUI's input folder; put it there.")
    return path


class LoadPhoto(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_LoadPhoto",
            "Load Photo",
            "estimate",
            description="A photo of the input folder, upright, with the focal length that its camera wrote into the "
            "file (EXIF), which an ordinary image socket loses. Or a drawn example, to try things out.",
            search_aliases=["load image", "exif", "focal length", "photo", "picture", "example picture"],
            inputs=[
                io.Combo.Input(
                    "photo",
                    options=photos(),
                    default=next(iter(EXAMPLES)),
                    tooltip="A picture of the input folder (press R after you put one there), or a drawn example.",
                    upload=io.UploadType.image,
                ),
                io.Int.Input(
                    "person",
                    default=0,
                    min=0,
                    max=9999,
                    tooltip="Of an example: who is drawn, and where. Not for photos.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture, turned upright."),
                io.Float.Output(display_name="focal_px", tooltip="Focal length in pixels; 0 if the file is silent."),
                BodyMotion.Output(
                    display_name="true_pose", tooltip="Of an example: the body that was drawn. A photo has none."
                ),
                io.String.Output(display_name="info", tooltip="Size, and where the focal length comes from."),
            ],
        )

    @classmethod
    def validate_inputs(cls, photo=None):
        return True if named_file(photo, SUFFIXES) else listed(cls, {"photo": photo})

    @classmethod
    def fingerprint_inputs(cls, photo, person):
        return file_state(photo, lambda name: None if name in EXAMPLES else photo_path(name))

    @classmethod
    def execute(cls, photo, person) -> io.NodeOutput:
        check_interrupt()
        if photo in EXAMPLES:
            pixels, motion = example_picture(EXAMPLES[photo], person)
            assert motion.camera is not None
            focal, how = float(motion.camera.K[0, 0]), "an example; its focal length is known"
        else:
            path = photo_path(photo)
            motion = ExecutionBlocker("Load Photo: only an example has a true pose; use Estimate Pose.")
            pixels = read_image(path, "photo")
            found = photo_camera(pixels.shape[:2], exif=read_exif(path))
            focal = 0.0 if found.is_guess else found.focal_px
            how = "the file does not say its focal length" if found.is_guess else found.how
        info = f"{pixels.shape[1]} x {pixels.shape[0]} pixels; {how}"
        return io.NodeOutput(batch_of(torch.from_numpy(pixels.copy())[None]), focal, motion, info)


NODES = [LoadPhoto]
