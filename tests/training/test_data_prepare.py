"""Preparing: crops, cameras, smoothing, quarantine, going on after a stop."""

import json
import os
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.body_files import load_nano_body
from comfyui_comovi.comovi_model.body.cameras import Camera, project
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.rotations import matrix_to_quaternion, quaternion_to_matrix
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.images import read_image
from comfyui_comovi.comovi_model.motion_io.formats import ImportedMotion
from comfyui_comovi.training.curation.workers import Failure, run_all
from comfyui_comovi.training.data.beside import read_captions
from comfyui_comovi.training.data.cache import build_all
from comfyui_comovi.training.data.crop import camera_through, cover, picture_through
from comfyui_comovi.training.data.dataset import CachedClips
from comfyui_comovi.training.data.encoders import load_encoders
from comfyui_comovi.training.data.example import make_example
from comfyui_comovi.training.data.poses import cleaned, of_frames, on_video, read_poses
from comfyui_comovi.training.data.prepare import LIST, QUARANTINE, find_jobs, held_out_videos, prepare
from comfyui_comovi.training.data.prepare_clip import PRESETS, PrepareSettings
from comfyui_comovi.training.data.timing import even_timeline
from comfyui_comovi.training.data.video import read_all, scan_video, write_lossless
from data_parts import SETTINGS, moving_body, numbered_video, numbers_of
from motion_files import camerahmr_record

GOLDEN = Path(__file__).parents[1] / "golden" / "smoothing.npz"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)


def test_smoothed_poses_of_a_clip_are_blender_s(tmp_path):
    """The released pipeline's filter, from the file of real Blender, through everything that prepare does."""
    golden = np.load(GOLDEN)
    before, after = (
        torch.from_numpy(np.stack([golden[f"rotation_quaternion_{k}_{which}"] for k in range(4)], 1))
        for which in ("pre", "post")
    )
    turning = quaternion_to_matrix(before[:-1])[:, None].expand(-1, 24, -1, -1).float()  # the last key was baked
    motion = replace(numbered_video(tmp_path, "clip", 16, 1.75), rotations=turning)
    motion.save(tmp_path / "clip.npz")
    settings = replace(SETTINGS, sizes=("29x64x64",), smoothing="paper")
    clip = prepare(tmp_path, tmp_path / "out", settings).clips[0]
    assert list(clip.source_index) == list(range(29))
    found = matrix_to_quaternion(BodyMotion.load(clip.smpl).rotations[:, 7].double())
    wanted = torch.nn.functional.normalize(after[:29], dim=1)
    wanted = wanted * wanted[:, :1].sign()
    assert (found * found[:, :1].sign() - wanted).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("source", "size"), [((300, 100), (64, 96)), ((100, 300), (64, 64)), ((333, 221), (704, 480)), ((64, 96), (64, 96))]
)
def test_the_camera_sees_through_the_crop_what_the_picture_shows(source, size):
    """A point painted into the picture is where the clip's camera says, at any crop and scale."""
    camera = Camera.from_focal(1.3 * source[0], *source)
    point = torch.tensor([[0.03, -0.05, 4.0]])
    x, y = project(point, camera.K)[0].tolist()
    rows, columns = np.mgrid[: source[1], : source[0]] + 0.5
    bump = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 6.0**2))
    picture = np.repeat((bump[..., None] * 255).astype(np.uint8), 3, 2)
    window = cover(source, *size)
    seen = picture_through(window, picture)[..., 0].astype(float)
    assert seen.shape == (size[1], size[0])
    rows, columns = np.mgrid[: size[1], : size[0]] + 0.5
    found = (columns * seen).sum() / seen.sum(), (rows * seen).sum() / seen.sum()
    wanted = project(point, camera_through(window, camera, source).K)[0].tolist()
    assert np.allclose(found, wanted, atol=0.1)


def test_a_window_goes_where_the_person_is_and_stays_inside():
    middle, left = cover((1280, 720), 704, 704), cover((1280, 720), 704, 704, (100, 300))
    assert middle.box == pytest.approx((280, 0, 1000, 720))
    assert left.box == pytest.approx((0, 0, 720, 720))


