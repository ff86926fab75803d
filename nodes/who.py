"""Who is meant: the inputs that the nodes of estimation share, and what is read from them.

One socket takes everything that other nodes say of people: boxes, masks, SAM3's tracks, pose keypoints, Find People.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..comovi_model.errors import ComoviError
from ..comovi_model.estimate.people import CHOICES, Person
from ..comovi_model.estimate.people_from import (
    frames_of_sam3,
    in_every_frame,
    people_from_boxes,
    people_from_keypoints,
    people_from_masks,
    tracks_from_sam3,
)
from ..comovi_model.estimate.photo_camera import PhotoCamera, photo_camera
from .schema import ADVANCED

People = io.Custom("COMOVI_PEOPLE")  # value: a list of Person for every frame
Keypoints = io.Custom("POSE_KEYPOINT")
SOURCES = [People, Keypoints, io.Mask, *map(io.Custom, ("BOUNDING_BOX", "BOUNDING_BOXES", "BBOX", "SAM3_TRACK_DATA"))]
PEOPLE_TIP = (
    "Who is in the picture, from any node that says it: Find People, boxes, masks, a SAM3 track, pose keypoints "
    "(DWPose, SDPose). Without it our own finder looks, which knows drawn people and simple scenes."
)


def who_inputs(choices: tuple[str, ...] = CHOICES, default: str = "largest") -> list[io.Input]:
    """Which person, and a socket for people that others found."""
    return [
        io.Combo.Input(
            "who",
            options=list(choices),
            default=default,
            tooltip="Which person, where there are several. 'index' counts as the source does, 'left to right' from "
            "the left, 'mask' takes whoever lies under the mask.",
        ),
        io.Int.Input("index", default=0, min=0, max=63, tooltip="For 'index' and 'left to right'; 0 is the first."),
        io.MultiType.Input("people", types=SOURCES, optional=True, tooltip=PEOPLE_TIP),
        io.Mask.Input("mask", optional=True, tooltip="For 'mask': painted over the person."),
    ]


def focal_input() -> io.Input:
    return io.Float.Input(
        "focal_px",
        default=0.0,
        min=0.0,
        max=100000.0,
        step=1.0,
        optional=True,
        tooltip="Focal length in pixels, from Load Photo or as you know it; 0: estimated by CameraHMR's second "
        "network, else a normal lens.",
    )


def lens_input() -> io.Input:
    return io.Boolean.Input(
        "focal_from_keypoints",
        default=False,
        optional=True,
        tooltip="Where focal_px is 0: reads the focal length from the keypoints, within about a factor of two. Takes "
        "some seconds.",
        **ADVANCED,
    )


def given_camera(focal_px: float, size: tuple[int, int]) -> PhotoCamera | None:
    return photo_camera(size, focal_px=focal_px) if focal_px > 0 else None


def people_of_frames(value: Any, size: tuple[int, int], frames: int) -> list[list[Person]] | None:
    """What is wired into `people`, per frame; None where nothing is."""
    if value is None:
        return None
    if isinstance(value, torch.Tensor):
        return _of_masks(value, size, frames)
    if isinstance(value, Mapping) and "packed_masks" in value:
        seen = frames_of_sam3(value)
        if seen != frames:
            raise ComoviError(f"people: the SAM3 track has {seen} frames and the video {frames}; track this video.")
        tracks = tracks_from_sam3(value, size)
        return [[person for row in tracks if (person := row[frame]) is not None] for frame in range(frames)]
    if isinstance(value, list) and value and isinstance(value[0], list) and _all_people(value):
        return _for_all(value, frames, "Find People saw")
    records = [value] if isinstance(value, Mapping) and "people" in value else value
    if isinstance(records, (list, tuple)) and records and isinstance(records[0], Mapping) and "people" in records[0]:
        if len(records) not in (1, frames):
            raise ComoviError(f"people: keypoints of {len(records)} frames came for {frames} pictures.")
        return in_every_frame(lambda frame: people_from_keypoints(records, size, frame), frames)
    return in_every_frame(lambda frame: people_from_boxes(value, size, frame), frames)


def _all_people(value: list[list[Any]]) -> bool:
    return all(isinstance(person, Person) for frame in value for person in frame)


def _for_all(value: list[list[Person]], frames: int, says: str) -> list[list[Person]]:
    if len(value) not in (1, frames):
        raise ComoviError(f"people: {says} {len(value)} frames and the pictures are {frames}; give the same pictures.")
    return [list(people) for people in (value if len(value) == frames else value * frames)]


def _of_masks(masks: torch.Tensor, size: tuple[int, int], frames: int) -> list[list[Person]]:
    """One mask a frame for a video; for one picture every mask is a person."""
    masks = masks.reshape(-1, *masks.shape[-2:])
    if frames == 1:
        return [people_from_masks(masks, size)]
    if len(masks) not in (1, frames):
        raise ComoviError(f"people: {len(masks)} masks came for {frames} pictures; give one for each.")
    return in_every_frame(lambda frame: people_from_masks(masks[frame if len(masks) > 1 else 0], size), frames)


def mask_of(mask: torch.Tensor | None, size: tuple[int, int]) -> np.ndarray | None:
    """The painted mask (H, W) bool, None where none is wired."""
    if mask is None:
        return None
    array = mask.detach().cpu().numpy()
    array = array.reshape(-1, *array.shape[-2:])[0]
    if not (array > 0.5).any():  # Load Image gives an empty one, of another size, where nothing was painted
        raise ComoviError("the mask is empty, so it names nobody; paint the person white.")
    if array.shape != size:
        raise ComoviError(
            f"mask is {array.shape[-1]}x{array.shape[0]} pixels and the picture {size[1]}x{size[0]}; resize the mask."
        )
    return array > 0.5
