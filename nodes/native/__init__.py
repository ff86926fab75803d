"""CoMoVi as an ordinary ComfyUI MODEL: what the nodes hand to samplers, LoRA loaders and memory management."""
