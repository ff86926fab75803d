"""Movement tracks -> SMPL joint rotations for the synthetic people.

Shapes: F frames, J = 24 joints (SMPL order). Angles in radians, lengths in metres, y up, +z forward, +x to the left.

A movement is written as a few named curves over time (`Tracks`): where the pelvis goes, how the spine bends, how each
arm is held, where each foot stands. `solve_tracks` turns them into 24 local rotation matrices: arms and spine directly,
legs by two-bone inverse kinematics, so that a planted foot stays exactly where it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
MIRROR_JOINT = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22)
PELVIS, L_HIP, R_HIP, L_KNEE, R_KNEE, L_ANKLE, R_ANKLE = 0, 1, 2, 4, 5, 7, 8
NECK, L_COLLAR, R_COLLAR, HEAD, L_SHOULDER, R_SHOULDER, L_ELBOW, R_ELBOW = 12, 13, 14, 15, 16, 17, 18, 19
SPINE = (3, 6, 9)
MAX_LEG = 0.999  # share of the full leg length that inverse kinematics may use; 1.0 would flip the knee


def rotation(axis: str, angle: np.ndarray) -> np.ndarray:
    """Right-handed rotation matrices (..., 3, 3) about one axis ("x", "y" or "z") by `angle` radians (...)."""
    angle = np.asarray(angle, dtype=np.float64)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    out = np.zeros((*angle.shape, 3, 3))
    out[..., [0, 1, 2], [0, 1, 2]] = 1.0
    c, s = np.cos(angle), np.sin(angle)
    out[..., i, i], out[..., j, j], out[..., i, j], out[..., j, i] = c, c, -s, s
    return out


@dataclass
class Arm:
    """One arm, (F,) radians each: `abduct` 0 hanging, pi/2 sideways, pi up; `forward` 0 sideways, pi/2 to the front;
    `twist` about the upper arm (-pi/2 lets the elbow bend upward); `elbow` flexion."""

    abduct: np.ndarray
    forward: np.ndarray
    twist: np.ndarray
    elbow: np.ndarray


@dataclass
class Foot:
    """One ankle track: ground position `x`, `z` and lift `y` above standing height in metres, `yaw`, `pitch`; (F,)."""

    x: np.ndarray
    z: np.ndarray
    y: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray


@dataclass
class Tracks:
    """Curves of one movement; every array is (F,). The person starts at the origin, facing +z."""

    num_frames: int
    left_arm: Arm
    right_arm: Arm
    left_foot: Foot
    right_foot: Foot
    curves: dict[str, np.ndarray] = field(default_factory=dict)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.curves[name]

    def __setitem__(self, name: str, value: np.ndarray | float) -> None:
        self.curves[name] = np.broadcast_to(value, (self.num_frames,)).astype(np.float64)


CURVES = (
    "pelvis_x", "pelvis_z", "drop", "air", "yaw", "pelvis_pitch", "pelvis_roll",
    "spine_pitch", "spine_roll", "spine_yaw", "head_pitch", "head_yaw",
)  # fmt: skip


def standing_tracks(num_frames: int, joints: np.ndarray) -> Tracks:
    """A neutral stance: arms hanging, feet below the hips (`joints` (24, 3) is the rest skeleton)."""

    def full(value: float) -> np.ndarray:
        return np.full(num_frames, value)

    def arm() -> Arm:
        return Arm(full(np.radians(9)), full(np.radians(12)), full(0.0), full(np.radians(12)))

    def foot(sign: float, hip: int) -> Foot:
        return Foot(full(joints[hip, 0] + sign * 0.01), full(0.0), full(0.0), full(sign * np.radians(6)), full(0.0))

    tracks = Tracks(num_frames, arm(), arm(), foot(1.0, L_HIP), foot(-1.0, R_HIP))
    for name in CURVES:
        tracks[name] = 0.0
    return tracks


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)


def _frame(direction: np.ndarray, hinge: np.ndarray) -> np.ndarray:
    """Orthonormal columns (direction, hinge, direction x hinge), with the hinge made orthogonal first."""
    hinge = _unit(hinge - (hinge * direction).sum(-1, keepdims=True) * direction)
    return np.stack([direction, hinge, np.cross(direction, hinge)], axis=-1)


def _leg_rotations(hip: np.ndarray, ankle: np.ndarray, forward: np.ndarray, rest: np.ndarray) -> tuple:
    """World rotations of thigh and shin, (F, 3, 3) each. `rest` (3, 3): rest positions of hip, knee, ankle."""
    upper, lower = np.linalg.norm(rest[1] - rest[0]), np.linalg.norm(rest[2] - rest[1])
    reach = ankle - hip
    length = np.linalg.norm(reach, axis=-1, keepdims=True)
    direction = reach / np.maximum(length, 1e-9)
    length = np.clip(length, abs(upper - lower) * 1.001 + 1e-6, MAX_LEG * (upper + lower))
    ankle = hip + direction * length
    cosine = np.clip((upper**2 + length**2 - lower**2) / (2 * upper * length), -1, 1)
    bend = _unit(forward - (forward * direction).sum(-1, keepdims=True) * direction)
    knee = hip + upper * (cosine * direction + np.sqrt(1 - cosine**2) * bend)
    hinge = np.cross(-direction, bend)
    sideways = np.broadcast_to(np.array([1.0, 0.0, 0.0]), hip.shape)
    out = []
    for start, end, rest_start, rest_end in ((hip, knee, rest[0], rest[1]), (knee, ankle, rest[1], rest[2])):
        rest_direction = np.broadcast_to(_unit(rest_end - rest_start), hip.shape)
        out.append(_frame(_unit(end - start), hinge) @ np.swapaxes(_frame(rest_direction, sideways), -1, -2))
    return out[0], out[1]


def _arm_rotations(arm: Arm, left: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local rotations of collar, shoulder and elbow, (F, 3, 3) each; the collar carries 20 % beyond 60 degrees."""
    collar = 0.2 * np.maximum(arm.abduct - np.radians(60), 0.0)
    parts = [
        rotation("z", collar),
        rotation("y", -arm.forward) @ rotation("z", arm.abduct - collar - np.pi / 2) @ rotation("x", arm.twist),
        rotation("y", -arm.elbow),
    ]
    if not left:  # a mirror in the plane x = 0 turns a left arm into a right one
        flip = np.diag([-1.0, 1.0, 1.0])
        parts = [flip @ p @ flip for p in parts]
    return parts[0], parts[1], parts[2]


