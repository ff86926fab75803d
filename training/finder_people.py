"""Cut-out people for the person finder: our mannequins in any pose, dress and light, with the truth about their joints.

Drawn with the loop of the synthetic clips. Clothes are colours, patterns and a little thickness over the body: no
cloth, no faces, no hair that hangs, so what learns from them has never seen a photograph of a person.

Letters: V vertices, K = 18 keypoints, h x w pixels of the cut-out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from ..comovi_model.body.mannequin import landmarks, load_mannequin
from ..comovi_model.body.map_render import vertex_normals
from ..comovi_model.estimate.lifter_body import KeypointBody, keypoint_body
from ..comovi_model.nano.actions import ACTION_NAMES
from ..comovi_model.nano.people import load_nano_body
from ..comovi_model.nano.scene import HAIRS, SKINS, NanoBody, rotation, skin
from .lifter_poses import TRAINING_ACTIONS, action_poses, everyday_poses, jittered, mirrored, named_poses, random_poses

FACE_KEYPOINTS = {0: "nose", 14: "reye", 15: "leye", 16: "rear", 17: "lear"}
LIMB_DEPTH = 0.14  # metres: a joint this far behind the first surface is behind something else than its own limb
OCCLUDED = 0.5  # how much of a keypoint is there that is inside the picture but covered
TORSO, UPPER_ARMS, FOREARMS, HANDS = (0, 3, 6, 9, 12, 13, 14), (16, 17), (18, 19), (20, 21, 22, 23)
THIGHS, SHINS, FEET, HEAD = (1, 2), (4, 5), (7, 8, 10, 11), 15


@dataclass(frozen=True)
class Cutout:
    """`colour` (h, w, 3) uint8, already times alpha; `alpha` (h, w) uint8; keypoints (K, 3): x, y, share seen 0..1."""

    colour: np.ndarray
    alpha: np.ndarray
    keypoints: np.ndarray


@dataclass(frozen=True)
class Model:
    """A mannequin ready to be dressed: arrays, rest normals (V, 3) and the joint that moves each vertex most (V,)."""

    body: NanoBody
    normals: np.ndarray
    joint_of_vertex: np.ndarray
    skeleton: KeypointBody


@lru_cache(maxsize=2)
def load_model(full: bool) -> Model:
    """The mannequin at SMPL's size, or the small one of our own pictures."""
    small = load_nano_body()
    if full:
        source = load_mannequin()
        shapedirs, regressor = source.shapedirs.double().numpy(), source.J_regressor.double().numpy()
        template = source.v_template.double().numpy()
        body = NanoBody(template, source.faces.numpy(), source.weights.double().numpy(),
                        source.part_of_vertex.numpy(), regressor @ template, shapedirs,
                        np.einsum("jv,vkb->jkb", regressor, shapedirs))  # fmt: skip
    else:
        body = small
    normals = vertex_normals(torch.from_numpy(body.v_template)[None], torch.from_numpy(body.faces))[0].numpy()
    return Model(body, normals, body.weights.argmax(1), keypoint_body(load_mannequin()).to(torch.float64))


