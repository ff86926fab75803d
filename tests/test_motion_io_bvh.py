"""BVH: read back exactly, in every order of rotations; foreign skeletons lie bone along bone on ours."""

from __future__ import annotations

import time

import motion_files
import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.parts import JOINT_NAMES, PARENTS
from comfyui_comovi.comovi_model.body.rotations import axis_angle_to_matrix
from comfyui_comovi.comovi_model.body.smpl import pose_body, pose_joints, rest_joints
from comfyui_comovi.comovi_model.body.toy import random_rotations, toy_body
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.motion_io import NAMINGS, read_motion, write_motion
from comfyui_comovi.comovi_model.motion_io.bvh import DEPTH_FIRST, ORDERS, bvh_of, euler_angles, read_bvh
from comfyui_comovi.comovi_model.motion_io.bvh_text import BvhText, axis_rotation, format_bvh, parse_bvh
from comfyui_comovi.comovi_model.motion_io.names import match_joints, preset_names
from comfyui_comovi.comovi_model.motion_io.place import placed

BODY = load_mannequin_body()
MOTION = motion_files.smooth_motion(BODY, 20)


def joints_of(motion: BodyMotion) -> torch.Tensor:
    return pose_joints(BODY, motion.rotations, motion.betas, motion.transl)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_rotations_reads_back(order):
    text = format_bvh(bvh_of(MOTION, BODY, order=order, units="m"))
    assert f"{order[0]}rotation {order[1]}rotation {order[2]}rotation" in text
    motion, _ = read_bvh(text, BODY)
    assert (joints_of(motion) - joints_of(placed(MOTION, BODY, "yup"))).abs().max() < 1e-4


@pytest.mark.parametrize("order", ORDERS)
def test_angles_make_the_rotation_again_also_where_the_middle_one_is_a_right_angle(order):
    axes = ["XYZ".index(axis) for axis in order]

    def product(angles: np.ndarray) -> np.ndarray:
        turns = [axis_rotation(axis, np.radians(angles[..., place])) for place, axis in enumerate(axes)]
        return turns[0] @ turns[1] @ turns[2]

    rotations = random_rotations(500, seed=4, angle=2.0).double().numpy()
    assert np.abs(product(euler_angles(rotations, order)) - rotations).max() < 1e-7
    locked = product(np.array([[10.0, 90, 33], [10, -90, 33], [0, 90, 0]]))
    assert np.abs(product(euler_angles(locked, order)) - locked).max() < 1e-7


def test_curves_do_not_jump():
    spin = torch.linspace(0, 12, 60)[:, None] * torch.tensor([0.2, 1.0, 0.1])
    angles = euler_angles(axis_angle_to_matrix(spin.double()).numpy(), "ZXY")
    assert np.abs(np.diff(angles, axis=0)).max() < 60


def test_the_written_file_has_true_offsets_tips_and_an_exact_frame_time():
    bvh = bvh_of(MOTION, BODY, units="cm")
    joints = rest_joints(BODY, MOTION.betas).double().numpy()
    names = dict(zip(bvh.names, range(24), strict=True))
    left_knee = bvh.offsets[names["left_knee"]]
    assert np.allclose(left_knee, 100 * (joints[4] - joints[1])) and not bvh.offsets[0].any()
    assert len(bvh.tips) == 5 and min(np.linalg.norm(tip) for tip in bvh.tips.values()) > 2
    assert "Frame Time: 0.0625\n" in format_bvh(bvh)
    standing = pose_body(BODY, torch.eye(3).expand(1, 24, 3, 3), MOTION.betas)
    crown = joints[15] + bvh.tips[names["head"]] / 100
    assert crown[1] == pytest.approx(float(standing.vertices[0, :, 1].max()), abs=1e-3)
    pelvis = placed(MOTION, BODY, "yup").transl.double().numpy() + joints[0]
    assert np.allclose(bvh.values[:, :3], 100 * pelvis)


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_preset_of_names_is_found_again(naming):
    names = preset_names(naming)
    assert match_joints(names, PARENTS) == list(range(24))
    assert match_joints(names[:22], PARENTS[:22])[:22] == list(range(22))  # without fingers, by spelling