def test_the_example_folder_becomes_clips_whose_map_lies_on_the_person(tmp_path):
    make_example(tmp_path / "videos", 3)
    made = prepare(tmp_path / "videos", tmp_path / "data", PRESETS["nano"])
    assert made.refused == () and len(made.clips) == 3
    for clip in made.clips:
        pictures, drawn = read_all(clip.rgb), read_all(clip.motion)
        assert pictures.shape == drawn.shape == (33, 192, 128, 3)
        assert np.array_equal(read_image(clip.first_frame), pictures[0])
        assert np.array_equal(read_image(clip.motion_first_frame), drawn[0])
        body = (drawn != 255).any(-1)
        for k in (0, 16, 32):  # the person is what differs from the empty place: the median of rows without a body
            place = np.nanmedian(np.where(body[k][..., None], np.nan, pictures[k].astype(float)), 1, keepdims=True)
            differs = np.abs(pictures[k] - place).max(-1) > 40
            assert (differs & body[k])[:150].sum() > 0.9 * differs[:150].sum()
        assert clip.filters["in_picture"] > 0.9 and len(clip.text) == 2


def test_lossless_really_is(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (9, 48, 64, 3), dtype=np.uint8)
    write_lossless(tmp_path / "noise.mkv", noise, Fraction(16))
    assert np.array_equal(read_all(tmp_path / "noise.mkv"), noise)


def broken_folder(folder):
    numbered_video(folder, "good", 24, 2.0)
    for name in ("poison", "no_poses", "no_text", "short", "elsewhere", "gap"):
        numbered_video(folder, name, 24, 2.0)
    (folder / "poison.mp4").write_bytes((folder / "good.mp4").read_bytes()[:800])
    (folder / "no_poses.npz").unlink()
    (folder / "no_text.txt").unlink()
    numbered_video(folder, "short", 24, 1.0)
    away = moving_body(50, Fraction(24))
    replace(away, transl=away.transl + torch.tensor([50.0, 0, 0])).save(folder / "elsewhere.npz")
    valid = torch.ones(50, dtype=torch.bool)
    valid[10:35] = False
    replace(away, valid=valid).save(folder / "gap.npz")


REASONS = {
    "poison": "cannot be read",
    "no_poses": "no poses beside no_poses.mp4",
    "no_text": "write one into no_text.txt",
    "short": "need 2.000 s",
    "elsewhere-00": "covers 0.00% of the first picture",
    "gap-00": "of 33 frames nobody was found",
}


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_used_lands_in_quarantine_with_its_reason_and_the_rest_goes_on(tmp_path, workers):
    folder = tmp_path / "videos"
    folder.mkdir()
    broken_folder(folder)
    made = prepare(folder, tmp_path / "out", SETTINGS, workers=workers)
    assert [clip.id for clip in made.clips] == ["good-00"]
    rows = [json.loads(line) for line in (tmp_path / "out" / QUARANTINE).read_text().splitlines()]
    assert {row["id"] for row in rows} == set(REASONS)
    for row in rows:
        assert REASONS[row["id"]] in row["reason"], row


def test_a_stopped_run_goes_on_and_a_mended_video_is_taken_up(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    broken_folder(folder)
    prepare(folder, tmp_path / "out", SETTINGS)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "clips").rglob("*.*")}
    (folder / "no_text.txt").write_text("a person\n")
    made = prepare(folder, tmp_path / "out", SETTINGS)
    assert [clip.id for clip in made.clips] == ["good-00", "no_text-00"]
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())  # nothing was made twice

    numbered_video(folder, "good", 25, 2.0)  # another video under an old name
    again = prepare(folder, tmp_path / "out", SETTINGS)
    assert again.clips[0].source_index != made.clips[0].source_index
    assert numbers_of(read_all(again.clips[0].rgb)) == list(again.clips[0].source_index)


