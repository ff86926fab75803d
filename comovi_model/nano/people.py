"""Loads the reduced mannequin that the synthetic people are drawn with."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from .scene import NanoBody

ASSETS = Path(__file__).parent.parent / "assets"


@lru_cache(maxsize=1)
def load_nano_body() -> NanoBody:
    """The body of `assets/nano_body.safetensors` (made by tools/build_mannequin.py), float64 for exact drawing."""
    data = load_file(ASSETS / "nano_body.safetensors")
    shapedirs = data["shapedirs"].astype(np.float64)
    return NanoBody(
        v_template=data["v_template"].astype(np.float64),
        faces=data["faces"].astype(np.int64),
        weights=data["weights"].astype(np.float64),
        part_of_vertex=data["part_of_vertex"].astype(np.int64),
        joints=data["joints"].astype(np.float64),
        shapedirs=shapedirs,
        joint_shapedirs=np.einsum("jv,vkb->jkb", data["J_regressor"].astype(np.float64), shapedirs),
    )