def words(text: str) -> list[str]:
    return text.split()


CMU = words("""
Hips LHipJoint LeftUpLeg LeftLeg LeftFoot LeftToeBase RHipJoint RightUpLeg RightLeg RightFoot RightToeBase
LowerBack Spine Spine1 Neck Neck1 Head LeftShoulder LeftArm LeftForeArm LeftHand RightShoulder RightArm RightForeArm
RightHand""")
CMU_PARENTS = [-1, 0, 1, 2, 3, 4, 0, 6, 7, 8, 9, 0, 11, 12, 13, 14, 15, 13, 17, 18, 19, 13, 21, 22, 23]
STYLE = words("""Hips Chest Chest2 Chest3 Chest4 Neck Head RightCollar RightShoulder RightElbow RightWrist LeftCollar
LeftShoulder LeftElbow LeftWrist RightHip RightKnee RightAnkle RightToe LeftHip LeftKnee LeftAnkle LeftToe""")
STYLE_PARENTS = [-1, 0, 1, 2, 3, 4, 5, 4, 7, 8, 9, 4, 11, 12, 13, 0, 15, 16, 17, 0, 19, 20, 21]
SMPL_STYLE = ["m_avg_" + name for name in words("""Pelvis L_Hip L_Knee L_Ankle L_Foot R_Hip R_Knee R_Ankle R_Foot Spine1
Spine2 Spine3 Neck Head L_Collar L_Shoulder L_Elbow L_Wrist L_Hand R_Collar R_Shoulder R_Elbow R_Wrist
R_Hand""")]  # fmt: skip
SMPL_STYLE_PARENTS = [-1, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 12, 11, 14, 15, 16, 17, 11, 19, 20, 21, 22]


@pytest.mark.parametrize(
    ("names", "parents", "wanted"),
    [
        (CMU, CMU_PARENTS, {"pelvis": "Hips", "left_hip": "LeftUpLeg", "left_knee": "LeftLeg", "spine1": "LowerBack",
                            "left_foot": "LeftToeBase", "spine3": "Spine1", "neck": "Neck", "right_wrist": "RightHand",
                            "right_collar": "RightShoulder", "right_shoulder": "RightArm"}),
        (STYLE, STYLE_PARENTS, {"left_hip": "LeftHip", "left_ankle": "LeftAnkle", "left_foot": "LeftToe",
                                "left_collar": "LeftCollar", "left_shoulder": "LeftShoulder", "spine3": "Chest4",
                                "left_wrist": "LeftWrist"}),
        (SMPL_STYLE, SMPL_STYLE_PARENTS, {"left_hip": "m_avg_L_Hip", "left_ankle": "m_avg_L_Ankle", "left_hand":
                                          "m_avg_L_Hand", "left_foot": "m_avg_L_Foot", "spine2": "m_avg_Spine2",
                                          "left_shoulder": "m_avg_L_Shoulder", "left_collar": "m_avg_L_Collar"}),
    ],
)  # fmt: skip
def test_names_of_other_skeletons(names, parents, wanted):
    match = match_joints(names, parents)
    assert {joint: names[match[JOINT_NAMES.index(joint)]] for joint in wanted} == wanted


def test_a_tree_of_smpl_under_any_names_is_taken_in_order_and_a_mapping_can_be_given():
    assert match_joints([f"joint_{number}" for number in range(24)], PARENTS) == list(range(24))
    with pytest.raises(ComoviError, match="no joint for pelvis, left_hip"):
        match_joints(["a", "b"], [-1, 0])
    given = {"left_hip": "b3"} | dict(zip(JOINT_NAMES, [f"b{n}" for n in range(24)], strict=True))
    assert match_joints([f"b{number}" for number in range(24)], PARENTS, given) == list(range(24))
    with pytest.raises(ComoviError, match="needs a joint of SMPL and a joint of the file"):
        match_joints(["a"], [-1], {"left_hip": "z"})


