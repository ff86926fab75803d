"""The built-in person finder: its geometry, its training targets, and what the shipped weights see."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.estimate.finder import View, find_people, network_input, whole_views, with_keypoints
from comfyui_comovi.comovi_model.estimate.finder_net import (
    CELLS,
    SIDE,
    FinderNet,
    Seen,
    read_boxes,
    read_keypoints,
    read_weights,
)
from comfyui_comovi.comovi_model.estimate.people import Person, box_overlap
from comfyui_comovi.training import finder_train
from comfyui_comovi.training.finder_evaluation import Tally, draw_set, evaluate
from comfyui_comovi.training.finder_pictures import (
    MIRRORED,
    Picture,
    Truth,
    box_maps,
    compose,
    draw_place,
    keypoint_target,
    whole_sample,
)
from PIL import Image


def beside(*pictures):
    """Pictures of one height next to each other, with the truth of all."""
    left, people = 0, []
    for picture in pictures:
        for truth in picture.people:
            people.append(Truth(truth.box + [left, 0, left, 0], truth.keypoints + [left, 0, 0]))
        left += picture.pixels.shape[1]
    return Picture(np.concatenate([picture.pixels for picture in pictures], 1), tuple(people))


def same_height(picture, height=384):
    scale = height / picture.pixels.shape[0]
    pixels = Image.fromarray(picture.pixels).resize((round(picture.pixels.shape[1] * scale), height))
    people = tuple(Truth(t.box * scale, t.keypoints * [scale, scale, 1]) for t in picture.people)
    return Picture(np.asarray(pixels), people)


# --- geometry


def test_a_view_shows_the_pixels_that_it_names():
    """A bright spot of the picture lands where to_view says, for views inside, across and outside the edges."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        width, height = rng.integers(100, 600, 2)
        spot = np.array([rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height])
        y, x = np.mgrid[0:height, 0:width]
        spread = 0.03 * max(width, height)
        bright = np.exp(-((x + 0.5 - spot[0]) ** 2 + (y + 0.5 - spot[1]) ** 2) / (2 * spread**2))
        picture = Image.fromarray(np.repeat((bright * 255).astype(np.uint8)[..., None], 3, -1))
        side = rng.uniform(0.6, 2) * max(width, height)
        view = View(spot[0] + rng.uniform(-0.2, 0.2) * side, spot[1] + rng.uniform(-0.2, 0.2) * side, side)
        square = view.cut(picture)
        expected = view.to_view(spot)
        values = np.where(square[..., 0] == 128, 0, square[..., 0]).astype(float) ** 2  # grey is outside
        v, u = np.mgrid[0:SIDE, 0:SIDE] + 0.5
        near = np.hypot(u - expected[0], v - expected[1]) < 12
        values = values * near
        assert square.shape == (SIDE, SIDE, 3)
        assert (values * u).sum() / values.sum() == pytest.approx(expected[0], abs=0.6)
        assert (values * v).sum() / values.sum() == pytest.approx(expected[1], abs=0.6)
        assert view.to_picture(expected) == pytest.approx(spot)


def test_whole_views_cover_a_long_picture():
    assert len(whole_views(300, 256)) == 1
    views = whole_views(1600, 400)
    assert views[0].side == 1600 and {view.side for view in views[1:]} == {400.0}
    middles = sorted(view.x for view in views[1:])
    assert middles[0] == 200 and middles[-1] == 1400 and max(np.diff(middles)) <= 201
    assert {view.x for view in whole_views(300, 900)[1:]} == {150}


def test_hint_marks_the_box():
    hint = network_input(np.zeros((SIDE, SIDE, 3), np.uint8), np.array([10, 20, 40, 200.0]))[3]
    assert hint.sum() == 30 * (SIDE - 20) and hint[20, 10] == 1 and hint[19, 10] == 0


# --- what the network is asked to say, and how it is read


