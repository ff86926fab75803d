"""The page of a run: whole in one file, every curve in it, and nothing of a stranger's text taken as HTML."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.images import write_image
from comfyui_comovi.training.cli import main
from comfyui_comovi.training.watch import chart, group_curves, page, thinned


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "my <run>"
    lines = [{"step": step, "loss": 2.0 / step, "lr": 1e-4} for step in range(1, 900)]
    lines += [{"step": 900, "loss": 0.1, "lr": 1e-4, "validation/loss": 0.2, "validation/loss@0.5": 0.15}]
    samples = folder / "samples" / "step-000900"
    samples.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 901, "lo')
    (folder / "resolved.toml").write_text('[run]\nname = "<b>"\n')
    write_image(samples / "00.jpg", np.zeros((16, 32, 3), np.uint8))
    row = {"step": 900, "sentence": "a <script>alert(1)</script>", "strip": "00.jpg", "pose_degrees": 3.21}
    (samples / "samples.json").write_text(json.dumps([row]))
    return folder


def test_the_page_holds_curves_samples_and_settings_in_one_file(run, capsys):
    assert main(["watch", str(run)]) == 0
    text = (run / "report.html").read_text()
    assert str(run / "report.html") in capsys.readouterr().out
    assert "900" in text and "loss on held-out clips, by quantile of the timesteps" in text
    assert "data:image/jpeg;base64," in text and "3.2° from the clip's" in text
    assert "&lt;b&gt;" in text and "&lt;script&gt;" in text and "<script" not in text
    assert not re.search(r"(src|href)='(?!data:)", text)  # nothing is fetched


def test_a_curve_begins_and_ends_where_its_numbers_do():
    picture = ElementTree.fromstring(chart({"loss": [(1, 4.0), (5, 1.0), (9, 2.0)]}))
    points = [tuple(map(float, pair.split(","))) for pair in picture.find("polyline").get("points").split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert points[0][1] < points[2][1] < points[1][1]  # y grows downwards
    ElementTree.fromstring(chart({"flat": [(3, 0.0)]}))  # one point, no height


def test_a_wide_range_gets_a_logarithmic_axis():
    picture = ElementTree.fromstring(chart({"loss": [(0, 1.0), (1, 0.1), (2, 0.01)]}))
    heights = [float(pair.split(",")[1]) for pair in picture.find("polyline").get("points").split()]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)


def test_held_out_losses_stand_beside_the_training_loss():
    groups = dict(group_curves([{"step": 1, "loss": 1.0, "validation/loss": 2.0, "validation/loss@0.1": 3.0}]))
    assert set(groups["loss"]) == {"loss", "validation/loss"}
    assert len(groups) == 2


def test_long_curves_are_means_of_runs():
    shown = thinned([(i, float(i % 2)) for i in range(1000)], 100)
    assert len(shown) == 100 and all(value == 0.5 for _, value in shown) and shown[-1][0] == 999


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ComoviError, match=r"has no log\.jsonl"):
        page(tmp_path)