def foreign_bvh(motion: BodyMotion, seed: int, names=JOINT_NAMES, factor: float = 100.0, axes=None) -> BvhText:
    """The motion on a skeleton whose rest pose has every limb turned by up to 40 degrees and whose axes are `axes`."""
    turned = random_rotations(24, seed=seed, angle=0.4).double().numpy()
    for joint in (0, 10, 11, 15, 22, 23):  # the hips face forward; a leaf has no bone that could be turned
        turned[joint] = np.eye(3) if joint == 0 else turned[PARENTS[joint]]
    axes = np.eye(3) if axes is None else axes
    joints = rest_joints(BODY, motion.betas).double().numpy()
    world = pose_body(BODY, motion.rotations, motion.betas, motion.transl).joint_transforms.double().numpy()
    turns = axes @ (world[..., :3, :3] @ turned.transpose(0, 2, 1)) @ axes.T
    offsets = np.zeros((24, 3))
    local = turns.copy()
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            offsets[joint] = axes @ turned[parent] @ (joints[joint] - joints[parent]) * factor
            local[:, joint] = turns[:, parent].transpose(0, 2, 1) @ turns[:, joint]
    place = world[:, 0, :3, 3] @ axes.T * factor
    order = list(DEPTH_FIRST)
    angles = euler_angles(local[:, order], "YXZ").reshape(len(place), -1)
    turning = ("yr", "xr", "zr")
    channels = (("xp", "yp", "zp", *turning), *[turning] * 23)
    values = np.concatenate([place, angles], 1)
    parents = tuple(order.index(PARENTS[joint]) if joint else -1 for joint in order)
    return BvhText(tuple(names[joint] for joint in order), parents, offsets[order], {}, channels, 1 / 30, values)


Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("factor", "axes", "says"),
    [
        (100.0, np.eye(3), "units cm (told from the size of the rest pose), yup axes"),
        (1.0, Z_UP, "units m (told from the size of the rest pose), zup axes"),
        (1000.0, np.diag([-1.0, 1, 1]), "units mm (told from the size of the rest pose), yup axes"),
        (1 / 0.0254, Z_UP @ np.diag([-1.0, 1, 1]), "left-handed"),
    ],
)
def test_another_rest_pose_other_axes_other_units(seed, factor, axes, says):
    text = format_bvh(foreign_bvh(MOTION, seed, preset_names("unreal"), factor, axes))
    motion, notes = read_bvh(text, BODY)
    assert says in " ".join(notes)
    assert "rest pose differs from a T-pose" in " ".join(notes)
    assert motion.fps == 30
    assert (joints_of(motion) - joints_of(MOTION)).abs().max() < 1e-3  # worst 1e-5


def test_a_rest_pose_in_other_axes_than_the_motion_is_noticed_and_a_lying_person_is_not_stood_up():
    """Some programs write skeletons with y up whose root stands them up along z."""
    standing = BodyMotion(MOTION.rotations.clone(), MOTION.betas, MOTION.transl + torch.tensor([0.0, 1.1, 0]),
                          frame="yup", body_model=BODY.name)  # fmt: skip
    standing.rotations[:, 0] = torch.eye(3)
    standing.rotations[:, 1:10] = torch.eye(3)
    lifted = standing.to_frame("zup", rest_joints(BODY, standing.betas)[0])
    bvh = bvh_of(lifted.slice(0, 20).moved(torch.eye(3), torch.zeros(3), torch.zeros(3)), BODY, root="absolute")
    turned = axis_angle_to_matrix(torch.tensor([torch.pi / 2, 0, 0])).double().numpy()
    values = bvh.values.copy()
    values[:, :3] = values[:, :3] @ turned.T
    roots = standing.rotations[:, 0].double().numpy()
    values[:, 3:6] = euler_angles(turned @ roots, "ZXY")
    motion, notes = read_bvh(format_bvh(BvhText(**{**vars(bvh), "values": values})), BODY)
    assert "zup axes (told from how the person stands; the rest pose has yup)" in " ".join(notes)
    assert (joints_of(motion) - joints_of(standing)).abs().max() < 1e-4
    lying = standing.moved(
        torch.from_numpy(turned).float(), torch.tensor([0.0, 0.3, 0]), rest_joints(BODY, MOTION.betas)[0]
    )
    found, notes = read_bvh(format_bvh(bvh_of(lying, BODY)), BODY)
    assert "yup axes (told from the rest pose)" in " ".join(notes)
    assert (joints_of(found) - joints_of(placed(lying, BODY, "yup"))).abs().max() < 1e-4


