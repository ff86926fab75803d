"""Reads a body out of the package `anny` and brings it to SMPL's pose, frame, joints and weights (build time only).

Shapes: V vertices of anny's largest surface (13,348), B its 163 bones, J = 24 joints in SMPL's order.
Frames: anny is z up, facing -y; everything returned is y up, +z forward, +x the person's left, metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

AGE = 0.67  # adult, on anny's 0..1 scale
HEIGHT = 0.43  # 1.76 m
SIDES = (("L", 1.0), ("R", -1.0))
# The borders hips|spine, spine|spine1, spine1|spine2 run beside rows of the quad mesh, so that they come out level:
# front vertex of the row, and how far below the row the border lies (metres).
TRUNK_BORDERS = ((4053, 0.012), (4054, 0.014), (1472, 0.008))


@dataclass
class Anny:
    """One loaded model: topology, bone weights and a way to make bodies of different build."""

    model: object
    faces: np.ndarray  # (N, 3)
    quads: np.ndarray  # (N/2, 4)
    bones: dict[str, int]
    parents: list[int]
    weights: np.ndarray  # (V, B)

    @classmethod
    def load(cls) -> Anny:
        import anny

        model = anny.create_fullbody_model()
        faces = model.get_triangular_faces().numpy()
        keep = _largest_component(faces, len(model.template_vertices))
        if not np.array_equal(keep, np.arange(len(keep))):
            raise ValueError("anny's body is expected to come first among its vertices, before eyes and teeth")
        weights = np.zeros((len(model.template_vertices), len(model.bone_labels)))
        index = model.vertex_bone_indices.numpy()
        np.add.at(weights, (np.arange(len(weights))[:, None], index), model.vertex_bone_weights.numpy())
        bones = {name: i for i, name in enumerate(model.bone_labels)}
        faces = faces[(faces < len(keep)).all(1)]
        quads = model.faces.numpy()
        quads = quads[(quads < len(keep)).all(1)]
        return cls(model, faces, quads, bones, list(model.bone_parents), weights[: len(keep)])

    def body(self, **phenotype: float) -> tuple[np.ndarray, np.ndarray]:
        """One body in anny's own rest pose -> vertices (V, 3), bone heads (B, 3), in our axes."""
        import torch

        base = {"gender": 0.5, "age": AGE, "muscle": 0.5, "weight": 0.5, "height": HEIGHT, "proportions": 0.5}
        values = {k: torch.tensor([v], dtype=torch.float64) for k, v in (base | phenotype).items()}
        model = self.model
        blend = model.get_phenotype_blendshape_coefficients(**values)
        vertices = model.get_rest_vertices(blend)[0].numpy()[: len(self.weights)]
        heads = (model.template_bone_heads + torch.einsum("bk,kij->bij", blend, model.bone_heads_blendshapes))[
            0
        ].numpy()
        return _our_axes(vertices), _our_axes(heads)

    def t_pose(self, vertices: np.ndarray, heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turns anny's relaxed A-pose into SMPL's T-pose with anny's own bones -> vertices (V, 3), heads (B, 3)."""
        turn = np.broadcast_to(np.eye(3), (len(heads), 3, 3)).copy()  # world rotation of each bone
        for side, sign in SIDES:
            self._turn_arm(turn, heads, side, sign)
            self._turn_leg(turn, heads, side, sign)
        placed = heads.copy()
        for bone, parent in enumerate(self.parents):  # parents come first
            if parent >= 0:
                placed[bone] = placed[parent] + turn[parent] @ (heads[bone] - heads[parent])
        shift = placed - np.einsum("bij,bj->bi", turn, heads)
        transform = np.einsum("vb,bx->vx", self.weights, np.concatenate([turn.reshape(-1, 9), shift], 1))
        posed = np.einsum("vij,vj->vi", transform[:, :9].reshape(-1, 3, 3), vertices) + transform[:, 9:]
        return posed, placed

    def _turn_arm(self, turn, heads, side, sign):
        names = ("upperarm01", "lowerarm01", "wrist", "finger2-1", "finger3-1", "finger4-1", "finger5-1")
        at = {name: heads[self.bones[f"{name}.{side}"]] for name in names}
        out = np.array([sign, 0.0, 0.0])
        lift = about("z", sign * np.radians(9))
        arm = _shortest(lift @ (at["lowerarm01"] - at["upperarm01"]), out) @ lift
        fore = _shortest(arm @ (at["wrist"] - at["lowerarm01"]), out) @ arm
        knuckles = (at["finger2-1"] + at["finger3-1"] + at["finger4-1"] + at["finger5-1"]) / 4
        hand = _frame(out, np.array([0.0, 0, 1])) @ _frame(knuckles - at["wrist"], at["finger2-1"] - at["finger5-1"]).T
        relative = hand @ fore.T  # mostly a twist about x
        twist = np.arctan2(relative[2, 1] - relative[1, 2], relative[1, 1] + relative[2, 2])
        for name, value in (("clavicle", lift), ("shoulder01", lift), ("upperarm01", arm), ("upperarm02", arm)):
            turn[self.bones[f"{name}.{side}"]] = value
        turn[self.bones[f"lowerarm01.{side}"]] = about("x", 0.3 * twist) @ fore
        turn[self.bones[f"lowerarm02.{side}"]] = about("x", 0.7 * twist) @ fore
        for name, bone in self.bones.items():
            if name.endswith(f".{side}") and name.startswith(("wrist", "metacarpal", "finger")):
                turn[bone] = hand

    def _turn_leg(self, turn, heads, side, sign):
        hip, knee, ankle = (heads[self.bones[f"{n}.{side}"]] for n in ("upperleg01", "lowerleg01", "foot"))
        for start, end, lean, names in (
            (hip, knee, 0.012, ("upperleg01", "upperleg02")),
            (knee, ankle, 0.0, ("lowerleg01", "lowerleg02")),
        ):
            line = end - start
            angle = np.arctan2(line[0], -line[1])
            for name in names:
                turn[self.bones[f"{name}.{side}"]] = about("z", sign * lean - angle)


def smpl_joints(anny: Anny, heads: np.ndarray) -> np.ndarray:
    """Bone heads (B, 3) in T-pose -> SMPL's 24 joints (24, 3)."""
    at = {name: heads[i] for name, i in anny.bones.items()}
    joints = np.zeros((24, 3))
    joints[12], joints[15] = at["neck01"], at["head"]
    for side, (left, _) in enumerate(SIDES):
        bone = {name[:-2]: p for name, p in at.items() if name.endswith("." + left)}
        hip, shoulder = bone["upperleg01"] * [0.83, 1, 1], bone["upperarm01"]
        ball = np.mean([bone[f"toe{i}-1"] for i in range(1, 6)], 0)
        knuckles = np.mean([bone[f"finger{i}-1"] for i in range(2, 6)], 0)
        joints[1 + side], joints[4 + side], joints[7 + side] = hip, bone["lowerleg01"], bone["foot"]
        joints[10 + side] = bone["foot"] * [1, 0, 0] + ball * [0, 1, 0.9] + bone["foot"] * [0, 0, 0.1]
        collar = np.array([0.40 * shoulder[0], 0.75 * shoulder[1] + 0.25 * bone["clavicle"][1], shoulder[2]])
        joints[13 + side], joints[16 + side] = collar, shoulder
        joints[18 + side], joints[20 + side], joints[22 + side] = bone["lowerarm01"], bone["wrist"], knuckles
    hips = (joints[1] + joints[2]) / 2
    rise = joints[12, 1] - hips[1]
    joints[0] = [0.0, hips[1] + 0.11 * rise, 0.012]
    # SMPL's three spine joints lie 0.10, 0.23 and 0.29 m above a pelvis 0.51 m below the neck.
    for joint, height, back in ((3, 0.10, -0.004), (6, 0.23, -0.006), (9, 0.29, -0.004)):
        joints[joint] = [0.0, joints[0, 1] + height / 0.51 * (joints[12, 1] - joints[0, 1]), back]
    joints[[0, 3, 6, 9, 12, 15], 0] = 0.0
    return joints


def smpl_weights(anny: Anny, vertices: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """T-posed vertices (V, 3) -> skinning weights (V, 24): anny's bones gathered by name, the trunk divided anew.

    anny's trunk bones do not lie at SMPL's heights, so their sum is split again by height (hips and spine) and, at the
    top, sideways (collars). The split is smooth, level and mirror-symmetric: its 0.5 line is the border of the parts.
    """
    out = np.zeros((len(vertices), 24))
    trunk = np.zeros(len(vertices))
    for name, bone in anny.bones.items():
        side = 1 if name.endswith(".R") else 0
        share = anny.weights[:, bone]
        stem = name.rsplit(".", 1)[0]
        if stem.startswith(("root", "pelvis", "spine", "breast")):
            trunk += share
        elif stem.startswith(("clavicle", "shoulder01")):
            out[:, 13 + side] += share
        else:
            out[:, _joint_of_bone(stem) + (side if _joint_of_bone(stem) not in (12, 15) else 0)] += share
    above = np.stack([_rise(gap, 0.0, 0.07) for gap in trunk_gaps(anny, vertices)], 1)
    column = np.stack([1 - above[:, 0], above[:, 0] - above[:, 1], above[:, 1] - above[:, 2], above[:, 2]], 1).clip(0)
    column /= column.sum(1, keepdims=True)
    reach = np.abs(vertices[:, 0])
    collar = _rise(reach, 0.85 * joints[13, 0], 0.035) * _rise(vertices[:, 1], joints[13, 1] - 0.055, 0.045)
    for joint, sign in ((13, 1.0), (14, -1.0)):
        out[:, joint] += trunk * collar * (sign * vertices[:, 0] > 0)
    out[:, [0, 3, 6, 9]] += (trunk * (1 - collar))[:, None] * column
    for ankle, toe in ((7, 10), (8, 11)):  # anny bends only the toes; SMPL bends at the ball of the foot
        foot = out[:, ankle] + out[:, toe]
        front = _rise(vertices[:, 2], joints[toe, 2], 0.025)
        out[:, ankle], out[:, toe] = foot * (1 - front), foot * front
    return out


def trunk_gaps(anny: Anny, vertices: np.ndarray) -> list[np.ndarray]:
    """Height of T-posed vertices (V, 3) above each border of the trunk's parts, (V,) metres each."""
    back = 0.045  # the borders are followed around an upright axis in the middle of the trunk

    def azimuth(points):
        return np.arctan2(np.abs(points[:, 0]), points[:, 2] - back)

    gaps = []
    for front, below in TRUNK_BORDERS:
        row = vertices[_quad_row(anny.quads, front, vertices)]
        row = row[np.argsort(azimuth(row))]
        gaps.append(vertices[:, 1] - np.interp(azimuth(vertices), azimuth(row), row[:, 1]) + below)
    return gaps


def _quad_row(quads: np.ndarray, front: int, vertices: np.ndarray) -> list[int]:
    """The row of quad edges that leaves mid-line vertex `front` to the left and goes straight on to the back."""
    faces_of_edge: dict[frozenset, set[int]] = {}
    for i, quad in enumerate(quads.tolist()):
        for k in range(4):
            faces_of_edge.setdefault(frozenset((quad[k - 1], quad[k])), set()).add(i)
    around: dict[int, set[int]] = {}
    for a, b in map(tuple, faces_of_edge):
        around.setdefault(a, set()).add(b)
        around.setdefault(b, set()).add(a)
    row = [front, max(around[front], key=lambda i: vertices[i, 0])]
    while abs(vertices[row[-1], 0]) > 1e-6:
        beside = faces_of_edge[frozenset(row[-2:])]
        ahead = [i for i in around[row[-1]] if i != row[-2] and not faces_of_edge[frozenset((row[-1], i))] & beside]
        if len(ahead) != 1 or len(row) > 40:
            raise ValueError(f"the quad row from vertex {front} does not reach the back; is this another anny mesh?")
        row.append(ahead[0])
    return row


def four_largest(weights: np.ndarray) -> np.ndarray:
    """Keeps the four largest weights of each row and makes them sum to 1."""
    order = np.argsort(-weights, axis=1, kind="stable")
    kept = np.where(weights > 1e-3, weights, 0.0)
    np.put_along_axis(kept, order[:, 4:], 0.0, axis=1)
    return kept / kept.sum(1, keepdims=True)


def _joint_of_bone(stem: str) -> int:
    """Joint of the LEFT side for a bone name without its side."""
    for prefix, joint in (
        ("upperleg", 1), ("lowerleg", 4), ("foot", 7), ("toe", 10), ("upperarm", 16), ("lowerarm", 18), ("wrist", 20),
        ("metacarpal", 20), ("finger1", 20), ("finger", 22), ("neck", 12),
    ):  # fmt: skip
        if stem.startswith(prefix):
            return joint
    return 15  # everything else is in the face


def _rise(x: np.ndarray, middle: float, half_width: float) -> np.ndarray:
    t = ((x - middle) / (2 * half_width) + 0.5).clip(0, 1)
    return t * t * (3 - 2 * t)


def _our_axes(points: np.ndarray) -> np.ndarray:
    return points[:, [0, 2, 1]] * [1.0, 1.0, -1.0]


def about(axis: str, angle: float) -> np.ndarray:
    """Rotation matrix about one axis."""
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    out = np.eye(3)
    out[[i, j], [i, j]] = np.cos(angle)
    out[i, j], out[j, i] = -np.sin(angle), np.sin(angle)
    return out


def _shortest(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The smallest rotation that takes direction `source` to direction `target`."""
    a, b = source / np.linalg.norm(source), target / np.linalg.norm(target)
    axis, cosine = np.cross(a, b), float(a @ b)
    x, y, z = axis
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + skew + skew @ skew / (1 + cosine)


def _frame(along: np.ndarray, across: np.ndarray) -> np.ndarray:
    x = along / np.linalg.norm(along)
    z = across - (across @ x) * x
    z = z / np.linalg.norm(z)
    return np.stack([x, np.cross(z, x), z], 1)


def _largest_component(faces: np.ndarray, count: int) -> np.ndarray:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = coo_matrix((np.ones(faces.size), (faces.ravel(), np.roll(faces, 1, 1).ravel())), shape=(count, count))
    label = connected_components(links, directed=False)[1]
    return np.flatnonzero(label == np.bincount(label).argmax())
