"""The roofline table: how near every operation is to its floor, and what a step would take on other GPUs.

Every line says whether its number was measured or is predicted. A prediction is counted work divided by rates:

    seconds = bytes / (0.9 * bandwidth) + FLOPs of products / rate + FLOPs of attention / rate

The rates of GPUs that are not here are what published measurements reach on large matrices, not data sheets' peaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .timing import Row

REACHED = 0.9  # share of the copy bandwidth that a kernel reaches


@dataclass(frozen=True)
class Card:
    """What a GPU reaches: TB/s, and TFLOP/s of products and of attention in 16 bits and with 8-bit numbers."""

    name: str
    bandwidth: float
    products: float
    attention: float
    products8: float | None = None
    attention8: float | None = None


CARDS = (
    Card("A100 80 GB", 1.75, 250, 200),
    Card("H100 SXM", 3.0, 650, 600, 1150, 900),
    Card("H200", 4.3, 700, 640, 1250, 900),
    Card("B200", 7.0, 1500, 1300, 2800, 1300),
    Card("RTX 3090", 0.85, 65, 60, None, 140),
    Card("RTX 4090", 0.93, 155, 164, 300, 480),
    Card("RTX 5090", 1.6, 205, 207, 400, 560),
)


def lines(rows: Sequence[Row], work: dict[str, float]) -> list[str]:
    """The whole report."""
    made = [f"measured on {rows[0].gpu}, torch {rows[0].torch}, triton {rows[0].triton or 'none'}, {rows[0].commit}"]
    made += ["", f"{'ceiling':<12} {'by':<14} {'shape':<24} {'rate':>12}"]
    made += [
        f"{row.op:<12} {row.provider:<14} {row.shape:<24} {rate(row):>12}" for row in rows if row.note == "ceiling"
    ]
    made += ["", f"{'operation':<24} {'provider':<14} {'ms':>10} {'floor':>10} {'of floor':>9} {'rate':>14}  measured"]
    for row in rows:
        if row.op in ("copy", "product", "attention", "step", "block"):
            continue
        if row.ms is None:
            made.append(
                f"{row.op:<24} {row.provider:<14} {'-':>10} {row.floor_ms or 0:>10.3f} {'':>9} {'':>14}  {row.note}"
            )
        else:
            made.append(f"{row.op:<24} {row.provider:<14} {row.ms:>10.3f} {row.floor_ms or 0:>10.3f} "
                        f"{row.pct_floor or 0:>7.0f} % {rate(row):>14}")  # fmt: skip
    whole = [row for row in rows if row.op.startswith(("step", "block")) and row.ms is not None]
    if whole:
        made += ["", f"{'whole':<24} {'provider':<24} {'seconds':>9}  measured"]
        made += [f"{row.op:<24} {row.provider:<24} {(row.ms or 0) / 1e3:>9.3f}  {row.note}" for row in whole]
    return made + predictions(rows, work)


def rate(row: Row) -> str:
    return f"{row.rate or 0:.1f} {row.unit}"


def predictions(rows: Sequence[Row], work: dict[str, float]) -> list[str]:
    """Seconds of one step at 704 x 1280, 81 frames, with guidance."""
    if not work:
        return ["", "no predictions: the work of a step could not be counted"]
    made = ["", f"{'one step, 704x1280x81, guidance':<34} {'16 bits':>9} {'8 bits':>9}  predicted from"]
    here = from_ceilings(rows)
    for card in (*CARDS, *([here] if here else [])):
        sixteen = seconds(card, work, False)
        eight = f"{seconds(card, work, True):>8.2f}s" if card.products8 or card.attention8 else f"{'-':>9}"
        source = "rates measured here" if card is here else "published rates"
        made.append(f"{card.name:<34} {sixteen:>8.2f}s {eight}  {source}")
    return made


def seconds(card: Card, work: dict[str, float], eight: bool) -> float:
    products = (card.products8 or card.products) if eight else card.products
    attention = (card.attention8 or card.attention) if eight else card.attention
    return (
        work["elementwise_bytes"] / (REACHED * card.bandwidth * 1e12)
        + work["gemm_flops"] / (products * 1e12)
        + work["attention_flops"] / (attention * 1e12)
    )


def from_ceilings(rows: Sequence[Row]) -> Card | None:
    """This GPU, by what was measured on it."""

    def best(op: str, *names: str) -> float | None:
        found = [row.rate for row in rows if row.op == op and row.note == "ceiling" and row.rate
                 and (not names or row.provider in names)]  # fmt: skip
        return max(found) if found else None

    copy, products, attention = best("copy"), best("product", "torch"), best("attention")
    if not (copy and products and attention) or rows[0].gpu.startswith("CPU"):
        return None
    return Card(rows[0].gpu, copy / 1e3, products, attention, best("product", "fp8"), best("attention", "sage"))
