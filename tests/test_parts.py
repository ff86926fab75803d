"""The order of the 24 parts, which fixes the colours of every motion map, and the segmentation file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from comfyui_comovi.comovi_model.body import parts
from comfyui_comovi.comovi_model.errors import ComoviError


def segmentation(num_vertices: int) -> dict[str, list[int]]:
    """Every vertex once, in the order of the parts."""
    part = np.arange(num_vertices) * 24 // num_vertices
    return {name: np.flatnonzero(part == r).tolist() for r, name in enumerate(parts.PART_NAMES)}


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.pop("head"), lambda table: table.update(tail=[1]), lambda table: table["head"].clear(),
        lambda table: table.update(head=[10**6]), lambda table: table.update(head="all"),
        lambda table: table.update(head=[1.5]),
    ],
)  # fmt: skip
def test_broken_segmentations_are_refused(tmp_path, change):
    table = segmentation(100)
    change(table)
    (tmp_path / "s.json").write_text(json.dumps(table))
    with pytest.raises(ComoviError, match="s.json"):
        parts.parts_from_segmentation(tmp_path / "s.json", 100)


def test_segmentations_that_are_no_json_are_refused(tmp_path):
    for content in (b"{", b"[1]", b"\xff\xfe", b"[" * 100000):
        (tmp_path / "s.json").write_bytes(content)
        with pytest.raises(ComoviError, match="s.json"):
            parts.parts_from_segmentation(tmp_path / "s.json", 100)


def test_the_order_of_parts_is_the_one_that_fixes_the_colours():
    order = "rightHand rightUpLeg leftArm leftLeg leftToeBase leftFoot spine1 spine2 leftShoulder rightShoulder "
    order += "rightFoot head rightArm leftHandIndex1 rightLeg rightHandIndex1 leftForeArm rightForeArm neck "
    order += "rightToeBase spine leftUpLeg leftHand hips"
    assert order.split() == list(parts.PART_NAMES)
    assert sorted(parts.PART_OF_JOINT) == list(range(24))
    assert all(parts.JOINT_OF_PART[part] == joint for joint, part in enumerate(parts.PART_OF_JOINT))
    assert parts.PART_NAMES[parts.PART_OF_JOINT[parts.JOINT_NAMES.index("left_elbow")]] == "leftForeArm"
    assert len(set(parts.part_palette())) == 24


def test_later_names_of_the_file_overwrite_earlier_ones(tmp_path):
    table = segmentation(100)
    shared = table["head"][0]
    table["neck"].append(shared)  # neck comes after head
    table["rightHand"].append(shared)  # and rightHand before it
    path = tmp_path / "s.json"
    path.write_text(json.dumps(table))
    part = parts.parts_from_segmentation(path, 100)
    assert parts.PART_NAMES[part[shared]] == "neck"
    assert parts.PART_NAMES[part[table["head"][1]]] == "head"
    path.write_text(json.dumps(dict(sorted(table.items()))))  # head, neck, rightHand: the file's order decides
    assert parts.PART_NAMES[parts.parts_from_segmentation(path, 100)[shared]] == "rightHand"


def test_every_part_can_come_from_its_joint():
    weights = parts.torch.eye(24)
    assert parts.parts_from_weights(weights).tolist() == list(parts.PART_OF_JOINT)
