"""The sizes of the nano model, in one place."""

from __future__ import annotations

from ..comovi.config import DualBranchConfig
from .first_frame import INPUT_CHANNELS
from .sentences import MAX_TOKENS
from .text_encoder import TEXT_DIM

NANO = DualBranchConfig(
    dim=192,
    ffn_dim=576,
    num_heads=4,
    num_layers=6,
    in_channels=INPUT_CHANNELS,
    text_dim=TEXT_DIM,
    text_len=MAX_TOKENS,
    freq_dim=128,
    interaction="mutual",
    pose_head=True,
    pose_layers=2,
    pose_ffn_dim=384,
    pose_heads=12,
    pose_tokens=32,
)
