"""Every specialisation of every fused kernel that inference and training ask for, as their launchers would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

BLOCK = 4096  # the power of two above 3072 channels
POSE_SIZE = 256  # head size of the pose head
FP8, FP8_FROM = "fp8e4nv", 89  # and the first GPUs that have it
STREAMS = (("fp32", "bf16"), ("bf16", "bf16"), ("fp32", "fp32"), ("fp16", "fp16"))  # residual stream, products


@dataclass(frozen=True)
class Variant:
    """One specialisation of a kernel, as the launchers would ask for it."""

    kernel: str
    module: str
    types: dict[str, str]  # argument -> Triton type
    constants: dict[str, Any]
    num_warps: int
    num_stages: int = 3
    oldest: int = 80

    @property
    def label(self) -> str:
        flags = "/".join(f"{k}={v}" for k, v in self.constants.items() if isinstance(v, bool))
        kinds = "/".join(dict.fromkeys(t for t in self.types.values() if t.startswith("*")))
        return " ".join(part for part in (kinds.replace("*", ""), flags) if part)


def variants(arch: int) -> Iterator[Variant]:
    """Those that run on a GPU of this architecture."""
    for made in (*norms(), *queries_and_keys(), *pose_attention(), *quantised_rows()):
        if arch >= made.oldest:
            yield made


def pointers(**kinds: str) -> dict[str, str]:
    return {f"{name}_ptr": f"*{kind}" for name, kind in kinds.items()}


def integers(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "i32")


def strides(*names: str) -> dict[str, str]:
    return integers(*(f"stride_{name}_{axis}" for name in names for axis in "bf"))


NUMBERS = integers("frames", "tokens", "channels") | {"eps": "fp32"}


def norms() -> Iterator[Variant]:
    """norm_modulate, join, join_norm and their gradients."""
    for stream, out in STREAMS:
        for fp8 in (False, True):
            if fp8 and out != "bf16":
                continue
            result, oldest = (FP8, FP8_FROM) if fp8 else (out, 80)
            kinds = pointers(x=stream, shift="fp32", scale="fp32", out=result, row_scale="fp32" if fp8 else stream)
            flags = {"FP8": fp8, "BLOCK": BLOCK}
            yield Variant("norm_modulate_fwd_kernel", "norm_modulate", kinds | NUMBERS | strides("shift", "scale"),
                          flags, 8, oldest=oldest)  # fmt: skip
            for gate, affine in ((True, True), (False, False), (True, False)):
                weights = out if affine else "fp32"
                kinds = pointers(x=stream, update=out, gate="fp32", weight=weights, bias=weights, joined=stream,
                                 normed=result, row_scale="fp32" if fp8 else stream)  # fmt: skip
                types = kinds | NUMBERS | strides("gate", "weight", "bias")
                yield Variant("join_norm_fwd_kernel", "join_norm", types, {"GATE": gate, "AFFINE": affine, **flags},
                              4 if fp8 and stream == "bf16" else 8, oldest=oldest)  # fmt: skip
        for add in (False, True):
            kinds = pointers(x=stream, update=out, gate="fp32", addend=out if add else stream, joined=stream)
            sizes = integers("frames", "tokens", "channels", "stride_gate_b", "stride_gate_f")
            yield Variant("join_fwd_kernel", "join", kinds | sizes, {"GATE": True, "ADD": add, "BLOCK": BLOCK}, 8)
        yield from norm_gradients(stream, out)


def norm_gradients(stream: str, out: str) -> Iterator[Variant]:
    for affine, joined, update, gate in (
        (False, False, False, False), (True, True, True, True), (False, True, True, False)
    ):  # fmt: skip
        weights = out if affine else "fp32"
        kinds = pointers(joined=stream, normed_grad=out, joined_grad=stream, weight=weights, gate="fp32", total=stream,
                         update_grad=out if update else stream, mean="fp32", inverse="fp32")  # fmt: skip
        flags = {"AFFINE": affine, "JOINED": joined, "UPDATE": update, "GATE": gate, "BLOCK": BLOCK}
        yield Variant("norm_bwd_kernel", "norm_bwd", kinds | NUMBERS | strides("weight", "gate"), flags, 8)
    for norm, gate in ((True, False), (True, True), (False, True)):
        kinds = pointers(joined=stream, normed_grad=out if norm else stream, total=stream, update=out, mean="fp32",
                         inverse="fp32", weight_grad="fp32", bias_grad="fp32", gate_grad="fp32")  # fmt: skip
        flags = {"NORM": norm, "GATE": gate, "TOKENS": 8, "COLUMNS": 128}
        yield Variant("frame_sums_bwd_kernel", "norm_bwd", kinds | integers("tokens", "channels"), flags, 4)


def queries_and_keys() -> Iterator[Variant]:
    """qk_norm_rope, the norm alone, and their gradients."""
    for kind in ("bf16", "fp16", "fp32"):
        table = pointers(cos="fp32", sin="fp32")
        sizes = integers("length", "channels", "head_pairs") | {"eps": "fp32"}
        weights = pointers(q_weight=kind, k_weight=kind)
        for rope, fp8 in ((True, False), (False, False), (True, True)):
            if fp8 and kind != "bf16":
                continue
            out = FP8 if fp8 else kind
            scales = pointers(q_scale="fp32" if fp8 else kind, k_scale="fp32" if fp8 else kind)
            types = pointers(q=kind, k=kind) | weights | table | pointers(q_out=out, k_out=out) | scales | sizes
            flags = {"ROPE": rope, "FP8": fp8, "PAIRS": BLOCK // 2}
            yield Variant("qk_norm_rope_fwd_kernel", "qk_norm_rope", types, flags, 8, oldest=FP8_FROM if fp8 else 80)
        for rope in (True, False):
            back = pointers(q_grad=kind, k_grad=kind)
            sums = pointers(q_inverse="fp32", k_inverse="fp32")
            types = pointers(q=kind, k=kind, dq=kind, dk=kind) | weights | table | back | sums | sizes
            flags = {"ROPE": rope, "PAIRS": BLOCK // 2}
            yield Variant("qk_norm_rope_bwd_kernel", "qk_norm_rope_bwd", types, flags, 8)
            types = pointers(q=kind, k=kind, q_sums="fp32", k_sums="fp32") | table | back | sums
            types |= integers("rows", "length", "channels", "head_pairs")
            flags = {"ROPE": rope, "CHUNK": 256, "ROWS": 8, "COLUMNS": 128}
            yield Variant("weight_sums_bwd_kernel", "qk_norm_rope_bwd", types, flags, 4)


def quantised_rows() -> Iterator[Variant]:
    """Inputs of the output projection (3072 channels) and of the second feed-forward layer (14,336)."""
    types = pointers(x="bf16", out=FP8, row_scale="fp32") | integers("channels")
    for gelu, block, warps in ((False, BLOCK, 8), (True, 4 * BLOCK, 16)):
        flags = {"GELU": gelu, "BLOCK": block}
        yield Variant("quantise_rows_fwd_kernel", "quantise_rows", types, flags, warps, oldest=FP8_FROM)


def pose_attention() -> Iterator[Variant]:
    from .triton_impl import pose_attention as forward
    from .triton_impl import pose_attention_bwd as backward

    for kind in ("bf16", "fp16", "fp32"):
        item = 4 if kind == "fp32" else 2
        sizes = integers("queries", "keys", "heads", "size", "stride_q", "stride_k", "stride_v") | {"factor": "fp32"}
        tensors = pointers(q=kind, k=kind, v=kind, out=kind, log_sum="fp32")
        flags = {"ROWS": 16, "KEYS": forward.keys_of_block(item, POSE_SIZE), "SIZE": POSE_SIZE}
        yield Variant("pose_attention_fwd_kernel", "pose_attention", tensors | sizes, flags, 4, 2)
        if kind != "fp32":  # there the plain formula is differentiated
            types = tensors | pointers(grad=kind, dq=kind, dk=kind, dv=kind) | sizes
            flags = {"ROWS": 16, "KEYS": backward.keys_of_block(item, POSE_SIZE), "SIZE": POSE_SIZE}
            yield Variant("pose_attention_bwd_kernel", "pose_attention_bwd", types, flags, backward.WARPS, 1)
