"""Runs ComfyUI on the CPU as if the CPU were a GPU with next to no memory, so that models are loaded in parts.

python small_memory.py /path/to/ComfyUI/main.py --novram ...

With ``--cpu`` ComfyUI ignores --lowvram and --novram, and without a GPU it does not start without ``--cpu``. Here its
"GPU" is the CPU, and what it is told of free memory is 1 MiB more than it wants for computing: everything that ComfyUI
does to offload weights, and to patch weights that are offloaded, then happens, and the numbers can be checked anywhere.
"""

from __future__ import annotations

import os
import runpy
import sys

import torch

FREE = 2**20  # bytes, beyond what inference reserves


def pretend(management) -> None:
    load, free, is_cpu = management.load_models_gpu, management.get_free_memory, management.is_device_cpu

    def little_memory(device=None, torch_free_too=False):
        little = management.minimum_inference_memory() + FREE
        return (little, little) if torch_free_too else little

    def load_in_parts(*args, **kwargs):
        management.get_free_memory, management.is_device_cpu = little_memory, lambda device: False
        try:
            return load(*args, **kwargs)
        finally:
            management.get_free_memory, management.is_device_cpu = free, is_cpu

    management.load_models_gpu = load_in_parts


def main() -> None:
    script = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(script)
    torch.cuda.current_device = lambda: "cpu"  # what ComfyUI makes its device of
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.model_management

    pretend(comfy.model_management)
    runpy.run_path(script, run_name="__main__")


main()
