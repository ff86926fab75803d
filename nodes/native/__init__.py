"""CoMoVi as an ordinary ComfyUI MODEL: what the nodes hand to samplers, LoRA loaders, previews and memory management."""
