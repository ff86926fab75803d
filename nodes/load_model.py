"""The node that loads a CoMoVi network."""

from __future__ import annotations

from typing import Any

import folder_paths
from comfy_api.latest import io

from .choices import listed
from .input_files import file_state
from .native.gguf import gguf_files, gguf_path, is_gguf, load_gguf
from .native.load import NANO, WEIGHT_DTYPES, load_patcher
from .native.network import BRANCHES
from .schema import ADVANCED, make_schema


class LoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = [*folder_paths.get_filename_list("diffusion_models"), *gguf_files()]
        return make_schema(
            "CoMoVi_LoadModel",
            "Load CoMoVi Model",
            "loaders",
            description=(
                "Loads the dual-branch network as an ordinary MODEL: a released CoMoVi file, a Wan2.2-TI2V-5B file as "
                "two branches, or the embedded nano model, which needs no download."
            ),
            search_aliases=["comovi", "wan2.2 motion", "dual branch", "smpl video", "human motion", "unet loader"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=list(dict.fromkeys([NANO, *files])),
                    default=NANO,
                    tooltip="A file of models/diffusion_models, or the nano model that comes with this pack.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default="default",
                    tooltip="How weights are kept in memory. fp8 halves their size and costs a little quality.",
                    **ADVANCED,
                ),
                io.Combo.Input(
                    "branches",
                    options=list(BRANCHES),
                    default="both",
                    tooltip=(
                        "'motion only' loads and runs the motion branch alone: half the memory and time, and the same "
                        "motion in models whose motion branch never reads the video (the released one). The other "
                        "half of the latent holds noise: do not decode it."
                    ),
                    **ADVANCED,
                ),
            ],
            outputs=[io.Model.Output(tooltip="Samples latents of 96 channels: video and motion map.")],
        )

    @classmethod
    def validate_inputs(
        cls, model_name: str | None = None, weight_dtype: str | None = None, branches: str | None = None
    ) -> bool | str:
        return listed(cls, {"model_name": model_name, "weight_dtype": weight_dtype, "branches": branches})

    @classmethod
    def fingerprint_inputs(cls, model_name: str | None, **_: Any) -> str:
        """A file that was exchanged under its old name is loaded again."""
        return file_state(model_name, path_of)

    @classmethod
    def execute(cls, model_name: str, weight_dtype: str, branches: str) -> io.NodeOutput:
        if is_gguf(model_name):
            return io.NodeOutput(load_gguf(gguf_path(model_name), branches))
        return io.NodeOutput(load_patcher(path_of(model_name), weight_dtype, branches))


def path_of(model_name: str) -> str | None:
    """The file of an entry of the list; None for the embedded model."""
    if model_name == NANO:
        return None
    if is_gguf(model_name):
        return gguf_path(model_name)
    return folder_paths.get_full_path_or_raise("diffusion_models", model_name)


NODES: list[Any] = [LoadModel]