def test_the_list_does_not_depend_on_the_number_of_workers(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, rate in (("a", 24), ("b", 30), ("c", 60)):
        numbered_video(folder, name, rate, 4.2)
    settings = replace(SETTINGS, clips_per_video=0)
    for workers, out in ((0, "here"), (2, "there")):
        prepare(folder, tmp_path / out, settings, workers=workers)
    one, two = ((tmp_path / out / LIST).read_text() for out in ("here", "there"))
    assert one == two and one.count("\n") == 6


def test_other_settings_are_refused_by_name(tmp_path):
    numbered_video(tmp_path, "clip", 24, 2.0)
    prepare(tmp_path, tmp_path / "out", SETTINGS)
    with pytest.raises(ComoviError, match="smoothing = 'none', and now it is 'paper'"):
        prepare(tmp_path, tmp_path / "out", replace(SETTINGS, smoothing="paper"))


def imported(motion, *notes):
    return ImportedMotion(motion, "smpl", notes)


def test_poses_at_a_rate_of_their_own_are_taken_at_the_moment_of_each_frame():
    slow, video = moving_body(21, Fraction(10)), even_timeline(49, Fraction(24))
    found = on_video(imported(slow, "10 frames per second (stated by the file)"), video)
    x = -0.6 + 1.2 * torch.arange(len(found)) / 24 * 10 / 20
    assert len(found) == 49 and torch.allclose(found.transl[:, 0], x, atol=1e-4)


def test_poses_that_say_no_rate_and_do_not_fit_are_refused_not_stretched():
    with pytest.raises(ComoviError, match=r"21 poses at 30 per second \(assumed\) do not fit a video of 49 frames"):
        on_video(
            imported(replace(moving_body(21, Fraction(30)), fps=30.0), "30 frames per second (assumed: ...)"),
            even_timeline(49, Fraction(24)),
        )
    fits = on_video(
        imported(moving_body(49, Fraction(30)), "30 frames per second (assumed: ...)"), even_timeline(49, Fraction(24))
    )
    assert len(fits) == 49


def test_frames_without_a_person_do_not_shift_the_others():
    """Estimators write nothing where they see nobody; the frame numbers say so."""
    motion = moving_body(30, Fraction(24))
    there = [index for index in range(30) if index not in (7, 8, 20)]
    gappy = replace(
        motion,
        rotations=motion.rotations[there],
        transl=motion.transl[there],
        source_index=torch.tensor(there),
        valid=None,
    )
    video = even_timeline(30, Fraction(24))
    found = cleaned(on_video(imported(gappy), video), load_nano_body(), "none", 0.5, 0.5)
    clip = of_frames(found, list(range(2, 28)), Fraction(16))
    assert torch.allclose(clip.transl, motion.transl[2:28], atol=1e-4)


def test_world_axes_are_refused():
    motion = moving_body(30, Fraction(24)).to_frame("yup", torch.zeros(3))
    with pytest.raises(ComoviError, match="world axes"):
        cleaned(motion, load_nano_body(), "none", 0.5, 0.5)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ComoviError, match="multiples of 32"):
        PrepareSettings(sizes=("81x720x1280",))
    with pytest.raises(ComoviError, match=r"1 \+ 4 k frames"):
        PrepareSettings(sizes=("80x704x1280",))
    with pytest.raises(ComoviError, match="smoothing"):
        PrepareSettings(smoothing="blender")
    with pytest.raises(ComoviError, match="at least 0, got -1"):
        PrepareSettings(clips_per_video=-1)
    with pytest.raises(ComoviError, match="crf must lie between 0"):
        PrepareSettings(crf=60)


