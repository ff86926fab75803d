"""Motions as USD text: a UsdSkel body that usdview, Houdini, Blender and Omniverse play.

Letters: F frames, J = 24 joints, V vertices. Y up, metres, one time code per frame. Quaternions are (w, x, y, z);
matrices act on row vectors, so a translation stands in the last row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ..body.motion import BodyMotion
from ..body.parts import PARENTS, part_palette
from ..body.rotations import continuous_quaternions, matrix_to_quaternion, quaternion_to_matrix
from ..body.smpl import BodyModel, rest_joints, shaped_vertices
from ..errors import ComoviError
from ..files import atomic_path
from .bvh_text import parse_numbers
from .gltf import polar
from .limits import check_frames
from .names import preset_names
from .place import placed
from .skeleton import Skeleton, in_our_axes, retarget

USUAL_RATE = 24.0  # time codes per second where a layer states none


def save_usda(
    path: str | Path, motion: BodyMotion, model: BodyModel, *, names: str = "smpl", root: str = "centred"
) -> None:
    text = usda_text(motion, model, names=names, root=root)
    with atomic_path(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def usda_text(motion: BodyMotion, model: BodyModel, *, names: str = "smpl", root: str = "centred") -> str:
    model = model.to("cpu")
    motion = placed(motion.to("cpu"), model, "yup", root)
    paths = joint_paths([re.sub(r"\W", "_", name) for name in preset_names(names)])
    joints = rest_joints(model, motion.betas).double().numpy()
    offsets = np.array([joints[j] - joints[p] if p >= 0 else joints[j] for j, p in enumerate(PARENTS)])
    tokens = ", ".join(f'"{path}"' for path in paths)
    last = len(motion) - 1
    return f"""#usda 1.0
(
    defaultPrim = "Person"
    doc = "Human motion, written by ComfyUI-CoMoVi"
    customLayerData = {{
        string comovi_body = "{_quoted(motion.body_model)}"
        double[] comovi_betas = [{", ".join(f"{beta:.9g}" for beta in motion.betas.tolist())}]
    }}
    metersPerUnit = 1
    upAxis = "Y"
    startTimeCode = 0
    endTimeCode = {last}
    timeCodesPerSecond = {motion.fps:.12g}
    framesPerSecond = {motion.fps:.12g}
)

