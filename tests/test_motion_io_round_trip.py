"""What we write, we read back, and so do programs of others: joints agree within 1e-4 m at every frame."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import motion_files
import numpy as np
import pytest
import torch
from comfyui_comovi import cli_convert
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body
from comfyui_comovi.comovi_model.body.files.amass import motion_from_amass
from comfyui_comovi.comovi_model.body.frames import in_frame
from comfyui_comovi.comovi_model.body.motion import BodyMotion, load_arrays
from comfyui_comovi.comovi_model.body.parts import JOINT_NAMES
from comfyui_comovi.comovi_model.body.rotations import axis_angle_to_matrix
from comfyui_comovi.comovi_model.body.smpl import BodyModel, pose_body, pose_joints, rest_joints
from comfyui_comovi.comovi_model.body.toy import random_rotations, toy_body
from comfyui_comovi.comovi_model.body.upright import with_camera_up
from comfyui_comovi.comovi_model.motion_io import FORMATS, NAMINGS, ROOTS, options_of, read_motion, write_motion
from comfyui_comovi.comovi_model.motion_io.meshes import PC2_HEADER
from comfyui_comovi.comovi_model.motion_io.place import placed
from comfyui_comovi.comovi_model.motion_io.writing import WRITERS

BODY = load_mannequin_body()
TOY = toy_body(segments=4)
COUNT = 50
TOLERANCE = 1e-4  # metres
FRAMES_OF = ("yup", "zup", "camera")
NO_HANDS = ("amass", "smplx", "humanml3d")  # formats without joints 22 and 23
MESHES = ("obj", "pc2")


def random_motion(seed: int, body: BodyModel, frames: int = 4, hands: bool = True) -> BodyMotion:
    """Any pose, any shape, any place, any frame: nothing is smooth about it."""
    generator = torch.Generator().manual_seed(seed)
    rotations = random_rotations(frames, 24, seed=seed, angle=0.8)
    if not hands:
        rotations[:, 22:] = torch.eye(3)
    return BodyMotion(
        rotations=rotations,
        betas=torch.randn(10, generator=generator),
        transl=2 * torch.randn(frames, 3, generator=generator),
        frame=FRAMES_OF[seed % 3],
        fps=(16.0, 20.0, 24000 / 1001, 30.0, 120.0)[seed % 5],
        body_model=body.name,
    )


def joints_of(motion: BodyMotion, body: BodyModel) -> torch.Tensor:
    """(F, 24, 3), y up."""
    upright = in_frame(motion, body, "yup")
    return pose_joints(body, upright.rotations, upright.betas, upright.transl)


def test_the_table_of_formats_is_what_is_read_and_written():
    assert set(WRITERS) == {name for name, row in FORMATS.items() if row.writes} == set(cli_convert.WRITES)
    assert tuple(name for name, row in FORMATS.items() if row.reads) == cli_convert.READS
    assert all(row.name == name and row.suffix.startswith(".") for name, row in FORMATS.items())


@pytest.mark.parametrize("format", [name for name in WRITERS if name not in ("humanml3d", *MESHES)])
def test_fifty_random_motions_come_back(tmp_path, format):
    worst = 0.0
    for seed in range(COUNT):
        motion = random_motion(seed, BODY, hands=format not in NO_HANDS)
        options = options_of(format)
        chosen = {"root": ROOTS[seed % 3]} if "root" in options else {}
        if "names" in options:
            chosen["names"] = NAMINGS[seed % 4]
        imported = read_motion(write_motion(tmp_path / "a", motion, BODY, format, **chosen), body=BODY)
        assert imported.format == format and imported.notes
        if format != "joints":
            assert imported.motion.fps == pytest.approx(motion.fps, rel=1e-6)
        wanted = placed(motion, BODY, "yup", chosen.get("root", "absolute"))
        worst = max(worst, float((joints_of(imported.motion, BODY) - joints_of(wanted, BODY)).abs().max()))
    assert worst < TOLERANCE, worst


@pytest.mark.parametrize("format", MESHES)
def test_fifty_random_motions_come_back_from_their_meshes(tmp_path, format):
    worst = 0.0
    for seed in range(COUNT):
        motion = random_motion(seed, TOY, frames=2 if format == "pc2" else 1)
        imported = read_motion(write_motion(tmp_path / "a", motion, TOY, format), body=TOY)
        assert imported.motion.fps == pytest.approx(motion.fps)
        wanted = joints_of(placed(motion, TOY, "yup"), TOY)
        worst = max(worst, float((joints_of(imported.motion, TOY) - wanted).abs().max()))
    assert worst < TOLERANCE, worst


def test_meshes_of_a_body_with_pose_correctives_and_of_the_mannequin_come_back(tmp_path):
    for body in (toy_body(posedirs=True, segments=4), BODY):
        motion = random_motion(0, body, frames=3)
        imported = read_motion(write_motion(tmp_path / "a", motion, body, "pc2"), body=body)
        wanted = placed(motion, body, "yup")
        assert (joints_of(imported.motion, body) - joints_of(wanted, body)).abs().max() < TOLERANCE
        assert (imported.motion.betas - wanted.betas).abs().max() < 1e-2


def test_fifty_motions_come_back_from_the_features_of_humanml3d(tmp_path):
    """The features hold 22 joints up to where the clip starts and which way it faces; the last frame has none."""
    worst = 0.0
    for seed in range(COUNT):
        motion = motion_files.smooth_motion(BODY, 10, seed=seed, fps=20.0)
        imported = read_motion(write_motion(tmp_path / "a", motion, BODY, "humanml3d"), body=BODY)
        found, wanted = joints_of(imported.motion, BODY)[:, :22], joints_of(motion, BODY)[:-1, :22]
        worst = max(worst, float((aligned(found, wanted) - wanted).abs().max()))
    assert worst < TOLERANCE, worst


def aligned(points: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Turned about y and moved, as a whole."""
    a, b = points.reshape(-1, 3).double(), wanted.reshape(-1, 3).double()
    middle_a, middle_b = a.mean(0), b.mean(0)
    left, _, right = torch.linalg.svd((b - middle_b)[:, [0, 2]].T @ (a - middle_a)[:, [0, 2]])
    turn = torch.eye(3, dtype=torch.float64)
    turn[np.ix_([0, 2], [0, 2])] = (
        left @ torch.diag(torch.tensor([1.0, torch.linalg.det(left @ right)]).double()) @ right
    )
    return ((a - middle_a) @ turn.T + middle_b).float().reshape(points.shape)


