"""DeepSpeed: ZeRO 0 to 3, optimiser and weights on the CPU if wanted, over any number of processes.

ZeRO-3 has three traps, which this file and the recipes avoid (measured with 0.19.8):
- A weight that gets no gradient in one micro-step gets a wrong one: old gradients are added again, or new ones lost.
  So recipes touch every trainable weight in every micro-step.
- `init_distributed` compiles a C++ extension on the CPU, and fails without a compiler; we say that it does not fit.
- Leaving a process by the ordinary way aborts now and then on the CPU; `close` waits for all, the command then leaves
  with os._exit (training/cli.py).
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...comovi_model.errors import ComoviError
from ..batch import Draw, TrainBatch
from ..config import TrainConfig
from ..optim import build_optimizer, trainable_weights
from ..processes import free_port
from .base import FIRST, SECOND, WEIGHT, Piece
from .single import pick_device

KEYS = {FIRST: "exp_avg", SECOND: "exp_avg_sq"}


def import_deepspeed(device: torch.device) -> Any:
    """The library, told which accelerator to use and to compile nothing that it does not need."""
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    try:
        import deepspeed
    except ImportError as error:
        raise ComoviError(
            f"engine.kind is deepspeed, which cannot be imported ({error}): on Linux, DS_BUILD_OPS=0 pip install "
            "'deepspeed>=0.19.3'; elsewhere set engine.kind=single."
        ) from None
    version = tuple(int(part) for part in deepspeed.__version__.split("+")[0].split(".")[:3])
    if version < (0, 19, 3):
        raise ComoviError(
            f"deepspeed {deepspeed.__version__} cannot recompute blocks with frozen weights under ZeRO-3; install "
            "0.19.3 or newer."
        )
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", r"`torch\.distributed", FutureWarning)  # of names that DeepSpeed uses
    return deepspeed


def join_processes(deepspeed: Any, device: torch.device) -> None:
    """Join the group that torchrun, Slurm or `--processes` started; a lone process forms one of its own."""
    if dist.is_initialized():
        return
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_PORT", str(free_port()))
    if device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo" if device.type == "cpu" else "nccl", verbose=False)


def deepspeed_config(config: TrainConfig, world: int) -> dict[str, Any]:
    """DeepSpeed's own settings, from ours."""
    engine, batch = config.engine, config.batch
    zero: dict[str, Any] = {
        "stage": engine.zero,
        "overlap_comm": engine.zero > 0 and torch.cuda.is_available(),
        "contiguous_gradients": True,
        "reduce_bucket_size": 500_000_000,
    }
    if engine.offload_optimizer == "cpu":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if engine.offload_params == "cpu":
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if engine.zero == 3:
        zero |= {
            "sub_group_size": 1_000_000_000,
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_max_reuse_distance": 1_000_000_000,
            "stage3_param_persistence_threshold": engine.keep_whole,
        }
    return {
        "train_micro_batch_size_per_gpu": batch.micro,
        "gradient_accumulation_steps": batch.accumulate,
        "train_batch_size": batch.micro * batch.accumulate * world,
        "gradient_clipping": config.optim.clip,
        "bf16": {"enabled": engine.precision == "bf16"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }


class DeepspeedEngine:
    """build(meta) makes the recipe: with numbers on rank 0, shapes only elsewhere; rank 0's numbers are handed out one
    weight at a time, so that a host never holds more than one whole model."""

    def __init__(self, build: Callable[[bool], nn.Module], config: TrainConfig):
        self.config, self.updates, self.stage = config, 0, config.engine.zero
        self.device = pick_device(config.engine.device, int(os.environ.get("LOCAL_RANK", "0")))
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        self.deepspeed = import_deepspeed(self.device)
        join_processes(self.deepspeed, self.device)
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        settings = deepspeed_config(config, self.world)
        recipe = build(self.rank > 0).train()
        dtype = torch.bfloat16 if config.engine.precision == "bf16" else torch.float32
        self._hand_out(recipe, dtype, settings)
        self.recipe = recipe
        if config.engine.compile:
            recipe.compile_blocks()
        self.weights = trainable_weights(recipe)
        buffers = {name: buffer.clone() for name, buffer in recipe.named_buffers()}
        optimizer = build_optimizer(list(self.weights.values()), config.optim)
        self.engine, self.zero, _, _ = self.deepspeed.initialize(model=recipe, optimizer=optimizer, config=settings)
        for name, buffer in recipe.named_buffers():  # DeepSpeed made those bfloat16, too
            buffer.data = buffers[name].to(self.device)
        self.adam: torch.optim.Optimizer = optimizer
        for held in self._flat_weights():  # so that Adam's state can be read and set before the first step
            self.adam.state[held] = {
                "step": torch.zeros((), dtype=torch.float32, device=held.device),
                "exp_avg": torch.zeros_like(held.data),
                "exp_avg_sq": torch.zeros_like(held.data),
            }

    def _flat_weights(self) -> list[Tensor]:
        """The float32 tensors that Adam works on: this rank's shares of many weights end to end."""
        if self.stage == 3:
            return list(self.zero.fp32_partitioned_groups_flat)
        return list(self.weights.values()) if self._plain() else list(self.zero.single_partition_of_fp32_groups)

    def _hand_out(self, recipe: nn.Module, dtype: torch.dtype, settings: dict[str, Any]) -> None:
        """Give every rank its values, and under ZeRO-3 its share of them, module by module."""
        partition = None
        if self.stage == 3:
            init = self.deepspeed.zero.Init(
                module=nn.Module(), config_dict_or_path=settings, dtype=dtype, mem_efficient_linear=False
            )
            partition = init._convert_to_zero_parameters
        for module in recipe.modules():
            if self.rank and any(value.is_meta for value in (*module.parameters(False), *module.buffers(False))):
                module.to_empty(device="cpu", recurse=False)
            for buffer in module.buffers(recurse=False):
                buffer.data = buffer.data.to(self.device)
                dist.broadcast(buffer.data, 0)
            for weight in module.parameters(recurse=False):
                weight.data = weight.data.to(self.device, dtype)
                if partition is None:
                    dist.broadcast(weight.data, 0)
            if partition is not None:
                partition(list(module.parameters(recurse=False)))

    def micro_step(self, batch: TrainBatch, draw: Draw, boundary: bool) -> dict[str, Tensor]:
        losses = self.engine(batch.to(self.device), draw)
        assert self.engine.is_gradient_accumulation_boundary() == boundary
        self.engine.backward(losses["loss"])
        if not boundary:
            self.engine.step()  # counts the micro-step, nothing else
        return {name: value.detach() for name, value in losses.items()}

    def apply(self, rate: float) -> float:
        for group in self.adam.param_groups:
            group["lr"] = rate
        norm = None if self.stage or self.zero is not self.adam else self._plain_norm()
        self.engine.step()
        self.updates += 1
        return float(self.engine.get_global_grad_norm() if norm is None else norm)

    def _plain_norm(self) -> Tensor:
        gradients = [weight.grad for weight in self.weights.values() if weight.grad is not None]
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))

    @torch.no_grad()
    def evaluate(self, batch: TrainBatch, draw: Draw) -> dict[str, Tensor]:
        return dict(self.engine(batch.to(self.device), draw))

    def pieces(self) -> list[Piece]:
        return [self._piece(name, weight) for name, weight in self.weights.items()]

    def _piece(self, name: str, weight: nn.Parameter) -> Piece:
        if self.stage == 3:  # equal shares of the flat weight; the last one may be padded
            share = weight.ds_tensor.numel()
            start = min(self.rank * share, weight.ds_numel)
            return Piece(name, tuple(weight.ds_shape), start, min(share, weight.ds_numel - start))
        if self._plain():  # every rank has all: rank 0 speaks for them
            return Piece(name, tuple(weight.shape), 0, 0 if self.rank else weight.numel())
        mapping = weight._hp_mapping
        if mapping is None:
            return Piece(name, tuple(weight.shape), 0, 0)
        place = mapping.lp_fragment_address
        return Piece(name, tuple(weight.shape), place.start, place.numel)

    def _plain(self) -> bool:
        """Stage 0 in float32: torch's own optimiser on the weights themselves."""
        return self.zero is self.adam or not hasattr(self.zero, "optimizer")

    def _held(self, weight: nn.Parameter, part: str) -> Tensor:
        """The optimiser's tensor for one part of what this rank holds of a weight, padding included; writable."""
        key = KEYS.get(part)
        if self.stage == 3:
            return self.zero._get_fp32_opt_state_partition(weight, False, key)[0]
        if self._plain():
            return (weight if key is None else self.adam.state[weight][key]).detach().reshape(-1)
        if key is not None:
            self.zero._lazy_init_hp_params_optimizer_state()
        return weight._hp_mapping.get_hp_fragment(key)

    def read_piece(self, piece: Piece, part: str) -> Tensor:
        if not piece.count:
            return torch.zeros(0)
        return self._held(self.weights[piece.name], part).detach().narrow(0, 0, piece.count)

    @torch.no_grad()
    def write_state(self, read: Callable[[str, str, int, int], Tensor], updates: int) -> None:
        for name, weight in self.weights.items():
            piece = self._piece(name, weight)
            everything = self._plain()
            for part in (WEIGHT, FIRST, SECOND):
                if everything:
                    self._held(weight, part).copy_(read(name, part, 0, weight.numel()))
                elif piece.count:
                    self._held(weight, part)[: piece.count].copy_(read(name, part, piece.start, piece.count))
            if self.stage == 3:
                if piece.count:
                    weight.ds_tensor.data[: piece.count].copy_(read(name, WEIGHT, piece.start, piece.count))
            elif not everything:
                weight.data.copy_(read(name, WEIGHT, 0, weight.numel()).view_as(weight))
        self._refresh_gathered()
        for state in self.adam.state.values():
            state["step"].fill_(updates)
        self.updates = updates

    def _refresh_gathered(self) -> None:
        """Under ZeRO-3 forget every whole weight, and make those that stay whole again from the shares."""
        if self.stage == 3:
            self.zero.parameter_offload.partition_all_parameters()
            kept = self.zero.persistent_parameters
            if kept:
                kept[0].all_gather(kept)

    @contextmanager
    def showing(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        kept = self._show(values)
        try:
            yield
        finally:
            self._show_back(kept)

    @torch.no_grad()
    def _show(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        kept = {}
        for name, weight in self.weights.items():
            piece = self._piece(name, weight)
            if self.stage == 3:
                kept[name] = weight.ds_tensor.data.clone()
                weight.ds_tensor.data[: piece.count].copy_(values[name])
                continue
            whole = torch.zeros(weight.numel(), device=self.device)
            whole[piece.start : piece.start + piece.count].copy_(values[name])
            dist.all_reduce(whole)
            kept[name] = weight.data.clone()
            weight.data.copy_(whole.view_as(weight))
        self._refresh_gathered()
        return kept

    @torch.no_grad()
    def _show_back(self, kept: Mapping[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            (weight.ds_tensor.data if self.stage == 3 else weight.data).copy_(kept[name])
        self._refresh_gathered()

    def whole_weights(self) -> Iterator[tuple[str, Tensor]]:
        for name, weight in self.recipe.named_parameters():
            if self.stage < 3:
                yield name, weight.detach().cpu()
                continue
            with self.deepspeed.zero.GatheredParameters([weight]):
                yield name, weight.detach().cpu().clone()
        for name, buffer in self.recipe.named_buffers():
            yield name, buffer.detach().cpu()

    def mean_over_ranks(self, values: Tensor) -> Tensor:
        if self.world == 1:
            return values
        total = values.detach().to(self.device, torch.float32, copy=True)
        dist.all_reduce(total)
        return total / self.world

    def say(self, sentence: str | None) -> str:
        heard: list[str | None] = [None] * self.world
        dist.all_gather_object(heard, sentence)
        return next((text for text in heard if text), "")

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()

    def close(self) -> None:
        self.barrier()
