"""Plain torch on one device: for laptops, for adapters on one GPU, and the reference that DeepSpeed is held to.

With precision "bf16" the weights are bfloat16 and the optimiser has a float32 copy, which also collects the gradients;
it may live on the CPU (engine.offload_optimizer). Buffers keep their dtype.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...comovi_model.errors import ComoviError
from ..batch import Draw, TrainBatch
from ..config import TrainConfig
from ..optim import build_optimizer, trainable_weights
from .base import FIRST, SECOND, WEIGHT, Piece


def pick_device(wanted: str, local_rank: int = 0) -> torch.device:
    """The device of this process: "auto" is the GPU where there is one."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ComoviError("engine.device is cuda, but torch sees no GPU here; set engine.device=cpu.")
    return torch.device("cuda", local_rank)


class SingleEngine:
    rank, world = 0, 1

    def __init__(self, recipe: nn.Module, config: TrainConfig):
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ComoviError(
                "engine.kind is single, but several processes were started; set engine.kind=deepspeed, or start one."
            )
        self.config, self.device, self.updates = config, pick_device(config.engine.device), 0
        half = config.engine.precision == "bf16"
        if half:
            for weight in recipe.parameters():
                weight.data = weight.data.to(torch.bfloat16)
        self.recipe = recipe.to(self.device).train()
        if config.engine.compile:
            recipe.compile_blocks()
        self.weights = trainable_weights(recipe)
        self.masters: dict[str, Tensor] = dict(self.weights)
        if half:
            self._keep_float32(torch.device("cpu") if config.engine.offload_optimizer == "cpu" else self.device)
        self.optimizer = build_optimizer(list(self.masters.values()), config.optim)
        for master in self.masters.values():  # so that its state can be read before the first step
            self.optimizer.state[master] = {
                "step": torch.zeros((), dtype=torch.float32, device=master.device),
                "exp_avg": torch.zeros_like(master),
                "exp_avg_sq": torch.zeros_like(master),
            }

    def _keep_float32(self, device: torch.device) -> None:
        """Float32 copies of the trainable weights, which also collect their gradients in float32."""
        for name, weight in self.weights.items():
            master = weight.detach().to(device, torch.float32, copy=True).requires_grad_()
            self.masters[name] = master

            def collect(weight: Tensor, master: Tensor = master) -> None:
                assert weight.grad is not None
                gradient = weight.grad.to(master.device, torch.float32)
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                weight.grad = None

            weight.register_post_accumulate_grad_hook(collect)

    def micro_step(self, batch: TrainBatch, draw: Draw, boundary: bool) -> dict[str, Tensor]:
        losses = self.recipe(batch.to(self.device), draw)
        (losses["loss"] / self.config.batch.accumulate).backward()
        return {name: value.detach() for name, value in losses.items()}

    def apply(self, rate: float) -> float:
        masters = list(self.masters.values())
        norm = nn.utils.clip_grad_norm_(masters, self.config.optim.clip or float("inf"))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._copy_down()
        self.updates += 1
        return float(norm)

    @torch.no_grad()
    def _copy_down(self) -> None:
        for name, weight in self.weights.items():
            if self.masters[name] is not weight:
                weight.copy_(self.masters[name])

    @torch.no_grad()
    def evaluate(self, batch: TrainBatch, draw: Draw) -> dict[str, Tensor]:
        return dict(self.recipe(batch.to(self.device), draw))

    def pieces(self) -> list[Piece]:
        return [Piece(name, tuple(weight.shape), 0, weight.numel()) for name, weight in self.weights.items()]

    def read_piece(self, piece: Piece, part: str) -> Tensor:
        master = self.masters[piece.name]
        keys = {FIRST: "exp_avg", SECOND: "exp_avg_sq"}
        value = master if part == WEIGHT else self.optimizer.state[master][keys[part]]
        return value.detach().reshape(-1)

    @torch.no_grad()
    def write_state(self, read: Callable[[str, str, int, int], Tensor], updates: int) -> None:
        for piece in self.pieces():
            for part in (WEIGHT, FIRST, SECOND):
                self.read_piece(piece, part).copy_(read(piece.name, part, 0, piece.count))
            self.optimizer.state[self.masters[piece.name]]["step"].fill_(updates)
        self._copy_down()
        self.updates = updates

    @contextmanager
    def showing(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        kept = {name: self.weights[name].detach().clone() for name in values}
        with torch.no_grad():
            for name, value in values.items():
                self.weights[name].copy_(value.view_as(self.weights[name]))
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in kept.items():
                    self.weights[name].copy_(value)

    def whole_weights(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in self.recipe.state_dict().items():
            yield name, value.detach().cpu()

    def mean_over_ranks(self, values: Tensor) -> Tensor:
        return values

    def say(self, sentence: str | None) -> str:
        return sentence or ""

    def barrier(self) -> None:
        pass

    def close(self) -> None:
        pass
