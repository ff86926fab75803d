"""CoMoVi_ModelReport: what a MODEL is, which attention runs and why, how much memory a step takes."""

from __future__ import annotations

from comfy_api.latest import io

from .native.report import model_report
from .schema import make_schema
from .shown_text import shown_text


class ModelReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            "CoMoVi_ModelReport",
            "CoMoVi Model Report",
            "loaders",
            description="Says in words what a CoMoVi MODEL is and how it will run: branches, exchange, pose head, "
            "weights and where they are, attention and who chose it, memory of a step, LoRA patches, shift.",
            search_aliases=["comovi", "report", "debug", "info", "memory", "vram", "attention", "why"],
            is_output_node=True,
            inputs=[io.Model.Input("model", tooltip="A CoMoVi MODEL, with whatever other nodes did to it.")],
            outputs=[io.String.Output(display_name="report", tooltip="The same lines as a text.")],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: object) -> float:
        return float("nan")  # what is loaded where changes from run to run

    @classmethod
    def execute(cls, model: io.Model.Type) -> io.NodeOutput:
        text = "\n".join(model_report(model))
        return io.NodeOutput(text, ui=shown_text(text))


NODES = [ModelReport]
