"""Times every operation in every provider: `python -m comfyui_comovi.kernels.benchmark`."""
