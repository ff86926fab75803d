"""The node that joins clips, on real servers: which frames come out, and what it says of clips that do not fit."""

from __future__ import annotations


def grey(g, level: int, frames: int, width: int = 32):
    colour = level << 16 | level << 8 | level
    return g.add("EmptyImage", width=width, height=32, batch_size=frames, color=colour)


def test_the_shared_frame_is_kept_once(comfyui, Graph):
    g = Graph()
    joined = g.add("CoMoVi_JoinClips", first=grey(g, 40, 3), second=grey(g, 200, 4), shared=1)
    saved = g.save_images(joined)
    pictures = comfyui.run(g).images(saved)
    assert [round(255 * float(picture.mean())) for picture in pictures] == [40, 40, 40, 200, 200, 200]


def test_clips_that_do_not_fit_are_refused_in_a_sentence(comfyui, Graph):
    for second, shared, words in (
        ({"level": 9, "frames": 2, "width": 64}, 1, "the clips are 32 x 32 and 64 x 32 pixels"),
        ({"level": 9, "frames": 2}, 2, "shared is 2, but the second clip has only 2 frames"),
    ):
        g = Graph()
        joined = g.add("CoMoVi_JoinClips", first=grey(g, 1, 2), second=grey(g, **second), shared=shared)
        g.save_images(joined)
        assert words in comfyui.run(g, check=False).error
