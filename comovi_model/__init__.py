"""The paper's model in plain PyTorch: one Wan branch, the dual-branch network, bodies, and the embedded nano model.

Nothing is imported here, so that ``comovi --help`` does not pay for torch.
"""
