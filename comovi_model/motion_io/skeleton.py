"""A foreign skeleton in motion, and the motion of our body that follows it: retargeting with rest-pose correction.

Letters: F frames, N joints of the foreign skeleton, J = 24 joints of SMPL.

Every joint of ours takes over how far its foreign joint has turned from the foreign rest pose, after a constant
correction that lays our rest bones along the foreign rest bones. So bones point where the foreign ones point, whether
the foreign rest pose is a T, an A or anything else; how a limb is twisted about itself is counted from the rest pose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..body.motion import NUM_BETAS, BodyMotion
from ..body.parts import JOINT_NAMES, NUM_JOINTS, PARENTS
from ..body.smpl import BodyModel, rest_joints
from ..errors import ComoviError
from .names import match_joints
from .shape_fit import shape_of_bones

LEG = (1, 4, 7), (2, 5, 8)
STANDING = 0.85  # mean cosine between the posture and an axis: people stand in most clips
USUAL_LEG, LEGS = 0.83, (0.4, 1.3)  # metres from hip to ankle: of an adult, of anybody


@dataclass(frozen=True)
class Skeleton:
    """World axes y up, right-handed, metres (after `in_our_axes`)."""

    names: tuple[str, ...]
    parents: tuple[int, ...]  # parents[i] < i
    rest: np.ndarray  # (N, 3) positions in the rest pose
    turns: np.ndarray  # (F, N, 3, 3) world rotation of each joint away from the rest pose
    places: np.ndarray  # (F, N, 3) world positions
    fps: float


def retarget(
    skeleton: Skeleton,
    body: BodyModel,
    *,
    mapping: Mapping[str, str] | None = None,
    betas: torch.Tensor | None = None,
    shape: str = "fit",
) -> tuple[BodyMotion, list[str]]:
    """-> motion of `body` in frame "yup", and notes. shape "fit" finds betas from the bones, "mean" leaves them 0."""
    match = match_joints(skeleton.names, skeleton.parents, mapping)
    notes: list[str] = []
    if betas is None:
        betas, note = shape_of_bones(skeleton.rest, match, body) if shape == "fit" else (torch.zeros(NUM_BETAS), "")
        notes += [note] if note else []
    joints = rest_joints(body, betas).double().cpu().numpy()  # (J, 3)
    correction = _corrections(joints, skeleton.rest, match)  # (J, 3, 3)
    world = np.empty((len(skeleton.turns), NUM_JOINTS, 3, 3))
    local = np.empty_like(world)
    for joint, parent in enumerate(PARENTS):
        source = match[joint]
        world[:, joint] = skeleton.turns[:, source] @ correction[joint] if source >= 0 else world[:, parent]
        local[:, joint] = world[:, joint] if parent < 0 else world[:, parent].transpose(0, 2, 1) @ world[:, joint]
    scale = _leg_length(joints, range(NUM_JOINTS)) / max(_leg_length(skeleton.rest, match), 1e-9)
    if abs(scale - 1) < 0.01:
        scale = 1.0
    else:
        notes.append(f"the path was scaled by {scale:.3f}, as the legs of this body differ from the file's")
    unmatched = [JOINT_NAMES[joint] for joint in range(NUM_JOINTS) if match[joint] < 0]
    if unmatched:
        notes.append(f"no joint of the file moves {', '.join(unmatched)}; they keep their rest rotation")
    largest = np.degrees(np.arccos(np.clip((np.trace(correction, axis1=1, axis2=2) - 1) / 2, -1, 1))).max()
    if largest > 5:
        notes.append(f"the file's rest pose differs from a T-pose by up to {largest:.0f} degrees; corrected per bone")
    motion = BodyMotion(
        rotations=torch.from_numpy(local),
        betas=betas.float().cpu(),
        transl=torch.from_numpy(scale * skeleton.places[:, match[0]] - joints[0]),
        frame="yup",
        fps=skeleton.fps,
        body_model=body.name,
    )
    return motion, notes


def _corrections(joints: np.ndarray, rest: np.ndarray, match: list[int]) -> np.ndarray:
    """(J, 3, 3): turn each of our rest bones onto the file's."""
    result = np.tile(np.eye(3), (NUM_JOINTS, 1, 1))
    for joint, parent in enumerate(PARENTS):
        inherited = result[parent] if parent >= 0 else np.eye(3)
        ours, theirs = [], []
        for child in _bones_from(joint, match):
            bone = rest[match[child]] - rest[match[joint]] if match[joint] >= 0 else np.zeros(3)
            if np.linalg.norm(bone) > 1e-5:
                ours.append(_unit(joints[child] - joints[joint]))
                theirs.append(_unit(bone))
        if len(ours) >= 2:
            result[joint] = best_rotation(np.array(ours), np.array(theirs), inherited)
        elif ours:
            result[joint] = swing(inherited @ ours[0], theirs[0]) @ inherited
        else:
            result[joint] = inherited
    return result


