"""How long a call takes, on a GPU by its own clock, and the rows that results are written in."""

from __future__ import annotations

import csv
import importlib.metadata
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

COLD_BYTES = 512 * 2**20  # inputs are taken in turn from sets that together are larger than any cache


@dataclass(frozen=True)
class Row:
    """One measurement. `rate` is in GB/s for what moves bytes and TFLOP/s for what multiplies."""

    op: str
    provider: str
    shape: str
    dtype: str
    ms: float | None
    p20_ms: float | None
    p80_ms: float | None
    floor_ms: float | None
    pct_floor: float | None
    rate: float | None
    unit: str
    error: float | None  # relative to float64, on a part of the shape
    passed: bool
    note: str
    gpu: str
    torch: str
    triton: str
    commit: str


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.machine()}, {torch.get_num_threads()} threads"


def version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def commit() -> str:
    """The commit of this checkout, where it is one."""
    folder = Path(__file__).resolve().parent
    git = shutil.which("git")
    if git is None:
        return ""
    done = subprocess.run([git, "-C", str(folder), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip()


def about(device: torch.device) -> dict[str, str]:
    """What every row says about where it comes from."""
    return {
        "gpu": device_name(device), "torch": torch.__version__, "triton": version("triton"), "commit": commit(),
    }  # fmt: skip


def times_of(calls: Sequence[Callable[[], object]], device: torch.device, seconds: float, most: int) -> list[float]:
    """Milliseconds of calls taken in turn, for about `seconds`, after a warm-up; sorted."""
    cuda = device.type == "cuda"
    for _ in range(2):
        for call in calls:
            call()
    if cuda:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    calls[0]()
    if cuda:
        torch.cuda.synchronize(device)
    once = max(time.perf_counter() - start, 1e-6)
    repeats = int(min(max(seconds / once, 5), most))
    if not cuda:
        return sorted(timed(calls[index % len(calls)]) for index in range(repeats))
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for index, (begin, end) in enumerate(marks):
        begin.record()
        calls[index % len(calls)]()
        end.record()
    torch.cuda.synchronize(device)
    return sorted(begin.elapsed_time(end) for begin, end in marks)


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def spread(times: list[float]) -> tuple[float, float, float]:
    """Median, 20th and 80th percentile of sorted times."""
    return statistics.median(times), times[len(times) // 5], times[len(times) * 4 // 5]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """The rows as CSV, the file whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".part")
    with half.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        for row in rows:
            writer.writerow({k: round(v, 5) if isinstance(v, float) else v for k, v in asdict(row).items()})
    os.replace(half, path)


def read_rows(path: Path) -> list[Row]:
    """What write_rows wrote."""
    numbers = {"ms", "p20_ms", "p80_ms", "floor_ms", "pct_floor", "rate", "error"}

    def value(name: str, text: str) -> object:
        if name in numbers:
            return float(text) if text else None
        return text == "True" if name == "passed" else text

    with path.open(newline="", encoding="utf-8") as file:
        return [Row(**{name: value(name, text) for name, text in row.items()}) for row in csv.DictReader(file)]  # type: ignore[arg-type]
