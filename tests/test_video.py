"""Videos keep their frames, rate and colours."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.show.page_video import video_frames
from comfyui_comovi.comovi_model.video import read_video, video_facts, write_video

COLOURS = np.array([[255, 255, 255], [200, 40, 40], [40, 200, 40], [40, 40, 200], [128, 128, 128], [0, 0, 0]])


def coloured_frames(count=5):
    return np.broadcast_to(COLOURS.repeat(16, 0)[:, None].astype(np.uint8), (count, 96, 64, 3))


def test_a_video_comes_back_with_its_frames_rate_and_colours(tmp_path):
    frames = coloured_frames()
    back, fps = read_video(write_video(tmp_path / "a.mp4", frames, 16))
    assert fps == 16
    assert back.shape == frames.shape
    inner = np.abs(back[:, 8::16].astype(int) - frames[:, 8::16])  # the middle of each stripe
    assert inner.max() <= 4  # measured 2: 8-bit limited-range YUV


def test_frames_may_come_one_by_one_as_floats(tmp_path):
    frames = coloured_frames() / 255.0
    write_video(tmp_path / "a.mp4", iter(frames), 23.976)
    assert read_video(tmp_path / "a.mp4", max_frames=2)[0].shape == (2, 96, 64, 3)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((1, 15, 16, 3), np.uint8), "must be even"),
        (np.zeros((0, 16, 16, 3), np.uint8), "at least one frame"),
        (np.zeros((1, 0, 16, 3), np.uint8), "with pixels"),
        ([np.zeros((16, 16, 3), np.uint8), np.zeros((32, 16, 3), np.uint8)], "every frame"),
    ],
)
def test_frames_that_make_no_video_are_refused_and_leave_no_file(tmp_path, frames, message):
    with pytest.raises(ComoviError, match=message):
        write_video(tmp_path / "a.mp4", frames, 16)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_video_leaves_no_file(tmp_path):
    def frames():
        yield np.zeros((16, 16, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", frames(), 16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"not a video at all" * 40, b""])
def test_a_file_that_is_no_video_is_refused(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ComoviError, match="a.mp4"):
        read_video(tmp_path / "a.mp4")


def test_facts_agree_with_the_frames_that_are_read(tmp_path):
    write_video(tmp_path / "a.mp4", np.zeros((5, 16, 32, 3), np.uint8), 8)
    frames, fps = read_video(tmp_path / "a.mp4")
    assert video_facts(tmp_path / "a.mp4") == (len(frames), 32, 16, fps)


def test_a_video_of_a_phone_held_upright_is_read_upright(tmp_path):
    frames = np.zeros((2, 32, 64, 3), np.uint8)
    frames[:, :16] = 250  # the upper half, which a quarter turn clockwise takes to the right
    path = write_video(tmp_path / "phone.mp4", frames, 16)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44  # of the track's header: how its pictures are to be turned
    assert struct.unpack_from(">9i", content, matrix) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", content, matrix, 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    assert video_facts(path) == (2, 32, 64, 16)
    for back in (read_video(path)[0], np.stack(list(video_frames(path)))):
        assert back.shape == (2, 64, 32, 3)
        assert back[:, :, 18:].min() > 200 and back[:, :, :14].max() < 50
