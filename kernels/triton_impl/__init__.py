"""Fused kernels in Triton. Import a file only after dispatch.py has found Triton.

Rules of every kernel: load, widen to float32, compute, round once on store; one program per row, no atomics, so that a
row gives the same bits in any batch; row offsets in 64 bits; no library calls, so that the interpreter runs them.
"""