@pytest.mark.parametrize("root", ROOTS)
def test_where_the_body_goes(tmp_path, root):
    motion = random_motion(3, BODY)
    imported = read_motion(write_motion(tmp_path / "a.glb", motion, BODY, root=root), body=BODY).motion
    pelvis = joints_of(imported, BODY)[:, 0]
    path = joints_of(motion, BODY)[:, 0]
    if root == "absolute":
        assert torch.allclose(pelvis, path, atol=1e-5)
    elif root == "centred":
        assert torch.allclose(pelvis - pelvis[0], path - path[0], atol=1e-5)
        assert torch.allclose(pelvis[0, [0, 2]], torch.zeros(2), atol=1e-6)
        vertices = pose_body(BODY, imported.rotations, imported.betas, imported.transl).vertices
        assert vertices[..., 1].min().abs() < 1e-5
    else:
        assert torch.allclose(pelvis, pelvis[:1].expand_as(pelvis), atol=1e-6) and pelvis[0, 1] > 0.3


def test_our_own_file_and_json_keep_what_belongs_to_frames(tmp_path):
    motion = replace(random_motion(0, BODY), valid=torch.tensor([True, False, True, True]))
    ours = read_motion(write_motion(tmp_path / "a", motion, BODY, "comovi")).motion
    assert torch.equal(ours.rotations, motion.rotations) and ours.valid.tolist() == motion.valid.tolist()
    as_json = read_motion(write_motion(tmp_path / "a.json", motion, BODY)).motion
    assert as_json.valid.tolist() == motion.valid.tolist() and as_json.body_model == BODY.name


# Independent readers. Each is a program of others; where it is missing the test says so and is skipped.


def test_bvhio_sees_the_same_joints(tmp_path):
    bvhio = pytest.importorskip("bvhio", reason="needs pip install bvhio, an independent reader of BVH")
    worst = 0.0
    for seed in range(COUNT):
        motion = random_motion(seed, BODY)
        path = write_motion(tmp_path / "a.bvh", motion, BODY, units="m")
        root = bvhio.readAsHierarchy(str(path))
        wanted = joints_of(placed(motion, BODY, "yup"), BODY).numpy()
        for frame in range(len(motion)):
            root.loadPose(frame)
            seen = {node.Name: np.array(node.PositionWorld.to_tuple()) for node, _, _ in root.layout()}
            found = np.stack([seen[name] for name in JOINT_NAMES])
            worst = max(worst, float(np.abs(found - wanted[frame]).max()))
    assert worst < TOLERANCE, worst