def _bones_from(joint: int, match: list[int]) -> list[int]:
    """The joints that show how this one is turned: its children, or for the trunk also what lies further on."""
    children = [child for child, parent in enumerate(PARENTS) if parent == joint and match[child] >= 0]
    apart = [child for child in children if match[child] != match[joint]]
    return apart or [child for middle in children for child in _bones_from(middle, match)]


def swing(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Unit vectors (3,) -> the smallest rotation that takes start to end."""
    cross, cosine = np.cross(start, end), float(start @ end)
    if cosine < -1 + 1e-9:
        side = np.cross(start, np.eye(3)[np.abs(start).argmin()])
        side /= np.linalg.norm(side)
        return 2 * np.outer(side, side) - np.eye(3)
    if np.linalg.norm(cross) < 1e-6:  # written from this very body: keep the identity exact
        return np.eye(3)
    skew = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
    return np.eye(3) + skew + skew @ skew / (1 + cosine)


def best_rotation(ours: np.ndarray, theirs: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Vectors (n, 3) each -> R with R @ ours = theirs at best (Kabsch); `like` decides what they leave open."""
    if np.abs(ours @ like.T - theirs).max() < 1e-6:
        return like
    sum_of_outer = theirs.T @ ours + 1e-4 * like
    left, _, right = np.linalg.svd(sum_of_outer)
    sign = np.sign(np.linalg.det(left @ right))
    return left @ np.diag([1, 1, sign]) @ right


def _leg_length(positions: np.ndarray, match: range | list[int]) -> float:
    legs = [[positions[match[joint]] for joint in leg] for leg in LEG]
    return float(sum(np.linalg.norm(b - a) + np.linalg.norm(c - b) for a, b, c in legs) / 2)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


# "cmu" is the unit of the CMU mocap library: 0.45 units are an inch.
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inch": 0.0254, "dm": 0.1, "foot": 0.3048, "cmu": 0.0254 / 0.45}
GUESSED = ("m", "cm", "mm", "inch", "cmu")
UPS = {"y": "yup", "z": "zup", "yup": "yup", "zup": "zup", "camera": "camera", "x": "xup"}
_TURNS = {  # to y up
    "yup": np.eye(3),
    "zup": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "camera": np.diag([1.0, -1, -1]),
    "xup": np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]),
}


def in_our_axes(
    skeleton: Skeleton,
    *,
    units: str | float | None = None,
    up: str | None = None,
    handedness: str | None = None,
    mapping: Mapping[str, str] | None = None,
    stated_units: float | None = None,
    stated_up: str | None = None,
) -> tuple[Skeleton, list[str]]:
    """Metres, y up, right-handed. What is not given is what the file states, or is told from the rest pose."""
    match = match_joints(skeleton.names, skeleton.parents, mapping)
    up_name, up_note = _up_axis(skeleton, match, up, stated_up)
    turned = turned_axes(skeleton, _TURNS[up_name])
    mirrored, hand_note = _is_mirrored(turned, match, handedness)
    turned = _mirror(turned) if mirrored else turned
    factor, unit_note = _unit_factor(turned, match, units, stated_units)
    scaled = replace(turned, rest=turned.rest * factor, places=turned.places * factor)
    return scaled, [f"{unit_note}, {up_note}, {hand_note}"]


def turned_axes(skeleton: Skeleton, turn: np.ndarray) -> Skeleton:
    """The same skeleton in other axes: positions turn @ x, rotations turn R turn^T."""
    turns = turn @ skeleton.turns @ turn.T
    return replace(skeleton, rest=skeleton.rest @ turn.T, turns=turns, places=skeleton.places @ turn.T)


def _mirror(skeleton: Skeleton) -> Skeleton:
    return turned_axes(skeleton, np.diag([-1.0, 1, 1]))


