"""`comovi demo` and `comovi generate`: the folder they leave, that it reproduces, and that it is whole or absent.

All runs but one use a nano model that was not trained (tiny_nano.py).
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_comovi import cli
from comfyui_comovi.comovi_model.body.body_files import ASSETS, load_mannequin_body
from comfyui_comovi.comovi_model.body.cameras import frame_rotation
from comfyui_comovi.comovi_model.body.files.amass import motion_from_amass
from comfyui_comovi.comovi_model.body.motion import BodyMotion, load_arrays
from comfyui_comovi.comovi_model.body.smpl import pose_joints
from comfyui_comovi.comovi_model.body.upright import camera_up, levelling
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.images import read_image
from comfyui_comovi.comovi_model.nano import contact_sheet, demo, outputs
from comfyui_comovi.comovi_model.nano.actions import ACTION_NAMES
from comfyui_comovi.comovi_model.nano.model import AUTOENCODER_FILE, NETWORK_FILE, TEXT_FILE
from comfyui_comovi.comovi_model.nano.prompts import DEFAULT_PROMPT, example_actions, names_action, read_prompt
from comfyui_comovi.comovi_model.nano.sentences import MAX_TOKENS, PHRASES, split_words
from comfyui_comovi.comovi_model.video import read_video
from tiny_nano import make_tiny_nano

FILES = {
    "video.mp4", "motion_map.mp4", "side_by_side.mp4", "contact_sheet.png", "motion.npz", "motion.glb", "settings.json",
    "first_frame.png", "first_pose.npz",
}  # fmt: skip
SENTENCE = "a man in a green shirt and pink trousers kicks with the left leg"


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    return make_tiny_nano(tmp_path_factory.mktemp("nano"))


@pytest.fixture(scope="module")
def made(tmp_path_factory, nano):
    """One run, its folder read by many tests."""
    out = tmp_path_factory.mktemp("clip") / "out"
    run = demo.run_demo(out, prompt=SENTENCE, seed=3, steps=2, model=nano)
    return run


@pytest.fixture
def no_view(monkeypatch):
    """Leaves the third panel empty: drawing it is most of the time of an untrained run."""
    monkeypatch.setattr(outputs, "draw_body_view", lambda *a: np.full((33, 576, 384, 3), 200, np.uint8))


def settings_of(folder: Path) -> dict:
    return json.loads((folder / "settings.json").read_text(encoding="utf-8"))


def test_a_run_leaves_these_files_and_no_other(made):
    assert {path.name for path in made.folder.iterdir()} == FILES == set(made.files)


def test_the_videos_are_three_times_the_model_s_size(made):
    for name, width in (("video.mp4", 384), ("motion_map.mp4", 384)):
        frames, fps = read_video(made.folder / name)
        assert frames.shape == (33, 576, width, 3)
        assert fps == 16


def test_the_video_starts_with_the_first_frame(made):
    """The untrained autoencoder keeps 4 x 4 pixel means, so the comparison is coarse."""
    first = read_image(made.folder / "first_frame.png").astype(float)
    shown = read_video(made.folder / "video.mp4", 1)[0][0].astype(float).reshape(192, 3, 128, 3, 3).mean((1, 3))
    assert np.abs(first - shown).mean() < 6


def test_the_side_by_side_has_three_panels_and_the_sheet_nine_columns(made):
    frames, _ = read_video(made.folder / "side_by_side.mp4", 1)
    assert frames.shape[2] > 3 * 384
    sheet = read_image(made.folder / "contact_sheet.png")
    assert sheet.shape[1] > 9 * 160
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 1000


def test_the_motion_is_read_by_our_loader_and_as_amass(made):
    motion = BodyMotion.load(made.folder / "motion.npz")
    assert len(motion) == 33
    assert motion.frame == "camera"
    assert (motion.camera.width, motion.camera.height) == (128, 192)
    assert motion.provenance["prompt"] == SENTENCE
    arrays = load_arrays(made.folder / "motion.npz")
    assert arrays["poses"].shape == (33, 156)
    assert arrays["trans"].shape == (33, 3)
    assert arrays["betas"].shape == (16,)
    assert float(arrays["mocap_framerate"]) == 16
    amass = motion_from_amass(arrays, "motion.npz")
    assert amass.frame == "zup"
    assert torch.allclose(amass.rotations[:, 1:22], motion.rotations[:, 1:22], atol=1e-5)


def test_both_motions_in_the_file_stand_alike(made):
    """The camera looks down a little; the file says so, and seen level ours leans as the AMASS one does."""
    motion = BodyMotion.load(made.folder / "motion.npz")
    amass = motion_from_amass(load_arrays(made.folder / "motion.npz"), "motion.npz")
    ours = levelling(motion) @ motion.rotations[:, 0]
    theirs = frame_rotation(amass.frame, "yup") @ amass.rotations[:, 0]
    assert torch.allclose(ours[..., 1], theirs[..., 1], atol=1e-3)  # the body's axis; headings may differ
    assert not torch.allclose(camera_up(motion), torch.tensor([0.0, -1.0, 0.0]), atol=5e-3)


def test_the_first_frame_of_the_motion_is_the_first_pose(made):
    motion, pose = (BodyMotion.load(made.folder / name) for name in ("motion.npz", "first_pose.npz"))
    assert len(pose) == 1
    assert torch.equal(motion.rotations[:1], pose.rotations)
    assert torch.equal(motion.betas, pose.betas)


def test_the_glb_stands_on_the_floor_in_metres(made):
    data = (made.folder / "motion.glb").read_bytes()
    scene = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    assert len(scene["skins"][0]["joints"]) == 24
    assert len(scene["animations"]) == 1
    assert 0.7 < scene["nodes"][0]["translation"][1] < 1.3  # the pelvis


def test_the_settings_name_everything_and_the_command_repeats_the_run(made, tmp_path, no_view):
    settings = settings_of(made.folder)
    assert settings["prompt"] == SENTENCE
    assert settings["seed"] == 3
    assert set(settings["model"]["sha256"]) == {NETWORK_FILE, TEXT_FILE, AUTOENCODER_FILE}
    words = shlex.split(settings["command"])
    assert words[:2] == ["comovi", "generate"]
    assert cli.main([*words[1:], "--out", str(tmp_path / "again")]) == 0
    assert settings_of(tmp_path / "again") == settings
    for name in ("first_frame.png", "first_pose.npz", "motion.npz", "motion.glb", "video.mp4"):
        assert (tmp_path / "again" / name).read_bytes() == (made.folder / name).read_bytes(), name


def test_its_own_first_frame_and_pose_give_the_same_clip(made, tmp_path, nano, no_view, capsys):
    demo.run_demo(tmp_path / "b", prompt=SENTENCE, seed=3, steps=2, model=nano,
                  first_frame=made.folder / "first_frame.png", first_pose=made.folder / "first_pose.npz")  # fmt: skip
    assert "note:" not in capsys.readouterr().out
    assert (tmp_path / "b" / "video.mp4").read_bytes() == (made.folder / "video.mp4").read_bytes()
    inputs = settings_of(tmp_path / "b")["inputs"]
    assert len(inputs["first_frame"]["sha256"]) == len(inputs["first_pose"]["sha256"]) == 64


def test_the_summary_says_what_was_written_and_what_it_cost(made):
    text = "\n".join(demo.summary(made))
    assert all(name in text for name in FILES)
    assert " s in all" in text
    assert made.peak_megabytes is None or made.peak_megabytes > 100


def test_a_used_folder_is_refused_before_any_work(made, nano, monkeypatch):
    monkeypatch.setattr(demo, "generate", lambda *a, **k: pytest.fail("sampled"))
    with pytest.raises(ComoviError, match="--overwrite"):
        demo.run_demo(made.folder, prompt=SENTENCE, model=nano)


@pytest.mark.parametrize("stopped_by", [KeyboardInterrupt, MemoryError])
def test_a_run_that_is_stopped_leaves_nothing(tmp_path, nano, monkeypatch, stopped_by):
    def stop(*arguments, **settings):
        raise stopped_by

    monkeypatch.setattr(demo, "write_clip", stop)
    with pytest.raises(stopped_by):
        demo.run_demo(tmp_path / "new" / "folder", prompt=SENTENCE, steps=1, model=nano)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_is_answered_within_one_step(tmp_path, nano, monkeypatch):
    steps = []

    def sampler(*arguments, on_step, **settings):
        for step in range(5):
            on_step(None)
            steps.append(step)
            if step == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(demo, "generate", sampler)
    assert cli.main(["generate", "--prompt", SENTENCE, "--out", str(tmp_path / "o"), "--model", str(nano)]) == 130
    assert steps == [0, 1]
    assert list(tmp_path.iterdir()) == []


# --- sentences ------------------------------------------------------------------------------------------------------


def test_the_default_sentence_is_known_entirely():
    wish = read_prompt(None)
    assert wish.text == DEFAULT_PROMPT
    assert wish.unknown == wish.notices == ()


def test_every_phrase_names_an_action_and_a_bare_subject_does_not():
    for options in PHRASES.values():
        for phrase in options:
            assert names_action(split_words(phrase.format(side="left"))), phrase
    assert not names_action(split_words("a woman in a red shirt and blue trousers"))
    assert any("no action" in notice for notice in read_prompt("a woman in a red shirt").notices)


def test_unknown_words_are_named_once_and_the_model_says_what_it_knows(tmp_path, nano, no_view, capsys):
    assert read_prompt("a Man juggles, juggles and bows").unknown == ("juggles",)
    demo.run_demo(tmp_path / "o", prompt="a man juggles and bows", steps=1, model=nano)
    said = capsys.readouterr().out
    assert "vocabulary: juggles." in said
    assert all(phrase in said for phrase in example_actions())
    assert settings_of(tmp_path / "o")["unknown_words"] == ["juggles"]


def test_a_long_sentence_is_cut_and_that_is_said():
    notices = read_prompt("a man bows " + "slowly " * MAX_TOKENS).notices
    assert any(f"first {MAX_TOKENS} words" in notice for notice in notices)


@pytest.mark.parametrize(
    ("text", "words"), [("", "no words"), (" ?! 42 ", "no words"), ("xyzzy plugh", "knows no word")]
)
def test_a_sentence_without_a_known_word_is_refused(text, words):
    with pytest.raises(ComoviError, match=words):
        read_prompt(text)


def test_there_is_one_example_per_action():
    assert len(example_actions()) == len(ACTION_NAMES)


# --- the shipped weights --------------------------------------------------------------------------------------------


def test_the_shipped_model_follows_the_default_sentence(tmp_path):
    missing = [name for name in (NETWORK_FILE, TEXT_FILE, AUTOENCODER_FILE) if not (ASSETS / name).exists()]
    if missing:
        pytest.skip(f"the trained weights are not in this checkout: {', '.join(missing)}")
    run = demo.run_demo(tmp_path / "out")
    assert set(run.files) == FILES
    motion = BodyMotion.load(tmp_path / "out" / "motion.npz")
    height = -pose_joints(load_mannequin_body(), motion.rotations, motion.betas, motion.transl)[..., 1]  # (F, 24)
    wrists, head = height[:, [20, 21]], height[:, 15]
    assert (wrists[0] < head[0] - 0.4).all()
    assert (wrists[24] > head[24] + 0.1).all()
    assert (height[:, [7, 8]] - height[:1, [7, 8]]).abs().max() < 0.1  # the feet stay


def test_a_long_text_is_shortened_to_its_room_at_once():
    """By halves: letter by letter, a sentence of some thousand letters took a minute."""
    text = "a person walks " * 4000
    short = contact_sheet.fit_text(text, 17, 300)
    assert short.endswith("…") and text.startswith(short[:-1])
    letters = contact_sheet.font(17)
    assert 290 < letters.getlength(short) <= 300
    assert contact_sheet.fit_text("a person walks", 17, 300) == "a person walks"
