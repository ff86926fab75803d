"""`comovi evaluate nano`: held-out cases, honest judges, complete figures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.comovi.dual_branch import DualBranch
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.nano.autoencoder import NanoAutoencoder
from comfyui_comovi.comovi_model.nano.draw import draw_clip
from comfyui_comovi.comovi_model.nano.first_frame import FirstFrameWrapper
from comfyui_comovi.comovi_model.nano.model import NanoModel
from comfyui_comovi.comovi_model.nano.people import load_nano_body
from comfyui_comovi.comovi_model.nano.presets import NANO
from comfyui_comovi.comovi_model.nano.scene import sample_scene
from comfyui_comovi.comovi_model.nano.text_encoder import NanoTextEncoder
from comfyui_comovi.training import evaluate, nano_clips, nano_judges, nano_report

BODY = load_nano_body()
FLIP = np.diag([-1.0, 1.0, 1.0])


def toy_model() -> NanoModel:
    """The untrained nano model: its network says nothing, so the wrapper's denoiser stands alone."""
    torch.manual_seed(0)
    network = DualBranch(NANO).eval().requires_grad_(False)
    network.init_weights()
    autoencoder = NanoAutoencoder().eval().requires_grad_(False)
    wrap = FirstFrameWrapper(torch.full((48,), 0.1))
    return NanoModel(autoencoder, NanoTextEncoder().eval(), network, wrap, wrap)


@pytest.fixture(scope="module")
def scenes():
    return [sample_scene(evaluate.held_out_seed(7, index), BODY) for index in range(48)]


@pytest.fixture(scope="module")
def labels(scenes):
    return torch.tensor([nano_judges.label(scene.request) for scene in scenes])


def joints_of(scenes, change=lambda rotations: rotations) -> torch.Tensor:
    return torch.from_numpy(
        np.stack([nano_judges.relative_joints(BODY, s.betas, change(s.camera_motion(BODY)[0])) for s in scenes])
    ).float()


def test_any_seed_is_held_out_and_gives_the_same_cases_again():
    seeds = [evaluate.held_out_seed(seed, index) for seed in (0, 1, 90_001, 2**63 - 1) for index in range(50)]
    assert len(set(seeds)) == len(seeds)
    ranges = (nano_clips.TRAIN_SEEDS, nano_clips.VALIDATION_SEEDS, nano_judges.JUDGE_SEEDS)
    assert min(seeds) >= evaluate.EVALUATION_SEEDS > max(ranges) + 100_000_000
    one, other = (evaluate.make_case(3, 1, BODY) for _ in range(2))
    assert one.sentence == other.sentence
    assert np.array_equal(one.clip.video, other.clip.video)


def test_the_joint_judge_knows_true_motions_and_their_sides(scenes, labels):
    action, side = nano_judges.right_answers(nano_judges.load_judge("joints"), joints_of(scenes), labels)
    assert action.float().mean() >= 0.97
    assert side.float().mean() >= 0.97


def test_a_mirrored_motion_keeps_its_action_and_swaps_its_side(scenes, labels):
    swap = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
    seen = joints_of(scenes, lambda rotations: FLIP @ rotations[:, swap] @ FLIP)
    # The camera frame has x to the picture's right, so this mirror also turns a person's pose left for right.
    action, side = nano_judges.right_answers(nano_judges.load_judge("joints"), seen, labels)
    assert action.float().mean() >= 0.9
    assert side.float().mean() <= 0.1


def test_a_standing_motion_is_recognised_no_better_than_by_chance(scenes, labels):
    seen = joints_of(scenes, lambda rotations: np.repeat(rotations[:1], 33, 0))
    action, _ = nano_judges.right_answers(nano_judges.load_judge("joints"), seen, labels)
    assert action.float().mean() <= 0.2


