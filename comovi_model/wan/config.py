"""The numbers that fix the shape of one Wan2.2 branch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import ComoviError

ConfigType = TypeVar("ConfigType", bound="WanConfig")


@dataclass(frozen=True)
class WanConfig:
    """Wan2.2-TI2V-5B unless said otherwise (`dataclasses.replace` makes the others)."""

    dim: int = 3072  # width D of the residual stream
    ffn_dim: int = 14336
    num_heads: int = 24
    num_layers: int = 30
    in_channels: int = 48  # latent channels C
    out_channels: int = 48
    text_dim: int = 4096  # width of the text encoder's output
    text_len: int = 512  # shorter sentences are filled with zero rows, and the network reads those rows too
    freq_dim: int = 256  # size of the sinusoid that describes the diffusion time
    patch_size: tuple[int, int, int] = (1, 2, 2)  # latent frames, rows, columns of one token
    eps: float = 1e-6  # of every norm

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_size", tuple(self.patch_size))
        for name in (
            "dim",
            "ffn_dim",
            "num_heads",
            "num_layers",
            "in_channels",
            "out_channels",
            "text_dim",
            "text_len",
        ):
            if getattr(self, name) < 1:
                raise ComoviError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise ComoviError(
                f"dim {self.dim} cannot be split into {self.num_heads} heads of an even size; "
                "choose dim as a multiple of twice the number of heads."
            )
        if self.freq_dim < 2 or self.freq_dim % 2:
            raise ComoviError(f"freq_dim is {self.freq_dim}; it must be even (half cosines, half sines).")
        if not 0 <= self.eps < 1:  # NaN too
            raise ComoviError(f"eps is {self.eps}; it must be a small number such as 1e-6.")
        if len(self.patch_size) != 3 or self.patch_size[0] != 1 or min(self.patch_size) < 1:
            raise ComoviError(f"patch_size is {self.patch_size}; expected (1, rows, columns).")

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls: type[ConfigType], values: dict[str, Any]) -> ConfigType:
        """The inverse of `to_dict`; an unknown key is an error that lists the known ones."""
        known = {field.name: field.default for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ComoviError(f"unknown configuration key {unknown[0]!r}; known keys: {', '.join(known)}.")
        wrong = sorted(name for name, value in values.items() if not is_like(value, known[name]))
        if wrong:
            raise ComoviError(
                f"configuration key {wrong[0]} is of the wrong kind: it is {values[wrong[0]]!r}, where something like "
                f"{known[wrong[0]]!r} is expected."
            )
        return cls(**values)


def is_like(value: Any, default: Any) -> bool:
    """Whether a value is of the kind of a default: a whole number, a number, a word, yes or no, whole numbers."""
    if isinstance(default, tuple):
        return isinstance(value, (tuple, list)) and all(type(part) is int for part in value)
    return type(value) is type(default) or (type(default) is float and type(value) is int)
