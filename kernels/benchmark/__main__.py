"""python -m comfyui_comovi.kernels.benchmark [--csv FILE] [--model] [--report] [--keep]

Ceilings of the device first, then every operation in every provider: whether it is right, and how long it takes. On a
GPU at the size of the released network; on a CPU at a small size, which proves the harness and says nothing of speed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch

from ..choices import choices_file, gpu_name, keep_choices
from . import ceilings, report, run
from .timing import read_rows, version, write_rows


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m comfyui_comovi.kernels.benchmark", description=(__doc__ or ""),
                                   formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument(
        "--csv", type=Path, default=Path("kernel_benchmark.csv"), metavar="FILE", help="results (%(default)s)"
    )
    made.add_argument("--seconds", type=float, default=0.3, help="of timing for each row (%(default)s)")
    made.add_argument("--model", action="store_true", help="also whole blocks and steps with random weights")
    made.add_argument("--keep", action="store_true", help="let the setting auto use what won on this GPU")
    made.add_argument("--report", action="store_true", help="only print the table of an earlier run and predictions")
    return made


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.report:
        if not options.csv.is_file():
            sys.stderr.write(f"there is no {options.csv}: run without --report first\n")
            return 1
        sys.stdout.write("\n".join(report.lines(read_rows(options.csv), work())) + "\n")
        return 0
    device = torch.device(options.device)

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    size = ceilings.REAL if device.type == "cuda" else ceilings.SMALL
    small = ceilings.Size(1, 3, 40, size.dim, size.ffn_dim, size.heads, size.text, size.pose_heads, size.dtype)
    limits, rows = ceilings.measure(size, device, options.seconds)
    for row in rows:
        say(f"{row.op:<12} {row.provider:<14} {row.shape:<24} {row.rate or 0:10.1f} {row.unit}  {row.note}")
    rows += run.measure(size, small, device, limits, options.seconds, say)
    write_rows(options.csv, rows)
    say(f"{options.csv}: {len(rows)} rows")
    wrong = [row for row in rows if row.note.startswith(("wrong", "failed")) and row.provider in ("torch", "triton")]
    status = 1 if wrong else 0
    if options.keep and gpu_name():
        keep_choices(
            choices_file(), gpu_name(), run.winners(rows), {"torch": torch.__version__, "triton": version("triton")}
        )
        say(f"{choices_file()}: {run.winners(rows)}")
    if options.model:
        status = max(status, of_the_model("--device", options.device, "--csv", str(options.csv)).returncode)
    return status


def of_the_model(*arguments: str, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    """The network's own benchmark, in a process of its own: kernels know nothing of the model."""
    package = (__package__ or "").rsplit(".", 2)[0]
    command = [sys.executable, "-m", f"{package}.comovi_model.comovi.step_benchmark", *arguments]
    return subprocess.run(command, check=False, capture_output=quiet, text=True)


def work() -> dict[str, float]:
    """Bytes and FLOPs of one step, counted over the network."""
    done = of_the_model("--work", quiet=True)
    return json.loads(done.stdout) if done.returncode == 0 else {}


if __name__ == "__main__":
    sys.exit(main())
