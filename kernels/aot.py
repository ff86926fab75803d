"""Compile every fused kernel for GPUs that are not here, and read what the compiler says of registers and memory.

`python -m comfyui_comovi.kernels.aot [--arch 90] [--csv FILE]` prints one row per kernel, variant and architecture.
Status 1 when a row spills registers or needs more shared memory than its GPU has. Needs Triton, which brings its own
assembler, but no GPU and no driver. `--gfx`: the same for AMD, where spills are told only.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .aot_variants import Variant, variants

ARCHITECTURES = (80, 86, 89, 90, 100, 120)  # A100, RTX 30, RTX 40, H100/H200, B200, RTX 50
GFX = {"gfx942": 64, "gfx1100": 32}  # MI300, RX 7900; threads of a wave
SHARED_KB = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}


@dataclass(frozen=True)
class Row:
    """What came out."""

    kernel: str
    variant: str
    arch: int
    warps: int
    registers: int
    spilled_bytes: int
    shared_kb: float
    widest_load: int  # bits of one load or store instruction

    @property
    def problem(self) -> str:
        if self.spilled_bytes:
            return f"spills {self.spilled_bytes} bytes"
        if self.shared_kb > SHARED_KB[self.arch]:
            return f"needs {self.shared_kb:.0f} kB of shared memory of {SHARED_KB[self.arch]}"
        if self.registers * 32 * self.warps > 65536:
            return f"needs {self.registers} registers in {32 * self.warps} threads"
        return ""


def compiled(variant: Variant, backend: str, arch: int | str, wave: int) -> Any:
    """What Triton makes of one variant for a GPU."""
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module = importlib.import_module(f".triton_impl.{variant.module}", __package__)
    kernel = getattr(module, variant.kernel)
    signature = {name: variant.types.get(name, "constexpr") for name in kernel.arg_names}
    places = {name: index for index, name in enumerate(kernel.arg_names)}
    # Sizes and addresses of real tensors are multiples of 16, which is what lets loads be 128 bits wide.
    aligned = [name for name, kind in variant.types.items() if kind.startswith("*") or name in ("channels", "size")]
    aligned += [name for name in variant.types if name.startswith("stride_")]
    source = ASTSource(
        kernel,
        signature,
        constexprs={(places[name],): value for name, value in variant.constants.items()},
        attrs={(places[name],): [["tt.divisibility", 16]] for name in aligned},
    )
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
    return triton.compile(source, target=GPUTarget(backend, arch, wave), options=options)


def compile_variant(variant: Variant, arch: int) -> Row:
    """Compile one and look at the machine code."""
    made = compiled(variant, "cuda", arch, 32)
    registers, spilled = resources(made.asm["cubin"])
    widths = [int(n) * int(bits) for n, bits in re.findall(r"(?:ld|st)\.global\S*\.v(\d)\.b(\d+)", made.asm["ptx"])]
    name = variant.kernel.removesuffix("_kernel").removesuffix("_fwd")
    return Row(
        name, variant.label, arch, variant.num_warps, registers, spilled,
        round(made.metadata.shared / 1024, 1), max(widths, default=32),
    )  # fmt: skip


def compile_for_amd(variant: Variant, arch: str) -> tuple[int, int]:
    """(vector registers of a thread, how many more were spilled)"""
    text = compiled(variant, "hip", arch, GFX[arch]).asm["amdgcn"]
    used, spilled = (re.search(rf"\.vgpr_{name}:\s*(\d+)", text) for name in ("count", "spill_count"))
    assert used is not None
    assert spilled is not None
    return int(used[1]), int(spilled[1])


def resources(cubin: bytes) -> tuple[int, int]:
    """(registers of a thread, bytes of its stack: what did not fit into them)."""
    import triton

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        command = [str(tools / "cuobjdump"), "--dump-resource-usage", str(file)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(re.search(r"REG:(\d+)", text)[1]), int(re.search(r"STACK:(\d+)", text)[1])  # type: ignore[index]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--arch", type=int, action="append", choices=ARCHITECTURES)
    parser.add_argument("--csv", type=Path, help="write the table here")
    parser.add_argument("--gfx", action="store_true", help="for AMD's GPUs instead")
    options = parser.parse_args()
    if options.gfx:
        return amd_table()
    rows = []
    for arch in options.arch or ARCHITECTURES:
        for variant in variants(arch):
            rows.append(compile_variant(variant, arch))
            print(f"sm_{arch} {rows[-1].kernel:<20} {rows[-1].variant:<48} {rows[-1].registers:>4} registers, "
                  f"{rows[-1].shared_kb:>6.1f} kB shared, {rows[-1].widest_load:>3}-bit loads  "
                  f"{rows[-1].problem or 'ok'}", flush=True)  # fmt: skip
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(asdict(rows[0])))
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
    bad = [row for row in rows if row.problem]
    print(f"{len(rows) - len(bad)} of {len(rows)} kernels fit their GPU")
    return 1 if bad else 0


def amd_table() -> int:
    """Prints a row per kernel, variant and AMD architecture."""
    for arch in GFX:
        fits, all_variants = 0, list(variants(90))
        for variant in all_variants:
            registers, spilled = compile_for_amd(variant, arch)
            fits += not spilled
            print(f"{arch} {variant.kernel:<28} {variant.label:<48} {registers:>4} registers, {spilled} spilled")
        print(f"{arch}: {fits} of {len(all_variants)} without a spill", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
