"""Poses of ComfyUI's SAM 3D Body (MHR_POSE_DATA) on our body.

An SMPL file is fitted to the surface seen (mhr_surface.py). The mannequin has other vertices: for it the 127 joints of
the rig tell ours, bone by bone. Letters: F frames. Positions are in camera axes (x right, y down, z away), relative to
pred_cam_t.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..body.cameras import Camera
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel
from ..errors import ComoviError
from .joint_fit import motion_from_joints
from .limits import check_frames
from .mhr_surface import MANNEQUIN, MHR_VERTICES, fits_surface, mannequin_from_surface, motion_from_surface
from .mhr_units import place_of_record, unit_of_record
from .smpl_fields import focal_camera, number, numbers
from .vertex_fit import Progress

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
    on_frame: Progress | None = None,
) -> tuple[BodyMotion, list[str]]:
    """MHR_POSE_DATA -> motion of `body` in the camera frame, notes.

    Frames without the person repeat the pose before them and are marked as not valid. on_frame(done, of) is called
    after some frames; what it raises ends the work.
    """
    people = read_people(data, 0 if person is None else int(number(person, "person")))
    records, found, count = people.records, people.found, people.count
    rate = DEFAULT_RATE if fps is None else fps
    motion, notes = _motion(people, body, rate, betas, on_frame)
    says = "given" if fps is not None else "assumed: pose data do not say; give fps"
    notes = [f"{count} frames at {rate:.6g} per second ({says})", f"{people.unit_name}, axes 'camera'", *notes]
    last = torch.tensor([max(0, int(np.searchsorted(found, frame, "right")) - 1) for frame in range(count)])
    valid = torch.zeros(count, dtype=torch.bool)
    valid[found] = True
    if len(found) < count:
        notes.append(f"the person is missing in {count - len(found)} frames; they are marked as not valid")
    if people.several:
        notes.append(f"person {people.index} of several; choose with person")
    return replace(
        motion, rotations=motion.rotations[last], transl=motion.transl[last], valid=valid, source_index=None,
        camera=camera_of(records, data.get("image_size"), notes),
    ), notes  # fmt: skip


def _motion(
    people: People, body: BodyModel, rate: float, betas: torch.Tensor | None, on_frame: Progress | None
) -> tuple[BodyMotion, list[str]]:
    """The frames in which the person is."""
    why = []
    has_skin = all(record.get("pred_vertices") is not None for record in people.records)
    has_rig = all(record.get("pred_joint_coords") is not None for record in people.records)
    try:
        if has_skin and fits_surface(body):
            return motion_from_surface(people.surfaces(), body, fps=rate, betas=betas, on_frame=on_frame)
        if has_skin and has_rig and body.shape_space == MANNEQUIN:
            joints = people.positions()[0]
            return mannequin_from_surface(people.surfaces(), joints, fps=rate, betas=betas, on_frame=on_frame)
    except ComoviError as error:  # 6890 vertices and yet not SMPL's, or a person whom no shape explains
        why = [f"the surface could not be used ({str(error).rstrip('.')})"]
    positions, present = people.positions()
    motion, notes = motion_from_joints(positions, body, frame="camera", fps=rate, present=present, betas=betas)
    return motion, [*why, *notes]


@dataclass(frozen=True)
class People:
    """The records of one person of pose data, in the frames where that person is."""

    records: list[Mapping[str, Any]]
    found: list[int]  # their frames
    count: int  # frames of the data
    index: int
    several: bool
    unit: float  # metres in a unit of the data
    unit_name: str

    def surfaces(self) -> np.ndarray:
        """(F, 18439, 3) metres in the camera's frame."""
        return np.stack([self._placed(record, "pred_vertices", MHR_VERTICES) for record in self.records])

    def positions(self) -> tuple[np.ndarray, list[int]]:
        """(F, 24, 3) metres in the camera's frame, and which of the 24 are there."""
        name, table, count = "pred_joint_coords", MHR_JOINTS, 127
        if self.records[0].get(name) is None:
            name, table, count = "pred_keypoints_3d", KEYPOINTS, 70
        present = [joint for joint, source in enumerate(table) if source >= 0]
        positions = np.zeros((len(self.records), 24, 3))
        for row, record in enumerate(self.records):
            positions[row, present] = self._placed(record, name, count)[[table[joint] for joint in present]]
            if name == "pred_keypoints_3d":  # the pelvis is between the hips, by a person's usual proportions
                positions[row, 0] = positions[row, [1, 2]].mean(0)
        return positions, sorted({0, *present})

    def _placed(self, record: Mapping[str, Any], name: str, count: int) -> np.ndarray:
        points = self.unit * numbers(record.get(name), name)
        if points.shape != (count, 3):
            raise ComoviError(f"{name} must be ({count}, 3), got {points.shape}.")
        return points + place_of_record(record, points, self.unit)


def read_people(data: Mapping[str, Any], index: int) -> People:
    """Person number `index` of MHR_POSE_DATA."""
    frames = data.get("frames") if isinstance(data, Mapping) else None
    if not isinstance(frames, list) or not frames:
        raise ComoviError("MHR pose data needs `frames`, a list with the people of each frame.")
    check_frames(len(frames))
    people = [_person(frame, index) for frame in frames]
    found = [place for place, record in enumerate(people) if record is not None]
    if not found:
        raise ComoviError(f"person {index} is in no frame of the pose data.")
    records = [record for record in people if record is not None]
    unit, name = unit_of_record(records[0])
    several = any(isinstance(frame, list) and len(frame) > 1 for frame in frames)
    return People(records, found, len(frames), index, several, unit, name)


def _person(frame: Any, index: int) -> Mapping[str, Any] | None:
    record = frame[index] if isinstance(frame, list) and 0 <= index < len(frame) else None
    return record if isinstance(record, Mapping) else None


def camera_of(records: list[Any], size: Any, notes: list[str]) -> Camera | None:
    """The camera that SAM 3D Body saw with: the data's focal length, the middle of the picture."""
    focal = [number(record["focal_length"], "focal_length") for record in records if "focal_length" in record]
    if not focal or size is None:
        return None
    height, width = numbers(size, "image_size").ravel()[:2]
    if np.ptp(focal) > 1e-3 * np.mean(focal):
        notes.append("the focal length differs from frame to frame; its median is used")
    return focal_camera(np.median(focal), width, height)
