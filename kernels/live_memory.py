"""How much memory the tensors of a piece of work take at once, counted operator by operator.

Works on every device, the meta device too. What it cannot see: workspaces inside one operator (a matrix product, an
attention), and the rounding of allocators.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class LiveBytes(TorchDispatchMode):
    """Adds up the storages that were made inside and are still alive; `peak` is the most there ever was."""

    now: int = 0
    peak: int = 0
    worst: str = ""  # the operation at the peak
    sizes: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and id(leaf.untyped_storage()) not in given:
                self.watch(leaf.untyped_storage())
        if self.now > self.peak:
            self.peak, self.worst = self.now, str(func)
        return result

    def watch(self, storage: Any) -> None:
        key = id(storage)
        if key in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        self.now += self.sizes[key]
        weakref.finalize(storage, self.forget, key)

    def forget(self, key: int) -> None:
        self.now -= self.sizes.pop(key)
