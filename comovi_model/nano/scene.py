"""One synthetic clip as numbers: who, where, what; everything that drawing needs, nothing drawn yet.

Shapes: F frames, V vertices, J = 24 joints. World frame: y up, floor at y = 0, metres, the camera looks along -z.
Camera frame: OpenCV (x right, y down, z away). A clip is a pure function of its seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .actions import ACTION_NAMES, ACTIONS, SPEEDS, ActionRequest, perform
from .skeleton import PARENTS, rotation

WIDTH, HEIGHT, NUM_FRAMES, FPS = 128, 192, 33, 16.0
PIXELS_PER_METRE = 81.0
LOOK_AT_HEIGHT = 1.07

CLOTHES = {
    "red": (0.80, 0.16, 0.14), "orange": (0.93, 0.52, 0.12), "yellow": (0.90, 0.80, 0.20), "green": (0.20, 0.58, 0.25),
    "blue": (0.17, 0.32, 0.78), "purple": (0.50, 0.22, 0.66), "pink": (0.93, 0.52, 0.70), "black": (0.16, 0.16, 0.18),
}  # fmt: skip
SKINS = ((0.93, 0.76, 0.64), (0.76, 0.56, 0.42), (0.48, 0.33, 0.25))
HAIRS = ((0.16, 0.12, 0.10), (0.42, 0.27, 0.15), (0.78, 0.64, 0.36))
SHOE = (0.22, 0.20, 0.20)
# Part numbers of the motion map (see body/map_colours.py): what each garment covers.
SHIRT_PARTS, TROUSER_PARTS = (6, 7, 8, 9, 20, 2, 12), (23, 1, 21, 3, 14)
SHOE_PARTS, HEAD_PART = (4, 5, 10, 19), 11


@dataclass(frozen=True)
class NanoBody:
    """The reduced mannequin that clips are drawn with (numpy copies of `assets/nano_body.safetensors`)."""

    v_template: np.ndarray  # (V, 3) metres, T-pose
    faces: np.ndarray  # (N, 3) int32
    weights: np.ndarray  # (V, 24)
    part_of_vertex: np.ndarray  # (V,) 0..23
    joints: np.ndarray  # (24, 3) rest joints at betas 0
    shapedirs: np.ndarray  # (V, 3, 10)
    joint_shapedirs: np.ndarray  # (24, 3, 10)

    def shaped(self, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rest vertices (V, 3) and joints (24, 3) for betas (10,)."""
        return self.v_template + self.shapedirs @ betas, self.joints + self.joint_shapedirs @ betas


@dataclass(frozen=True)
class Camera:
    """A fixed pinhole camera: `rotation` (3, 3) world -> camera, `position` (3,) world, focal length in pixels."""

    rotation: np.ndarray
    position: np.ndarray
    focal_px: float
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def K(self) -> np.ndarray:  # the field's name for the intrinsic matrix
        """Intrinsics (3, 3), pixels; the principal point is the image centre."""
        return np.array([[self.focal_px, 0, self.width / 2], [0, self.focal_px, self.height / 2], [0, 0, 1.0]])

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) -> camera points (..., 3)."""
        return (points - self.position) @ self.rotation.T


def look_at(position: np.ndarray, target: np.ndarray, focal_px: float) -> Camera:
    """A level camera at `position` whose optical axis goes through `target`."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    return Camera(np.stack([right, np.cross(forward, right), forward]), position, focal_px)


@dataclass(frozen=True)
class Look:
    """What a person and a place look like; colours are RGB in 0..1."""

    shirt: str
    trousers: str
    vertex_tints: dict = field(default_factory=dict)  # garment -> rgb actually used
    wall_top: tuple = (0.9, 0.9, 0.9)
    wall_bottom: tuple = (0.85, 0.85, 0.85)
    floor: tuple = (0.7, 0.7, 0.7)
    checker: float = 0.0  # signed contrast of the floor pattern, 0 = plain
    hair_long: bool = False


@dataclass(frozen=True)
class Scene:
    """One clip, ready to be drawn."""

    seed: int
    request: ActionRequest
    look: Look
    camera: Camera
    betas: np.ndarray  # (10,)
    rotations: np.ndarray  # (F, 24, 3, 3) local; the root's in the world
    transl: np.ndarray  # (F, 3) SMPL translation, world (pelvis = transl + J0(betas))

    def camera_motion(self, body: NanoBody) -> tuple[np.ndarray, np.ndarray]:
        """Rotations (F, 24, 3, 3) and SMPL transl (F, 3) in the camera frame."""
        rest_pelvis = body.shaped(self.betas)[1][0]
        rotations = self.rotations.copy()
        rotations[:, 0] = self.camera.rotation @ rotations[:, 0]
        return rotations, self.camera.to_camera(self.transl + rest_pelvis) - rest_pelvis


def _tint(rng: np.random.Generator, colour: tuple, amount: float = 0.07) -> tuple:
    return tuple(np.clip(np.asarray(colour) * (1 + rng.uniform(-amount, amount, 3)), 0.02, 0.98))