def _up_axis(skeleton: Skeleton, match: list[int], given: str | None, stated: str | None) -> tuple[str, str]:
    """The name of the axes and a note. Some programs write rest poses that stand in other axes than the motion."""
    if given is not None or stated is not None:
        name = UPS.get(str(given or stated).lower())
        if name is None:
            raise ComoviError(f"up must be one of {', '.join(UPS)}, got {given!r}.")
        return name, f"{name} axes ({'given' if given else 'stated by the file'})"
    at_rest, _ = _named_axis(
        _unit(skeleton.rest[_top(match)] - (skeleton.rest[match[7]] + skeleton.rest[match[8]]) / 2)
    )
    posture = skeleton.places[:, _top(match)] - (skeleton.places[:, match[7]] + skeleton.places[:, match[8]]) / 2
    upright = (posture / np.maximum(np.linalg.norm(posture, axis=1, keepdims=True), 1e-12)).mean(0)
    in_motion, strength = _named_axis(upright)
    if in_motion and in_motion != at_rest and strength > STANDING and not (at_rest and _lies(skeleton, match, at_rest)):
        return (
            in_motion,
            f"{in_motion} axes (told from how the person stands; the rest pose has {at_rest or 'other axes'})",
        )
    name = at_rest or "yup"
    return name, f"{name} axes (told from the rest pose)"


def _top(match: list[int]) -> int:
    return next(match[joint] for joint in (15, 12, 16) if match[joint] >= 0)


def _named_axis(direction: np.ndarray) -> tuple[str, float]:
    """The axes whose up is nearest to a direction, "" for those that we have no name for; and how near."""
    axis = int(np.abs(direction).argmax())
    names = {(0, True): "xup", (1, True): "yup", (1, False): "camera", (2, True): "zup"}
    return names.get((axis, bool(direction[axis] > 0)), ""), float(abs(direction[axis]))


def _lies(skeleton: Skeleton, match: list[int], name: str) -> bool:
    """Whether, with these axes, the person lies on the floor: low and flat, but not sunk into it."""
    heights = (skeleton.places @ _TURNS[name].T)[..., 1]
    trunk = heights[:, [match[joint] for joint in (0, 1, 2, 4, 5, 7, 8, 12) if match[joint] >= 0]]
    leg = max(_leg_length(skeleton.rest, match), 1e-9)
    return bool(heights.min() > -0.1 * leg and trunk.mean() > 0.05 * leg and np.ptp(trunk) < 0.8 * leg)


def _is_mirrored(skeleton: Skeleton, match: list[int], given: str | None) -> tuple[bool, str]:
    """In right-handed axes left x up is forward, where the toes of the rest pose point."""
    if given is not None:
        if given not in ("left", "right"):
            raise ComoviError(f"handedness must be left or right, got {given!r}.")
        return given == "left", f"{given}-handed (given)"
    rest = skeleton.rest
    left, up = rest[match[1]] - rest[match[2]], rest[match[0]] - (rest[match[7]] + rest[match[8]]) / 2
    forward, toes = np.cross(_unit(left), _unit(up)), np.zeros(3)
    for ankle, foot in ((7, 10), (8, 11)):
        if match[foot] >= 0:
            toes += rest[match[foot]] - rest[match[ankle]]
    toes -= (toes @ _unit(up)) * _unit(up)
    if float(_unit(forward) @ _unit(toes)) < -0.5:
        return True, "left-handed (the toes point backwards otherwise), mirrored to right-handed"
    return False, "right-handed"


def _unit_factor(
    skeleton: Skeleton, match: list[int], given: str | float | None, stated: float | None
) -> tuple[float, str]:
    """Metres per unit of the file."""
    if given is not None:
        factor = UNITS.get(given, 0.0) if isinstance(given, str) else float(given)
        if not 1e-6 <= factor <= 1e3:
            raise ComoviError(f"units must be one of {', '.join(UNITS)} or metres per unit, got {given!r}.")
        return factor, f"units {given} (given)"
    leg = _leg_length(skeleton.rest, match)
    if not leg > 1e-9:
        raise ComoviError("the legs of the file's skeleton have no length.")
    if stated is not None and LEGS[0] / 4 <= leg * stated <= LEGS[1] * 4:
        return stated, f"{stated:g} m per unit (stated by the file)"
    name = min(GUESSED, key=lambda unit: abs(np.log(leg * UNITS[unit] / USUAL_LEG)))
    if LEGS[0] <= leg * UNITS[name] <= LEGS[1]:
        return UNITS[name], f"units {name} (told from the size of the rest pose)"
    factor = USUAL_LEG / leg
    return factor, f"{factor:.4g} m per unit (no usual unit gives a human size, so usual legs are assumed)"