def solve_tracks(tracks: Tracks, joints: np.ndarray, ground: float) -> tuple[np.ndarray, np.ndarray]:
    """Joint rotations (F, 24, 3, 3), local, and pelvis positions (F, 3) of a movement.

    `joints` (24, 3): rest joints; `ground`: y of the soles in the rest pose. World y = 0 is the floor.
    """
    num = tracks.num_frames
    local = np.broadcast_to(np.eye(3), (num, 24, 3, 3)).copy()
    pelvis = np.stack(
        [tracks["pelvis_x"], joints[PELVIS, 1] - ground - 0.01 - tracks["drop"] + tracks["air"], tracks["pelvis_z"]], -1
    )
    local[:, PELVIS] = (
        rotation("y", tracks["yaw"]) @ rotation("x", tracks["pelvis_pitch"]) @ rotation("z", tracks["pelvis_roll"])
    )
    third = [tracks[n] / 3 for n in ("spine_yaw", "spine_pitch", "spine_roll")]
    for joint in SPINE:
        local[:, joint] = rotation("y", third[0]) @ rotation("x", third[1]) @ rotation("z", third[2])
    for joint, share in ((NECK, 0.4), (HEAD, 0.6)):
        local[:, joint] = rotation("y", share * tracks["head_yaw"]) @ rotation("x", share * tracks["head_pitch"])
    for left, ids in ((True, (L_COLLAR, L_SHOULDER, L_ELBOW)), (False, (R_COLLAR, R_SHOULDER, R_ELBOW))):
        parts = _arm_rotations(tracks.left_arm if left else tracks.right_arm, left)
        for joint, part in zip(ids, parts, strict=True):
            local[:, joint] = part
    for left in (True, False):
        foot = tracks.left_foot if left else tracks.right_foot
        hip_id, knee_id, ankle_id = (L_HIP, L_KNEE, L_ANKLE) if left else (R_HIP, R_KNEE, R_ANKLE)
        hip = pelvis + local[:, PELVIS] @ (joints[hip_id] - joints[PELVIS])
        standing = joints[ankle_id, 1] - ground
        ankle = np.stack([foot.x, standing + foot.y, foot.z + joints[ankle_id, 2] - joints[hip_id, 2]], -1)
        forward = np.stack([np.sin(foot.yaw), np.zeros(num), np.cos(foot.yaw)], -1)
        thigh, shin = _leg_rotations(hip, ankle, forward, joints[[hip_id, knee_id, ankle_id]])
        sole = rotation("y", foot.yaw) @ rotation("x", foot.pitch)
        local[:, hip_id] = np.swapaxes(local[:, PELVIS], -1, -2) @ thigh
        local[:, knee_id] = np.swapaxes(thigh, -1, -2) @ shin
        local[:, ankle_id] = np.swapaxes(shin, -1, -2) @ sole
    return local, pelvis


def mirror_motion(local: np.ndarray, pelvis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same movement seen in a mirror: left and right exchanged (exact on a symmetric skeleton)."""
    flip = np.diag([-1.0, 1.0, 1.0])
    return flip @ local[:, list(MIRROR_JOINT)] @ flip, pelvis * np.array([-1.0, 1.0, 1.0])
