"""AdamW and its learning rate: warm-up, constant, and a cosine at the end if asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..comovi_model.errors import ComoviError
from .config import OptimConfig


def rate_at(config: OptimConfig, step: int, steps: int) -> float:
    """Learning rate of step `step` of `steps`, counted from 0."""
    rate = config.lr
    if step < config.warmup:
        rate *= (step + 1) / config.warmup
    if config.cosine:
        done = min(max((step / steps - (1 - config.cosine)) / config.cosine, 0.0), 1.0)
        rate *= config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * done))
    return rate


def build_optimizer(weights: Sequence[Tensor], config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over all weights alike: the paper decays norms and biases too."""
    return torch.optim.AdamW(
        weights, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=True
    )


def trainable_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that move, by name; what is frozen never meets the optimiser."""
    weights = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    if not weights:
        raise ComoviError("nothing is trainable with these settings; see [stage] and [adapter].")
    return weights