def test_pygltflib_sees_the_same_joints(tmp_path):
    pygltflib = pytest.importorskip("pygltflib", reason="needs pip install pygltflib, an independent reader of glTF")
    for seed in range(COUNT):
        motion = random_motion(seed, TOY)
        path = write_motion(tmp_path / "a.glb", motion, TOY, names=NAMINGS[seed % 4])
        found = gltf_joints(pygltflib.GLTF2().load(str(path)))
        wanted = joints_of(placed(motion, TOY, "yup"), TOY).numpy()
        assert np.abs(found - wanted).max() < TOLERANCE


def gltf_joints(gltf) -> np.ndarray:
    """(F, 24, 3) from the accessors as pygltflib gives them; the walk through the nodes is the test's own."""
    blob = gltf.binary_blob()

    def values(number: int) -> np.ndarray:
        accessor = gltf.accessors[number]
        view = gltf.bufferViews[accessor.bufferView]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor.type]
        start = (view.byteOffset or 0) + (accessor.byteOffset or 0)
        return np.frombuffer(blob, "<f4", accessor.count * width, start).reshape(-1, width).astype(float)

    animation = gltf.animations[0]
    tracks = {
        (channel.target.node, channel.target.path): values(animation.samplers[channel.sampler].output)
        for channel in animation.channels
    }
    frames = len(next(iter(tracks.values())))
    joints = gltf.skins[0].joints
    parents = {child: number for number, node in enumerate(gltf.nodes) for child in node.children or []}
    turned, placed_at = {}, {}
    for number in joints:  # parents come first in our files
        x, y, z, w = tracks[number, "rotation"].T
        angle = 2 * np.arctan2(np.linalg.norm([x, y, z], axis=0), w)
        axis = np.stack([x, y, z], 1) / np.maximum(np.linalg.norm([x, y, z], axis=0), 1e-12)[:, None]
        turn = axis_angle_to_matrix(torch.from_numpy(axis * angle[:, None])).numpy()
        rest = np.tile(np.array(gltf.nodes[number].translation, float), (frames, 1))
        move = tracks.get((number, "translation"), rest)
        parent = parents.get(number)
        if parent is None:
            turned[number], placed_at[number] = turn, move
        else:
            turned[number] = turned[parent] @ turn
            placed_at[number] = placed_at[parent] + (turned[parent] @ move[..., None])[..., 0]
    return np.stack([placed_at[number] for number in joints], 1)


THREE_SCRIPT = """
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
const [three, fps, ...files] = process.argv.slice(1);
globalThis.self = globalThis;
const THREE = await import(pathToFileURL(three + '/build/three.module.js').href);
const { GLTFLoader } = await import(pathToFileURL(three + '/examples/jsm/loaders/GLTFLoader.js').href);
const all = [], place = new THREE.Vector3();
for (const file of files) {
  const gltf = await new GLTFLoader().parseAsync(new Uint8Array(readFileSync(file)).buffer, '');
  const mixer = new THREE.AnimationMixer(gltf.scene), clip = gltf.animations[0], frames = [];
  const action = mixer.clipAction(clip).setLoop(THREE.LoopOnce);
  action.clampWhenFinished = true;
  action.play();
  let mesh;
  gltf.scene.traverse(node => { if (node.isSkinnedMesh) mesh = node; });
  for (let frame = 0; frame <= Math.round(clip.duration * fps); frame++) {
    mixer.setTime(frame / fps);
    action.paused = false;
    gltf.scene.updateMatrixWorld(true);
    frames.push(mesh.skeleton.bones.map(bone => bone.getWorldPosition(place).toArray()));
  }
  all.push(frames);
}
console.log(JSON.stringify(all));
"""