def test_targets_read_back_as_what_they_were_made_from():
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.uniform(8, SIDE - 8, (18, 2)), np.ones((18, 1))], -1)
    points[3, 2], points[4, 2] = 0.5, 0
    target = keypoint_target(points)
    assert target.sum(-1) == pytest.approx(1, abs=1e-5)
    read = read_keypoints((target + 1e-9).log()[None])[0].numpy()
    seen = points[:, 2] > 0
    assert np.abs(read[seen, :2] - points[seen, :2]).max() < 0.4
    assert (read[points[:, 2] == 1, 2] > 0.95).all() and 0.5 < read[3, 2] < 0.7 and read[4, 2] < 0.01
    boxes = [np.array([10, 20, 50, 120.0]), np.array([70, 5, 110, 60.0])]
    centre, sides, weight = box_maps(boxes)
    assert (weight > 0).sum() >= 2
    logits = torch.logit(centre.clamp(1e-4, 1 - 1e-4))
    found, scores = read_boxes(Seen(logits[None], sides[None], torch.zeros(1, 18, 1)), 0, 0.5, 9)
    assert len(found) == 2 and (scores > 0.9).all()
    for box in boxes:
        assert min(np.abs(found.numpy() - box).max(1)) < 1e-3


def test_mirrored_keypoints_are_their_own_inverse():
    assert [MIRRORED[MIRRORED[number]] for number in range(18)] == list(range(18))


def test_cut_outs_keep_their_truth_when_pasted():
    """The pixels that change lie inside the box, and visible wrists and ankles lie on changed pixels."""
    rng = np.random.default_rng(2)
    cutout = finder_train.draw_pool(3, 1, 0, 0).people[0]
    plain = Image.new("RGB", (200, 220), (255, 0, 255))
    for _ in range(6):
        picture = compose(lambda: cutout, plain, 1, rng)
        if not picture.people:
            continue
        truth = picture.people[0]
        changed = np.abs(picture.pixels.astype(int) - [255, 0, 255]).max(-1) > 60
        rows, columns = np.nonzero(changed)
        x0, y0, x1, y1 = truth.box
        inside = (columns >= x0 - 1) & (columns <= x1) & (rows >= y0 - 1) & (rows <= y1)
        assert inside.mean() > 0.97  # the rest is shadow
        for x, y, share in truth.keypoints[[4, 7, 10, 13]]:
            if share == 1:
                assert changed[max(int(y) - 4, 0) : int(y) + 5, max(int(x) - 4, 0) : int(x) + 5].any()


def test_network_input_and_output_shapes():
    network = FinderNet().eval()
    picture = Picture(np.asarray(draw_place(120, 90, np.random.default_rng(0))), ())
    sample = whole_sample(picture, np.random.default_rng(0))
    assert sample.centre.max() == 0 and sample.keypoints is None
    with torch.inference_mode():
        seen = network(torch.stack([sample.square] * 2))
    assert seen.centre.shape == (2, CELLS, CELLS) and seen.sides.shape == (2, 4, CELLS, CELLS)
    assert seen.keypoints.shape == (2, 18, CELLS * CELLS + 1) and (seen.sides >= 0).all()


# --- the shipped weights


def test_the_person_of_our_own_pictures_is_found():
    table = evaluate(6, 7, sets=("clips",))["clips"]
    assert table["found"] == 1 and table["false"] == 0
    assert table["box"] > 0.8 and table["pck_10"] > 0.9 and table["swapped"] == 0


def test_two_people_are_two_and_the_larger_comes_first():
    first, second = same_height(draw_set("clips", 3, 5)), same_height(draw_set("clips", 4, 5))
    both = beside(first, second)
    people = find_people(both.pixels)
    assert len(people) == 2 and people[0].area >= people[1].area
    for truth in both.people:
        assert max(box_overlap(person.box, truth.box) for person in people) > 0.6


