"""CoMoVi_LoadBody: the body that is drawn, fitted and exported."""

from __future__ import annotations

import os

import folder_paths
from comfy_api.latest import io

from ..comovi_model.body.body_files import SEGMENTATION_NAME, load_mannequin_body, load_nano_body, read_body_model
from .choices import listed
from .input_files import file_state
from .schema import Body, make_schema

FOLDER = "comovi"  # below ComfyUI's models
MANNEQUIN, NANO = "mannequin (embedded)", "nano (embedded)"
EMBEDDED = {MANNEQUIN: load_mannequin_body, NANO: load_nano_body}
SUFFIXES = (".safetensors", ".npz", ".pkl")


def body_files() -> list[str]:
    """Names of the body files in models/comovi."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))
    return [name for name in folder_paths.get_filename_list(FOLDER) if name.lower().endswith(SUFFIXES)]


class LoadBody(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_LoadBody",
            "Load Body",
            "loaders",
            description="The body that motion maps, overlays and 3D files show. The mannequin has as many vertices as "
            "SMPL and needs no licence; the nano body is the same person with fewer faces, as the nano model knows it.",
            search_aliases=["smpl", "mannequin", "avatar", "character", "human mesh", "person", "rig", "load body"],
            inputs=[
                io.Combo.Input(
                    "body",
                    options=[*EMBEDDED, *body_files()],
                    default=MANNEQUIN,
                    tooltip="Use 'nano' with the nano model and 'mannequin' for everything else. An SMPL file (.pkl, "
                    ".npz, .safetensors) that you put into models/comovi appears here too.",
                ),
            ],
            outputs=[Body.Output(display_name="body", tooltip="For the nodes that draw, fit or save a motion.")],
        )

    @classmethod
    def validate_inputs(cls, body=None):
        return listed(cls, {"body": body})

    @classmethod
    def fingerprint_inputs(cls, body):
        if body is None or body in EMBEDDED:
            return file_state(body, lambda name: None)
        path = folder_paths.get_full_path_or_raise(FOLDER, body)
        parts = os.path.join(os.path.dirname(path), SEGMENTATION_NAME)  # is read with the body
        return [file_state(file, lambda file: file) for file in (path, parts) if os.path.isfile(file)]

    @classmethod
    def execute(cls, body) -> io.NodeOutput:
        if body in EMBEDDED:
            return io.NodeOutput(EMBEDDED[body]())
        return io.NodeOutput(read_body_model(folder_paths.get_full_path_or_raise(FOLDER, body)))


NODES = [LoadBody]
