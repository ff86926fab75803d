"""What was measured of each fit, and the file that keeps it, so that a long evaluation can be stopped and shared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

FAILURE_MM = 80.0
FLAGGED_SHARE = 0.25  # of the failing frames, for a failed clip to count as flagged


@dataclass(frozen=True)
class Measured:
    """One fit of one clip; errors of every frame in mm."""

    joints: list[float]
    root: list[float]
    normal_deg: float
    flagged: list[bool]
    seconds: float  # per frame, wall
    cpu_seconds: float
    depth: float = 0.0  # mean signed error of the pelvis along z, mm

    @property
    def mpjpe(self) -> float:
        return float(np.mean(self.joints))

    @property
    def failed(self) -> bool:
        return self.mpjpe > FAILURE_MM

    @property
    def unflagged(self) -> bool:
        """A failure that the fit did not notice."""
        flags = [flag for flag, error in zip(self.flagged, self.joints, strict=True) if error > FAILURE_MM]
        return self.failed and float(np.mean(flags)) < FLAGGED_SHARE


class Ledger:
    """The fits that are done, kept in a file of one line each; without a file only in memory."""

    def __init__(self, path: Path | None, seed: int) -> None:
        self.path, self.seed, self.program = path, seed, fingerprint()
        self.clips: dict[int, tuple[str, dict[str, Measured]]] = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._read(line)

    def _read(self, line: str) -> None:
        try:
            row = json.loads(line)
            if (row["program"], row["seed"]) == (self.program, self.seed):
                measured = {variant: Measured(**fit) for variant, fit in row["fits"].items()}
                self.clips.setdefault(int(row["index"]), (row["name"], {}))[1].update(measured)
        except (ValueError, KeyError, TypeError):
            pass  # half a line of a run that was stopped: its clip is made again

    def missing(self, index: int, variants: tuple[str, ...]) -> tuple[str, ...]:
        done = self.clips[index][1] if index in self.clips else {}
        return tuple(variant for variant in variants if variant not in done)

    def add(self, index: int, name: str, measured: dict[str, Measured]) -> None:
        self.clips.setdefault(index, (name, {}))[1].update(measured)
        if self.path is not None:
            fits = {variant: asdict(fit) for variant, fit in measured.items()}
            row = {"program": self.program, "seed": self.seed, "index": index, "name": name, "fits": fits}
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def table(self, count: int, variants: tuple[str, ...]) -> dict[str, dict[str, Measured]]:
        """The first `count` clips by name, with these variants only."""
        out = {}
        for index in sorted(self.clips):
            name, fits = self.clips[index]
            chosen = {variant: fits[variant] for variant in variants if variant in fits}
            if index < count and chosen:
                out[f"{index} {name}"] = chosen
        return out


def fingerprint() -> str:
    """Names the program that is measured: its own files and those that make the clips."""
    here = Path(__file__).resolve().parent
    files = [*sorted((here.parent / "comovi_model" / "fit").glob("*.py")), *sorted(here.glob("fit_*.py"))]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:12]