def test_two_videos_of_one_name_are_two(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for place in ("one", "two"):
        (tmp_path / place / "dance.mp4").write_bytes(b"x")
        moving_body(5, Fraction(24)).save(tmp_path / place / "dance.npz")
    (tmp_path / "captions.json").write_text('{"dance.mp4": "a person dances"}')
    jobs, refused = find_jobs(tmp_path, SETTINGS, tmp_path / "clips")
    assert [job.id for job in jobs] == ["one-dance", "two-dance"] and refused == []
    assert jobs[0].text == ("a person dances",)


def put_video(path: Path) -> None:
    """What `find_jobs` looks for; nothing in it can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".mp4", ".npz", ".txt"):
        path.with_suffix(suffix).write_text("a person walks")


def test_no_two_videos_get_one_name_also_where_the_case_of_letters_does_not_count(tmp_path):
    for name in ("x/y-z", "x-y/z", "x-y-z", "X-Y-Z"):
        put_video(tmp_path / f"{name}.mp4")
    names = [job.id.casefold() for job in find_jobs(tmp_path, SETTINGS, tmp_path / "clips")[0]]
    assert len(set(names)) == 4


def test_clips_that_lie_among_the_videos_are_no_videos(tmp_path):
    for name in ("dance", "out/clips/dance-00/rgb"):
        put_video(tmp_path / f"{name}.mp4")
    jobs, refused = find_jobs(tmp_path, SETTINGS, tmp_path / "out" / "clips")
    assert ([job.id for job in jobs], refused) == (["dance"], [])


def test_a_name_in_another_encoding_is_told_before_the_work(tmp_path):
    try:
        put_video(tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    except OSError:
        pytest.skip("this disk takes names in UTF-8 only")
    with pytest.raises(ComoviError, match=r"not in UTF-8; rename them, the first is .*caf"):
        find_jobs(tmp_path, SETTINGS, tmp_path / "clips")


def test_a_caption_that_is_no_sentence_is_named(tmp_path):
    (tmp_path / "captions.json").write_text('{"a.mp4": "a person walks", "b.mp4": null}')
    with pytest.raises(ComoviError, match=r"'b.mp4' must have a sentence or a list of sentences, not null"):
        read_captions(tmp_path)


def test_a_worker_that_dies_or_hangs_costs_one_item_only():
    items = [0.0, 600.0, 0.01, "poison", 0.02]
    results = {done.item: done.result for done in run_all(time.sleep, items, 1, seconds=2.0)}
    assert isinstance(results[600.0], Failure) and "longer than 2 s" in results[600.0].reason
    assert isinstance(results["poison"], Failure) and "TypeError" in results["poison"].reason
    assert results[0.0] is None and results[0.01] is None and results[0.02] is None


def test_the_signal_that_killed_a_worker_is_named():
    import os

    results = [done.result for done in run_all(os._exit, [3], 1)]
    assert results[0].reason == "the process that worked on it died (status 3)."


def test_a_video_from_a_phone_that_was_held_upright_is_read_upright(tmp_path):
    """Phones store pictures as the sensor sees them, with a matrix that turns them by a quarter clockwise."""
    import av

    sensor = np.zeros((64, 96, 3), np.uint8)
    sensor[:16] = 255  # the sensor's upper edge is the picture's right one
    for degrees, bright in ((0, np.s_[:16]), (-90, np.s_[:, -16:]), (90, np.s_[:, :16]), (180, np.s_[-16:])):
        path = tmp_path / f"turned_{degrees}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=24)
            stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
            if degrees:
                stream.set_display_rotation(degrees)
            for _ in range(5):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(sensor, format="rgb24")))
            container.mux(stream.encode(None))
        picture, facts = read_all(path)[0], scan_video(path)
        assert picture.shape[:2] == (facts.height, facts.width) == ((96, 64) if degrees % 180 else (64, 96))
        assert picture[bright].mean() > 200 and abs(picture.mean() - 255 * 16 / 64) < 8


def test_held_out_videos_are_whole_and_stay_held_out_when_others_come():
    names = [f"video-{number}" for number in range(200)]
    apart = held_out_videos(names, 0.2)
    assert 20 < len(apart) < 60
    more = held_out_videos([*names, *(f"later-{number}" for number in range(300))], 0.2)
    assert apart == {name for name in more if name.startswith("video")}
    assert len(held_out_videos(names[:4], 0.001)) == 1 and held_out_videos(names, 0) == set()


def test_held_out_clips_have_a_list_and_a_cache_of_their_own(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "b", "c"):
        numbered_video(folder, name, 24, 4.2)
    made = prepare(folder, tmp_path / "out", replace(SETTINGS, clips_per_video=0), hold_out=0.3)
    videos = [{clip.source for clip in clips} for clips in (made.clips, made.held_out)]
    assert len(made.clips) + len(made.held_out) == 6 and made.held_out and not videos[0] & videos[1]
    caches = [built.folder for built in build_all(made.folder, load_encoders("nano"))]
    assert [len(CachedClips(cache)) for cache in caches] == [len(made.clips), len(made.held_out)]
    assert caches[1].name == "cache_held_out"


@pytest.mark.parametrize("first", [0, 1])
def test_a_folder_of_camerahmr_s_files_is_in_step_where_files_are_missing(tmp_path, first):
    """One file per frame, none where nobody was found; the files' numbers keep the others in step."""
    motion = moving_body(50, Fraction(24))
    folder = tmp_path / "dance"
    folder.mkdir()
    for frame in range(50):
        if frame not in (11, 12, 30):
            np.save(folder / f"{frame + first:06d}.npy", camerahmr_record(motion, frame), allow_pickle=True)
    read = read_poses(folder, Fraction(24))
    found = of_frames(on_video(read, even_timeline(50, Fraction(24))), [5, 10, 13, 29, 31, 49], Fraction(16))
    assert torch.allclose(found.transl, motion.transl[[5, 10, 13, 29, 31, 49]], atol=1e-5)
    assert torch.allclose(found.rotations, motion.rotations[[5, 10, 13, 29, 31, 49]], atol=1e-5)
    with pytest.raises(ComoviError, match="in 1 of 1 frames nobody was found"):
        of_frames(on_video(read, even_timeline(50, Fraction(24))), [12], Fraction(16))
