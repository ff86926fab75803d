"""The ablation table: our miniature beside the paper's Table 4, and whether each effect has the same sign.

Measures differ, so only signs are compared. Movement: our joint error beside the paper's FID (lower is better both
times). Sentence: the share of actions that a judge recognises beside R@1. Video: overlap of what changes in the video
with what changes in the drawn clip, beside subject consistency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PAPER = {  # Table 4: FID, R@1, subject consistency
    "w/o motion": (0.758, 0.458, 0.937),
    "normal only": (0.415, 0.538, 0.918),
    "body semantic only": (0.553, 0.499, 0.940),
    "joint latent": (0.755, 0.459, 0.868),
    "fused into motion": (0.718, 0.466, 0.911),
    "ours": (0.349, 0.565, 0.955),
}
MEASURES = (  # our figure, what it says, the paper's column, whether more is better
    ("joint_error_mm", "joint error, mm", "FID", False),
    ("action_accuracy", "actions recognised", "R@1", True),
    ("video_change_iou", "change of the video, IoU", "SC", True),
)


@dataclass(frozen=True)
class Variant:
    """One row: how it is trained, and which two rows of the paper differ in the same way."""

    name: str
    says: str
    settings: tuple[str, ...] = ()
    look: str = "full"
    paper: tuple[str, str] | None = None  # (with the change, without it)


VARIANTS = (
    Variant("full", "both branches, exchange both ways"),
    Variant("video_alone", "without motion branch", ("model.variant=video_alone",), paper=("w/o motion", "ours")),
    Variant("normals", "motion map of normals only", look="normals", paper=("normal only", "ours")),
    Variant("parts", "motion map of parts only", look="parts", paper=("body semantic only", "ours")),
    Variant("cut", "exchange cut", ("model.shape.interaction=none",)),
    Variant("one_way", "one-way, motion to video", ("model.shape.interaction=single_m2v",),
            paper=("ours", "fused into motion")),
    Variant("joint_latent", "one branch for both latents", ("model.variant=joint_latent",),
            paper=("joint latent", "ours")),
)  # fmt: skip


def sign(changed: float, plain: float, more_is_better: bool, least: float) -> str:
    """ "better", "worse", or "same" where the difference is below `least`."""
    difference = (changed - plain) * (1 if more_is_better else -1)
    if abs(difference) < least:
        return "same"
    return "better" if difference > 0 else "worse"


def noise_of(name: str, cases: int) -> float:
    """A difference that chance alone makes at so many cases, roughly: of a share its standard error at a half."""
    return {"action_accuracy": 0.5 / max(cases, 1) ** 0.5, "joint_error_mm": 1.0}.get(name, 0.01)


def compare(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, str]]]:
    """Variant -> paper's column -> {"ours", "paper", "agree"}, signs against the full model."""
    full = results["full"]
    out: dict[str, dict[str, dict[str, str]]] = {}
    for variant in VARIANTS:
        if variant.name == "full" or variant.name not in results:
            continue
        row = results[variant.name]
        out[variant.name] = {}
        for place, (key, _, column, more) in enumerate(MEASURES):
            ours = sign(row[key], full[key], more, noise_of(key, int(row["cases"])))
            paper = "–"
            if variant.paper is not None:
                changed, plain = (PAPER[name][place] for name in variant.paper)
                paper = sign(changed, plain, column != "FID", 1e-9)
            agree = "–" if "–" in (ours, paper) else "yes" if ours == paper else "no"
            out[variant.name][column] = {"ours": ours, "paper": paper, "agree": agree}
    return out


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The table, with a line on how it was made."""
    full = results["full"]
    signs = compare(results)
    lines = [
        f"{full['clips']:,} clips seen per row, {full['cases']} held-out cases, seed {full['seed']}. Signs are against "
        "the first row; in brackets the paper's sign (Table 4).",
        "",
        "| variant | trained weights | " + " | ".join(f"{says} ({column})" for _, says, column, _ in MEASURES) + " |",
        "|---|---|" + "---|" * len(MEASURES),
    ]
    for variant in VARIANTS:
        if variant.name not in results:
            continue
        row = results[variant.name]
        cells = []
        for key, _, column, _ in MEASURES:
            text = f"{row[key]:.1f}" if key == "joint_error_mm" else f"{row[key]:.3f}"
            found = signs.get(variant.name, {}).get(column)
            cells.append(text + (f", {found['ours']} ({found['paper']})" if found else ""))
        lines.append(f"| {variant.says} | {row['trained'] / 1e6:.1f} M | " + " | ".join(cells) + " |")
    asked = [cell for row in signs.values() for cell in row.values() if cell["agree"] != "–"]
    agreeing = sum(cell["agree"] == "yes" for cell in asked)
    lines += ["", f"Same sign as the paper in {agreeing} of {len(asked)} comparisons."]
    return "\n".join(lines) + "\n"
