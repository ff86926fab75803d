"""A motion stood on the floor: y (or z) up, the floor at height 0, the first pelvis above the origin.

Letters: F frames, J = 24 joints, P = 4 foot points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..body.frames import pelvis_at_rest
from ..body.motion import BodyMotion
from ..body.smpl import BodyModel
from ..body.upright import CAMERA_UP, shortest_turn, with_camera_up
from .feet import ContactSettings, Skeleton, contacts_of, floor_height, skeleton, to_yup
from .gaps import valid_frames
from .history import noted

TILT_DEGREES = 8.0  # how much a camera may well look up or down; the prior of the tilt
FLOOR_NOISE = 0.05  # metres, of a standing foot's height
ROUNDS = 3
UP = (0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Floor:
    up: Tensor  # (3,) unit, in the motion's axes
    height: float  # metres of the floor along `up`
    contacts: int  # foot points x frames that stood on it


def find_floor(motion: BodyMotion, model: BodyModel, tilt: bool | None = None) -> Floor:
    """The floor under the standing feet.

    tilt: whether the direction of up is looked for as well; None does so for a camera whose tilt nobody wrote down.
    A plane is fitted to the places where feet stand, with a level camera as prior: a person who walks along one line
    says nothing about the tilt across it. Feet that stand in one place leave the camera level.
    """
    if tilt is None:
        tilt = motion.frame == "camera" and CAMERA_UP not in motion.provenance
    body = skeleton(motion, model)
    level = to_yup(motion)  # (3, 3)
    turn = torch.eye(3, dtype=torch.float64)  # from level to truly upright axes
    contacts = _standing(body, motion)
    if tilt and bool(contacts.any()):
        for _ in range(ROUNDS):
            normal = _plane_normal(body, contacts, turn.T[:, 1])
            turn = shortest_turn(normal.float(), torch.tensor(UP)).double()
            contacts = _standing(_turned(body, turn), motion)
    height = floor_height(_turned(body, turn), contacts)
    return Floor((level.T @ turn.T[:, 1]).float(), height, int(contacts.sum()))


def knowing_up(motion: BodyMotion, model: BodyModel) -> BodyMotion:
    """A motion in the camera frame with the direction of up in its provenance, found if nobody wrote it down.

    What looks for standing feet needs it: before a camera that looks down by 15 degrees, the floor rises by 27 cm
    within a metre of walking away.
    """
    if motion.frame != "camera" or CAMERA_UP in motion.provenance:
        return motion
    return with_camera_up(motion, find_floor(motion, model).up)


def ground(motion: BodyMotion, model: BodyModel, tilt: bool | None = None, centre: bool = True) -> BodyMotion:
    """Frame "camera" becomes "yup" without a camera; the others keep their axes.

    The floor is where feet stand, by the median, so that one bad frame cannot lift the person; `on_floor` takes the
    lowest vertex instead. With `centre` the first pelvis comes to stand above the origin.
    """
    floor = find_floor(motion, model, tilt)
    pelvis = pelvis_at_rest(model, motion)
    level = to_yup(motion).float()
    upright = shortest_turn(level @ floor.up, torch.tensor(UP)) @ level
    frame = "zup" if motion.frame == "zup" else "yup"
    stood = motion.moved(upright, torch.zeros(3), pelvis)  # y up now
    start = pelvis + stood.transl[0]
    shift = torch.tensor([-start[0] if centre else 0.0, -floor.height, -start[2] if centre else 0.0])
    camera = None if motion.frame == "camera" else motion.camera  # nobody knows it in the new axes
    stood = replace(stood.moved(torch.eye(3), shift, pelvis), frame="yup", camera=camera)
    degrees = math.degrees(math.acos(float((level @ floor.up)[1].clamp(-1, 1))))
    note = {"ground": round(floor.height, 5), "tilt_degrees": round(degrees, 3), "contacts": floor.contacts}
    history = {key: value for key, value in motion.provenance.items() if key != CAMERA_UP}  # no longer true
    return noted(replace(stood.to_frame(frame, pelvis), provenance=history), note)


def _standing(body: Skeleton, motion: BodyMotion) -> Tensor:
    settings = ContactSettings()
    if motion.frame == "camera":  # a wrong tilt looks like a floor that rises
        settings = replace(settings, height=2 * settings.height)
    return contacts_of(body, motion.fps, settings, valid_frames(motion))


def _turned(body: Skeleton, turn: Tensor) -> Skeleton:
    return replace(
        body, positions=body.positions @ turn.T, orientations=turn @ body.orientations, turn=turn @ body.turn
    )


def _plane_normal(body: Skeleton, contacts: Tensor, up: Tensor) -> Tensor:
    """(3,) unit normal, in the body's axes, of the plane y = a x + b z + c under standing feet.

    Least squares with a and b drawn to 0 (a level camera), and less weight for what is far off (Huber). A foot that
    stands for many frames is one place, not many. `up` (3,) is the normal as known so far.
    """
    places = (body.foot_points - body.standing[:, None] * up)[contacts]  # (N, 3)
    places = places - places.median(0).values
    per_place = max(1.0, len(places) / _distinct(places))
    prior = (FLOOR_NOISE / math.tan(math.radians(TILT_DEGREES))) ** 2 * per_place
    weights = torch.ones(len(places), dtype=torch.float64)
    columns = torch.stack([places[:, 0], places[:, 2], torch.ones(len(places), dtype=torch.float64)], 1)
    solution = torch.zeros(3, dtype=torch.float64)
    for _ in range(5):
        system = (columns * weights[:, None]).T @ columns + prior * torch.diag(torch.tensor([1.0, 1.0, 1e-9]).double())
        solution = torch.linalg.solve(system, (columns * weights[:, None]).T @ places[:, 1])
        residual = (places[:, 1] - columns @ solution).abs()
        weights = FLOOR_NOISE / residual.clamp_min(FLOOR_NOISE)
    return F.normalize(torch.stack([-solution[0], torch.ones((), dtype=torch.float64), -solution[1]]), dim=0)


def _distinct(places: Tensor) -> int:
    """How many different places there are, on a grid of 10 cm."""
    return len(torch.unique((places[:, [0, 2]] * 10).round(), dim=0))