def test_three_js_plays_the_same_joints(tmp_path):
    """The library that ComfyUI's 3D preview and most web pages play GLB with."""
    root = Path(__file__).resolve().parent.parent
    places = [os.environ.get("THREE", ""), str(root / "tools" / "player" / "node_modules" / "three")]
    three = next((place for place in places if place and (Path(place) / "build" / "three.module.js").exists()), None)
    if three is None or shutil.which("node") is None:
        pytest.skip("needs node and `npm i three` (set THREE to its folder, or npm install in tools/player)")
    files, wanted = [], []
    for seed in range(COUNT):
        motion = replace(random_motion(seed, TOY), fps=16.0)
        files.append(str(write_motion(tmp_path / f"{seed}.glb", motion, TOY)))
        wanted.append(joints_of(placed(motion, TOY, "yup"), TOY).numpy())
    command = ["node", "--input-type=module", "-e", THREE_SCRIPT, three, "16", *files]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert np.abs(np.array(found) - np.stack(wanted)).max() < TOLERANCE


def test_trimesh_reads_the_meshes(tmp_path):
    trimesh = pytest.importorskip("trimesh", reason="needs pip install trimesh, an independent reader of meshes")
    import io
    import zipfile

    motion = random_motion(1, BODY)
    wanted = placed(motion, BODY, "yup")
    vertices = pose_body(BODY, wanted.rotations, wanted.betas, wanted.transl).vertices.numpy()
    with zipfile.ZipFile(write_motion(tmp_path / "a.zip", motion, BODY)) as archive:
        for frame in range(len(motion)):
            text = io.BytesIO(archive.read(f"frame_{frame:06d}.obj"))
            mesh = trimesh.load(text, file_type="obj", process=False, maintain_order=True)
            assert np.abs(mesh.vertices - vertices[frame]).max() < TOLERANCE and len(mesh.faces) == len(BODY.faces)
    scene = trimesh.load(write_motion(tmp_path / "a.glb", motion, BODY))
    assert sum(len(part.faces) for part in scene.geometry.values()) == len(BODY.faces)  # one mesh per body part


def test_pc2_is_the_plain_format_that_blender_reads(tmp_path):
    motion = random_motion(2, BODY)
    content = write_motion(tmp_path / "a.pc2", motion, BODY).read_bytes()
    magic, version, points, start, rate, samples = PC2_HEADER.unpack_from(content)
    assert (magic, version, points, start, rate, samples) == (b"POINTCACHE2\0", 1, len(BODY.v_template), 0.0, 1.0, 4)
    values = np.frombuffer(content[32:], "<f4").reshape(samples, points, 3)
    wanted = placed(motion, BODY, "yup")
    vertices = pose_body(BODY, wanted.rotations, wanted.betas, wanted.transl).vertices.numpy()
    assert np.abs(values - vertices).max() < 1e-6
    rest = (tmp_path / "a.obj").read_text()
    assert rest.count("\nv ") == len(BODY.v_template) and rest.count("\nf ") == len(BODY.faces)


def test_usd_sees_the_same_joints_and_skin(tmp_path):
    pytest.importorskip("pxr", reason="needs pip install usd-core, Pixar's own reader of USD")
    from pxr import Usd, UsdGeom, UsdSkel, Vt

    for seed in range(COUNT):
        motion = random_motion(seed, TOY)
        path = write_motion(tmp_path / f"{seed}.usda", motion, TOY, names=NAMINGS[seed % 4])
        stage = Usd.Stage.Open(str(path))
        assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1
        assert stage.GetTimeCodesPerSecond() == pytest.approx(motion.fps)
        cache = UsdSkel.Cache()
        cache.Populate(UsdSkel.Root(stage.GetDefaultPrim()), Usd.PrimDefaultPredicate)
        query = cache.GetSkelQuery(UsdSkel.Skeleton(stage.GetPrimAtPath("/Person/Skeleton")))
        assert query.GetTopology().Validate()[0]
        wanted = placed(motion, TOY, "yup")
        body = pose_body(TOY, wanted.rotations, wanted.betas, wanted.transl)
        for frame in range(len(motion)):
            found = np.array([np.array(matrix)[3, :3] for matrix in query.ComputeJointSkelTransforms(frame)])
            assert np.abs(found - body.joints[frame].numpy()).max() < TOLERANCE
        if seed < 3:
            skin = cache.GetSkinningQuery(stage.GetPrimAtPath("/Person/Body"))
            points = Vt.Vec3fArray(UsdGeom.Mesh(stage.GetPrimAtPath("/Person/Body")).GetPointsAttr().Get())
            assert skin.ComputeSkinnedPoints(query.ComputeSkinningTransforms(1), points, 1)
            away = np.abs(np.array(points) - body.vertices[1].numpy()).max()
            assert away < 0.02  # the toy has more than four weights per vertex, USD got the strongest four


