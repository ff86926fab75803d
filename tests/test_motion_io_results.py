"""Results of pose estimators, in every container they use: the numbers that come out are those that went in."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import zipfile
import zlib

import motion_files
import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.smpl import pose_joints
from comfyui_comovi.comovi_model.body.toy import toy_body
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.motion_io import FORMATS, for_body, read_motion, write_motion
from comfyui_comovi.comovi_model.motion_io.mhr import motion_from_mhr

BODY = toy_body(segments=4)
MOTION = motion_files.smooth_motion(BODY, motion_files.FRAMES)
SAVERS = {
    "pkl": pickle.dumps, "pkl2": lambda tree: pickle.dumps(tree, 2), "pkl0": lambda tree: pickle.dumps(tree, 0),
    "joblib": motion_files.saved_joblib, "npy": lambda tree: motion_files.saved_npy(np.array(tree, object)),
    "pt": motion_files.saved_torch, "old pt": lambda tree: motion_files.saved_torch(tree, zipped=False),
    "zlib": lambda tree: zlib.compress(motion_files.saved_joblib(tree)),
    "gzip": lambda tree: gzip.compress(motion_files.saved_joblib(tree)),
    "bz2": lambda tree: bz2.compress(motion_files.saved_joblib(tree)),
    "xz": lambda tree: lzma.compress(motion_files.saved_joblib(tree)),
    "lzma": lambda tree: lzma.compress(motion_files.saved_joblib(tree), lzma.FORMAT_ALONE),
}  # fmt: skip


def read(tmp_path, content: bytes, **overrides):
    path = tmp_path / "anything"  # the name tells nothing
    path.write_bytes(content)
    return read_motion(path, **{"body": BODY, **overrides})


def assert_same(found: BodyMotion, wanted: BodyMotion, hands: bool = True, place: torch.Tensor | None = None) -> None:
    joints = 24 if hands else 22
    assert torch.allclose(found.rotations[:, :joints], wanted.rotations[:, :joints], atol=2e-6)
    assert torch.allclose(found.transl, wanted.transl if place is None else place, atol=1e-6)
    assert torch.allclose(found.betas, wanted.betas, atol=1e-6)


def test_every_file_of_the_corpus_is_known_by_its_content(tmp_path):
    corpus = motion_files.corpus(BODY, tmp_path)
    found = {name: read(tmp_path, content).format for name, (_, content) in corpus.items()}
    assert found == {name: kind for name, (kind, _) in corpus.items()}
    assert set(found.values()) == {name for name, row in FORMATS.items() if row.reads}


@pytest.mark.parametrize("saver", SAVERS)
def test_wham_in_every_container(tmp_path, saver):
    tree = motion_files.wham(MOTION)
    if saver == "old pt" or saver == "pt":
        tree = {key: {k: torch.from_numpy(v) for k, v in record.items()} for key, record in tree.items()}
    imported = read(tmp_path, SAVERS[saver](tree))
    assert imported.format == "wham"
    assert_same(imported.motion, MOTION)
    assert imported.motion.frame == "yup" and imported.motion.source_index.tolist() == [3, 4, 5, 6, 7]
    assert any("person 0 of 0, 3" in note for note in imported.notes)


def test_wham_person_and_space_can_be_chosen(tmp_path):
    content = motion_files.saved_joblib(motion_files.wham(MOTION))
    imported = read(tmp_path, content, person=3, space="camera", fps=24)
    assert len(imported.motion) == 2 and imported.motion.frame == "camera" and imported.motion.fps == 24
    assert torch.allclose(imported.motion.transl, MOTION.transl[:2] + 5)
    with pytest.raises(ComoviError, match="person 9 is not in the file; it holds 0, 3"):
        read(tmp_path, content, person="9")
    with pytest.raises(ComoviError, match="space must be one of world, camera"):
        read(tmp_path, content, space="moon")


def test_joblib_itself_writes_what_our_stand_in_writes(tmp_path):
    joblib = pytest.importorskip("joblib", reason="needs joblib to write real files")
    for compress in (0, 3, ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)):
        tree = motion_files.wham(MOTION)
        tree[0]["betas"] = np.asfortranarray(tree[0]["betas"])
        joblib.dump(tree, tmp_path / "wham_output.pkl", compress=compress)
        assert_same(read_motion(tmp_path / "wham_output.pkl").motion, MOTION)


@pytest.mark.parametrize("zipped", [True, False])
def test_gvhmr(tmp_path, zipped):
    content = motion_files.saved_torch(motion_files.gvhmr(MOTION), zipped)
    world = read(tmp_path, content)
    assert world.format == "gvhmr" and world.motion.frame == "yup" and world.motion.body_model == "SMPL-X neutral"
    assert_same(world.motion, MOTION, hands=False)
    assert world.motion.camera is None
    camera = read(tmp_path, content, space="camera").motion
    assert camera.frame == "camera" and torch.allclose(camera.transl, MOTION.transl + torch.tensor([0.0, 0, 5]))
    assert camera.camera.K[0, 0] == 500 and (camera.camera.width, camera.camera.height) == (640, 480)


def test_tram_is_a_pickled_dictionary_of_torch_tensors_in_an_npy_file(tmp_path):
    imported = read(tmp_path, motion_files.saved_npy(motion_files.tram(MOTION)))
    assert imported.format == "tram" and imported.motion.frame == "camera"
    assert_same(imported.motion, MOTION)


def test_half_precision_rotations_are_mended(tmp_path):
    tree = motion_files.tram(MOTION)
    tree["pred_rotmat"] = tree["pred_rotmat"].half()
    motion = read(tmp_path, motion_files.saved_npy(tree)).motion
    assert torch.allclose(motion.rotations, MOTION.rotations, atol=2e-3)
    assert torch.allclose(motion.rotations @ motion.rotations.transpose(-1, -2), torch.eye(3), atol=1e-5)
    tree["pred_rotmat"] = tree["pred_rotmat"] * 2
    with pytest.raises(ComoviError, match="must be rotation matrices"):
        read(tmp_path, motion_files.saved_npy(tree))


def test_camerahmr_one_file_and_a_folder(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for frame in range(len(MOTION)):
        record = motion_files.camerahmr_record(MOTION, frame)
        (folder / f"{frame:06d}.npy").write_bytes(motion_files.saved_npy(record))
    one = read_motion(folder / "000002.npy")
    assert len(one.motion) == 1 and torch.allclose(one.motion.rotations[0], MOTION.rotations[2], atol=2e-6)
    clip = read_motion(folder)
    assert clip.format == "camerahmr" and clip.motion.frame == "camera"
    assert_same(clip.motion, MOTION)
    assert (clip.motion.camera.width, clip.motion.camera.height) == (352, 640)
    assert float(clip.motion.camera.K[0, 0]) == 700 and float(clip.motion.camera.K[1, 2]) == 320
    (folder / "000003.npy").write_bytes(motion_files.saved_npy(np.zeros((2, 2))))
    with pytest.raises(ComoviError, match=r"000003\.npy is no record of CameraHMR"):
        read_motion(folder)


def test_4dhumans_follows_the_person_with_most_frames(tmp_path):
    imported = read(tmp_path, motion_files.saved_joblib(motion_files.phalp(MOTION)))
    assert imported.format == "4dhumans"
    assert_same(imported.motion, MOTION, place=MOTION.transl + 9)
    assert float(imported.motion.camera.K[0, 0]) == 5000
    assert imported.motion.valid.tolist() == [True, True, True, False, True]  # predicted, not seen
    other = read(tmp_path, motion_files.saved_joblib(motion_files.phalp(MOTION)), person=7)
    assert len(other.motion) == 2


def test_the_training_data_of_comovi_as_npz_and_json(tmp_path):
    records = motion_files.comovi_smpl(MOTION)
    files = [
        motion_files.saved_npz(smpl=np.array(records, object)),
        json.dumps({"smpl": motion_files.as_lists(records)}).encode(),
        json.dumps(motion_files.as_lists(records)).encode(),
        json.dumps({"smpl": records_as_one(MOTION), "fps": 16}).encode(),
    ]
    for content in files:
        imported = read(tmp_path, content)
        assert imported.format == "comovi_smpl" and imported.motion.fps == 16
        assert_same(imported.motion, MOTION)


def records_as_one(motion: BodyMotion) -> dict:
    return motion_files.as_lists({
        "global_orient": motion.rotations[:, :1].numpy(), "body_pose": motion.rotations[:, 1:].numpy(),
        "betas": motion.betas.numpy(), "transl": motion.transl.numpy(),
    })  # fmt: skip


def test_smpl_arrays_in_the_shapes_that_programs_write(tmp_path):
    angles, matrices = motion_files.axis_angles(MOTION), MOTION.rotations.numpy()
    roots = [angles[:, :3], angles[:, None, :3], matrices[:, 0], matrices[:, :1]]
    bodies = [angles[:, 3:], angles[:, 3:].reshape(-1, 23, 3), matrices[:, 1:], matrices[:, None, 1:]]
    for root in roots:
        for body in bodies:
            content = motion_files.saved_npz(
                global_orient=root,
                body_pose=body,
                transl=MOTION.transl.numpy()[:, None],
                betas=MOTION.betas[None].numpy(),
            )
            imported = read(tmp_path, content)
            assert imported.format == "smpl"
            assert_same(imported.motion, MOTION)
    with pytest.raises(ComoviError, match="body_pose must be axis-angle or matrices of 23 or 21 joints"):
        read(tmp_path, motion_files.saved_npz(global_orient=roots[0], body_pose=angles[:, 3:60]))
    with pytest.raises(ComoviError, match="one rotation for each of 5 frames"):
        read(tmp_path, motion_files.saved_npz(global_orient=roots[0][:3], body_pose=bodies[0]))


@pytest.mark.parametrize(
    "key", ["mocap_framerate", "mocap_frame_rate", "fps", "frame_rate", "framerate", "mocap_fps", "frame_time"]
)
@pytest.mark.parametrize("gender", [np.array("female"), np.array(b"female"), np.array(["female"])])
def test_every_spelling_of_the_frame_rate(tmp_path, key, gender):
    rate = {key: np.array(1 / 120 if key == "frame_time" else 120.0)}
    angles = motion_files.axis_angles(MOTION)
    imported = read(tmp_path, motion_files.saved_npz(poses=angles, trans=MOTION.transl.numpy(), gender=gender, **rate))
    assert imported.format == "amass" and imported.motion.fps == pytest.approx(120)
    assert imported.motion.body_model == "SMPL female" and imported.motion.frame == "zup"
    assert read(tmp_path, motion_files.saved_npz(poses=angles, trans=MOTION.transl.numpy()), fps=50).motion.fps == 50


def test_the_frame_of_axes_can_be_given(tmp_path):
    content = motion_files.saved_npz(
        **{"poses": motion_files.axis_angles(MOTION), "trans": MOTION.transl.numpy(), "fps": 30}
    )
    assert read(tmp_path, content, up="y").motion.frame == "yup"
    assert any("(given)" in note for note in read(tmp_path, content, up="y").notes)


def test_mhr_pose_data_gives_joints_bone_by_bone():
    motion = motion_files.smooth_motion(BODY, 12, frame="camera")
    data = motion_files.mhr(motion, BODY)
    data["frames"][4] = []
    found, notes = motion_from_mhr(data, BODY, fps=25)
    assert found.frame == "camera" and found.fps == 25 and found.valid.tolist() == [f != 4 for f in range(12)]
    wanted = pose_joints(BODY, motion.rotations, motion.betas, motion.transl)
    given = pose_joints(BODY, found.rotations, found.betas, found.transl)
    assert (given - wanted)[found.valid].abs().max() < 1e-4
    assert float(found.camera.K[0, 0]) == 500 and found.camera.height == 640
    assert any("missing in 1 frames" in note for note in notes)
    with pytest.raises(ComoviError, match="person 5 is in no frame"):
        motion_from_mhr(data, BODY, person=5)
    with pytest.raises(ComoviError, match=r"pred_joint_coords must be \(127, 3\)"):
        motion_from_mhr({"frames": [[{"pred_joint_coords": np.zeros((9, 3))}]]}, BODY)


def test_a_motion_of_another_body_is_put_on_ours():
    smplx = BodyMotion(MOTION.rotations, MOTION.betas, MOTION.transl, frame="yup", body_model="SMPL-X neutral")
    motion, notes = for_body(smplx, BODY)
    assert motion.body_model == BODY.name and not motion.betas.any() and len(notes) == 2
    pelvis = pose_joints(BODY, motion.rotations, motion.betas, motion.transl)[:, 0]
    assert torch.allclose(pelvis, MOTION.transl + torch.tensor([0.0031, -0.3514, 0.0120]), atol=1e-6)
    assert for_body(MOTION, BODY) == (MOTION, [])


def test_a_format_that_is_given_must_be_the_file_s(tmp_path):
    content = motion_files.saved_joblib(motion_files.wham(MOTION))
    assert read(tmp_path, content, format="wham").format == "wham"
    with pytest.raises(ComoviError, match="its content is wham, not bvh"):
        read(tmp_path, content, format="bvh")
    with pytest.raises(ComoviError, match="format must be one of"):
        read(tmp_path, content, format="fbx")


def test_nothing_is_written_where_a_motion_cannot_be(tmp_path):
    with pytest.raises(ComoviError, match="has no option"):
        write_motion(tmp_path / "a.npz", MOTION, BODY, "comovi", names="vrm")
    with pytest.raises(ComoviError, match="cannot write a motion as 'gvhmr'"):
        write_motion(tmp_path / "a.pt", MOTION, BODY, "gvhmr")
    with pytest.raises(ComoviError, match="the suffix says no motion format"):
        write_motion(tmp_path / "a.fbx", MOTION, BODY)
    with pytest.raises(ComoviError, match="root must be one of centred"):
        write_motion(tmp_path / "a.glb", MOTION, BODY, root="moon")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Kaydara FBX Binary  \0", "export it as BVH or GLB"),
        (b"PXR-USDC\0\0", "convert it to text with usdcat"),
        (b"hello", "expected a motion"),
        (b"[1, 2, 3]", "no motion that we know"),
        (b'{"a": 1}', "found a"),
        (b"{", "it is not valid"),
        (b"\x80\x04N.", "no motion that we know"),
        (motion_files.saved_npy(np.zeros((5, 7))), "is no motion"),
        (motion_files.saved_npz(verts=np.zeros(3)), "no motion that we know"),
    ],
)
def test_files_that_are_no_motion_get_a_sentence(tmp_path, content, words):
    with pytest.raises(ComoviError, match=words) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_saved_by_torch_on_a_gpu_or_as_bfloat16(tmp_path):
    tree = motion_files.tram(MOTION)
    halves = {name: part.bfloat16() if part.is_floating_point() else part for name, part in tree.items()}
    motion = read(tmp_path, motion_files.saved_torch(halves)).motion
    assert torch.allclose(motion.rotations, MOTION.rotations, atol=2e-2)
    with zipfile.ZipFile(io.BytesIO(motion_files.saved_torch(tree))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in members if name.endswith("data.pkl"))
    assert b"X\x03\x00\x00\x00cpu" in members[pickled]
    members[pickled] = members[pickled].replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert_same(read(tmp_path, motion_files.zip_with(members)).motion, MOTION)


@pytest.mark.parametrize(
    ("motion_of", "body_name", "same"),
    [
        ("SMPL neutral", "smpl_neutral", True),
        ("SMPL+H male", "basicmodel_m_lbs_10_207_0_v1.1.0", True),
        ("SMPL female", "SMPL_FEMALE", True),
        ("SMPL female", "smpl_male", False),
        ("SMPL-X neutral", "smpl_neutral", False),
        ("SMPL-X neutral", "SMPLX_NEUTRAL", True),
        ("mannequin-v1", "smpl_neutral", False),
        ("SMPL neutral", "mannequin-v1", False),
    ],
)
def test_shapes_are_kept_between_files_of_the_same_body(motion_of, body_name, same):
    from dataclasses import replace

    body = replace(BODY, name=body_name)
    motion, notes = for_body(replace(MOTION, body_model=motion_of), body)
    assert motion.body_model == body_name and len(notes) >= 1
    assert torch.equal(motion.betas, MOTION.betas) == same
    assert not same or torch.equal(motion.transl, MOTION.transl)


def test_numbered_files_and_frames_come_in_the_order_of_their_numbers(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for frame in range(len(MOTION)):
        record = motion_files.camerahmr_record(MOTION, frame)
        (folder / f"frame_{frame + 8}.npy").write_bytes(motion_files.saved_npy(record))  # 8, 9, 10, ...
    (folder / "._frame_8.npy").write_bytes(b"what a Mac puts beside a file")
    assert_same(read_motion(folder).motion, MOTION)
    tracks = {frame + 8: record for frame, record in enumerate(motion_files.phalp(MOTION).values())}
    assert_same(read(tmp_path, motion_files.saved_joblib(tracks)).motion, MOTION, place=MOTION.transl + 9)


def test_a_wish_that_a_format_cannot_fulfil_is_not_passed_over_in_silence(tmp_path):
    notes = read(tmp_path, motion_files.saved_torch(motion_files.gvhmr(MOTION)), up="y", units="cm", person=2).notes
    assert "units, person: not heeded, as gvhmr files leave no choice there" in notes
    assert not any("heeded" in note for note in read(tmp_path, motion_files.saved_joblib(
        motion_files.wham(MOTION)), up="y", space="camera", person=3).notes)  # fmt: skip


def test_an_array_called_frame_is_no_statement_about_axes(tmp_path):
    arrays = {"global_orient": np.zeros((3, 3)), "body_pose": np.zeros((3, 69)), "frame": np.arange(3)}
    np.savez(tmp_path / "m.npz", **arrays)
    assert len(read_motion(tmp_path / "m.npz", body=BODY).motion) == 3


@pytest.mark.parametrize("shape", [(3_000_000, 24, 3), (3_000_000, 263)])
def test_a_small_file_that_states_a_vast_array_is_refused_before_it_grows(tmp_path, shape):
    """A tensor of stride 0 states millions of frames in two kilobytes."""
    resource = pytest.importorskip("resource", reason="this system does not tell a process's memory")
    vast = torch.zeros(1).as_strided(shape, (0,) * len(shape))
    torch.save(vast, tmp_path / "m.pt")
    assert (tmp_path / "m.pt").stat().st_size < 5000
    began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ComoviError, match="a motion has 1 to 200000 frames, got 3000000"):
        read_motion(tmp_path / "m.pt", body=BODY)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began < 200_000  # kB
