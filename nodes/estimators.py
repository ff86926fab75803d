"""CoMoVi_LoadCameraHMR: the user's own CameraHMR checkpoint, kept where ComfyUI has room for it."""

from __future__ import annotations

import inspect
import os
from typing import Any

import comfy.model_management
import comfy.model_patcher
import folder_paths
import torch
from comfy_api.latest import io
from torch import nn

from ..comovi_model.camerahmr.estimator import CameraHMR, load_camerahmr
from ..comovi_model.camerahmr.field_of_view import CHANNEL_ORDERS
from ..comovi_model.errors import ComoviError
from .bodies import FOLDER
from .choices import listed
from .input_files import file_state
from .schema import ADVANCED, make_schema

Estimator = io.Custom("COMOVI_ESTIMATOR")  # value: LoadedEstimator
SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")
NONE, AUTO = "none", "auto"
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class LoadedEstimator:
    """CameraHMR under ComfyUI's memory management: on the GPU while it works, elsewhere when room is needed."""

    def __init__(self, networks: CameraHMR):
        self.networks = networks
        modules = nn.ModuleList([part for part in (networks.body, networks.field_of_view) if part is not None])
        device, rest = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
        self.patcher = comfy.model_patcher.ModelPatcher(modules, load_device=device, offload_device=rest)

    def ready(self) -> CameraHMR:
        """The networks, on the device where they shall work."""
        load = comfy.model_management.load_models_gpu
        whole: dict[str, Any] = {"force_full_load": True} if "force_full_load" in _names(load) else {}
        load([self.patcher], **whole)
        return self.networks


def _names(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def checkpoint_files() -> list[str]:
    """Names of the checkpoints in models/comovi."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))
    return [name for name in folder_paths.get_filename_list(FOLDER) if name.lower().endswith(SUFFIXES)]


def precision_for(choice: str) -> torch.dtype:
    """auto: half on a GPU, float32 on a CPU, where half is slow."""
    if choice != AUTO:
        return PRECISIONS[choice]
    device = comfy.model_management.get_torch_device()
    return torch.float32 if comfy.model_management.is_device_cpu(device) else torch.float16


class LoadCameraHMR(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = checkpoint_files()
        return make_schema(
            "CoMoVi_LoadCameraHMR",
            "Load CameraHMR",
            "loaders",
            description="Opens your own CameraHMR checkpoint, the pose estimator of the paper. Its weights come from "
            "their authors under a licence of their own (non-commercial research); put them into models/comovi. "
            "Without them, Estimate Pose works by keypoints.",
            search_aliases=["camerahmr", "hmr", "smpl estimation", "pose estimator", "humanfov", "load estimator"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=files,
                    tooltip="camerahmr_checkpoint_cleaned.ckpt, or its .safetensors, in models/comovi. Nothing that a "
                    "file contains is run. The SMPL-X (bedlam) and dense-keypoint (densekp) files are other networks.",
                ),
                io.Combo.Input(
                    "field_of_view_checkpoint",
                    options=[NONE, *files],
                    default=NONE,
                    tooltip="cam_model_cleaned.ckpt: estimates the focal length from the picture. Without it a focal "
                    "length is given, or a usual lens is assumed.",
                ),
                io.Combo.Input(
                    "fov_channels",
                    options=list(CHANNEL_ORDERS),
                    default="bgr",
                    optional=True,
                    tooltip="Order of colours that the field-of-view network sees: 'bgr' as CoMoVi's training data "
                    "were made, 'rgb' as that network was trained.",
                    **ADVANCED,
                ),
                io.Combo.Input(
                    "precision",
                    options=[AUTO, *PRECISIONS],
                    default=AUTO,
                    optional=True,
                    tooltip="Of the backbone. auto: float16 on a GPU (1.3 GB), float32 on a CPU (2.7 GB).",
                    **ADVANCED,
                ),
            ],
            outputs=[Estimator.Output(display_name="estimator", tooltip="For Estimate Pose and Estimate Motion.")],
        )

    @classmethod
    def validate_inputs(cls, checkpoint=None, field_of_view_checkpoint=None, fov_channels=None, precision=None):
        values = {"checkpoint": checkpoint, "field_of_view_checkpoint": field_of_view_checkpoint}
        return listed(cls, {**values, "fov_channels": fov_channels, "precision": precision})

    @classmethod
    def fingerprint_inputs(cls, checkpoint, field_of_view_checkpoint, **others):
        def path_of(name):
            return None if name == NONE else folder_paths.get_full_path_or_raise(FOLDER, name)

        return [file_state(name, path_of) for name in (checkpoint, field_of_view_checkpoint)]

    @classmethod
    def execute(cls, checkpoint, field_of_view_checkpoint, fov_channels="bgr", precision=AUTO) -> io.NodeOutput:
        view = None
        if field_of_view_checkpoint != NONE:
            if field_of_view_checkpoint == checkpoint:
                raise ComoviError("checkpoint and field_of_view_checkpoint name the same file; choose two, or none.")
            view = folder_paths.get_full_path_or_raise(FOLDER, field_of_view_checkpoint)
        networks = load_camerahmr(
            folder_paths.get_full_path_or_raise(FOLDER, checkpoint),
            view,
            dtype=precision_for(precision),
            device=comfy.model_management.unet_offload_device(),
            fov_channels=fov_channels,
        )
        return io.NodeOutput(LoadedEstimator(networks))


NODES = [LoadCameraHMR]
