"""The path of the pelvis and the contacts of the feet, as curves over time and from above.

Letters: F frames, J = 24 joints. World: y up, floor at y = 0, metres; the person looks along +z at first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..body.motion import BodyMotion
from ..body.smpl import BodyModel
from ..clean.feet import contacts_of, floor_height, skate, skeleton
from .chart import Axes, Page, padded, runs
from .lettering import INK, LEFT, PALE_INK, RIGHT
from .sheet import facts
from .standing import Standing, stand

FEET = {"left": (7, 10), "right": (8, 11)}  # ankle and toe joints
COLUMNS = {"left": [0, 1], "right": [2, 3]}  # of the contacts
COLOURS = {"left": LEFT, "right": RIGHT}
PATH_COLOURS = ((0.80, 0.84, 0.90), (0.20, 0.24, 0.32))  # first and last frame
WIDTH, HEIGHT = 1400, 900
SHORTEST_PATH = 0.8  # metres on a side that the view from above shows at least


@dataclass(frozen=True)
class Feet:
    """What the feet do; per foot ("left", "right")."""

    height: dict[str, np.ndarray]  # (F,) metres of the lower of ankle and toe above its place in a standing body
    contact: dict[str, np.ndarray]  # (F,) bool: ankle or toe stands
    slide: float  # metres per second, mean over feet in contact; NaN without any contact


def observe_feet(motion: BodyMotion, body: BodyModel) -> Feet:
    """Contacts and sliding as comovi_model.clean finds them."""
    seen = skeleton(motion, body)
    contacts = contacts_of(seen, motion.fps, valid=motion.valid)
    lifted = seen.foot_points[..., 1] - seen.standing - floor_height(seen, contacts)
    slides = skate(motion, body, contacts)
    height = {side: lifted[:, columns].amin(1).numpy() for side, columns in COLUMNS.items()}
    contact = {side: contacts[:, columns].any(1).numpy() for side, columns in COLUMNS.items()}
    return Feet(height, contact, slides.metres_per_second if slides.frames else math.nan)


def draw_path_plot(motion: BodyMotion, body: BodyModel, *, title: str = "") -> np.ndarray:
    """The page (HEIGHT, WIDTH, 3) uint8: path from above with footprints; height, speed and feet over time."""
    body = body.to("cpu")
    standing = stand(motion, body)
    feet = observe_feet(standing.motion, body)
    page = Page(WIDTH, HEIGHT)
    page.heading(36, 28, WIDTH - 72, title or "Path of the pelvis and contacts of the feet", _facts(standing, feet))
    _from_above(page, standing, feet, (92, 150, 640, 698 + 126))
    _over_time(page, standing, feet, 760)
    return page.finished()


def _facts(standing: Standing, feet: Feet) -> str:
    share = [f"{side} foot down {100 * feet.contact[side].mean():.0f} %" for side in FEET]
    slide = [] if math.isnan(feet.slide) else [f"feet slide {100 * feet.slide:.1f} cm/s while down"]
    return "   ·   ".join([facts(standing), *share, *slide])


def _from_above(page: Page, standing: Standing, feet: Feet, box: tuple[float, float, float, float]) -> None:
    """Left on the page is the person's right at the start; ahead is up."""
    joints = standing.joints.numpy()
    ground = joints[..., [0, 2]]
    everything = ground[:, [0, 7, 8, 10, 11]].reshape(-1, 2)
    low, high = everything.min(0), everything.max(0)
    middle = (low + high) / 2
    left, top, right, bottom = box
    per_pixel = max((high[0] - low[0]) / (right - left), (high[1] - low[1]) / (bottom - top)) * 1.18
    per_pixel = max(per_pixel, SHORTEST_PATH / min(right - left, bottom - top))
    half = np.array([right - left, bottom - top]) / 2 * per_pixel
    # Seen from above with the heading up, the person's left (+x) is on the left of the page.
    axes = Axes(page, box, (middle[0] + half[0], middle[0] - half[0]), (middle[1] - half[1], middle[1] + half[1]))
    _metre_grid(axes)
    for side, (ankle, toe) in FEET.items():
        for start, stop in runs(feet.contact[side]):
            heel, tip = ground[start:stop, ankle].mean(0), ground[start:stop, toe].mean(0)
            _footprint(axes, heel, tip, 1 / per_pixel, COLOURS[side], start / max(1, len(joints) - 1))
    points = [axes.at(*place) for place in ground[:, 0]]
    for number in range(len(points) - 1):
        page.line(points[number : number + 2], _shade(number / max(1, len(points) - 1)), 3.2)
    _time_marks(page, points, standing.motion.fps)
    page.text(left, top - 24, "From above, metres; first heading is up", 15, INK)
    x = right
    for side in ("right", "left"):
        page.text(x, top - 23, side, 13, COLOURS[side], anchor="ra")
        x -= page.text_width(side, 13) + 11
        page.disc(x + 4, top - 15, 4, COLOURS[side])
        x -= 16


