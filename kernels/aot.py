"""Compile every fused kernel for GPUs that are not here, and read what the compiler says of registers and memory.

`python -m comfyui_comovi.kernels.aot [--arch 90] [--csv FILE]` prints one row per kernel, variant and architecture.
Status 1 when a row spills registers or needs more shared memory than its GPU has. Needs Triton, which brings its own
assembler, but no GPU and no driver.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ARCHITECTURES = (80, 86, 89, 90, 100, 120)  # A100, RTX 30, RTX 40, H100/H200, B200, RTX 50
SHARED_KB = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
WIDTH, HEAD_PAIRS, POSE_SIZE = 3072, 64, 256  # of the 5B network


@dataclass(frozen=True)
class Variant:
    """One specialisation of a kernel, as the launchers would ask for it."""

    kernel: str
    module: str
    types: dict[str, str]  # argument -> Triton type
    constants: dict[str, Any]
    num_warps: int
    num_stages: int = 3

    @property
    def label(self) -> str:
        flags = "/".join(f"{k}={v}" for k, v in self.constants.items() if isinstance(v, bool))
        kinds = "/".join(dict.fromkeys(t for t in self.types.values() if t.startswith("*")))
        return " ".join(part for part in (kinds.replace("*", ""), flags) if part)


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


def variants() -> Iterator[Variant]:
    """Every kernel in the dtypes that inference and training use."""
    block = 4096
    numbers = dict.fromkeys(("frames", "tokens", "channels"), "i32") | {"eps": "fp32"}
    for stream, out in (("fp32", "bf16"), ("bf16", "bf16"), ("fp32", "fp32"), ("fp16", "fp16")):
        strides = {f"stride_{name}_{axis}": "i32" for name in ("shift", "scale") for axis in "bf"}
        pointers = {"x_ptr": stream, "shift_ptr": "fp32", "scale_ptr": "fp32", "out_ptr": out}
        types = {name: f"*{kind}" for name, kind in pointers.items()}
        yield Variant("norm_modulate_fwd_kernel", "norm_modulate", types | numbers | strides, {"BLOCK": block}, 8)
        types = {name: f"*{kind}" for name, kind in (("x_ptr", stream), ("update_ptr", out), ("gate_ptr", "fp32"),
                                                     ("joined_ptr", stream))}  # fmt: skip
        sizes = dict.fromkeys(("frames", "tokens", "channels", "stride_gate_b", "stride_gate_f"), "i32")
        yield Variant("join_fwd_kernel", "join", types | sizes, {"GATE": True, "BLOCK": block}, 8)
        for gate, affine in ((True, True), (False, False), (True, False)):
            weights = out if affine else "fp32"
            pointers = {
                "x_ptr": stream, "update_ptr": out, "gate_ptr": "fp32", "weight_ptr": weights, "bias_ptr": weights,
                "joined_ptr": stream, "normed_ptr": out,
            }  # fmt: skip
            strides = {f"stride_{name}_{axis}": "i32" for name in ("gate", "weight", "bias") for axis in "bf"}
            types = {name: f"*{kind}" for name, kind in pointers.items()}
            flags = {"GATE": gate, "AFFINE": affine, "BLOCK": block}
            yield Variant("join_norm_fwd_kernel", "join_norm", types | numbers | strides, flags, 8)
    for kind in ("bf16", "fp16", "fp32"):
        names = ("q_ptr", "k_ptr", "q_weight_ptr", "k_weight_ptr")
        types = dict.fromkeys(names, f"*{kind}") | {"cos_ptr": "*fp32", "sin_ptr": "*fp32"}
        types |= {"q_out_ptr": f"*{kind}", "k_out_ptr": f"*{kind}"}
        types |= dict.fromkeys(("length", "channels", "head_pairs"), "i32") | {"eps": "fp32"}
        for rope in (True, False):
            yield Variant("qk_norm_rope_fwd_kernel", "qk_norm_rope", types, {"ROPE": rope, "PAIRS": block // 2}, 8)
        types = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "out_ptr"), f"*{kind}")
        types |= dict.fromkeys(("queries", "keys", "heads", "size"), "i32") | {"factor": "fp32"}
        types |= dict.fromkeys(("stride_q", "stride_k", "stride_v"), "i32")
        from .triton_impl.pose_attention import keys_of_block

        keys = keys_of_block(4 if kind == "fp32" else 2, POSE_SIZE)
        constants = {"ROWS": 16, "KEYS": keys, "SIZE": POSE_SIZE}
        yield Variant("pose_attention_fwd_kernel", "pose_attention", types, constants, 4, 2)


def compile_variant(variant: Variant, arch: int) -> Row:
    """Compile one and look at the machine code."""
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
    made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    registers, spilled = resources(made.asm["cubin"])
    widths = [int(n) * int(bits) for n, bits in re.findall(r"(?:ld|st)\.global\S*\.v(\d)\.b(\d+)", made.asm["ptx"])]
    return Row(
        variant.kernel.removesuffix("_fwd_kernel"), variant.label, arch, variant.num_warps, registers, spilled,
        round(made.metadata.shared / 1024, 1), max(widths, default=32),
    )  # fmt: skip


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
    options = parser.parse_args()
    rows = []
    for arch in options.arch or ARCHITECTURES:
        for variant in variants():
            rows.append(compile_variant(variant, arch))
            print(f"sm_{arch} {rows[-1].kernel:<15} {rows[-1].variant:<48} {rows[-1].registers:>4} registers, "
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


if __name__ == "__main__":
    sys.exit(main())
