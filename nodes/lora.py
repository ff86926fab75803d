"""CoMoVi_ApplyLora: a LoRA file on video branch, motion branch and couplings, each with a strength of its own."""

from __future__ import annotations

from typing import Any

import folder_paths
from comfy_api.latest import io

from .choices import listed
from .input_files import file_state
from .native.lora import Strengths, apply_lora
from .schema import make_schema
from .shown_text import shown_text


def strength(name: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=-20.0, max=20.0, step=0.01, tooltip=tooltip)


class ApplyLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_ApplyLora",
            "Apply LoRA to CoMoVi Branches",
            "loaders",
            description="Applies a LoRA of Wan2.2-TI2V-5B or of CoMoVi with a strength of its own for the video "
            "branch, the motion branch and what couples them. The core's Load LoRA works too: it changes what the file "
            "names, which for Wan2.2 LoRAs is the video branch.",
            search_aliases=["comovi", "lora", "load lora", "wan2.2 lora", "adapter", "motion lora"],
            inputs=[
                io.Model.Input("model", tooltip="A CoMoVi MODEL."),
                io.Combo.Input(
                    "lora_name",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="A file of models/loras.",
                ),
                strength("strength_video", 1.0, "How strongly the video changes. 0 leaves it exactly as it was."),
                strength(
                    "strength_motion",
                    0.0,
                    "How strongly the motion branch changes. A LoRA of plain Wan2.2 acts on it layer by layer, which "
                    "helps for motions and harms for styles. For a LoRA trained on CoMoVi set it like the video's.",
                ),
                strength(
                    "strength_couplings", 1.0, "For the exchange between the branches; only CoMoVi LoRAs have it."
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL", tooltip="The same model with the LoRA on it.")],
        )

    @classmethod
    def validate_inputs(cls, lora_name: str | None = None) -> bool | str:
        return listed(cls, {"lora_name": lora_name})

    @classmethod
    def fingerprint_inputs(cls, lora_name: str | None, **_: Any) -> str:
        """A file that was exchanged under its old name is read again."""
        return file_state(lora_name, lambda name: folder_paths.get_full_path_or_raise("loras", name))

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        lora_name: str,
        strength_video: float,
        strength_motion: float,
        strength_couplings: float,
    ) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise("loras", lora_name)
        patched, lines = apply_lora(model, path, Strengths(strength_video, strength_motion, strength_couplings))
        return io.NodeOutput(patched, ui=shown_text("\n".join(lines)))


NODES = [ApplyLora]