def test_units_up_and_handedness_can_be_given():
    text = format_bvh(foreign_bvh(MOTION, 0, factor=100.0, axes=Z_UP))
    motion, notes = read_bvh(text, BODY, units=0.02, up="z", handedness="right", fps=12)
    assert "units 0.02 (given)" in " ".join(notes) and "zup axes (given)" in " ".join(notes) and motion.fps == 12
    with pytest.raises(ComoviError, match="units must be one of"):
        read_bvh(text, BODY, units="parsec")
    with pytest.raises(ComoviError, match="handedness must be"):
        read_bvh(text, BODY, handedness="both")


def test_a_foreign_body_of_other_proportions_keeps_its_bone_directions():
    """Bones longer by up to 15 %: directions agree, the path is scaled with the legs."""
    bvh = foreign_bvh(MOTION, 1)
    longer = 1 + 0.15 * np.random.default_rng(0).random(24)[:, None]
    for left, right in ((1, 2), (4, 5), (7, 8), (10, 11), (13, 14), (16, 17), (18, 19), (20, 21)):
        longer[right] = longer[left]
    stretched = BvhText(**{**vars(bvh), "offsets": bvh.offsets * longer})
    motion, notes = read_bvh(format_bvh(stretched), BODY)
    ours, theirs = joints_of(motion), joints_of(MOTION)
    for end, start in ((4, 1), (7, 4), (18, 16), (20, 18), (8, 5), (21, 19), (10, 7)):
        a, b = ours[:, end] - ours[:, start], theirs[:, end] - theirs[:, start]
        cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1)
        assert cosine.min() > 0.999, (end, start)
    assert any("shape fitted to the file's bone lengths" in note for note in notes)
    mean, _ = read_bvh(format_bvh(stretched), BODY, shape="mean")
    assert not mean.betas.any()


def test_the_toy_body_and_positions_in_every_joint():
    """Files with six channels per joint move their joints by positions, which replace the offset."""
    body = toy_body()
    motion = motion_files.smooth_motion(body, 9)
    bvh = bvh_of(motion, body, units="m")
    turning = ("xp", "yp", "zp", "zr", "xr", "yr")
    columns = [bvh.values[:, :6]]
    for joint in range(1, 24):
        columns += [np.tile(bvh.offsets[joint], (9, 1)), bvh.values[:, 3 + 3 * joint : 6 + 3 * joint]]
    six = BvhText(**{**vars(bvh), "channels": (turning,) * 24, "values": np.concatenate(columns, 1)})
    found, _ = read_bvh(format_bvh(six), body)
    wanted = placed(motion, body, "yup")
    apart = pose_joints(body, found.rotations, found.betas, found.transl) - pose_joints(
        body, wanted.rotations, wanted.betas, wanted.transl
    )
    assert apart.abs().max() < 1e-4


def test_ten_thousand_frames_are_read_in_seconds(tmp_path):
    times = 500
    bvh = bvh_of(MOTION, BODY)
    text = format_bvh(BvhText(**{**vars(bvh), "values": np.tile(bvh.values, (times, 1))}))
    (tmp_path / "long.bvh").write_text(text)
    before = time.process_time()
    motion = read_motion(tmp_path / "long.bvh", body=BODY).motion
    assert len(motion) == 10_000
    assert time.process_time() - before < 20  # measured 2.5 s


