"""One step on several devices: each evaluates its share of the conditions, and all hear all answers.

With guidance a step evaluates the network under two sentences. On two devices each takes one, so a step takes half as
long; every device holds the whole network, and what passes between them are the velocities, a few MB. Every process
runs the whole sampler on the same numbers, so nothing else needs to be sent. Processes talk through torch.distributed:
gloo between CPUs, NCCL between GPUs. It composes with branch_parallel.py: two devices for each sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import ComoviError
from ..wan.sampling import Prediction, VelocityModel


class GuidanceParallel:
    """A velocity model that computes this process's conditions and fetches the others'."""

    def __init__(self, velocity: VelocityModel, group: dist.ProcessGroup | None = None):
        self.velocity, self.group = velocity, group
        self.rank, self.world = dist.get_rank(group), dist.get_world_size(group)

    def __call__(
        self, latents: Mapping[str, Tensor], sigmas: Mapping[str, float], conditions: Sequence[str], last: bool
    ) -> list[Prediction]:
        if len(conditions) % self.world:
            raise ComoviError(
                f"{len(conditions)} conditions cannot be shared out evenly between {self.world} processes; use as many "
                "processes as there are conditions (2 with guidance, 1 without)."
            )
        share = len(conditions) // self.world
        own = self.velocity(latents, sigmas, conditions[self.rank * share : (self.rank + 1) * share], last)
        velocities = {name: self.all_of([one.velocity[name] for one in own]) for name in own[0].velocity}
        extras = {name: self.all_of([one.extras[name] for one in own]) for name in own[0].extras}
        return [
            Prediction({name: v[i] for name, v in velocities.items()}, {name: e[i] for name, e in extras.items()})
            for i in range(len(conditions))
        ]

    def all_of(self, own: Sequence[Tensor]) -> list[Tensor]:
        """This process's answers and the others', in the order of the conditions."""
        stacked = torch.stack(list(own)).contiguous()
        everyone = [torch.empty_like(stacked) for _ in range(self.world)]
        dist.all_gather(everyone, stacked, group=self.group)
        return [answer for answers in everyone for answer in answers]