def sample_poses(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Poses of "training" or "evaluation", (N, 24, 3, 3), in a fixed mixture, upright and facing +z."""
    body = load_nano_body()
    ground = float(body.v_template[:, 1].min())
    actions = tuple(n for n in ACTION_NAMES if (n in TRAINING_ACTIONS) == (kind == "training"))
    parts = rng.multinomial(count, (0.45, 0.15, 0.3, 0.1))
    poses = [
        everyday_poses(kind, int(parts[0]), rng),
        random_poses(int(parts[1]), rng),
        action_poses(actions, int(parts[2]), rng, body.joints, ground)[: parts[2]]
        if parts[2]
        else np.empty((0, 24, 3, 3)),
        jittered(named_poses(int(parts[3]), rng), rng, 8.0),
    ]
    local = np.concatenate(poses)
    flip = rng.random(len(local)) < 0.5
    local[flip] = mirrored(local[flip])
    return local[rng.permutation(len(local))]


def draw_person(local: np.ndarray, rng: np.random.Generator, longer_side: float) -> Cutout:
    """One person of a given size in pixels; pose (24, 3, 3). Everything else is drawn from `rng`."""
    model = load_model(bool(rng.random() < 0.6))
    betas = np.clip(rng.normal(0, 0.8, 10), -2, 2)
    colours, thickness = dress(model, rng)
    body = replace(model.body, v_template=model.body.v_template + thickness[:, None] * model.normals)
    pelvis = model.body.shaped(betas)[1][0]
    turns = view_rotation(rng) @ local[0]
    rotations = np.concatenate([turns[None], local[1:]])
    place = np.array([rng.normal(0, 0.15), rng.normal(0, 0.1), np.exp(rng.uniform(np.log(2.2), np.log(9.0)))])
    vertices = skin(body, betas, rotations[None], (place - pelvis)[None])[0][0]
    points = model.skeleton.posed(torch.from_numpy(rotations)[None]).points_at(torch.from_numpy(betas)[None])
    points = points[0].numpy() + place

    flat = vertices[:, :2] / vertices[:, 2:]
    low, high = flat.min(0), flat.max(0)
    focal = longer_side / (high - low).max()
    width, height = (np.ceil((high - low) * focal).astype(int) + 2).tolist()
    centre = 1 - low * focal
    normals = vertex_normals(torch.from_numpy(vertices)[None].float(), torch.from_numpy(body.faces))[0].numpy()
    lit = (colours * light(normals, rng) / 0.66).astype(np.float32)  # the drawing loop itself adds 0.66 of white light
    frames = np.empty((2, 1, height, width, 3), np.uint8)
    unused = np.empty((1, height, width, 3), np.uint8)
    for plate, out in zip((0.0, 1.0), frames, strict=True):
        drawing_loop()(
            vertices[None].astype(np.float32), body.faces, lit, body.part_of_vertex.astype(np.int64),
            np.full((height, width, 3), plate, np.float32), np.zeros((height, width, 3), np.float32),
            np.zeros((1, 0, 4), np.float32), float(focal), float(centre[0]), float(centre[1]),
            np.zeros(3, np.float32), out, unused,
        )  # fmt: skip
    alpha = 255 - np.clip(frames[1, 0].astype(np.int16) - frames[0, 0], 0, 255).max(-1).astype(np.uint8)
    seen = seen_share(points, vertices)
    where = points[:, :2] / points[:, 2:] * focal + centre
    return Cutout(frames[0, 0], alpha, np.concatenate([where, seen[:, None]], -1))


def drawing_loop() -> Callable[..., None]:
    """The loop of the synthetic clips: compiled where numba is, else the same picture in plain PyTorch."""
    if importlib.util.find_spec("numba") is not None:
        from ..comovi_model.nano.draw_fast import draw_frames
    else:
        from ..comovi_model.nano.draw_torch import draw_frames
    return draw_frames


def view_rotation(rng: np.random.Generator) -> np.ndarray:
    """From the body's axes to the camera's: turned any way, seen a little from above or below, seldom tilted."""
    yaw = rng.normal(0, 40) if rng.random() < 0.5 else rng.uniform(-180, 180)
    pitch = rng.normal(4, 9) if rng.random() < 0.9 else rng.uniform(-35, 50)
    roll = rng.normal(0, 4) if rng.random() < 0.9 else rng.uniform(-90, 90)
    to_camera = np.diag([1.0, -1.0, -1.0])
    return (
        rotation("z", np.radians(roll)) @ to_camera @ rotation("x", np.radians(pitch)) @ rotation("y", np.radians(yaw))
    )


def seen_share(points: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """(K,) 1 seen, 0.5 covered, 0 a point of the face that looks away; by a coarse buffer of depths."""
    flat, low = vertices[:, :2] / vertices[:, 2:], (vertices[:, :2] / vertices[:, 2:]).min(0)
    cell = (flat.max(0) - low).max() / 40
    nearest = np.full((44, 44), np.inf)
    index = ((flat - low) / cell).astype(int)
    np.minimum.at(nearest, (index[:, 1], index[:, 0]), vertices[:, 2])
    at = np.clip(((points[:, :2] / points[:, 2:] - low) / cell).astype(int), 0, 43)
    behind = points[:, 2] - nearest[at[:, 1], at[:, 0]]
    seen = np.where(behind > LIMB_DEPTH, OCCLUDED, 1.0)
    middle = (points[16] + points[17]) / 2  # between the ears
    for number in FACE_KEYPOINTS:
        outward = points[number] - middle
        angle = -(outward @ points[number]) / (np.linalg.norm(outward) * np.linalg.norm(points[number]) + 1e-9)
        if angle < (-0.25 if number >= 16 else -0.05) or behind[number] > LIMB_DEPTH:
            seen[number] = 0
    return seen


def light(normals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness (V, 3) of vertices under one lamp from somewhere above and light from everywhere."""
    lamp = np.array([rng.normal(), -abs(rng.normal(0.7, 0.6)), rng.normal(-0.5, 0.8)])
    lamp /= np.linalg.norm(lamp)
    everywhere = rng.uniform(0.35, 0.85)
    tint = 1 + rng.normal(0, 0.05, 3)
    return (everywhere + (1.1 - everywhere) * np.maximum(normals @ lamp, 0))[:, None] * tint


def any_colour(rng: np.random.Generator) -> np.ndarray:
    """A colour of cloth: vivid, dark, pale or grey."""
    kind = rng.integers(4)
    if kind == 0:
        return rng.uniform(0, 1, 3)
    grey = (rng.uniform(0.02, 0.3), rng.uniform(0.6, 1.0), rng.uniform(0.1, 0.9))[kind - 1]
    return np.clip(grey + rng.normal(0, 0.06, 3), 0, 1)


def dress(model: Model, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colours (V, 3) and thickness of the clothes (V,) in metres."""
    joint, place = model.joint_of_vertex, model.body.v_template
    colours, thickness = np.empty_like(place), np.zeros(len(place))
    tone = np.array(SKINS)[rng.integers(3)] * rng.uniform(0.6, 1.1) + rng.normal(0, 0.02, 3)
    if rng.random() < 0.06:
        tone = any_colour(rng)  # a mannequin of one colour
    colours[:] = tone
    if rng.random() < 0.94:
        shirt = [*TORSO[1:], *(UPPER_ARMS if rng.random() < 0.85 else ()), *(FOREARMS if rng.random() < 0.5 else ())]
        trousers = [0, *THIGHS, *(SHINS if rng.random() < 0.75 else ())]
        cloths = [(shirt, cloth(place, rng)), (trousers, cloth(place, rng)), (list(FEET), cloth(place, rng))]
        if rng.random() < 0.15:
            cloths[1] = (trousers, cloths[0][1])  # one piece
        if rng.random() < 0.2:
            cloths.pop()  # bare feet
        if rng.random() < 0.05:
            cloths.append((list(HANDS), cloth(place, rng)))
        for joints, colour in cloths:
            where = np.isin(joint, joints) & ~((joint == 12) & (place[:, 1] > place[joint == 12, 1].mean()))
            colours[where] = colour[where]
            thickness[where] = abs(rng.normal(0, 0.012)) * rng.uniform(0.6, 1.2)
    head = joint == HEAD
    low, high = place[head].min(0), place[head].max(0)
    up, ahead = ((place - low) / (high - low))[:, 1], ((place - low) / (high - low))[:, 2]
    if rng.random() < 0.9:
        line, cap = rng.uniform(0.1, 0.6), rng.uniform(0.7, 0.9)
        hair = head & ((up > cap) | ((ahead < rng.uniform(0.4, 0.6)) & (up > line)))
        colour = np.array(HAIRS)[rng.integers(3)] * rng.uniform(0.3, 1.2) if rng.random() < 0.8 else any_colour(rng)
        colours[hair] = colour
        thickness[hair] = abs(rng.normal(0, 0.015))
    face = head & (ahead > 0.75)
    if rng.random() < 0.7:  # what a face has at least: darker eyes and mouth
        points = landmarks()
        marks = [points["leye"], points["reye"]] if len(place) == 6890 else []
        for mark in marks:
            near = np.linalg.norm(place - place[mark], axis=1) < rng.uniform(0.008, 0.016)
            colours[near & face] *= rng.uniform(0.1, 0.5)
    return np.clip(colours, 0, 1), thickness


def cloth(place: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colours (V, 3) of a cloth over the whole body: plain, striped, checked or blotched."""
    base, other = any_colour(rng), any_colour(rng)
    kind = rng.integers(6)
    if kind < 3:
        mix = np.zeros(len(place))
    elif kind == 3:
        axis = rng.normal(0, 1, 3)
        mix = 0.5 + 0.5 * np.sin(place @ axis / np.linalg.norm(axis) * rng.uniform(20, 120) + rng.uniform(0, 6))
    elif kind == 4:
        size = rng.uniform(0.03, 0.15)
        mix = np.floor(place / size).sum(-1) % 2
    else:
        waves = rng.normal(0, rng.uniform(8, 30), (6, 3))
        mix = 1 / (1 + np.exp(-2 * np.sin(place @ waves.T + rng.uniform(0, 6, 6)).sum(-1)))
    return base + (mix * rng.uniform(0.3, 1))[:, None] * (other - base)