def SkelRoot "Person" (
    prepend apiSchemas = ["SkelBindingAPI"]
)
{{
    def Skeleton "Skeleton" (
        prepend apiSchemas = ["SkelBindingAPI"]
    )
    {{
        uniform matrix4d[] bindTransforms = [{_matrices(joints)}]
        uniform token[] joints = [{tokens}]
        uniform matrix4d[] restTransforms = [{_matrices(offsets)}]
        rel skel:animationSource = </Person/Skeleton/Motion>

        def SkelAnimation "Motion"
        {{
            uniform token[] joints = [{tokens}]
            quatf[] rotations.timeSamples = {{
{_rotation_samples(motion)}
            }}
            half3[] scales = [{", ".join(["(1, 1, 1)"] * len(paths))}]
            float3[] translations.timeSamples = {{
{_translation_samples(motion, joints, offsets)}
            }}
        }}
    }}

{_mesh(model, motion)}
}}
"""


def joint_paths(names: list[str]) -> list[str]:
    """ "pelvis/left_hip/left_knee": the tree is in the names."""
    paths: list[str] = []
    for joint, parent in enumerate(PARENTS):
        paths.append(names[joint] if parent < 0 else f"{paths[parent]}/{names[joint]}")
    return paths


def _quoted(text: str) -> str:
    return re.sub(r"[^\w .:+-]", "_", text)


def _tuples(values: np.ndarray) -> str:
    """(n, k) -> "(a, b, c), (...)"."""
    width = values.shape[1]
    one = "(" + ", ".join(["%.9g"] * width) + ")"
    return ", ".join([one] * len(values)) % tuple(values.ravel().tolist())


def _matrices(translations: np.ndarray) -> str:
    one = "((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (%.9g, %.9g, %.9g, 1))"
    return ", ".join([one] * len(translations)) % tuple(translations.ravel().tolist())


def _rotation_samples(motion: BodyMotion) -> str:
    quaternions = continuous_quaternions(matrix_to_quaternion(motion.rotations.double())).numpy()
    return "\n".join(f"                {frame}: [{_tuples(row)}]," for frame, row in enumerate(quaternions))


def _translation_samples(motion: BodyMotion, joints: np.ndarray, offsets: np.ndarray) -> str:
    rest = _tuples(offsets[1:])
    pelvis = joints[0] + motion.transl.double().numpy()
    return "\n".join(f"                {frame}: [{_tuples(row[None])}, {rest}]," for frame, row in enumerate(pelvis))


def _mesh(model: BodyModel, motion: BodyMotion) -> str:
    vertices = shaped_vertices(model, motion.betas).numpy()
    values, owners = model.weights.double().topk(4, dim=1)
    values = values / values.sum(1, keepdim=True)
    palette = np.array(part_palette())[model.part_of_vertex.numpy()] / 255.0
    extent = np.stack([vertices.min(0), vertices.max(0)])
    return f"""    def Mesh "Body" (
        prepend apiSchemas = ["SkelBindingAPI"]
    )
    {{
        float3[] extent = [{_tuples(extent)}]
        int[] faceVertexCounts = [{", ".join(["3"] * len(model.faces))}]
        int[] faceVertexIndices = [{", ".join(map(str, model.faces.ravel().tolist()))}]
        point3f[] points = [{_tuples(vertices)}]
        color3f[] primvars:displayColor = [{_tuples(np.round(palette, 3))}] (
            interpolation = "vertex"
        )
        matrix4d primvars:skel:geomBindTransform = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
        int[] primvars:skel:jointIndices = [{", ".join(map(str, owners.ravel().tolist()))}] (
            elementSize = 4
            interpolation = "vertex"
        )
        float[] primvars:skel:jointWeights = [{", ".join(f"{value:.7g}" for value in values.ravel().tolist())}] (
            elementSize = 4
            interpolation = "vertex"
        )
        rel skel:skeleton = </Person/Skeleton>
        uniform token subdivisionScheme = "none"
    }}"""


def read_usda(
    text: str,
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
    """The first Skeleton and SkelAnimation of a text file -> motion of `body` in frame "yup", and notes."""
    stated = _header_number(text, "timeCodesPerSecond", _header_number(text, "framesPerSecond", 0.0))
    rate = fps or stated or USUAL_RATE
    skeleton = skeleton_of(text, rate)
    ours = "string comovi_body =" in text[:20_000]  # others may turn the skeleton by transforms that are not read here
    skeleton, axes = in_our_axes(
        skeleton, units=units, up=up, handedness=handedness or "right", mapping=mapping,
        stated_units=_header_number(text, "metersPerUnit", 0.01), stated_up="yup" if ours else None,
    )  # fmt: skip
    own = _own_betas(text, body) if betas is None else betas
    motion, notes = retarget(skeleton, body, mapping=mapping, betas=own, shape=shape)
    says = "given" if fps else "stated by the file" if stated else "USD's usual rate, as the file states none"
    return motion, [f"{len(motion)} frames at {rate:.6g} per second ({says})", *axes, *notes]


def _header_number(text: str, name: str, default: float) -> float:
    found = re.search(rf"^\s*{name}\s*=\s*([-+0-9.eE]{{1,30}})", text[:20_000], re.MULTILINE)
    try:
        value = float(found[1]) if found else default
    except ValueError:
        value = default
    return value if 1e-6 < value < 1e6 else default


def _own_betas(text: str, body: BodyModel) -> torch.Tensor | None:
    name = re.search(r'string comovi_body = "([^"]{0,200})"', text[:20_000])
    found = re.search(r"double\[\] comovi_betas = \[([^\]]{0,2000})\]", text[:20_000])
    if not name or not found or name[1].removesuffix("-nano") != body.shape_space:
        return None
    values = parse_numbers(found[1].replace(",", " "), "USD")
    return torch.from_numpy(values).float() if len(values) == 10 and np.abs(values).max() < 100 else None


def skeleton_of(text: str, rate: float) -> Skeleton:
    skeletons = text.find('def Skeleton "')
    animations = text.find('def SkelAnimation "')
    if skeletons < 0 or animations < 0:
        raise ComoviError("the USD file holds no Skeleton with a SkelAnimation, so there is no motion in it.")
    bones, order = _tokens(text, skeletons), _tokens(text, animations)
    missing = [path for path in bones if path not in set(order)]
    if missing:
        raise ComoviError(f"the animation of the USD file does not move joint {missing[0][:60]}.")
    bind = _values(text, r"matrix4d\[\]\s+bindTransforms\s*=\s*\[", skeletons).reshape(-1, 4, 4).transpose(0, 2, 1)
    if len(bind) != len(bones):
        raise ComoviError("the skeleton of the USD file has more joints than bind transforms, or fewer.")
    turns, moves = _samples(text, "rotations", animations, 4), _samples(text, "translations", animations, 3)
    frames = max(len(turns), len(moves))
    check_frames(frames, len(bones))
    if {len(turns), len(moves)} - {1, frames} or turns.shape[1] != len(order) or moves.shape[1] != len(order):
        raise ComoviError("rotations and translations of the USD file have different times or joints.")
    place = [order.index(path) for path in bones]
    local = np.zeros((frames, len(bones), 4, 4))
    local[..., :3, :3] = quaternion_to_matrix(torch.from_numpy(turns[:, place])).numpy()
    local[..., :3, 3] = moves[:, place]
    local[..., 3, 3] = 1
    parents = [bones.index(path.rpartition("/")[0]) if path.rpartition("/")[0] in bones else -1 for path in bones]
    if any(parent >= joint for joint, parent in enumerate(parents)):
        raise ComoviError("the joints of the USD file must list parents first.")
    world = local
    for joint, parent in enumerate(parents):
        if parent >= 0:
            world[:, joint] = world[:, parent] @ local[:, joint]
    rest_turns = polar(bind[:, :3, :3])
    names = tuple(path.rpartition("/")[2] for path in bones)
    turned = world[..., :3, :3] @ rest_turns.transpose(0, 2, 1)
    return Skeleton(names, tuple(parents), bind[:, :3, 3], turned, world[..., :3, 3], rate)


def _tokens(text: str, start: int) -> list[str]:
    found = re.compile(r"token\[\]\s+joints\s*=\s*\[([^\]]*)\]").search(text, start)
    tokens = re.findall(r'"([^"\n]{1,2000})"', found[1]) if found else []
    if not 1 <= len(tokens) <= 5000 or len(set(tokens)) != len(tokens):
        raise ComoviError("the USD file has a skeleton without joints, or with joints of the same name.")
    return tokens


def _values(text: str, head: str, start: int) -> np.ndarray:
    """The numbers of an array of tuples, flat."""
    found = re.compile(head).search(text, start)
    end = text.find("]", found.end()) if found else -1
    if found is None or end < 0:
        raise ComoviError("the skeleton of the USD file lacks bindTransforms; it is cut off or of another kind.")
    values = parse_numbers(text[found.end() : end].translate(_SIGNS), "USD")
    if values.size % 16:
        raise ComoviError("the matrices of the USD file are incomplete.")
    return values


_SIGNS = str.maketrans("(),", "   ")


def _samples(text: str, name: str, start: int, width: int) -> np.ndarray:
    """rotations or translations: (F, joints, width), from time samples in order of time or one value."""
    found = re.compile(rf"\s{name}(\.timeSamples)?\s*=\s*([\[{{])").search(text, start)
    if found is None:
        raise ComoviError(f"the animation of the USD file lacks {name}.")
    end = text.find("}" if found[2] == "{" else "]", found.end())
    block = text[found.end() : end if end >= 0 else len(text)]
    if found[2] == "[":
        times, rows = [0.0], [block]
    else:
        pieces = re.findall(r"([-+0-9.eE]{1,30})\s*:\s*\[([^\]]*)\]", block)
        times, rows = [_time(piece[0]) for piece in pieces], [piece[1] for piece in pieces]
    check_frames(len(rows))
    steps = np.diff(times)
    if len(steps) and not np.abs(steps - 1).max() < 1e-3:
        raise ComoviError("the time samples of the USD file are not one per frame; bake the animation first.")
    arrays = [parse_numbers(row.translate(_SIGNS), "USD") for row in rows]
    if len({len(array) for array in arrays}) != 1 or len(arrays[0]) % width or not len(arrays[0]):
        raise ComoviError(f"{name} of the USD file differ in number from frame to frame.")
    return np.stack(arrays).reshape(len(arrays), -1, width)


def _time(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ComoviError(f"{text[:30]!r} is no time code.") from None
