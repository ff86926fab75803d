"""The small verbs: what the doctor sees, and the picture of the timesteps."""

import argparse
import json

import pytest
import torch
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.training import doctor, timesteps
from comfyui_comovi.training.config import ModelConfig, NoiseConfig, TrainConfig


def test_the_doctor_takes_a_step_and_names_what_is_missing(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    lines, healthy = doctor.examine(tmp_path / "runs" / "deep")
    text = "\n".join(lines)
    assert healthy and "a tiny network's loss and gradients: fine" in text
    assert f"GB free where runs go ({tmp_path / 'runs' / 'deep'})" in text
    monkeypatch.setattr(doctor, "version_of", lambda name: {"deepspeed": "0.18.9+cu12"}.get(name))
    lines, healthy = doctor.libraries()
    assert not healthy and any("0.18.9+cu12 is too old" in line for line in lines)
    assert any(line.startswith("numba is missing") and "pip install numba" in line for line in lines)
    monkeypatch.setattr(doctor, "version_of", lambda name: None)
    assert any("engine.kind = single trains on one device" in line for line in doctor.libraries()[0])


def test_versions_are_compared_as_numbers():
    assert doctor.numbers("0.19.8+cu12") == (0, 19, 8)
    assert doctor.numbers("0.9.10") < doctor.OLDEST_DEEPSPEED < doctor.numbers("0.20.0.dev1")


def test_the_picture_shows_what_the_law_draws():
    figures = timesteps.describe(*timesteps.draw_sigmas(TrainConfig(), 8, 16_000))
    assert figures["mean"] == pytest.approx(0.7476, abs=0.005)
    assert figures["median"] == pytest.approx(0.8336, abs=0.008)
    assert figures["branches at one sigma"] == 1 and figures["one branch clean"] == 0
    assert sum(figures["counts"]) == 16_000
    bars = timesteps.picture(figures["counts"])
    assert len(bars) == 20 and bars[0].startswith("  0.95 to 1.00") and len(bars[0]) > len(bars[-1])
    nano = TrainConfig(model=ModelConfig(kind="nano"), noise=NoiseConfig(shift=4, start=0.55, shared=0.85, clean=0.4))
    figures = timesteps.describe(*timesteps.draw_sigmas(nano, 2, 10_000))
    assert figures["quantiles"]["0.9"] == 1.0
    assert figures["one branch clean"] == pytest.approx(0.06, abs=0.01)


def test_the_command_writes_its_figures(tmp_path, capsys):
    settings = tmp_path / "run.toml"
    settings.write_text('[noise]\nsampling = "uniform"\nshift = 1.0\n')
    parser = argparse.ArgumentParser()
    timesteps.add_arguments(parser)
    words = ["--config", str(settings), "--count", "4000", "--json", str(tmp_path / "out.json")]
    assert timesteps.run(parser.parse_args(words)) == 0
    assert "shift 1, 1 group(s) of ranks" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["mean"] == pytest.approx(0.5, abs=0.03)
    with pytest.raises(ComoviError, match="at least one draw"):
        timesteps.run(parser.parse_args(["--config", str(settings), "--count", "2", "--world", "8"]))
