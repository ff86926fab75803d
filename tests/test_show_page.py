"""The page with the 3D player: complete, small, silent on the network, and showing what the motion says."""

from __future__ import annotations

import base64
import json
import re
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.files.glb import glb_bytes
from comfyui_comovi.comovi_model.body.frames import in_frame, on_floor
from comfyui_comovi.comovi_model.body.mannequin import load_mannequin
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.rotations import axis_angle_to_matrix
from comfyui_comovi.comovi_model.body.smpl import pose_joints
from comfyui_comovi.comovi_model.body.toy import toy_body
from comfyui_comovi.comovi_model.body.upright import levelled, with_camera_up
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.show.page import PLAYER, page_text, write_page
from comfyui_comovi.comovi_model.show.page_video import encoded, page_video
from comfyui_comovi.comovi_model.video import read_video, write_video

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
         "--ignore-gpu-blocklist"]  # fmt: skip


def moving(frames: int = 12, fps: float = 16.0, seed: int = 0) -> BodyMotion:
    """Smooth random joints on a path, seen by a camera."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randn(2, 24, 3, generator=generator) * 0.35
    share = torch.linspace(0, 1, frames)[:, None, None]
    rotations = axis_angle_to_matrix(ends[0] * (1 - share) + ends[1] * share)
    rotations[:, 0] = torch.diag(torch.tensor([1.0, -1, -1])) @ rotations[:, 0]
    path = torch.stack([0.1 * share[:, 0, 0], 0 * share[:, 0, 0], 4 - 0.5 * share[:, 0, 0]], 1)
    return BodyMotion(rotations, torch.zeros(10), path, camera=Camera.from_focal(300, 160, 240), fps=fps)


def part(text: str, name: str) -> str:
    return re.search(rf'<script type="[^"]+" id="{name}">(.*?)</script>', text, re.DOTALL).group(1)


def test_the_page_holds_the_body_and_asks_nobody_for_anything(tmp_path):
    body = toy_body()
    path = write_page(tmp_path / "walk.html", moving(), body, title="a <walk> & </script> @@GLB@@")
    text = path.read_text(encoding="utf-8")
    upright = on_floor(in_frame(moving(), body, "yup"), body)
    assert base64.b64decode(part(text, "glb")) == glb_bytes(upright, body, floor=False)
    assert "a &lt;walk&gt; &amp; &lt;/script&gt; @@GLB@@</h1>" in text
    assert "default-src 'none'" in text
    bare = text.replace(part(text, "glb"), "")
    tags = re.findall(r"<(?:script|link|img|iframe|video|source|object|embed)\b[^>]*", bare.split("<script>")[0])
    assert tags and not any("src" in tag or "href" in tag for tag in tags)
    assert "The MIT License" in text and "three.js authors" in text
    info = json.loads(part(text, "info"))
    assert (info["frames"], info["fps"], info["name"], info["movie"]) == (12, 16, "walk", None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["walk.html"]


@pytest.mark.parametrize("up", [(0.0, -1.0, 0.0), (0.1, -0.95, -0.25)])
def test_the_page_s_camera_sees_what_the_motion_s_camera_sees(up):
    """Joints in the page's world, through the page's camera, fall on the pixels that the motion's own camera gives."""
    body, motion = load_mannequin(), with_camera_up(moving(), torch.tensor(up))
    info = json.loads(part(page_text(motion, body, title="t"), "info"))
    upright = on_floor(levelled(motion, body), body)
    world = pose_joints(body, upright.rotations, upright.betas, upright.transl)
    seen = (world - torch.tensor(info["camera"]["position"])) @ torch.tensor(info["camera"]["axes"])
    pixels = seen * torch.tensor([1.0, -1, -1]) @ torch.tensor(info["camera"]["K"]).T
    own = pose_joints(body, motion.rotations, motion.betas, motion.transl) @ motion.camera.K.T
    assert (pixels[..., :2] / pixels[..., 2:] - own[..., :2] / own[..., 2:]).abs().max() < 0.02


