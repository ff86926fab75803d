"""Fast versions of named formulas; importable without triton or CUDA."""
