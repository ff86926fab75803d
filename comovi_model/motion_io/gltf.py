"""Animated glTF and GLB of a person onto our body: ours exactly, others by retargeting.

Letters: F frames, N joints of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..body.motion import NUM_BETAS, BodyMotion
from ..body.rotations import quaternion_to_matrix
from ..body.smpl import BodyModel
from ..errors import ComoviError
from .gltf_text import Gltf, parse_gltf, sample
from .limits import check_frames
from .skeleton import Skeleton, in_our_axes, retarget

DEFAULT_RATE = 30.0


def read_gltf(
    content: bytes,
    body: BodyModel,
    *,
    fps: float | None = None,
    units: str | float | None = None,
    up: str | None = None,
    handedness: str | None = None,
    mapping: Mapping[str, str] | None = None,
    betas: torch.Tensor | None = None,
    shape: str = "fit",
) -> tuple[BodyMotion, list[str]]:
    """-> motion of `body` in frame "yup", and notes."""
    gltf = parse_gltf(content)
    skeleton, notes = skeleton_of(gltf, fps)
    skeleton, axes = in_our_axes(
        skeleton, units=units, up=up, handedness=handedness or "right", mapping=mapping, stated_units=1.0,
        stated_up="yup",
    )  # fmt: skip
    own = _own_betas(gltf.document, body) if betas is None else betas
    motion, more = retarget(skeleton, body, mapping=mapping, betas=own, shape=shape)
    if own is not None and betas is None:
        more.append("body shape as stated by the file")
    return motion, [*notes, *axes, *more]


def _own_betas(document: dict[str, Any], body: BodyModel) -> torch.Tensor | None:
    """Our own files state them."""
    extras = document.get("extras")
    if not isinstance(extras, dict) or str(extras.get("body_model", "")).removesuffix("-nano") != body.shape_space:
        return None
    betas = extras.get("betas")
    if not isinstance(betas, list) or len(betas) != NUM_BETAS or not all(isinstance(x, (int, float)) for x in betas):
        return None
    found = torch.tensor([float(x) for x in betas])
    return found if bool((found.abs() < 100).all()) else None


def skeleton_of(gltf: Gltf, fps: float | None) -> tuple[Skeleton, list[str]]:
    """Joints of the largest skin (without one: all named nodes) over the longest animation."""
    nodes = gltf.items("nodes")
    order, parents = _tree(gltf)
    skin = max(gltf.items("skins"), key=lambda item: len(item.get("joints", [])), default=None)
    keys, tracks, name = _animation(gltf)
    rate, note = _rate(gltf, keys, fps)
    start, end = min(track[0] for track in keys), max(track[-1] for track in keys)
    frames = round((end - start) * rate) + 1
    joints = _joints(skin, nodes, order)
    moving = {node for node, _ in tracks}
    for number in order:
        if parents[number] in moving:
            moving.add(number)  # with what it hangs on
    check_frames(frames, max(len(moving), len(joints)))
    at = start + np.arange(frames) / rate
    local = _local(nodes, tracks, at)
    worlds: dict[int, np.ndarray] = {}  # (F, 4, 4), or (4, 4) where nothing above moves
    for number in order:
        parent = parents[number]
        worlds[number] = local[number] if parent < 0 else worlds[parent] @ local[number]
    world = np.stack([np.broadcast_to(worlds[number], (frames, 4, 4)) for number in joints], 1)
    if skin is not None and "inverseBindMatrices" in skin:
        inverse = gltf.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        listed = [number for number in skin["joints"] if type(number) is int]
        if len(inverse) < len(listed):
            raise ComoviError("the skin of the glTF file has fewer matrices than joints.")
        to_joint = np.stack([inverse[listed.index(number)] for number in joints])
        top = parents[joints[0]]
        above = worlds[top] if top >= 0 else np.eye(4)
        above = above[0] if above.ndim == 3 else above
    else:
        still = _local(nodes, {}, at)
        rest_world: dict[int, np.ndarray] = {}
        for number in order:
            parent = parents[number]
            rest_world[number] = still[number] if parent < 0 else rest_world[parent] @ still[number]
        to_joint = _inverse(np.stack([rest_world[number] for number in joints]))
        above = np.eye(4)
    moved = world @ to_joint  # takes the rest pose to each frame
    turns = polar(moved[..., :3, :3])
    size = float(np.cbrt(np.abs(np.linalg.det(moved[0, 0, :3, :3]))))
    straight = polar(above[:3, :3])  # the file may keep its rest pose in other axes than its world
    rest = _inverse(to_joint)[:, :3, 3] @ straight.T * size
    index = {number: place for place, number in enumerate(joints)}
    tree = [_nearest(parents, number, index) for number in joints]
    names = tuple(str(nodes[number].get("name", f"node{number}")) for number in joints)
    skeleton = Skeleton(names, tuple(tree), rest, turns @ straight.T, world[..., :3, 3], rate)
    notes = [f"animation {name!r}: {frames} frames at {rate:.6g} per second ({note}), {len(joints)} joints"]
    return skeleton, notes


def polar(matrices: np.ndarray) -> np.ndarray:
    """(..., 3, 3) with any scale -> the nearest rotations."""
    left, singular, right = np.linalg.svd(matrices)
    if singular.min(initial=1) < 1e-9:
        raise ComoviError("a joint of the file is scaled to nothing, so its rotation cannot be read.")
    sign = np.sign(np.linalg.det(left @ right))
    left[..., :, 2] *= sign[..., None]
    return left @ right


def _inverse(matrices: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.inv(matrices)
    except np.linalg.LinAlgError:
        raise ComoviError("a rest matrix of the file cannot be inverted; the file is damaged.") from None


def _tree(gltf: Gltf) -> tuple[list[int], list[int]]:
    """Nodes so that parents come first, and the parent of each."""
    nodes = gltf.items("nodes")
    parents = [-1] * len(nodes)
    for number, node in enumerate(nodes):
        children = node.get("children", [])
        for child in children if isinstance(children, list) else []:
            if type(child) is not int or not 0 <= child < len(nodes) or parents[child] >= 0:
                raise ComoviError("the nodes of the glTF file are no tree; the file is damaged.")
            parents[child] = number
    order = [number for number in range(len(nodes)) if parents[number] < 0]
    for number in order:
        order.extend(child for child in nodes[number].get("children", []) if parents[child] == number)
        if len(order) > len(nodes):
            break
    if len(order) != len(nodes):
        raise ComoviError("the nodes of the glTF file go round in a circle; the file is damaged.")
    return order, parents


def _joints(skin: dict[str, Any] | None, nodes: list[dict[str, Any]], order: list[int]) -> list[int]:
    if skin is None:
        wanted = {number for number, node in enumerate(nodes) if "name" in node and "mesh" not in node}
    else:
        listed = skin.get("joints", [])
        wanted = {number for number in listed if type(number) is int} if isinstance(listed, list) else set()
    joints = [number for number in order if number in wanted]
    if not joints or (skin is not None and len(joints) != len(wanted)):
        raise ComoviError("the glTF file has no usable skeleton.")
    return joints


def _nearest(parents: list[int], number: int, index: dict[int, int]) -> int:
    """The nearest ancestor that is a joint."""
    number = parents[number]
    while number >= 0 and number not in index:
        number = parents[number]
    return index.get(number, -1)


_Track = tuple[np.ndarray, np.ndarray, str]  # times, values, interpolation


def _animation(gltf: Gltf) -> tuple[list[np.ndarray], dict[tuple[int, str], _Track], str]:
    """The animation with most channels -> key times, {(node, path): track}, its name."""
    animations = gltf.items("animations")
    if not animations:
        raise ComoviError("the glTF file holds no animation, so there is no motion in it.")
    animation = max(animations, key=lambda item: len(item.get("channels", [])))
    inside = Gltf({"samplers": animation.get("samplers", []), "channels": animation.get("channels", [])}, b"")
    arrays: dict[Any, np.ndarray] = {}
    tracks: dict[tuple[int, str], _Track] = {}
    for channel in inside.items("channels"):
        target = channel.get("target")
        path, node = (target.get("path"), target.get("node")) if isinstance(target, dict) else (None, None)
        if type(node) is not int or path not in ("translation", "rotation", "scale"):
            continue
        sampler = inside.item("samplers", channel.get("sampler"))
        for key in ("input", "output"):
            number = sampler.get(key)
            if number not in arrays:
                arrays[number] = gltf.array(number)
        times, values = arrays[sampler.get("input")][:, 0], arrays[sampler.get("output")]
        if not len(times) or (np.diff(times) <= 0).any() or values.shape[1] != (4 if path == "rotation" else 3):
            raise ComoviError("an animation of the glTF file has times that do not rise, or values of a wrong size.")
        tracks[node, path] = (times, values, str(sampler.get("interpolation", "LINEAR")))
    if not tracks:
        raise ComoviError("the animation of the glTF file moves no node.")
    return [track[0] for track in tracks.values()], tracks, str(animation.get("name", ""))[:60]


def _rate(gltf: Gltf, keys: list[np.ndarray], fps: float | None) -> tuple[float, str]:
    if fps is not None:
        return float(fps), "given"
    extras = gltf.document.get("extras")
    stated = extras.get("fps") if isinstance(extras, dict) else None
    if isinstance(stated, (int, float)) and 0 < stated <= 1000:
        return float(stated), "stated by the file"
    longest = max(keys, key=len)
    if len(longest) < 2:
        return DEFAULT_RATE, "assumed"
    steps = np.diff(longest)
    step = float(np.median(steps))
    if np.abs(steps - step).max() < 0.01 * step:  # evenly: the whole length tells more than one step in float32
        step = float(longest[-1] - longest[0]) / len(steps)
    near = next(
        (fps for fps in (round(1 / step), round(1.001 / step) / 1.001) if fps and abs(fps * step - 1) < 2e-4), None
    )
    return float(near or 1 / step), "told from the times of the keys"


def _local(nodes: list[dict[str, Any]], tracks: Mapping[tuple[int, str], _Track], at: np.ndarray) -> list[np.ndarray]:
    """Local matrices of all nodes: (4, 4), or (F, 4, 4) where one is animated."""
    result = []
    for number, node in enumerate(nodes):
        parts: dict[str, np.ndarray] = {}
        for path, width, rest in (
            ("translation", 3, (0, 0, 0)),
            ("rotation", 4, (0, 0, 0, 1)),
            ("scale", 3, (1, 1, 1)),
        ):
            if (number, path) in tracks:
                parts[path] = sample(*tracks[number, path], path == "rotation", at)
            else:
                parts[path] = _numbers(node.get(path, rest), width)
        if "matrix" in node:
            result.append(_numbers(node["matrix"], 16).reshape(4, 4).T)
            continue
        lead = np.broadcast_shapes(*(part.shape[:-1] for part in parts.values()))
        matrix = np.zeros((*lead, 4, 4))
        quaternion = torch.from_numpy(np.ascontiguousarray(parts["rotation"][..., [3, 0, 1, 2]]))
        matrix[..., :3, :3] = quaternion_to_matrix(quaternion).numpy() * parts["scale"][..., None, :]
        matrix[..., :3, 3] = parts["translation"]
        matrix[..., 3, 3] = 1
        result.append(matrix)
    return result


def _numbers(value: Any, width: int) -> np.ndarray:
    try:
        numbers = np.array(value, dtype=np.float64)
    except (ValueError, TypeError):
        numbers = np.zeros(0)
    if numbers.shape != (width,) or not np.isfinite(numbers).all():
        raise ComoviError(f"a node of the glTF file needs {width} numbers, got {str(value)[:60]}.")
    return numbers