def test_a_page_of_81_frames_stays_below_5_megabytes():
    video = encoded((np.random.default_rng(f).integers(0, 255, (24, 16, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)
                     for f in range(81)), 16)  # fmt: skip
    text = page_text(moving(81), load_mannequin(), title="t", video=video)
    assert len(text) < 5e6
    assert len((PLAYER / "player.js").read_bytes()) < 1e6


def test_the_video_is_taken_over_or_encoded_again(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (6, 40, 60, 3), dtype=np.uint8)
    write_video(tmp_path / "plain.mp4", frames, 16)
    plain = page_video(tmp_path / "plain.mp4")
    assert (plain.content, plain.type) == ((tmp_path / "plain.mp4").read_bytes(), "video/mp4")
    assert (plain.frames, plain.fps) == (6, 16)
    odd = encoded([np.zeros((901, 1603, 3), np.uint8)] * 3, 24)  # too large, odd sides
    (tmp_path / "odd.mp4").write_bytes(odd.content)
    again, fps = read_video(tmp_path / "odd.mp4")
    assert (again.shape, fps, odd.frames) == ((3, 404, 720, 3), 24, 3)
    (tmp_path / "bad.mp4").write_bytes(plain.content[:200])
    with pytest.raises(ComoviError, match=r"bad\.mp4"):
        page_video(tmp_path / "bad.mp4")
    with pytest.raises(ComoviError, match="does not exist"):
        page_video(tmp_path / "none.mp4")


@pytest.mark.parametrize(
    ("name", "codec", "kept"),
    [("a.webm", "libvpx-vp9", "video/webm"), ("a.mkv", "libvpx-vp9", None), ("a.mov", "libx264", None),
     ("a.mp4", "libx264", "video/mp4"), ("a.mp4", "mpeg4", None), ("a.avi", "mpeg4", None)],
)  # fmt: skip
def test_only_what_every_browser_plays_is_taken_over(tmp_path, name, codec, kept):
    av = pytest.importorskip("av")
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV cannot write {codec}")
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=16)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for grey in range(0, 160, 20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), grey, np.uint8))))
        container.mux(stream.encode(None))
    video = page_video(tmp_path / name)
    same = video.content == (tmp_path / name).read_bytes()
    assert (same, video.type) == ((True, kept) if kept else (False, "video/mp4"))
    assert (video.frames, video.fps) == (8, 16)


def test_every_frame_of_the_motion_finds_its_moment_in_the_video():
    video = encoded(np.zeros((24, 32, 32, 3), np.uint8), 24)
    assert video.times_of(moving(24, fps=24)) == [round(n / 24, 5) for n in range(24)]
    assert video.times_of(moving(16)) == [round(n / 16, 5) for n in range(16)]  # one second either way
    some = replace(moving(3), source_index=torch.tensor([2, 8, 20]))
    assert some.source_index.tolist() == [round(t * 24) for t in video.times_of(some)]
    beginning = moving(9, fps=24.1)  # cut at its end, which leaves nothing that says so
    assert video.times_of(beginning) == [round(n / 24, 5) for n in range(9)]
    with pytest.raises(ComoviError, match=r"lasts 1\.00 s \(24 frames\) and the motion 2\.50 s"):
        video.times_of(moving(40))


def test_other_names_than_html_are_refused(tmp_path):
    with pytest.raises(ComoviError, match=r"must end in \.html"):
        write_page(tmp_path / "walk.txt", moving(), toy_body())
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def open_page():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 900, "height": 600})
        page.problems = []
        page.on("console", lambda m: m.type in ("error", "warning") and page.problems.append(m.text))
        page.on("pageerror", lambda e: page.problems.append(str(e)))
        page.on("request", lambda r: r.url.startswith(("file:", "blob:")) or page.problems.append(r.url))

        def visit(path: Path):
            page.goto(f"{path.as_uri()}#paused")
            page.wait_for_selector("body[data-ready]", timeout=60_000)
            return page

        yield visit
        browser.close()


def test_a_browser_shows_the_joints_where_they_are(tmp_path, open_page):
    """three.js, reading the GLB of the page from file://, puts all 24 joints of every frame within 0.1 mm of ours."""
    body, motion = load_mannequin(), moving(9)
    page = open_page(write_page(tmp_path / "a.html", motion, body))
    upright = on_floor(in_frame(motion, body, "yup"), body)
    expected = pose_joints(body, upright.rotations, upright.betas, upright.transl)
    script = "n => [...Array(n).keys()].map(f => (comovi.clock.seek(f), comovi.stage.joints()))"
    shown = torch.tensor(page.evaluate(script, len(motion)))
    assert (shown - expected).abs().max() < 1e-4
    tints = "new Set(comovi.stage.meshes.map(mesh => mesh.material.color.getHex())).size"
    assert page.evaluate(tints) == 1
    page.get_by_text("parts", exact=True).click()
    assert page.evaluate(tints) == 24
    triangles = "comovi.stage.meshes.reduce((sum, mesh) => sum + mesh.geometry.index.count / 3, 0)"
    assert page.evaluate(triangles) == len(body.faces)
    picture = page.locator("canvas").screenshot()
    assert struct.unpack(">II", picture[16:24])[0] > 500
    assert page.problems == []


