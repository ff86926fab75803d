"""Is this MODEL one of ours? What to say when it is not."""

from __future__ import annotations

from typing import Any

from ...comovi_model.errors import ComoviError
from .network import ComfyDualBranch


def comovi_network(model: Any) -> ComfyDualBranch:
    """The network inside a MODEL."""
    network = getattr(model.model, "diffusion_model", None)
    if not isinstance(network, ComfyDualBranch):
        kind = type(model.model).__name__
        raise ComoviError(f"model: this is not a CoMoVi model but {kind}; load one with 'Load CoMoVi Model'.")
    return network