@pytest.mark.parametrize(
    ("text", "rate"),
    [("0.0333", 30), ("0.033333", 30), ("0.0333333", 30), ("0.00833", 120), ("0.008333", 120), ("0.0625", 16),
     ("0.03337", 30 / 1.001), ("0.0333667", 30 / 1.001), ("0.0417083", 24 / 1.001), ("0.04", 25), ("0.0166667", 60),
     ("0.01667", 60), ("0.0357", 28), ("0.0362500", 1 / 0.03625), ("1.5", 1 / 1.5), ("1e-2", 100)],
)  # fmt: skip
def test_a_rounded_frame_time_is_the_rate_that_was_meant(text, rate):
    motion, _ = read_bvh(TEXT.replace("Frame Time: 0.0625", f"Frame Time: {text}"), BODY)
    assert motion.fps == pytest.approx(rate, rel=1e-9)


TEXT = format_bvh(bvh_of(MOTION, BODY))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t[: t.index("MOTION")], "there is none; the file is cut off"),
        (lambda t: t.replace("OFFSET", "OFFSETS", 1), "expected OFFSET, CHANNELS or JOINT"),
        (lambda t: t.replace("Frame Time: 0.0625", "Frame Time: no"), "expected a number in"),
        (lambda t: t.replace("Frame Time: 0.0625", "Frame Time: 0"), "lacks a usable Frames or Frame Time"),
        (lambda t: t.replace("CHANNELS 3", "CHANNELS 4", 1), "is followed by 3 names"),
        (lambda t: t.replace("Zrotation", "Wrotation", 1), "unknown channel 'wrotation'"),
        (lambda t: t.rsplit(" ", 1)[0], "expected frames of 75 numbers, got 1499"),
        (lambda t: t.replace("}", "", 1), "the tree of the BVH file is incomplete"),
        (lambda t: t + "nan " * 75, "NaN or infinite"),
        (lambda t: t + "1e300 " * 75, "absurdly large"),
        (lambda t: t + "x", "something that is no number"),
        (lambda t: t.replace("JOINT left_hip", "ROOT left_hip"), "several skeletons"),
        (lambda t: t.replace("left_hip", "leftover"), "no joint for left_hip"),
    ],
)
def test_damaged_files_get_a_sentence(tmp_path, change, words):
    (tmp_path / "a.bvh").write_text(change(TEXT))
    with pytest.raises(ComoviError, match=words) as caught:
        read_motion(tmp_path / "a.bvh", body=BODY)
    assert str(caught.value).startswith(str(tmp_path / "a.bvh"))


def test_line_ends_tabs_and_case_do_not_matter(tmp_path):
    odd = "\ufeff" + TEXT.replace("\n", "\r\n").replace("  ", "\t").replace("ROOT", "Root").replace("{", "\r\n{\r\n")
    (tmp_path / "a.txt").write_text(odd, newline="")
    imported = read_motion(tmp_path / "a.txt", body=BODY)
    assert imported.format == "bvh"
    assert (joints_of(imported.motion) - joints_of(placed(MOTION, BODY, "yup"))).abs().max() < 1e-4
    assert parse_bvh(TEXT.replace("Frames: 20", "Frames: 19")).notes == ("the header promises 19 frames, 20 are there",)


def test_options_that_make_no_sense_are_refused(tmp_path):
    for wrong in ({"units": "ell"}, {"order": "ZZZ"}, {"names": "blender"}, {"root": "away"}):
        with pytest.raises(ComoviError, match="must be one of"):
            write_motion(tmp_path / "a.bvh", MOTION, BODY, **wrong)


def test_a_small_file_cannot_ask_for_a_huge_table(tmp_path):
    """2000 joints without channels cost nothing in the file and 144 kB a frame in memory."""
    still = "".join(f"JOINT j{number} {{ OFFSET 0 0 0 }}\n" for number in range(1500))
    text = f"HIERARCHY\nROOT r {{ OFFSET 0 0 0 CHANNELS 1 Xrotation\n{still}}}\nMOTION\nFrames: 5000\nFrame Time: 0.1\n"
    (tmp_path / "bomb.bvh").write_text(text.replace("0 CHANNELS", "0\nCHANNELS") + "0\n" * 5000)
    with pytest.raises(ComoviError, match="5000 frames of 1501 joints"):
        read_motion(tmp_path / "bomb.bvh", body=BODY)