def test_a_given_box_is_looked_at_and_kept():
    picture = same_height(draw_set("clips", 1, 5))
    truth = picture.people[0]
    given = Person(truth.box + [-3, 4, 2, -5], np.ones(picture.pixels.shape[:2]), score=0.7)
    (person,) = with_keypoints(picture.pixels, [given])
    assert person.box is not truth.box and (person.box == given.box).all() and person.score == 0.7
    assert person.mask.all()
    away = np.linalg.norm(person.keypoints[:, :2] - truth.keypoints[:, :2], axis=1)[truth.keypoints[:, 2] == 1]
    assert np.median(away) < 0.04 * (truth.box[3] - truth.box[1])
    assert with_keypoints(picture.pixels, []) == []


def test_nobody_is_an_empty_list():
    for level in (0, 128, 255):
        assert find_people(np.full((200, 150, 3), level, np.uint8)) == []


def test_kinds_of_pictures():
    pixels = same_height(draw_set("clips", 0, 2)).pixels
    usual = find_people(pixels)[0]
    with_alpha = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], -1)
    for other in (with_alpha, torch.from_numpy(pixels.copy())[None].float() / 255):
        assert find_people(other)[0].box == pytest.approx(usual.box, abs=1)
    (upper,) = find_people(pixels[: int(usual.box[1] + 0.5 * (usual.box[3] - usual.box[1]))])
    assert upper.keypoints[[2, 5], 2].min() > upper.keypoints[[10, 13], 2].max()  # shoulders are surer than ankles


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (20, 20, 2)])
def test_pictures_that_cannot_be_searched_are_one_sentence(shape):
    with pytest.raises(ComoviError, match="picture"):
        find_people(np.zeros(shape, np.uint8))


def test_damaged_weights_are_one_sentence(tmp_path):
    (tmp_path / "finder.safetensors").write_bytes(b"not weights")
    with pytest.raises(ComoviError, match="missing or damaged"):
        read_weights(tmp_path / "finder.safetensors")
    finder_train.save({"stem.0.0.weight": torch.zeros(2)}, tmp_path)
    with pytest.raises(ComoviError, match="missing or damaged"):
        read_weights(tmp_path / "finder.safetensors")


# --- measuring and training


def test_the_tally_counts_what_it_says():
    points = np.random.default_rng(0).uniform(0, 100, (18, 3))
    points[:, 2] = 1
    truth = Truth(np.array([0, 0, 100, 100.0]), points)
    twins = points[list(MIRRORED)]
    right, mirrored, nobody = Tally(), Tally(), Tally()
    right.add((truth,), [Person(truth.box, keypoints=points)], 0.5)
    mirrored.add((truth,), [Person(truth.box + 5, keypoints=twins), Person(truth.box + 500)], 0.5)
    nobody.add((truth,), [], 0.5)
    assert right.numbers() == {
        "pictures": 1, "found": 1, "box": 1, "pck_05": 1, "pck_10": 1, "error_percent": 0, "swapped": 0, "all": 1,
        "false": 0, "seconds": 0.5,
    }  # fmt: skip
    numbers = mirrored.numbers()
    assert numbers["swapped"] == 1 and numbers["false"] == 1 and numbers["found"] == 1 and numbers["pck_10"] < 0.5
    assert nobody.numbers()["found"] == 0 and nobody.numbers()["pck_10"] == 0


def test_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    for name, value in (("START_POOL", (3, 2, 2)), ("BATCH", 2), ("LOG_EVERY", 1)):
        monkeypatch.setattr(finder_train, name, value)
    finder_train.train(tmp_path, core_minutes=10, wall_minutes=10, seed=0, most_steps=1)
    finder_train.train(tmp_path, core_minutes=10, wall_minutes=10, seed=0, most_steps=3)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[2]["core_s"] >= lines[1]["core_s"] >= lines[0]["core_s"]
    assert all(np.isfinite(line["keypoints"]) for line in lines)
    assert read_weights(tmp_path / "finder.safetensors")
