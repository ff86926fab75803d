"""Named formulas that the models are made of: one file per operation, its formula first, plain PyTorch below.

Importing this package imports nothing else; take an operation from its own file:
norm_modulate, join_norm, qk_norm_rope, zero_linear, pose_attention, dense_attention.
"""
