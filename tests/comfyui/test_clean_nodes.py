"""The nodes that clean and edit motions, on real servers: what comes out is what our own core makes."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body
from comfyui_comovi.comovi_model.body.frames import pelvis_at_rest
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.clean.edit import hold, mirror, reverse
from comfyui_comovi.comovi_model.clean.join import join
from comfyui_comovi.comovi_model.clean.known_motion import LEVELS, noisy, synthetic_motion
from comfyui_comovi.comovi_model.clean.pipeline import CleanSettings, clean_motion
from comfyui_comovi.comovi_model.clean.time_base import resample

MANNEQUIN = "mannequin (embedded)"
EVERYTHING = {
    "outliers": True, "fill": True, "smoothing": "savgol", "strength": 0.5, "foot_lock": True, "ground": True,
    "max_gap": 0.5,
}  # fmt: skip
NOTHING = {**EVERYTHING, "outliers": False, "fill": False, "smoothing": "none", "foot_lock": False, "ground": False}


@pytest.fixture(scope="module")
def who() -> object:
    return load_mannequin_body()


@pytest.fixture(scope="module")
def walk(who) -> BodyMotion:
    """A noisy walk with a gap and a jump."""
    motion = noisy(synthetic_motion(who, "walk", 0, 16.0), LEVELS["mild"], 1)
    valid = torch.ones(len(motion), dtype=torch.bool)
    valid[20:23] = False
    transl = motion.transl.clone()
    transl[8, 0] += 0.7
    return replace(motion, valid=valid, transl=transl)


@pytest.fixture(scope="module")
def wave(who) -> BodyMotion:
    return synthetic_motion(who, "wave", 2, 24.0)


def load(g, server, motion: BodyMotion, name: str):
    path = server.base / "to_upload" / name
    path.parent.mkdir(exist_ok=True)
    motion.save(path)
    return g.add("CoMoVi_LoadMotion", file=server.upload(path), fps=0.0, up_axis="as in the file")


def body(g):
    return g.add("CoMoVi_LoadBody", body=MANNEQUIN)


def save(g, motion):
    return g.add(
        "CoMoVi_SaveMotion", motion=motion, body=body(g), filename_prefix="motion/clean", format="comovi",
        root="centred", joint_names="smpl",
    )  # fmt: skip


def motion_in(result, node) -> BodyMotion:
    arrays = np.load(io.BytesIO(result.content(node)), allow_pickle=False)
    return BodyMotion.from_arrays({name: arrays[name] for name in arrays.files})


def assert_same(found: BodyMotion, wanted: BodyMotion) -> None:
    assert (len(found), found.fps, found.frame) == (len(wanted), wanted.fps, wanted.frame)
    assert (found.rotations - wanted.rotations).abs().max() < 1e-5
    assert (found.transl - wanted.transl).abs().max() < 1e-5
    assert torch.equal(found.valid, wanted.valid)


def test_clean_motion_does_all_its_steps_and_reports_them(comfyui, Graph, who, walk):
    g = Graph()
    clean = g.add("CoMoVi_CleanMotion", motion=load(g, comfyui, walk, "walk.npz"), body=body(g), **EVERYTHING)
    saved, told = save(g, clean), g.add("PreviewAny", source=clean[1])
    result = comfyui.run(g)
    settings = CleanSettings(outliers=True, fill=True, smoothing="savgol", ground=True, foot_lock=True)
    wanted = clean_motion(walk, who, settings)
    assert_same(motion_in(result, saved), wanted.motion)
    assert motion_in(result, saved).valid.all()
    report = result.text(told)
    assert "outliers: 1 of" in report
    assert "gaps: 3 of 3 frames without a pose filled" in report
    for line in wanted.report:
        assert line.split(":")[0] in report


def test_clean_motion_with_everything_off_changes_nothing(comfyui, Graph, walk):
    g = Graph()
    clean = g.add("CoMoVi_CleanMotion", motion=load(g, comfyui, walk, "walk.npz"), body=body(g), **NOTHING)
    saved = save(g, clean)
    assert_same(motion_in(comfyui.run(g), saved), walk)


def test_clean_motion_gives_two_clips_of_a_person_one_shape(new_comfyui, Graph, walk, wave):
    tall = replace(wave, betas=torch.tensor([2.0] + 9 * [0.0]))
    g = Graph()
    loaded, other = load(g, new_comfyui, walk, "walk.npz"), load(g, new_comfyui, tall, "tall.npz")
    clean = g.add("CoMoVi_CleanMotion", motion=loaded, body=body(g), **NOTHING, same_person=other)
    saved = save(g, clean)
    assert motion_in(new_comfyui.run(g), saved).betas[0] == 2.0  # the longer clip decides


def test_the_editing_nodes_do_what_their_functions_do(comfyui, Graph, who, walk, wave):
    g = Graph()
    one, other = load(g, comfyui, walk, "walk.npz"), load(g, comfyui, wave, "wave.npz")
    saved = {
        "resample": save(g, g.add("CoMoVi_ResampleMotion", motion=one, fps=30.0, speed=0.5, interpolation="cubic")),
        "slerp": save(g, g.add("CoMoVi_ResampleMotion", motion=one, fps=29.97, speed=1.0, interpolation="slerp")),
        "same rate": save(g, g.add("CoMoVi_ResampleMotion", motion=one, fps=0.0, speed=2.0, interpolation="cubic")),
        "trim": save(g, g.add("CoMoVi_TrimMotion", motion=one, start=-10, length=4, backwards=True)),
        "join": save(
            g,
            g.add("CoMoVi_JoinMotions", first=one, second=other, body=body(g), blend=0.3, manner="overlap", align=True),
        ),
        "mirror": save(g, g.add("CoMoVi_MirrorMotion", motion=one, body=body(g))),
        "hold": save(g, g.add("CoMoVi_HoldPose", motion=one, before=3, after=2)),
    }
    result = comfyui.run(g)
    last = len(walk)
    wanted = {
        "resample": resample(walk, 30, "cubic", 0.5),
        "slerp": resample(walk, "30000/1001", "slerp"),
        "same rate": resample(walk, 16, "cubic", 2.0),
        "trim": reverse(walk.slice(last - 10, last - 6)),
        "join": join(walk, wave, who, 0.3),
        "mirror": mirror(walk, pelvis_at_rest(who, walk)),
        "hold": hold(walk, 3, 2),
    }
    for name, node in saved.items():
        assert_same(motion_in(result, node), wanted[name])


def test_a_bridge_between_two_poses_is_an_in_between(new_comfyui, Graph):
    g = Graph()
    view = {
        "width": 128,
        "height": 192,
        "field_of_view": 40.0,
        "distance": 4.0,
        "turn": 0.0,
        "across": 0.5,
        "down": 0.5,
    }
    who = body(g)
    poses = [g.add("CoMoVi_StartPose", body=who, pose=name, **view) for name in ("standing", "arms raised")]
    join_inputs = {"body": who, "blend": 1.0, "manner": "bridge", "align": True}
    between = g.add("CoMoVi_JoinMotions", first=poses[0], second=poses[1], **join_inputs)
    map_inputs = {"width": 0, "height": 0, "shading": "flat", "smoothing": 1}
    drawn = g.save_images(g.add("CoMoVi_DrawMotionMap", motion=between, body=who, **map_inputs))
    result = new_comfyui.run(g)
    assert len(result.files(drawn)) == 18  # the camera is kept, so it can be drawn


@pytest.mark.parametrize(
    ("node", "inputs", "sentence"),
    [
        ("CoMoVi_TrimMotion", {"start": 500, "length": 0, "backwards": False}, "reach outside a motion of 42 frames"),
        ("CoMoVi_TrimMotion", {"start": 40, "length": 9, "backwards": False}, "reach outside a motion of 42 frames"),
        ("CoMoVi_ResampleMotion", {"fps": 1000.0, "speed": 0.01, "interpolation": "linear"}, "linear"),
        ("CoMoVi_CleanMotion", {**EVERYTHING, "smoothing": "kalman"}, "kalman"),
        ("CoMoVi_CleanMotion", {**EVERYTHING, "strength": 3.0}, "1.0"),
        ("CoMoVi_HoldPose", {"before": -1, "after": 0}, "min"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(comfyui, Graph, walk, node, inputs, sentence):
    g = Graph()
    inputs = {**inputs, "motion": load(g, comfyui, walk, "walk.npz")}
    if node == "CoMoVi_CleanMotion":
        inputs["body"] = body(g)
    save(g, g.add(node, **inputs))
    result = comfyui.run(g, check=False)
    assert sentence in f"{result.error} {result.node_errors}"
    assert "Traceback" not in result.error
