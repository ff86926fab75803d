"""How far two motions of the same joints are apart, frame by frame, as numbers and as a page of curves.

Letters: F frames, J = 24 joints. Distances in millimetres, angles in degrees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..body.frames import in_frame
from ..body.motion import BodyMotion
from ..body.parts import JOINT_NAMES
from ..body.rotations import rotation_angle
from ..body.smpl import BodyModel, pose_joints
from ..errors import ComoviError
from .chart import Axes, Page, padded
from .lettering import INK, LEFT, PALE_INK, RIGHT, TRUNK

WIDTH, HEIGHT = 1400, 860
ABSOLUTE, ALIGNED, TURN = "#b3462f", "#2f6fb7", "#6a5aa8"


@dataclass(frozen=True)
class Comparison:
    """Differences of two motions; NaN where one of them has no pose."""

    absolute: np.ndarray  # (F,) mean distance of the joints
    aligned: np.ndarray  # (F,) the same with both pelvises at one place
    degrees: np.ndarray  # (F,) mean angle between the joints' own rotations, the pelvis's left out
    per_joint: np.ndarray  # (J,) mean aligned distance
    fps: float
    notes: tuple[str, ...] = ()

    def report(self) -> list[str]:
        """Sentences for a console or a text box."""
        if np.isnan(self.aligned).all():
            return ["The motions have no frame in which both have a pose.", *self.notes]
        worst = int(np.nanargmax(self.aligned))
        joint = int(np.nanargmax(self.per_joint))
        return [
            f"{int(np.isfinite(self.aligned).sum())} of {len(self.aligned)} frames compared.",
            f"MPJPE {np.nanmean(self.absolute):.1f} mm absolute, {np.nanmean(self.aligned):.1f} mm with the pelvises "
            f"aligned (median {np.nanmedian(self.aligned):.1f}, largest {self.aligned[worst]:.1f} at frame {worst}).",
            f"Joint rotations differ by {np.nanmean(self.degrees):.2f} degrees on average.",
            f"The joint furthest apart is {JOINT_NAMES[joint]}, {self.per_joint[joint]:.1f} mm.",
            *self.notes,
        ]


def compare_motions(
    first: BodyMotion, second: BodyMotion, body: BodyModel, second_body: BodyModel | None = None
) -> Comparison:
    """Joint distances; the second motion is turned into the axes of the first. Without `second_body` both motions
    move `body`."""
    if abs(first.fps - second.fps) > 1e-3 * first.fps:
        raise ComoviError(
            f"motions are compared frame by frame, and these run at {first.fps:g} and {second.fps:g} frames per "
            "second; resample one of them first."
        )
    other = (body if second_body is None else second_body).to("cpu")
    body, first, second = body.to("cpu"), first.to("cpu"), second.to("cpu")
    notes = _notes(first, second)
    second = second if second.frame == first.frame else in_frame(second, other, first.frame)
    count = min(len(first), len(second))
    first, second = first.slice(0, count), second.slice(0, count)
    joints = [pose_joints(m, s.rotations, s.betas, s.transl) for m, s in ((body, first), (other, second))]
    absolute = (joints[0] - joints[1]).norm(dim=-1)  # (F, J)
    centred = [place - place[:, :1] for place in joints]
    aligned = (centred[0] - centred[1]).norm(dim=-1)
    turn = torch.rad2deg(rotation_angle(first.rotations.transpose(-1, -2) @ second.rotations)[:, 1:])
    assert first.valid is not None
    assert second.valid is not None
    both = first.valid & second.valid

    def masked(values: torch.Tensor, scale: float = 1000.0) -> np.ndarray:
        return torch.where(both, scale * values.mean(1), torch.nan).double().numpy()

    per_joint = 1000 * aligned[both].mean(0) if bool(both.any()) else torch.full((len(JOINT_NAMES),), torch.nan)
    return Comparison(
        masked(absolute), masked(aligned), masked(turn, 1.0), per_joint.double().numpy(), first.fps, tuple(notes)
    )


def _notes(first: BodyMotion, second: BodyMotion) -> list[str]:
    notes = []
    if len(first) != len(second):
        count = min(len(first), len(second))
        notes.append(f"They have {len(first)} and {len(second)} frames; the first {count} of both are compared.")
    if (first.frame == "camera") != (second.frame == "camera"):
        notes.append("One is seen from a camera and one stands in a world, so the absolute distance means little.")
    return notes


def draw_comparison(comparison: Comparison, names: tuple[str, str] = ("first", "second")) -> np.ndarray:
    """The page (HEIGHT, WIDTH, 3) uint8: error over time, rotation difference over time, error per joint."""
    page = Page(WIDTH, HEIGHT)
    known = np.isfinite(comparison.aligned)
    means = [
        float(np.mean(v[known])) if known.any() else float("nan") for v in (comparison.absolute, comparison.aligned)
    ]
    subtitle = f"{int(known.sum())} of {len(known)} frames at {comparison.fps:g} per second   ·   mean distance of the "
    subtitle += f"24 joints {means[0]:.1f} mm absolute, {means[1]:.1f} mm with the pelvises aligned"
    page.heading(36, 28, WIDTH - 72, f"{names[0]}  and  {names[1]}", subtitle)
    seconds = np.arange(len(known)) / comparison.fps
    span = (0.0, max(float(seconds[-1]), 1 / comparison.fps))
    both = np.concatenate([comparison.absolute, comparison.aligned])
    axes = Axes(page, (92, 150, 900, 500), span, padded(both, low=0, least=1))
    axes.draw("Distance of the joints, mm", x_numbers=False)
    for values, mean, colour in (
        (comparison.absolute, means[0], ABSOLUTE),
        (comparison.aligned, means[1], ALIGNED),
    ):
        if known.any():
            axes.level(mean, colour)
        axes.curve(seconds, values, colour, 2.4)
    _legend(page, 900, 126, (("pelvises aligned", ALIGNED), ("absolute", ABSOLUTE)))
    axes = Axes(page, (92, 560, 900, 790), span, padded(comparison.degrees, low=0, least=1))
    axes.draw("Angle between the joints' rotations, degrees", "seconds")
    axes.curve(seconds, comparison.degrees, TURN, 2.2)
    _joint_bars(page, comparison.per_joint, (1080, 150, WIDTH - 84, 790))
    return page.finished()


def _legend(page: Page, right: float, y: float, entries: tuple[tuple[str, str], ...]) -> None:
    x = right
    for words, colour in entries:
        page.text(x, y, words, 14, colour, "ra")
        x -= page.text_width(words) + 8
        page.line([(x - 18, y + 9), (x, y + 9)], colour, 2.4)
        x -= 40


def _joint_bars(page: Page, values: np.ndarray, box: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = box
    page.text(left, top - 24, "By joint, pelvises aligned, mm", 15, INK)
    known = np.nan_to_num(values)
    scale = (right - left) / max(float(known.max()), 1e-9)
    step = (bottom - top) / (len(values) - 1)
    for row, (name, value) in enumerate(zip(JOINT_NAMES[1:], known[1:], strict=True)):  # the pelvis is always 0
        y = top + (row + 0.5) * step
        colour = LEFT if name.startswith("left") else RIGHT if name.startswith("right") else TRUNK
        page.text(left - 10, y, name.replace("_", " "), 13, PALE_INK, "rm")
        length = max(1.5, value * scale)
        page.bar((left, y - 0.3 * step, left + length, y + 0.3 * step), colour, 2)
        page.text(left + length + 6, y, f"{value:.1f}", 13, PALE_INK, "lm")
