"""Settings: includes, changes from the command line, refusals that help, and nothing lost on the way to the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.training.config_file import PRESETS, dump_config, load_config, preset_names
from comfyui_comovi.training.train import run


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_what_they_say_when_written_out_again(name, tmp_path):
    config = load_config(name, ["run.out=runs"])
    assert load_config(write(tmp_path / "again.toml", dump_config(config))) == config


def test_later_settings_win(tmp_path):
    write(tmp_path / "base.toml", "[optim]\nlr = 1e-4\nwarmup = 7\n[batch]\nmicro = 2\n")
    top = write(tmp_path / "top.toml", 'include = "base.toml"\n[optim]\nlr = 2e-4\n')
    config = load_config(top, ["optim.lr=3e-4", "data.train=clips", "model.shape.dim=64"])
    assert (config.optim.lr, config.optim.warmup, config.batch.micro) == (3e-4, 7, 2)
    assert config.data.train == (str(Path("clips").absolute()),)
    assert config.model.shape == {"dim": 64}


def test_a_preset_can_be_included(tmp_path):
    top = write(tmp_path / "top.toml", f'include = "{preset_names()[0]}"\n[run]\nmax_steps = 3\n')
    assert load_config(top).run.max_steps == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("optim.lrr=1", "there is no setting optim.lrr; did you mean optim.lr?"),
        ("accumulate=2", "there is no setting accumulate; did you mean batch.accumulate?"),
        ("batch.lr=2", "there is no setting batch.lr; did you mean optim.lr?"),
        ("batch.micro=1.5", "batch.micro is 1.5; it must be a whole number"),
        ("batch.micro=0", "batch.micro is 0; it must be at least 1"),
        ("engine.zero=4", "engine.zero is 4; choose one of 0, 1, 2, 3"),
        ("engine.precision=fp16", "engine.precision is 'fp16'; choose one of fp32, bf16, autocast"),
        ("optim.betas=[0.9]", "must be a list of 2"),
        ("optim.betas=[0.9, 1]", "both must lie between 0 and 1, 1 excluded"),
        ("optim.lr=NaN", "it must be at least 0"),
        ("run.threads=-1", "it must be at least 0"),
        ("batch.readers=4", "it must lie between 0 and 1"),
        ("eval.clips=0", "it must be at least 1"),
        ("eval.quantiles=[]", "name at least one"),
        ("model=3", "it must be a table"),
        ("run.name=../x", "give a plain folder name"),
        ("optim.lr", "write section.name=value"),
    ],
)
def test_what_cannot_be_set_is_refused_by_name(change, words, tmp_path):
    with pytest.raises(ComoviError) as caught:
        load_config(write(tmp_path / "a.toml", "# all as it is\n"), [change])
    assert words in str(caught.value)


def test_a_file_of_notepad_is_read(tmp_path):
    (tmp_path / "a.toml").write_text('include = "tiny_cpu"\n', encoding="utf-8-sig")
    assert load_config(tmp_path / "a.toml") == load_config("tiny_cpu")


def test_a_circle_of_includes_is_found(tmp_path):
    write(tmp_path / "a.toml", 'include = "b.toml"\n')
    with pytest.raises(ComoviError, match="includes itself"):
        load_config(write(tmp_path / "b.toml", 'include = "a.toml"\n'))


def test_a_name_that_is_no_preset_lists_them():
    with pytest.raises(ComoviError, match="nano"):
        load_config("stage9")


def test_presets_are_packaged():
    assert {"stage1", "stage2", "lora_24gb", "tiny_cpu", "nano"} <= {path.stem for path in PRESETS.glob("*.toml")}


def test_show_prints_all_settings(capsys):
    from argparse import Namespace

    run(Namespace(config="nano", set=[], show=True, processes=0))
    assert "[engine]" in capsys.readouterr().out
