"""The numbers and choices that fix a CoMoVi network."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ComoviError
from ..wan.config import WanConfig

INTERACTIONS = ("none", "single_m2v", "single_v2m", "dual", "mutual")

POSE_NUMBERS = 6  # a joint's rotation: the first two rows of its matrix
FRAMES_PER_LATENT = 4  # pixel frames that one latent frame holds, except latent frame 0, which holds one


@dataclass(frozen=True)
class DualBranchConfig(WanConfig):
    """Two Wan2.2 branches, the exchange between them (exchange.py) and the pose head (pose_head.py)."""

    interaction: str = "single_m2v"  # the released weights; one of INTERACTIONS
    interleave: int = 1  # every interleave-th video block has a motion block beside it
    pose_head: bool = False
    pose_layers: int = 6
    pose_ffn_dim: int = 4096
    pose_heads: int = 12
    pose_tokens: int = 80  # one per pixel frame after the given first one
    num_joints: int = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.interaction not in INTERACTIONS:
            raise ComoviError(f"interaction is {self.interaction!r}; choose one of {', '.join(INTERACTIONS)}.")
        if self.interleave < 1 or self.num_layers % self.interleave:
            raise ComoviError(
                f"interleave {self.interleave} does not divide the {self.num_layers} layers; choose a divisor of them."
            )
        # The official code accepts this, its command line even defaults to it, and fails in the last block: the second
        # exchange of a pair needs the zero-linear of the *next* layer.
        if self.interaction == "dual" and self.interleave == 1:
            raise ComoviError(
                "interaction 'dual' needs interleave 2 or more, because each pair also uses the zero-linear of the "
                "next layer; with interleave 1 choose 'mutual', or 'single_m2v' for the released weights."
            )
        if self.pose_head:
            self._check_pose_head()

    def _check_pose_head(self) -> None:
        if self.interleave != 1:
            raise ComoviError(
                f"the pose head reads both branches after the last layer, which has no motion block with interleave "
                f"{self.interleave}; use interleave 1 or build without the pose head."
            )
        if self.dim % self.pose_heads:
            raise ComoviError(f"the pose head's {self.pose_heads} heads do not divide dim {self.dim}.")
        if self.pose_tokens < FRAMES_PER_LATENT or self.pose_tokens % FRAMES_PER_LATENT:
            raise ComoviError(
                f"pose_tokens is {self.pose_tokens}; it must be a multiple of {FRAMES_PER_LATENT}, one per pixel frame "
                "after the first."
            )
        for name in ("pose_layers", "pose_ffn_dim", "num_joints"):
            if getattr(self, name) < 1:
                raise ComoviError(f"{name} is {getattr(self, name)}; it must be at least 1.")

    @property
    def num_motion_layers(self) -> int:
        return self.num_layers // self.interleave

    @property
    def pose_dim(self) -> int:
        return self.num_joints * POSE_NUMBERS

    @property
    def pose_latent_frames(self) -> int:
        """The only number of latent frames that the pose head fits."""
        return self.pose_tokens // FRAMES_PER_LATENT + 1


WAN22_5B = DualBranchConfig()