def sample_look(rng: np.random.Generator, shirt: str | None = None, trousers: str | None = None) -> Look:
    """Clothes, skin, hair and a plain pale place; colours that the sentence names may be fixed."""
    names = tuple(CLOTHES)
    first, second = names[rng.integers(len(names))], names[rng.integers(len(names))]
    shirt, trousers = shirt or first, trousers or second
    pale = rng.uniform(0.72, 0.95, (2, 3)) * rng.uniform(0.93, 1.0, (2, 1))
    tints = {
        "shirt": _tint(rng, CLOTHES[shirt]),
        "trousers": _tint(rng, CLOTHES[trousers]),
        "skin": _tint(rng, SKINS[rng.integers(3)], 0.04),
        "hair": _tint(rng, HAIRS[rng.integers(3)], 0.05),
        "shoes": _tint(rng, SHOE, 0.1),
    }
    checker = rng.uniform(0.02, 0.06) * rng.choice([-1, 1]) if rng.random() < 0.3 else 0.0
    floor = tuple(rng.uniform(0.55, 0.75) * rng.uniform(0.92, 1.0, 3))
    return Look(shirt, trousers, tints, tuple(pale[0]), tuple(pale[1]), floor, checker, bool(rng.random() < 0.5))


def sample_scene(
    seed: int,
    body: NanoBody,
    request: ActionRequest | None = None,
    shirt: str | None = None,
    trousers: str | None = None,
) -> Scene:
    """The clip of one seed. What is given (request, colours) replaces what the seed would draw; the rest stays."""
    rng = np.random.default_rng([seed, 0xC0])
    action = int(rng.integers(len(ACTIONS)))
    side = ("left", "right")[int(rng.integers(2))] if ACTIONS[action].sided else ""
    speed = tuple(SPEEDS)[int(rng.integers(3))]
    request = request or ActionRequest(action, side, speed)
    look = sample_look(rng, shirt, trousers)
    distance = rng.uniform(8.5, 10.0)
    focal = PIXELS_PER_METRE * distance * (1 + rng.uniform(-0.03, 0.03))
    lateral, height = rng.uniform(-0.05, 0.05), rng.uniform(1.2, 1.6)
    camera = look_at(np.array([lateral, height, distance]), np.array([lateral, LOOK_AT_HEIGHT, 0.0]), focal)
    betas = np.zeros(10)
    betas[:2] = rng.uniform(-0.5, 0.5, 2)
    facing = np.radians(rng.uniform(-25, 25))
    offset = np.array([rng.uniform(-0.10, 0.10), 0.0, rng.uniform(-0.15, 0.15)])
    vertices, joints = body.shaped(betas)
    local, pelvis = perform(request, joints, float(vertices[:, 1].min()), NUM_FRAMES, FPS, rng)
    spin = rotation("y", facing)
    local[:, 0] = spin @ local[:, 0]
    return Scene(seed, request, look, camera, betas, local, pelvis @ spin.T + offset - joints[0])


def forward_kinematics(rotations: np.ndarray, transl: np.ndarray, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World rotations (F, 24, 3, 3) and positions (F, 24, 3) of all joints."""
    world = np.empty_like(rotations)
    position = np.empty((len(rotations), 24, 3))
    world[:, 0], position[:, 0] = rotations[:, 0], transl + joints[0]
    for j in range(1, 24):
        parent = PARENTS[j]
        world[:, j] = world[:, parent] @ rotations[:, j]
        position[:, j] = position[:, parent] + world[:, parent] @ (joints[j] - joints[parent])
    return world, position


def skin(body: NanoBody, betas: np.ndarray, rotations: np.ndarray, transl: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (F, V, 3) by linear blend skinning, and joint positions (F, 24, 3), in the frame of `transl`."""
    vertices, joints = body.shaped(betas)
    world, position = forward_kinematics(rotations, transl, joints)
    shift = position - np.einsum("fjab,jb->fja", world, joints)  # (F, J, 3)
    transforms = np.concatenate([world, shift[..., None]], -1).reshape(len(rotations), 24, 12)
    blended = (body.weights @ transforms).reshape(len(rotations), -1, 3, 4)  # (F, V, 3, 4)
    return np.einsum("fvab,vb->fva", blended[..., :3], vertices) + blended[..., 3], position


def vertex_colours(body: NanoBody, look: Look) -> np.ndarray:
    """RGB (V, 3) of the dressed body: shirt, trousers, shoes, hair cap, bare forearms and face."""
    part, tints = body.part_of_vertex, look.vertex_tints
    colours = np.tile(np.asarray(tints["skin"]), (len(part), 1))
    for parts, garment in ((SHIRT_PARTS, "shirt"), (TROUSER_PARTS, "trousers"), (SHOE_PARTS, "shoes")):
        colours[np.isin(part, parts)] = tints[garment]
    head = np.flatnonzero(part == HEAD_PART)
    low, high = body.v_template[head].min(0), body.v_template[head].max(0)
    u = (body.v_template[head] - low) / (high - low)  # 0..1 in the box of the head: y up, z to the face
    line = 0.25 if look.hair_long else 0.5
    colours[head[(u[:, 1] > 0.80) | ((u[:, 2] < 0.5) & (u[:, 1] > line))]] = tints["hair"]
    return colours


def describe_request(request: ActionRequest) -> str:
    """ "kick left quickly"; for logs and tables."""
    return " ".join(w for w in (ACTION_NAMES[request.action], request.side, request.speed) if w)
