"""Names of joints in other skeletons: four presets to write, many spellings to read.

Letters: J = 24 joints of SMPL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..body.parts import JOINT_NAMES, PARENTS
from ..errors import ComoviError
from .formats import NAMINGS

_PRESETS = {
    "smpl": JOINT_NAMES,
    "mixamo": tuple(
        "mixamorig:" + name
        for name in (
            "Hips", "LeftUpLeg", "RightUpLeg", "Spine", "LeftLeg", "RightLeg", "Spine1", "LeftFoot", "RightFoot",
            "Spine2", "LeftToeBase", "RightToeBase", "Neck", "LeftShoulder", "RightShoulder", "Head", "LeftArm",
            "RightArm", "LeftForeArm", "RightForeArm", "LeftHand", "RightHand", "LeftHandMiddle1", "RightHandMiddle1",
        )
    ),
    "unreal": (
        "pelvis", "thigh_l", "thigh_r", "spine_01", "calf_l", "calf_r", "spine_02", "foot_l", "foot_r", "spine_03",
        "ball_l", "ball_r", "neck_01", "clavicle_l", "clavicle_r", "head", "upperarm_l", "upperarm_r", "lowerarm_l",
        "lowerarm_r", "hand_l", "hand_r", "middle_01_l", "middle_01_r",
    ),
    "vrm": (
        "hips", "leftUpperLeg", "rightUpperLeg", "spine", "leftLowerLeg", "rightLowerLeg", "chest", "leftFoot",
        "rightFoot", "upperChest", "leftToes", "rightToes", "neck", "leftShoulder", "rightShoulder", "head",
        "leftUpperArm", "rightUpperArm", "leftLowerArm", "rightLowerArm", "leftHand", "rightHand",
        "leftMiddleProximal", "rightMiddleProximal",
    ),
}  # fmt: skip

# Spellings without sides, spaces and signs. A later group counts only if no earlier one of its joint is there:
# "shoulder" is the collar bone where an "arm" exists, and the upper arm where not.
_MIDDLE = {
    "pelvis": ("hips", "pelvis", "hip", "root", "mpelvis", "bip01pelvis", "abdomen"),
    "neck": ("neck", "neck01", "neck1", "lowerneck", "necklower"),
    "head": ("head", "skull"),
}
_SIDED = {
    "hip": (("upleg", "upperleg", "thigh", "femur", "upperlegs", "thighbend"), ("hip", "hipjoint"), ("leg1",)),
    "knee": (("knee", "shin", "calf", "tibia", "lowerleg", "lowleg", "shinbone"), ("leg",)),
    "ankle": (("ankle",), ("foot",), ("feet",)),
    "foot": (("toe", "toes", "toebase", "ball", "toe0", "toebase01", "forefoot"), ("foot",)),
    "collar": (("collar", "clavicle", "collarbone", "clav", "innershoulder"), ("shoulder",)),
    "shoulder": (("uparm", "upperarm", "humerus", "shldrbend", "shldr"), ("arm",), ("shoulder",)),
    "elbow": (("elbow", "forearm", "lowerarm", "radius", "lowarm", "forearmbend", "ulna"),),
    "wrist": (("wrist",), ("hand",)),
    "hand": (
        ("handmiddle1", "middle01", "middleproximal", "middle1", "handmiddle", "middlefinger1", "fingerbase"),
        ("hand",),
        ("palm",),
    ),
}
_NEEDED = (
    "pelvis", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow",
)  # fmt: skip


def preset_names(naming: str) -> tuple[str, ...]:
    """The 24 names of a preset, in SMPL's order."""
    if naming not in _PRESETS:
        raise ComoviError(f"joint names must be one of {', '.join(NAMINGS)}, got {naming!r}.")
    return _PRESETS[naming]


