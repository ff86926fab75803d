"""The network as a velocity model over the streams "video" and "motion", for the samplers in wan/sampling.py.

B batch, C latent channels, F latent frames, h, w latent size, K conditions, P pose tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import ComoviError
from ..wan.flow import model_time
from ..wan.sampling import Prediction
from .dual_branch import DualBranch, DualTextCache

STREAMS = ("video", "motion")


class DualBranchVelocity:
    """Both velocities under several sentences in one call of the network, pose at the last step.

    Given the stream "motion" alone, it is a preview of the motion at half the cost: the same motion as with the video,
    as long as the motion never hears the video (the released mode); other networks are refused.

    texts: condition -> encoded sentences, (B, n, text_dim) or a list of B tensors (n_i, text_dim).
    init_pose: (B, 144) or (B, P, 144); without it no pose is made.
    first_frame_clean: latent frame 0 is given, so its time is 0.
    """

    def __init__(
        self,
        network: DualBranch,
        texts: Mapping[str, Tensor | list[Tensor]],
        *,
        init_pose: Tensor | None = None,
        first_frame_clean: bool = True,
        timestep_rounding: str = "reference",
        keep_text: bool = True,
        share_prefix: bool = True,
    ):
        self.network, self.texts, self.init_pose = network, texts, init_pose
        self.first_frame_clean, self.timestep_rounding = first_frame_clean, timestep_rounding
        self.keep_text = keep_text  # False: keys and values of the text again at every step, for little memory
        self.share_prefix = share_prefix  # False: every condition computes all layers by itself, for bisecting
        self._caches: dict[tuple[str, ...], DualTextCache] = {}

    def __call__(
        self, latents: Mapping[str, Tensor], sigmas: Mapping[str, float], conditions: Sequence[str], last: bool
    ) -> list[Prediction]:
        if "video" not in latents:
            self._check_motion_alone()
        given = next(iter(latents.values()))
        count, batch, frames = len(conditions), given.shape[0], given.shape[2]
        # Every condition sees the same latents, one after the other along the batch: (K*B, C, F, h, w).
        copies, repeats = (count, 1) if self.share_prefix else (1, count)
        halves = [latents[name].repeat(repeats, 1, 1, 1, 1) if name in latents else None for name in STREAMS]
        times = {name: self.times(sigmas[name], frames).to(given.device).expand(repeats * batch, -1) for name in sigmas}
        wants_pose = last and self.init_pose is not None and len(latents) == len(STREAMS)
        output = self.network(
            *halves,
            times.get("video", times["motion"]),
            None if self.keep_text else self.text(conditions),
            motion_timestep=times["motion"],
            init_pose=self._repeated_pose(repeats) if wants_pose else None,
            pose_from_layers=(-1,) if wants_pose else (),
            text_cache=self._cache(conditions) if self.keep_text else None,
            copies=copies,
        )
        made = {name: part.chunk(count) for name, part in zip(STREAMS, output, strict=False) if part is not None}
        poses = [{"pose": pose[:, 0]} for pose in output.pose.chunk(count)] if wants_pose else [{}] * count
        return [Prediction({name: made[name][i] for name in latents}, poses[i]) for i in range(count)]

    def _check_motion_alone(self) -> None:
        """Without the video the motion comes out the same only where it never hears the video."""
        if self.network.config.interaction not in ("single_m2v", "none"):
            raise ComoviError(
                f"the motion of this network hears the video ({self.network.config.interaction}), so it cannot be "
                "sampled by itself; sample both streams."
            )

    def times(self, sigma: float, frames: int) -> Tensor:
        """(1, F) times of the latent frames, or (1, 1) when all are noisy."""
        time = model_time(sigma, self.timestep_rounding, self.first_frame_clean)
        if not self.first_frame_clean:
            return torch.tensor([[time]])
        return torch.tensor([[0.0] + [time] * (frames - 1)])

    def text(self, conditions: Sequence[str]) -> list[Tensor]:
        """The sentences of these conditions along the batch."""
        unknown = [name for name in conditions if name not in self.texts]
        if unknown:
            raise ComoviError(f"guidance asks for the text {unknown[0]!r}, but only {', '.join(self.texts)} was given.")
        return [sentence for name in conditions for sentence in self.texts[name]]

    def _cache(self, conditions: Sequence[str]) -> DualTextCache:
        key = tuple(conditions)
        if key not in self._caches:
            self._caches[key] = self.network.make_text_cache(self.text(conditions))
        return self._caches[key]

    def _repeated_pose(self, count: int) -> Tensor:
        assert self.init_pose is not None
        return self.init_pose.repeat(count, *[1] * (self.init_pose.ndim - 1))
