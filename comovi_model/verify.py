"""Our numbers beside those of the official code: runs a golden file and reports one line per case.

A golden file is a .safetensors with inputs, weights and results of the original network, and a .json of the same name
that tells its kind, its configuration and how closely each tensor has to agree. Nothing here is specific to one file:
another width, depth, size or mode of the same kind needs no new code.

Results are held to the stated tolerance as it is. Intermediate values (`.mid.` in the name) are residual streams that
grow to 30 where results stay near 1; the official float32 run itself is up to 2.8e-5 away from its float64 run there,
more than the stated 2e-5. They are on lines of their own, and an absolute tolerance is multiplied by the largest
value if that is above 1: a single wrong operation still exceeds it a hundredfold.
"""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import ComoviError
from .files import file_error, require_file
from .wan.weights import TensorFiles, open_weights

# kind in the JSON -> the module whose `run_cases(golden)` computes our side
KINDS = {"comovi": ".comovi.golden", "camerahmr": ".camerahmr.golden"}
MEASURES = {"abs", "rel", "max_levels", "mean_levels"}  # what a tolerance may limit; see `measure`


@dataclass(frozen=True)
class Golden:
    """A golden file, opened."""

    path: Path
    facts: dict[str, Any]  # the JSON
    tensors: TensorFiles

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix`, without it."""
        return {name[len(prefix) :]: self.tensors[name] for name in self.tensors if name.startswith(prefix)}

    def results(self) -> set[str]:
        """The names of what is to be reproduced; a kind whose files are named otherwise says so itself."""
        named = getattr(importlib.import_module(KINDS[self.facts["kind"]], __package__), "is_result", is_result)
        return {name for name in self.tensors if named(name)}

    def tolerance(self, name: str) -> dict[str, float]:
        """The tolerance of a tensor: that of the longest entry that its name contains."""
        entries = [entry for entry in self.facts["tolerances"] if entry in name]
        if not entries:
            raise ComoviError(
                f"{self.path.with_suffix('.json')} states no tolerance for {name}; add one to tolerances."
            )
        stated = self.facts["tolerances"][max(entries, key=len)]
        if not isinstance(stated, dict) or not stated or not stated.keys() <= MEASURES:
            raise ComoviError(
                f"{self.path.with_suffix('.json')} states {stated!r} as the tolerance for {name}; expected an object "
                f"with some of {', '.join(sorted(MEASURES))}."
            )
        return stated


@dataclass(frozen=True)
class CaseResult:
    """One case: the largest errors among its tensors, and what went wrong if something did."""

    name: str
    compared: tuple[str, ...]  # full names of its tensors
    max_abs: float
    relative_l2: float
    tolerance: str
    failures: tuple[str, ...]  # empty when all tensors agree

    @property
    def passed(self) -> bool:
        return not self.failures

    def line(self) -> str:
        verdict = "ok  " if self.passed else "FAIL"
        count = f"{len(self.compared)} tensor" + ("s" if len(self.compared) != 1 else "")
        numbers = f"max-abs {self.max_abs:.2e}  rel-L2 {self.relative_l2:.2e}  tolerance {self.tolerance}"
        reason = f"  {self.failures[0]}" if self.failures else ""
        more = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
        return f"{verdict} {self.name:<34} {count:>11}  {numbers}{reason}{more}"


def open_golden(path: str | Path) -> Golden:
    """Open the .safetensors and the .json beside it."""
    path = Path(path)
    beside = path.with_suffix(".json")
    if path.suffix != ".safetensors":
        raise ComoviError(f"{path} is not a .safetensors file; give a golden file, with its .json beside it.")
    require_file(path, "golden file")
    if not beside.exists():
        raise ComoviError(f"{path} has no {beside.name} beside it, so it is no golden file; put both into one folder.")
    try:
        facts = json.loads(beside.read_text(encoding="utf-8"))
    except OSError as error:
        raise file_error(error, beside, "read golden file") from error
    except (ValueError, RecursionError) as error:
        raise ComoviError(f"{beside} is not valid JSON ({error}).") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("kind"), str) or facts["kind"] not in KINDS:
        kind = facts.get("kind") if isinstance(facts, dict) else None
        raise ComoviError(f"{beside} is of kind {kind!r}; this version verifies {', '.join(KINDS)}.")
    golden = Golden(path, facts, open_weights(path))
    if not golden.results():
        raise ComoviError(f"{path} holds no results to compare with, so it is no golden file; its tensors are others.")
    return golden


def verify_file(path: str | Path) -> list[CaseResult]:
    """All results of a golden file."""
    return list(verify_cases(open_golden(path)))


def verify_cases(golden: Golden) -> Iterator[CaseResult]:
    """The results one by one, each as soon as it is computed."""
    module = importlib.import_module(KINDS[golden.facts["kind"]], __package__)
    with torch.no_grad():
        try:
            for name, ours in module.run_cases(golden):
                yield compare(golden, name, ours)
        except ComoviError:
            raise
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError) as error:
            raise ComoviError(
                f"{golden.path} is a damaged or incomplete golden file: {type(error).__name__} {str(error)[:200]!r}."
            ) from error


def compare(golden: Golden, case: str, ours: Mapping[str, Tensor] | ComoviError) -> CaseResult:
    """Our tensors of one case, by full name, against the golden ones."""
    if isinstance(ours, ComoviError):
        return CaseResult(case, (), math.nan, math.nan, "-", (str(ours),))
    if not ours:
        return CaseResult(case, (), math.nan, math.nan, "-", ("the file holds no result of this case to compare",))
    worst_abs, worst_relative, failures = 0.0, 0.0, []
    largest: dict[str, float] = {}
    for name, tensor in ours.items():
        expected, tolerance = golden.tensors[name], golden.tolerance(name)
        if ".mid." in name and "abs" in tolerance:
            tolerance = {**tolerance, "abs": tolerance["abs"] * max(1.0, float(expected.abs().max()))}
        largest = {key: max(limit, largest.get(key, 0.0)) for key, limit in tolerance.items()}
        if tensor.shape != expected.shape:
            failures.append(f"{name} has shape {tuple(tensor.shape)} instead of {tuple(expected.shape)}")
            continue
        errors = measure(tensor, expected)
        # `not <=` and not `>`: a NaN has to fail.
        exceeded = [key for key, limit in tolerance.items() if not errors[key] <= limit]
        failures += [f"{name}: {key} {errors[key]:.2e}" for key in exceeded]
        worst_abs = worse(worst_abs, errors["abs"])
        worst_relative = worse(worst_relative, errors["rel"])
    stated = ", ".join(f"{key} {limit:.2g}" for key, limit in largest.items())
    return CaseResult(case, tuple(ours), worst_abs, worst_relative, stated, tuple(failures))


def measure(ours: Tensor, expected: Tensor) -> dict[str, float]:
    """Largest absolute and relative L2 error, in float64; the same in grey levels for uint8."""
    a, b = ours.double(), expected.double()
    difference = (a - b).abs()
    largest = float(difference.max()) if difference.numel() else 0.0
    norm = float(b.norm())
    relative = float((a - b).norm()) / norm if norm else largest
    mean = float(difference.mean()) if difference.numel() else 0.0
    return {"abs": largest, "rel": relative, "max_levels": largest, "mean_levels": mean}


def worse(a: float, b: float) -> float:
    """The larger error; NaN is the largest of all."""
    return b if math.isnan(b) or b > a else a


def report(golden: Golden, results: Iterable[CaseResult]) -> bool:
    """Print one line per case and a last line; True when all passed."""
    count = failed = 0
    left = golden.results()
    for result in results:
        print(result.line(), flush=True)
        count, failed = count + 1, failed + (not result.passed)
        left -= set(result.compared)
    if left:
        print(f"note: {len(left)} results in the file were not compared, for example {min(left)}")
    print(f"{golden.path.name}: {count - failed} of {count} cases within tolerance")
    return failed == 0 and count > 0


def is_result(name: str) -> bool:
    """Whether a tensor is something to reproduce, by the way golden files name things."""
    return not name.startswith("weight.") and bool(re.search(r"\.(out|mid|steps|schedule|states)\b|\.out_", name))


def run(path: str | Path) -> int:
    """`comovi verify`: 0 when every case is within its tolerance, 1 when one is not."""
    golden = open_golden(path)
    return 0 if report(golden, verify_cases(golden)) else 1