def match_joints(names: Sequence[str], parents: Sequence[int], given: Mapping[str, str] | None = None) -> list[int]:
    """For each joint of SMPL the number of the joint that drives it, or -1 (24 numbers).

    names and parents describe the foreign skeleton, parents[i] < i. `given` {SMPL name: foreign name} comes first.
    """
    for preset in _PRESETS.values():
        if given is None and set(preset) <= set(names):
            return [list(names).index(name) for name in preset]
    found = _given(names, given)
    keys = [_key(name) for name in names]
    for joint, spellings in _MIDDLE.items():
        _take(found, joint, [(keys.index(("", word)) if ("", word) in keys else -1) for word in spellings])
    for side in ("left", "right"):
        for joint, groups in _SIDED.items():
            for group in groups:
                _take(found, f"{side}_{joint}", [_find(keys, side, word) for word in group])
    if "pelvis" not in found and {"left_hip", "right_hip"} <= found.keys():
        found["pelvis"] = _common_ancestor(parents, found["left_hip"], found["right_hip"])
    _spine(found, parents)
    missing = [joint for joint in _NEEDED if found.get(joint, -1) < 0]
    if missing and given is None and len(names) in (22, 24) and tuple(parents) == PARENTS[: len(names)]:
        return [*range(len(names)), *[-1] * (24 - len(names))]  # SMPL's own tree under other names
    if missing:
        raise ComoviError(
            f"the skeleton's joints cannot be matched to a body: no joint for {', '.join(missing[:4])} among "
            f"{', '.join(str(name)[:24] for name in names[:12])}...; give a mapping {{SMPL name: its name}}."
        )
    return [found.get(name, -1) for name in JOINT_NAMES]


def _given(names: Sequence[str], given: Mapping[str, str] | None) -> dict[str, int]:
    found = {}
    for joint, name in (given or {}).items():
        if joint not in JOINT_NAMES or name not in names:
            raise ComoviError(f"mapping {joint!r}: {name!r} needs a joint of SMPL and a joint of the file.")
        found[joint] = list(names).index(name)
    return found


def _take(found: dict[str, int], joint: str, candidates: Sequence[int]) -> None:
    used = set(found.values())
    free = [number for number in candidates if number >= 0 and number not in used]
    if joint not in found and free:
        found[joint] = free[0]


def _find(keys: Sequence[tuple[str, str]], side: str, word: str) -> int:
    return keys.index((side, word)) if (side, word) in keys else -1


def _key(name: str) -> tuple[str, str]:
    """ "mixamorig:LeftUpLeg", "upleg_l", "lUpLeg" -> ("left", "upleg"); the middle of the body has no side."""
    name = re.split(r"[:|]", name)[-1]
    name = re.sub(
        r"^(mixamorig\d*_?|Character\d*_|Bip\d+[ _]|[mM]_avg_|[fF]_avg_|J_Bip_(?=[CLR]_)|DEF-|ValveBiped\.)", "", name
    )
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    parts = [part for part in re.split(r"[\s_.\-]+", words.lower()) if part]
    for side, marks in (("left", ("left", "l")), ("right", ("right", "r"))):
        for mark in marks:
            if parts and len(parts) > 1 and mark in (parts[0], parts[-1]):
                parts.pop(0 if parts[0] == mark else -1)
                return side, "".join(parts)
    whole = "".join(part for part in parts if part != "c")
    for side in ("left", "right"):
        if whole.startswith(side) and len(whole) > len(side):
            return side, whole[len(side) :]
    for side in ("left", "right"):
        bare = whole[1:]
        if whole[:1] == side[0] and any(bare in group for groups in _SIDED.values() for group in groups):
            return side, bare
    return "", whole


def _ancestors(parents: Sequence[int], joint: int) -> list[int]:
    """From the joint's parent to the root."""
    chain = []
    while parents[joint] >= 0:
        joint = parents[joint]
        chain.append(joint)
    return chain


def _common_ancestor(parents: Sequence[int], first: int, second: int) -> int:
    chain = set(_ancestors(parents, first))
    return next((joint for joint in _ancestors(parents, second) if joint in chain), 0)


def _spine(found: dict[str, int], parents: Sequence[int]) -> None:
    """spine1, spine2, spine3 by place: whatever lies between the pelvis and the joint that carries both arms."""
    if not {"pelvis", "left_shoulder", "right_shoulder"} <= found.keys():
        return
    chest = _common_ancestor(parents, found["left_shoulder"], found["right_shoulder"])
    chain: list[int] = []
    for joint in [chest, *_ancestors(parents, chest)]:
        if joint == found["pelvis"]:
            break
        chain.insert(0, joint)
    else:
        chain = []
    places = [found["pelvis"], *chain]
    for number in (1, 2, 3):
        found.setdefault(f"spine{number}", places[round(number / 3 * len(chain))])
