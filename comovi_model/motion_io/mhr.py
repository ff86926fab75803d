"""Poses of ComfyUI's SAM 3D Body (MHR_POSE_DATA) on our body: its 127 joints tell ours, bone by bone.

Letters: F frames. The positions are in camera axes (x right, y down, z away) in metres, relative to pred_cam_t.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..body.motion import BodyMotion
from ..body.smpl import BodyModel
from ..errors import ComoviError
from .joint_fit import motion_from_joints
from .limits import check_frames
from .smpl_fields import focal_camera, number, numbers

# The joint of the MHR rig for each of SMPL's; its hands are driven by the first middle finger.
MHR_JOINTS = (1, 2, 18, 35, 3, 19, 36, 4, 20, 37, 8, 24, 110, 74, 38, 113, 75, 39, 76, 40, 78, 42, 88, 52)
# Of the 70 key points only limbs have a counterpart; -1: none. Big toes stand for the feet.
KEYPOINTS = (-1, 9, 10, -1, 11, 12, -1, 13, 14, -1, 15, 18, 69, -1, -1, -1, 5, 6, 7, 8, 62, 41, -1, -1)
DEFAULT_RATE = 16.0


def motion_from_mhr(
    data: Mapping[str, Any],
    body: BodyModel,
    *,
    fps: float | None = None,
    person: str | int | None = None,
    betas: torch.Tensor | None = None,
) -> tuple[BodyMotion, list[str]]:
    """MHR_POSE_DATA -> motion of `body` in the camera frame, notes.

    Frames without the person repeat the pose before them and are marked as not valid.
    """
    frames = data.get("frames")
    if not isinstance(frames, list) or not frames:
        raise ComoviError("MHR pose data needs `frames`, a list with the people of each frame.")
    check_frames(len(frames))
    index = int(number(person, "person")) if person is not None else 0
    people = [_person(frame, index) for frame in frames]
    found = [place for place, record in enumerate(people) if record is not None]
    if not found:
        raise ComoviError(f"person {index} is in no frame of the pose data.")
    records = [people[place] for place in found]
    positions, present = _positions(records)
    rate = DEFAULT_RATE if fps is None else fps
    motion, notes = motion_from_joints(positions, body, frame="camera", fps=rate, present=present, betas=betas)
    says = "given" if fps is not None else "assumed: pose data do not say; give fps"
    notes = [f"{len(frames)} frames at {rate:.6g} per second ({says})", "metres, axes 'camera'", *notes]
    last = torch.tensor([max(0, int(np.searchsorted(found, frame, "right")) - 1) for frame in range(len(frames))])
    valid = torch.zeros(len(frames), dtype=torch.bool)
    valid[found] = True
    if len(found) < len(frames):
        notes.append(f"the person is missing in {len(frames) - len(found)} frames; they are marked as not valid")
    if any(isinstance(frame, list) and len(frame) > 1 for frame in frames):
        notes.append(f"person {index} of several; choose with person")
    return replace(
        motion, rotations=motion.rotations[last], transl=motion.transl[last], valid=valid, source_index=None,
        camera=_camera(records, data.get("image_size"), notes),
    ), notes  # fmt: skip


def _person(frame: Any, index: int) -> Mapping[str, Any] | None:
    record = frame[index] if isinstance(frame, list) and 0 <= index < len(frame) else None
    return record if isinstance(record, Mapping) else None


def _positions(records: list[Mapping[str, Any] | None]) -> tuple[np.ndarray, list[int]]:
    """(F, 24, 3) in the camera frame, and which of the 24 are there."""
    assert records[0] is not None
    name, table, count = "pred_joint_coords", MHR_JOINTS, 127
    if records[0].get(name) is None:
        name, table, count = "pred_keypoints_3d", KEYPOINTS, 70
    present = [joint for joint, source in enumerate(table) if source >= 0]
    positions = np.zeros((len(records), 24, 3))
    for row, record in enumerate(records):
        assert record is not None
        points = numbers(record.get(name), name)
        if points.shape != (count, 3):
            raise ComoviError(f"{name} must be ({count}, 3), got {points.shape}.")
        place = numbers(record.get("pred_cam_t", (0, 0, 0)), "pred_cam_t").ravel()
        if place.shape != (3,):
            raise ComoviError("pred_cam_t must be three numbers.")
        positions[row, present] = points[[table[joint] for joint in present]] + place
        if name == "pred_keypoints_3d":  # the pelvis is between the hips, by a person's usual proportions
            positions[row, 0] = positions[row, [1, 2]].mean(0)
    return positions, sorted({0, *present})


def _camera(records: list[Any], size: Any, notes: list[str]) -> Any:
    focal = [number(record["focal_length"], "focal_length") for record in records if "focal_length" in record]
    if not focal or size is None:
        return None
    height, width = numbers(size, "image_size").ravel()[:2]
    if np.ptp(focal) > 1e-3 * np.mean(focal):
        notes.append("the focal length differs from frame to frame; its median is used")
    return focal_camera(np.median(focal), width, height)
