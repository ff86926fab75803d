"""A body motion as the pose data that ComfyUI's own body nodes take (its type KIMODO_POSE_DATA).

Letters: F frames, J joints of that skeleton (SMPL's 24 and five on the face), V vertices, N faces. The type is a dict
of plain numpy arrays, and the skeleton travels inside it ("_skeleton_override"). Two frames meet in it:

    camera frame (y down, z away)   pred_vertices + pred_cam_t is where the surface is; focal_length, image_size
    its y-up twin (x, -y, -z)       pred_joint_coords and pred_global_rots; and the skeleton at rest, on the floor

What belongs to one frame is relative to pred_cam_t, the point of the floor of frame 0 below the pelvis; so the core's
choice of camera translation decides whether the path comes along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .before_camera import Placement, stand_before_camera
from .cameras import Camera, frame_rotation
from .frames import check_same_body, in_frame
from .motion import BodyMotion
from .parts import JOINT_NAMES, PART_NAMES
from .smpl import BodyModel, pose_body, rest_joints, shaped_vertices

INFLUENCES = 8  # joints per vertex that the type has room for
FACE = ("nose", "right_eye", "left_eye", "right_ear", "left_ear")  # joints that SMPL lacks and OpenPose shows
SKELETON = (*JOINT_NAMES, *FACE)
HEAD = JOINT_NAMES.index("head")
SIDE, DEGREES = 512, 40.0  # the view of a motion without a camera: pixels, vertical field of view
AT_ONCE = 16  # frames

# The 18 body keypoints of OpenPose, in its order: one joint, or the middle of two.
OPENPOSE_18: tuple[tuple[str, ...], ...] = (
    ("nose",), ("left_shoulder", "right_shoulder"),
    ("right_shoulder",), ("right_elbow",), ("right_wrist",), ("left_shoulder",), ("left_elbow",), ("left_wrist",),
    ("right_hip",), ("right_knee",), ("right_ankle",), ("left_hip",), ("left_knee",), ("left_ankle",),
    ("right_eye",), ("left_eye",), ("right_ear",), ("left_ear",),
)  # fmt: skip


def pose_data_of(
    motion: BodyMotion, model: BodyModel, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """One person in every frame; frames that are not valid have none.

    A motion without a camera is seen from the front, at a distance that shows all of it.
    """
    model, seen = model.to("cpu"), _in_a_camera(motion.to("cpu"), model.to("cpu"))
    rest, rest_skeleton = _at_rest(model, seen.betas)
    people: list[list[dict[str, np.ndarray]]] = []
    drop = _pelvis_height(model, seen)
    for start in range(0, len(seen), AT_ONCE):
        people += _people(model, seen, start, rest_skeleton, drop)
        if progress is not None:
            progress(len(people), len(seen))
    camera = seen.camera
    assert camera is not None
    hands = [PART_NAMES.index(name) for name in PART_NAMES if "Hand" in name]
    return {
        "frames": people,
        "faces": model.faces.numpy().astype(np.uint32),  # (N, 3)
        "image_size": (camera.height, camera.width),
        "canonical_colors": {"positions": rest.numpy()},  # (V, 3), for colours by height
        "hand_vert_mask": torch.isin(model.part_of_vertex, torch.tensor(hands)).numpy(),  # (V,) bool
        "_skeleton_override": _skeleton(model, rest, rest_skeleton),
    }


def _in_a_camera(motion: BodyMotion, model: BodyModel) -> BodyMotion:
    check_same_body(model, motion)
    if motion.camera is None:
        return stand_before_camera(model, motion, Camera.from_fov(DEGREES, SIDE, SIDE), Placement())
    return in_frame(motion, model, "camera")


def _at_rest(model: BodyModel, betas: Tensor) -> tuple[Tensor, Tensor]:
    """The T-pose on the floor, pelvis above the origin: vertices (V, 3) and joints (J, 3)."""
    vertices, joints = shaped_vertices(model, betas), rest_joints(model, betas)
    joints = torch.cat([joints, face_points(model, vertices)])
    shift = -joints[0]
    shift[1] = -vertices[:, 1].min()
    return vertices + shift, joints + shift


def face_points(model: BodyModel, vertices: Tensor) -> Tensor:
    """The T-pose (V, 3) of any body -> nose, right eye, left eye, right ear, left ear (5, 3).

    Measured on the head: the nose is its foremost vertex, the ears the outermost ones about as high; the eyes lie
    between, a little higher and deeper than the nose.
    """
    head = vertices[model.weights.argmax(1) == HEAD]
    nose = head[head[:, 2].argmax()]
    height = float(head[:, 1].max() - head[:, 1].min())
    level = head[(head[:, 1] - nose[1]).abs() < 0.2 * height]
    right_ear, left_ear = level[level[:, 0].argmin()], level[level[:, 0].argmax()]
    depth = float(nose[2] - (right_ear[2] + left_ear[2]) / 2)
    up_and_in = torch.tensor([0.0, 0.12 * height, -0.25 * depth])
    eyes = [
        nose + up_and_in + 0.42 * (ear[0] - nose[0]) * torch.tensor([1.0, 0.0, 0.0]) for ear in (right_ear, left_ear)
    ]
    return torch.stack([nose, *eyes, right_ear, left_ear])


def _pelvis_height(model: BodyModel, motion: BodyMotion) -> Tensor:
    """(3,) metres in the camera frame, from the pelvis down to the lowest point of frame 0."""
    first = pose_body(model, motion.rotations[:1], motion.betas)
    return torch.tensor([0.0, float(first.vertices[..., 1].max() - first.joints[0, 0, 1]), 0.0])


def _people(
    model: BodyModel, motion: BodyMotion, start: int, rest_skeleton: Tensor, drop: Tensor
) -> list[list[dict[str, np.ndarray]]]:
    piece = motion.slice(start, start + AT_ONCE)
    body = pose_body(model, piece.rotations, piece.betas, piece.transl)
    turns, places = _skeleton_in(body.joint_transforms, rest_skeleton)
    ground = body.joints[:, :1] + drop  # (F, 1, 3)
    twin = frame_rotation("camera", "yup")
    camera = piece.camera
    assert camera is not None
    assert piece.valid is not None
    K = camera.K.expand(len(piece), 3, 3)
    # The core sees with one focal length through the middle of the picture; the pelvis stays where it is seen.
    off = (K[:, :2, 2] - torch.tensor([camera.width / 2, camera.height / 2])) / K[:, [0, 1], [0, 1]]
    from_eye = ground[:, 0].clone()
    from_eye[:, :2] += off * from_eye[:, 2:]
    arrays = {
        "pred_vertices": body.vertices - ground,  # (F, V, 3)
        "pred_cam_t": from_eye,  # (F, 3)
        "pred_joint_coords": (places - ground) @ twin.T,  # (F, J, 3)
        "pred_global_rots": twin @ turns,  # (F, J, 3, 3)
        "focal_length": K[:, 0, 0],  # (F,)
        "bbox": _boxes(body.vertices - ground + from_eye[:, None], K, camera),  # (F, 4)
    }
    numbers = {name: value.numpy().astype(np.float32) for name, value in arrays.items()}
    people = [{name: np.array(value[number]) for name, value in numbers.items()} for number in range(len(piece))]
    return [[person] if bool(known) else [] for person, known in zip(people, piece.valid, strict=True)]


def _skeleton_in(transforms: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """World transforms (F, 24, 4, 4), joints at rest (J, 3) -> rotations (F, J, 3, 3) and places (F, J, 3)."""
    head = transforms[:, HEAD]
    face = torch.einsum("fab,kb->fka", head[:, :3, :3], rest[len(JOINT_NAMES) :] - rest[HEAD]) + head[:, None, :3, 3]
    turns = torch.cat([transforms[..., :3, :3], head[:, None, :3, :3].expand(-1, len(FACE), -1, -1)], 1)
    return turns, torch.cat([transforms[..., :3, 3], face], 1)


def _boxes(points: Tensor, K: Tensor, camera: Camera) -> Tensor:
    """(F, 4) left, top, right, bottom in pixels, as the core projects."""
    middle = torch.tensor([camera.width / 2, camera.height / 2])
    pixels = points[..., :2] / points[..., 2:].clamp_min(1e-3) * K[:, None, [0, 1], [0, 1]] + middle
    return torch.cat([pixels.amin(1), pixels.amax(1)], 1)


def _skeleton(model: BodyModel, rest: Tensor, joints: Tensor) -> dict[str, Any]:
    weights, influences = model.weights.topk(min(INFLUENCES, model.weights.shape[1]), dim=1)
    weights = weights / weights.sum(1, keepdim=True)
    number = {name: index for index, name in enumerate(SKELETON)}
    pairs = [[number[name] for name in names] + [-1] * (2 - len(names)) for names in OPENPOSE_18]
    upright = np.tile(np.array([0, 0, 0, 1, 1], np.float32), (len(joints), 1))  # quaternion x, y, z, w; scale
    return {
        "parents": np.array([*model.parents, *[HEAD] * len(FACE)], np.int32),  # (J,)
        "bind_global_m": np.concatenate([joints.numpy(), upright], 1).astype(np.float32),  # (J, 8)
        "lbs_compact_joints": torch.where(weights > 0, influences, 0).numpy().astype(np.uint16),  # (V, 8)
        "lbs_compact_weights": weights.numpy().astype(np.float32),  # (V, 8)
        "lbs_compact_max_inf": int((weights > 0).sum(1).max()),
        "rest_verts_m": rest.numpy().astype(np.float32),  # (V, 3)
        "faces": model.faces.numpy().astype(np.uint32),  # (N, 3)
        "per_frame_y_down": False,
        "openpose18_joint_indices": np.array(pairs, np.int32),  # (18, 2), second -1: one joint
        "joint_names": list(SKELETON),
    }
