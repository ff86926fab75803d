"""How good the person finder is: `python -m comfyui_comovi.training.finder_evaluation --count 100 --seed 1`

Every kind of picture is drawn anew from the seed, with poses that training has not seen, but for the clips and for one
pose in ten: that is one of those with a name, turned a little at each joint, and training draws these too.

    clips      frames of our own synthetic clips, at one to six times their size: what the quick start shows
    one        one dressed mannequin before an invented place, whole, 256 to 1024 pixels
    half       the same, cut off by the edges of the picture
    several    two to five people, who may cover each other
    twelve     a row of twelve in a long picture
    clay       a person of one colour, by the painter of `comovi show`: a drawing style that training has not seen
    nobody     places without people

Of the largest person: found = boxes overlap by half or more; box = the median overlap; PCK = share of visible keypoints
within 5 % (10 %) of the longer side of the box; error = median distance in % of it; swapped = share of pairs of limbs
that lie nearer to their twins than to themselves. all = share of all people that were found, false = boxes per picture
on nobody. There are no photographs in it: nothing here says how good the finder is on them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..comovi_model.body.mannequin import load_mannequin
from ..comovi_model.body.smpl import pose_body
from ..comovi_model.estimate.finder import find_people
from ..comovi_model.estimate.finder_net import FinderNet, load_finder, read_weights
from ..comovi_model.estimate.people import Person, box_overlap
from ..comovi_model.files import atomic_path
from ..comovi_model.show.painter import Painter
from .finder_people import Cutout, draw_person, load_model, sample_poses, seen_share, view_rotation
from .finder_pictures import Picture, Truth, clip_picture, compose, draw_place

SETS = ("clips", "one", "half", "several", "twelve", "clay", "nobody")
CLIP_SEEDS = 990_000_000  # apart from those of training
TWINS = ((2, 5), (3, 6), (4, 7), (8, 11), (9, 12), (10, 13))
FOUND = 0.5


@dataclass
class Tally:
    """What one set of pictures adds up to."""

    pictures: int = 0
    found: int = 0
    people: int = 0
    people_found: int = 0
    strays: int = 0
    overlaps: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    pairs: int = 0
    swapped: int = 0
    seconds: float = 0.0

    def add(self, truths: tuple[Truth, ...], people: list[Person], seconds: float) -> None:
        self.pictures, self.seconds = self.pictures + 1, self.seconds + seconds
        self.strays += sum(all(box_overlap(p.box, t.box) < FOUND for t in truths) for p in people)
        self.people += len(truths)
        partners = [max(people, key=lambda p: box_overlap(p.box, t.box), default=None) for t in truths]
        good = [p is not None and box_overlap(p.box, t.box) >= FOUND for p, t in zip(partners, truths, strict=True)]
        self.people_found += sum(good)
        if not truths:
            return
        largest = max(range(len(truths)), key=lambda n: np.prod(truths[n].box[2:] - truths[n].box[:2]))
        person, truth = partners[largest], truths[largest]
        self.overlaps.append(0.0 if person is None else box_overlap(person.box, truth.box))
        visible = truth.keypoints[:, 2] == 1
        if person is None or not good[largest]:
            self.errors += [np.inf] * int(visible.sum())
            return
        self.found += 1
        assert person.keypoints is not None
        size = (truth.box[2:] - truth.box[:2]).max()
        away = np.linalg.norm(person.keypoints[:, :2] - truth.keypoints[:, :2], axis=1) / size
        away[person.keypoints[:, 2] == 0] = np.inf
        self.errors += away[visible].tolist()
        for right, left in TWINS:
            if not (visible[[right, left]].all() and (person.keypoints[[right, left], 2] > 0).all()):
                continue
            mine, real = person.keypoints[[right, left], :2], truth.keypoints[[right, left], :2]
            if np.linalg.norm(real[0] - real[1]) < 0.05 * size:
                continue  # too near to each other to tell
            self.pairs += 1
            self.swapped += int(np.linalg.norm(mine - real) > np.linalg.norm(mine - real[::-1]))

    def numbers(self) -> dict[str, float]:
        """Shares in 0..1, errors in % of the longer side, seconds each."""
        if not self.people:
            each = {"false": self.strays / self.pictures, "seconds": self.seconds / self.pictures}
            return {"pictures": self.pictures, **each}
        errors = np.array(self.errors)
        return {
            "pictures": self.pictures,
            "found": self.found / self.pictures,
            "box": float(np.median(self.overlaps)),
            "pck_05": float((errors < 0.05).mean()),
            "pck_10": float((errors < 0.10).mean()),
            "error_percent": float(100 * np.median(errors)),
            "swapped": self.swapped / max(self.pairs, 1),
            "all": self.people_found / self.people,
            "false": self.strays / self.pictures,
            "seconds": self.seconds / self.pictures,
        }


def draw_set(name: str, number: int, seed: int) -> Picture:
    """Picture `number` of a set."""
    rng = np.random.default_rng([seed, SETS.index(name), number, 0xE7])
    if name == "clips":
        return enlarged(clip_picture(CLIP_SEEDS + 100_000 * seed + number, rng), rng.uniform(1, 6))
    width, height = (int(v) for v in np.exp(rng.uniform(np.log(256), np.log(1024), 2)))
    ratio = float(np.clip(width / height, 0.5, 2))
    height = int(width / ratio)
    if name == "twelve":
        width, height = 1536, 512
    place = draw_place(width, height, rng)
    if name == "nobody":
        return Picture(np.asarray(place), ())
    if name == "twelve":
        return row_of_twelve(place, rng)
    draw: Callable[..., Cutout] = clay_person if name == "clay" else draw_person

    def pick() -> Cutout:
        return draw(sample_poses("evaluation", 1, rng)[0], rng, min(width, height) * 0.9)

    while True:
        picture = compose(pick, place, int(rng.integers(2, 6)) if name == "several" else 1, rng)
        if not picture.people:
            continue
        box = picture.people[0].box
        cut = (box[:2] <= 0).any() or (box[2:] >= [width, height]).any()
        if name == "several" or cut == (name == "half"):
            return picture


def enlarged(picture: Picture, scale: float) -> Picture:
    """The same picture with more pixels."""
    height, width = picture.pixels.shape[:2]
    size = (round(width * scale), round(height * scale))
    by = np.array([size[0] / width, size[1] / height])
    pixels = np.asarray(Image.fromarray(picture.pixels).resize(size, Image.Resampling.BICUBIC))
    people = []
    for truth in picture.people:
        points = truth.keypoints.copy()
        points[:, :2] *= by
        people.append(Truth(truth.box * np.tile(by, 2), points))
    return Picture(pixels, tuple(people))


def row_of_twelve(place: Image.Image, rng: np.random.Generator) -> Picture:
    """Twelve people from left to right, each in a space of its own."""
    pixels = np.asarray(place).copy()
    step = pixels.shape[1] // 12
    people = []
    for number in range(12):
        pose = sample_poses("evaluation", 1, rng)[0]
        cutout = draw_person(pose, rng, step * rng.uniform(1.0, 2.2))
        tall, wide = cutout.alpha.shape
        if wide > step:
            small = resized(cutout, step / wide)
            cutout, (tall, wide) = small, small.alpha.shape
        left, top = number * step + (step - wide) // 2, int(rng.integers(0, max(pixels.shape[0] - tall, 1)))
        part = pixels[top : top + tall, left : left + wide]
        cover = cutout.alpha[: part.shape[0], : part.shape[1], None] / 255.0
        part[:] = np.clip(part * (1 - cover) + cutout.colour[: part.shape[0], : part.shape[1]], 0, 255).astype(np.uint8)
        points = cutout.keypoints + [left, top, 0]
        people.append(Truth(np.array([left, top, left + wide, min(top + tall, pixels.shape[0])], float), points))
    return Picture(pixels, tuple(people))


def resized(cutout: Cutout, scale: float) -> Cutout:
    """A cut-out of another size."""
    size = (max(int(cutout.alpha.shape[1] * scale), 2), max(int(cutout.alpha.shape[0] * scale), 2))
    colour, alpha = (
        np.asarray(Image.fromarray(a).resize(size, Image.Resampling.BOX)) for a in (cutout.colour, cutout.alpha)
    )
    return Cutout(colour, alpha, cutout.keypoints * [scale, scale, 1])


def clay_person(local: np.ndarray, rng: np.random.Generator, longer_side: float) -> Cutout:
    """A person as `comovi show` paints one."""
    model, body = load_model(True), load_mannequin()
    rotations = np.concatenate([(view_rotation(rng) @ local[0])[None], local[1:]])
    place = np.array([0, 0, rng.uniform(3, 8)])
    turns = torch.from_numpy(rotations)[None]
    pelvis = torch.from_numpy(model.body.joints[0])
    vertices = pose_body(body, turns.float(), transl=(torch.from_numpy(place) - pelvis)[None].float()).vertices[0]
    points = (model.skeleton.posed(turns).points[0, :, :, 0]).numpy() + place
    flat = (vertices[:, :2] / vertices[:, 2:]).double().numpy()
    low, high = flat.min(0), flat.max(0)
    focal = longer_side / (high - low).max()
    width, height = (np.ceil((high - low) * focal).astype(int) + 2).tolist()
    centre = 1 - low * focal
    K = torch.tensor([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]]).float()
    colour = rng.uniform(0.3, 1, 3).tolist()
    painted = Painter(body, "solid", (colour[0], colour[1], colour[2])).paint(vertices, K, height, width)
    painted = (painted.clamp(0, 1) * 255).byte().numpy()
    seen = seen_share(points, vertices.double().numpy())
    where = points[:, :2] / points[:, 2:] * focal + centre
    return Cutout(painted[..., :3].copy(), painted[..., 3].copy(), np.concatenate([where, seen[:, None]], -1))


def evaluate(count: int, seed: int, network: FinderNet | None = None, sets: tuple[str, ...] = SETS) -> dict[str, dict]:
    """Numbers of every set over `count` pictures."""
    network = load_finder() if network is None else network
    table = {}
    for name in sets:
        tally = Tally()
        for number in range(count):
            picture = draw_set(name, number, seed)
            start = time.perf_counter()
            people = find_people(picture.pixels, network=network)
            tally.add(picture.people, people, time.perf_counter() - start)
        table[name] = tally.numbers()
    return table


def as_text(table: dict[str, dict]) -> str:
    """A table for people."""
    names = ("found", "box", "pck_05", "pck_10", "error_percent", "swapped", "all", "false", "seconds")
    lines = ["set      " + "".join(f"{name:>14}" for name in names)]
    for label, row in table.items():
        cells = "".join(f"{row[name]:>14.3f}" if name in row else " " * 13 + "-" for name in names)
        lines.append(f"{label:<9}{cells}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="pictures of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--weights", type=Path, help="other weights than those that are shipped")
    parser.add_argument("--json", type=Path, help="write the numbers to this file, too")
    options = parser.parse_args()
    network = None if options.weights is None else read_weights(options.weights)
    table = evaluate(options.count, options.seed, network, tuple(options.sets))
    print(as_text(table))
    if options.json:
        with atomic_path(options.json) as temporary:
            rounded = {name: {k: round(v, 4) for k, v in row.items()} for name, row in table.items()}
            temporary.write_text(json.dumps({"count": options.count, "seed": options.seed, "sets": rounded}, indent=1))


if __name__ == "__main__":
    main()