@pytest.mark.parametrize("format", ["amass", "smplx"])
def test_smplx_sees_the_same_joints(tmp_path, format):
    smplx = pytest.importorskip("smplx", reason="needs pip install smplx, the reference implementation of SMPL")
    from smplx.utils import Struct

    body = Struct(
        v_template=BODY.v_template.numpy(), f=BODY.faces.numpy(), J_regressor=BODY.J_regressor.numpy(),
        shapedirs=BODY.shapedirs.numpy(), posedirs=np.zeros((len(BODY.v_template), 3, 207)),
        weights=BODY.weights.numpy(), kintree_table=np.array([BODY.parents, range(24)]),
    )  # fmt: skip
    model = smplx.SMPL(model_path="", data_struct=body, batch_size=1)
    for seed in range(COUNT):
        motion = random_motion(seed, BODY, hands=False)
        with np.load(write_motion(tmp_path / "a.npz", motion, BODY, format)) as file:
            poses, trans, betas = (torch.from_numpy(file[name]).float() for name in ("poses", "trans", "betas"))
            assert file["mocap_framerate"] == file["mocap_frame_rate"] == file["fps"] == motion.fps
            if format == "smplx":
                pieces = ("root_orient", "pose_body", "pose_jaw", "pose_eye", "pose_hand")
                assert np.array_equal(file["poses"], np.concatenate([file[name] for name in pieces], 1))
        whole = torch.cat([poses[:, :66], torch.zeros(len(poses), 6)], 1)
        seen = model(
            global_orient=whole[:, :3], body_pose=whole[:, 3:], transl=trans, betas=betas[:10].expand(len(poses), 10)
        )
        found = seen.joints[:, :24].detach()
        wanted = placed(motion, BODY, "zup")
        joints = pose_joints(BODY, wanted.rotations, wanted.betas, wanted.transl)
        assert (found - joints).abs().max() < TOLERANCE


def test_the_khronos_validator_has_no_complaint_about_any_naming(tmp_path):
    from test_glb import SCRIPT, validator_module

    module = validator_module()
    if module is None:
        pytest.skip("needs node and `npm i gltf-validator` (set GLTF_VALIDATOR to its folder)")
    for number, naming in enumerate(NAMINGS):
        path = write_motion(tmp_path / "a.glb", random_motion(number, BODY), BODY, names=naming, root=ROOTS[number % 3])
        command = ["node", "-e", SCRIPT, module, str(path)]
        issues = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert (issues["numErrors"], issues["numWarnings"], issues["numInfos"]) == (0, 0, 0), issues


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise OSError(28, "No space left on device")

    motion = random_motion(0, TOY)
    monkeypatch.setattr(Path, "write_text", broken)
    from comfyui_comovi.comovi_model.errors import ComoviError

    for name in ("a.bvh", "a.usda", "a.json"):
        with pytest.raises(ComoviError, match="the disk is full"):
            write_motion(tmp_path / name, motion, TOY)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["bvh", "glb", "amass", "comovi"])
def test_what_a_tilted_camera_saw_is_written_upright(tmp_path, format):
    """By what the motion says about up; the camera itself is kept in our own keys alone."""
    level = motion_files.smooth_motion(BODY, 4, angle=0.0, frame="camera")
    level = replace(level, rotations=torch.diag(torch.tensor([1.0, -1, -1])).expand(4, 24, 3, 3).clone())
    level = replace(level, rotations=torch.cat([level.rotations[:, :1], torch.eye(3).expand(4, 23, 3, 3)], 1))
    tilt = axis_angle_to_matrix(torch.tensor([0.3, 0.0, 0.1]))
    seen = with_camera_up(level.moved(tilt, torch.zeros(3), rest_joints(BODY, level.betas)[0]), -tilt[:, 1])
    path = write_motion(tmp_path / "a", seen, BODY, format)
    found = motion_from_amass(load_arrays(path), "file") if format == "comovi" else read_motion(path, body=BODY).motion
    upright = in_frame(found, BODY, "yup").rotations[:, 0]
    assert (upright[..., 1] - torch.tensor([0.0, 1.0, 0.0])).abs().max() < 1e-3
