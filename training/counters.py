"""Randomness that is a function of where it is needed: (seed, stream, step, micro-step, rank).

No generator lives longer than one draw, so a resumed run needs no saved state, and neither the number of data workers
nor the order of the draws can change a result. A stream is a name ("noise", "sigma", "layers", ...): two of them never
share numbers. What all ranks must agree on is drawn with `EVERY_RANK` in place of a rank.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

EVERY_RANK = -1


def key(seed: int, stream: str, step: int, micro: int = 0, rank: int = EVERY_RANK) -> int:
    """63 bits that name one draw."""
    name = f"{seed}/{stream}/{step}/{micro}/{rank}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") >> 1


def generator(seed: int, stream: str, step: int, micro: int = 0, rank: int = EVERY_RANK) -> torch.Generator:
    """A fresh generator on the CPU; numbers are drawn there, so that every device gets the same ones."""
    return torch.Generator().manual_seed(key(seed, stream, step, micro, rank))


def numpy_generator(seed: int, stream: str, step: int, micro: int = 0, rank: int = EVERY_RANK) -> np.random.Generator:
    """The same for numpy; its numbers differ from torch's."""
    return np.random.default_rng(key(seed, stream, step, micro, rank))