def test_a_single_pose_is_a_page_too(tmp_path, open_page):
    body, motion = load_mannequin(), moving(1)
    film = encoded(np.full((1, 64, 48, 3), 90, np.uint8), 16)
    page = open_page(write_page(tmp_path / "a.html", motion, body, video=film))
    upright = on_floor(in_frame(motion, body, "yup"), body)
    expected = pose_joints(body, upright.rotations, upright.betas, upright.transl)[0]
    page.evaluate("comovi.clock.play(), comovi.clock.step(1), comovi.clock.pause()")
    assert (torch.tensor(page.evaluate("comovi.stage.joints()")) - expected).abs().max() < 1e-4
    for name in page.locator("button").all():
        name.click()  # every button does something that does not fail
    assert page.problems == []


def test_body_and_video_play_together(tmp_path, open_page):
    """Each picture of the video is a grey level that tells its number; while playing and after seeking the body
    stands at the same frame."""
    frames = np.stack([np.full((64, 48, 3), 8 + 10 * n, np.uint8) for n in range(24)])
    motion = moving(24, fps=24)
    page = open_page(write_page(tmp_path / "a.html", motion, toy_body(), video=encoded(frames, 24)))
    if not page.evaluate("comovi.film.works"):
        pytest.skip("this browser plays no H.264")
    look = """() => { const c = document.createElement('canvas'); c.width = c.height = 1;
        const x = c.getContext('2d'); x.drawImage(comovi.film.video, 0, 0, 1, 1);
        return [comovi.clock.frame, (x.getImageData(0, 0, 1, 1).data[0] - 8) / 10]; }"""
    for frame in (0, 7, 23, 12):
        wait = (
            f"new Promise(done => {{ comovi.film.video.onseeked = done; comovi.clock.seek({frame}); }}).then(() => 0)"
        )
        page.evaluate(wait)
        own, film = page.evaluate(look)
        assert (own, round(film)) == (frame, frame)
    page.evaluate("comovi.clock.seek(0), comovi.clock.setSpeed(0.1), comovi.clock.play()")
    began = (
        "new Promise(done => { const look = () => comovi.clock.frame > 1 ? done(1) : setTimeout(look, 50); look(); })"
    )
    page.evaluate(began)
    for _ in range(4):
        own, film = page.evaluate(look)
        assert own > 1 and abs(own - film) < 2.2  # a picture or two may come between the readings on a busy machine
        page.wait_for_timeout(100)
    page.evaluate("comovi.clock.pause()")
    assert page.evaluate("comovi.clock.playing") is False
    assert page.problems == []


def test_quick_presses_leave_the_video_alone_and_a_cut_motion_ends_before_it(tmp_path, open_page):
    frames = np.stack([np.full((64, 48, 3), 8 + 10 * n, np.uint8) for n in range(24)])
    cut = replace(moving(6, fps=24), source_index=torch.arange(4, 10))
    page = open_page(write_page(tmp_path / "a.html", cut, toy_body(), video=encoded(frames, 24)))
    if not page.evaluate("comovi.film.works"):
        pytest.skip("this browser plays no H.264")
    for _ in range(6):
        page.keyboard.press("Space")
    page.wait_for_timeout(300)
    assert page.evaluate("[comovi.film.works, comovi.film.video.isConnected]") == [True, True]
    page.evaluate("comovi.clock.pause(), comovi.clock.loop = false, comovi.clock.seek(0), comovi.clock.play()")
    over = "new Promise(done => { const look = () => comovi.clock.playing ? setTimeout(look, 50) : done(1); look(); })"
    page.evaluate(over)
    assert page.evaluate("comovi.clock.frame") == 5
    assert page.evaluate("comovi.film.video.currentTime") < 11 / 24  # of the 24 pictures that the video has
    page.evaluate("void (comovi.film.video.play = () => Promise.reject(new DOMException('', 'NotAllowedError')))")
    page.evaluate("comovi.clock.seek(0), comovi.clock.play(), new Promise(done => setTimeout(done, 100))")
    assert page.evaluate("[comovi.clock.playing, comovi.film.works]") == [False, True]
    assert page.problems == []