def _metre_grid(axes: Axes) -> None:
    """As Axes.draw, for an x scale that runs to the left."""
    flipped = Axes(axes.page, axes.box, (-axes.x[0], -axes.x[1]), axes.y)
    flipped.draw()


def _footprint(axes: Axes, heel: np.ndarray, tip: np.ndarray, pixels: float, colour: str, time: float) -> None:
    """A sole through ankle and toe joint; paler when earlier."""
    ahead = tip - heel
    turn = math.atan2(-ahead[0], ahead[1])  # on the page +x points to the left
    pale = _mixed(colour, "#fbfbf9", 0.62 - 0.30 * time)
    for share, long, short in ((0.78, 0.088, 0.045), (-0.12, 0.060, 0.033)):
        x, y = axes.at(*(heel + share * ahead))
        axes.page.ellipse(x, y, long * pixels, short * pixels, turn, pale)


def _time_marks(page: Page, points: list[tuple[float, float]], fps: float) -> None:
    """A dot every half second with its time where there is room, start and end always."""
    step = max(1, round(fps / 2))
    shown: list[tuple[float, float]] = []
    last = len(points) - 1
    for number in [0, last, *range(step, last, step)]:
        x, y = points[number]
        if number in (0, last) or all(math.hypot(x - a, y - b) > 30 for a, b in shown):
            page.disc(x, y, 4.5, _shade(number / max(1, last)), "#ffffff")
            if all(math.hypot(x - a, y - b) > 18 for a, b in shown):
                page.text(x + 10, y, f"{number / fps:.2g} s", 13, INK if number in (0, last) else PALE_INK, "lm")
            shown.append((x, y))


def _over_time(page: Page, standing: Standing, feet: Feet, left: float) -> None:
    """Three charts of one time scale."""
    joints, fps = standing.joints.numpy(), standing.motion.fps
    seconds = np.arange(len(joints)) / fps
    span = (0.0, max(float(seconds[-1]), 1 / fps))
    valid = standing.motion.valid
    assert valid is not None
    gaps = np.where(valid.numpy(), 0.0, np.nan)
    right, pelvis = WIDTH - 40, joints[:, 0]
    height = 100 * pelvis[:, 1] + gaps
    axes = Axes(page, (left, 150, right, 300), span, padded(height, least=8))
    axes.draw("Height of the pelvis, cm", x_numbers=False)
    axes.curve(seconds, height, "#3c4350")

    pace = np.linalg.norm(np.diff(pelvis[:, [0, 2]], axis=0, prepend=pelvis[:1, [0, 2]]), axis=1) * fps
    pace[:1] = pace[1:2] if len(pace) > 1 else 0
    axes = Axes(page, (left, 352, right, 502), span, padded(pace + gaps, low=0, least=0.4))
    axes.draw("Speed of the pelvis over the floor, m/s", x_numbers=False)
    axes.curve(seconds, pace + gaps, "#3c4350")

    lifted = {side: 100 * feet.height[side] + gaps for side in FEET}
    axes = Axes(page, (left, 554, right, 724), span, padded(np.concatenate(list(lifted.values())), low=0, least=12))
    axes.draw("Height of the feet, cm", x_numbers=False)
    for side, values in lifted.items():
        axes.curve(seconds, values, COLOURS[side])
    _contact_rows(page, feet, axes, fps)


def _contact_rows(page: Page, feet: Feet, above: Axes, fps: float) -> None:
    """Two rows of bars below a chart: when each foot is down."""
    left, _, right, bottom = above.box
    rows = Axes(page, (left, bottom + 40, right, bottom + 100), above.x, (0, 2))
    rows.draw("", "seconds", y_numbers=False)
    page.text(left, bottom + 17, "On the floor", 15, INK)
    for row, side in enumerate(("right", "left")):
        _, y = rows.at(0, row + 0.5)
        page.text(left - 8, y, side, 13, COLOURS[side], "rm")
        for start, stop in runs(feet.contact[side]):
            first = rows.at(max(rows.x[0], (start - 0.5) / fps), 0)[0]
            last = rows.at(min(rows.x[1], (stop - 0.5) / fps), 0)[0]
            page.bar((first, y - 9, max(last, first + 2), y + 9), COLOURS[side], 3)


def _shade(share: float) -> str:
    first, last = PATH_COLOURS
    return "#" + "".join(f"{round(255 * (a + share * (b - a))):02x}" for a, b in zip(first, last, strict=True))


def _mixed(colour: str, other: str, share: float) -> str:
    pairs = [(int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in pairs)