def test_the_map_judge_reads_drawn_maps_and_nothing_in_a_frozen_one(scenes, labels):
    maps = np.stack([nano_judges.pool_maps(draw_clip(scene, BODY).motion_map) for scene in scenes[:24]])
    judge = nano_judges.load_judge("map")
    action, side = nano_judges.right_answers(judge, nano_judges.map_features(maps), labels[:24])
    assert action.float().mean() >= 0.9
    assert side.float().mean() >= 0.8
    frozen, _ = nano_judges.right_answers(judge, nano_judges.map_features(maps[:, :1].repeat(17, 1)), labels[:24])
    assert frozen.float().mean() <= 0.3


def test_pooling_averages_cells_of_every_second_frame():
    maps = np.zeros((33, 192, 128, 3), np.uint8)
    maps[2, :8, :8] = 100
    maps[3] = 200
    pooled = nano_judges.pool_maps(maps)
    assert pooled.shape == (17, 24, 16, 3)
    assert pooled[1, 0, 0].tolist() == [100, 100, 100]
    assert pooled.sum() == 300


def test_an_evaluation_writes_all_figures_and_a_frozen_model_scores_as_frozen(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "load_nano", lambda folder: toy_model())
    figures = evaluate.run("nano", 2, 5, tmp_path / "a" / "n.json", no_exchange=True, sheet=tmp_path / "s.png", steps=2)
    assert json.loads((tmp_path / "a" / "n.json").read_text()) == json.loads(json.dumps(figures))
    assert (tmp_path / "s.png").stat().st_size > 1000
    for name in nano_report.ROWS:
        assert name in figures
        if not name.startswith(("autoencoder", "change_iou_share")):
            assert {f"{name}_truth", f"{name}_frozen"} <= set(figures)
    assert figures["settings"]["exchange"] is False
    assert figures["action_accuracy_truth"] == 1
    assert figures["joint_error_mm_truth"] == pytest.approx(0, abs=1e-6)
    assert figures["motion_ratio_frozen"] == 0
    assert set(figures["bars_met"]) == set(nano_report.BARS)
    table = capsys.readouterr().out
    assert all(name in table for name in nano_report.ROWS)


def test_a_given_half_is_measured_as_the_truth(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "load_nano", lambda folder: toy_model())
    figures = evaluate.run("nano", 2, 5, tmp_path / "n.json", given="motion")
    assert figures["given"] == "motion"
    for name in ("motion_ratio", "pixel_action_accuracy"):  # of the map alone
        assert figures[name] == figures[f"{name}_truth"]
    assert figures["pixel_action_accuracy"] > figures["pixel_action_accuracy_frozen"]
    assert figures["motion_ratio_video"] == figures["motion_ratio_video_frozen"]  # the toy model knows no movement
    capsys.readouterr()


def test_what_cannot_be_evaluated_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ComoviError, match="given must be one of video, motion"):
        evaluate.evaluate_nano(toy_model(), 1, 1, evaluate.NanoSettings(), given="sound")
    with pytest.raises(ComoviError, match="what exists: nano"):
        evaluate.run("comovi", 8, 1, None)
    with pytest.raises(ComoviError, match="does not exist"):
        evaluate.run("nano", 8, 1, None, model_folder=tmp_path / "nothing")


def test_no_file_is_left_when_an_evaluation_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "load_nano", lambda folder: None)
    with pytest.raises(AttributeError):
        evaluate.run("nano", 1, 1, tmp_path / "out" / "n.json")
    assert not list(tmp_path.iterdir())


def test_bars_know_shares_of_the_truth_and_upper_limits():
    met = nano_report.bars_met(dict.fromkeys(nano_report.BARS, 0.9) | {"change_iou": 0.5, "change_iou_truth": 0.8})
    assert met["change_iou"]
    assert met["motion_ratio"]
    assert met["action_accuracy"]
    assert not met["autoencoder_psnr_rgb"]
    assert not nano_report.BARS["motion_ratio"].met(1.5, 1.0)
