"""The nano trainer: batches repeat, every trained weight learns, a run leaves weights that load."""

import json
import sys

import pytest
import torch
from comfyui_comovi.comovi_model.nano.first_frame import FirstFrameWrapper
from comfyui_comovi.training import train_nano
from comfyui_comovi.training.nano_clips import ClipTensors, labels_to_request, load_clips
from comfyui_comovi.training.nano_objective import NoiseLaw
from comfyui_comovi.training.plot_log import read_lines
from safetensors.torch import load_file, save_file


def some_clips(count=8):
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor(
        [[i % 16, 1 if i % 16 in (1, 2, 6, 7, 12, 13, 14) else 0, i % 3, i % 8, 3] for i in range(count)]
    )
    pose = torch.eye(3)[:2].reshape(1, 1, 1, 6) + 0.1 * torch.randn(count, 33, 24, 6, generator=generator)
    video, motion = torch.randn(2, count, 48, 9, 4, 2, generator=generator)
    return ClipTensors(video.half(), motion.half(), pose.half(), labels)


@pytest.fixture(scope="module")
def clips():
    torch.set_num_threads(1)
    return some_clips()


def test_a_batch_is_a_function_of_seed_step_and_rank(clips):
    index = torch.arange(4)
    first, again, other = (
        train_nano.make_batch(clips, index, NoiseLaw(), key) for key in ((0, 5, 0), (0, 5, 0), (0, 5, 1))
    )
    assert torch.equal(first.noise_video, again.noise_video)
    assert torch.equal(first.ids, again.ids)
    assert not torch.equal(first.noise_video, other.noise_video)
    request, shirt, _ = labels_to_request(clips.labels[1])
    assert (request.action, request.side, shirt) == (1, "left", "orange")


def test_every_trained_weight_gets_a_gradient_once_the_outputs_have_left_zero(clips):
    torch.manual_seed(0)
    trainee = train_nano.build_trainee(clips)
    with torch.no_grad():
        for p in trainee.parameters():
            p.add_(0.02 * torch.randn_like(p))
    batch = train_nano.make_batch(clips, torch.arange(4), NoiseLaw(start=0.0), (0, 1, 0))
    losses = trainee(batch)
    sum(losses.values()).backward()
    silent = [n for n, p in trainee.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert silent == []
    frozen = [n for n, p in trainee.named_parameters() if not p.requires_grad]
    assert frozen
    assert all("fusion_layers" in n for n in frozen)


def test_the_spread_is_measured_against_the_first_frame(clips):
    spread = train_nano.measure_spread(clips.video)
    still = clips.video[:, :, :1].expand(-1, -1, 9, -1, -1)
    assert spread.shape == (48,)
    assert 1.0 < float(spread.mean()) < 1.8  # difference of two unit normals
    assert not train_nano.measure_spread(still).any()
    assert torch.allclose(FirstFrameWrapper(spread).loss_weight().mean(), torch.tensor(1.0))


def test_the_rate_warms_up_stays_and_falls():
    rates = [train_nano.learning_rate(1.0, s, 100_000) for s in (0, 2_500, 29_000, 65_000, 100_000)]
    assert rates[0] < 0.01
    assert rates[1] == rates[2] == 1.0
    assert 0.4 < rates[3] < 0.6
    assert abs(rates[4] - 0.01) < 1e-9


def test_a_run_leaves_a_log_and_weights_and_goes_on_where_it_stopped(clips, tmp_path, monkeypatch):
    folder = tmp_path / "clips"
    folder.mkdir()
    save_file({k: v.contiguous() for k, v in clips.__dict__.items()}, str(folder / "shard-000000000.safetensors"))
    assert len(load_clips(folder)) == len(clips)

    def run(out, samples):
        words = ["train_nano", "--clips", str(folder), "--out", str(tmp_path / out), "--samples", str(samples)]
        monkeypatch.setattr(sys, "argv", [*words, "--batch", "4", "--no-compile"])
        train_nano.main()
        return load_file(str(tmp_path / out / "ema.safetensors"))

    # The first 2500 samples warm up, so the planned length does not matter for so short a run.
    whole = run("whole", 8)
    run("parts", 4)
    parts = run("parts", 8)
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    assert whole["spread.video"].shape == (48,)


def test_a_log_becomes_curves(tmp_path):
    log = tmp_path / "log.jsonl"
    rows = [
        {"samples": s, "video": 1.0, "motion": 0.9, "pose": 0.02, "validation": {"video@1.0": 0.8, "pose@1.0": 0.1}}
        for s in (8, 16)
    ]
    log.write_text("\n".join(json.dumps(r) for r in rows))
    training, validation = read_lines(log)
    assert [line.name for line in training] == ["video", "motion map", "pose x 10"]
    assert [line.name for line in validation] == ["video@1.0"]
    assert validation[0].points == [(8, 0.8), (16, 0.8)]
