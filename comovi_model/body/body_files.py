"""Body models from files: the `.pkl` of SMPL, `.npz`, `.safetensors`; every array is checked before use.

Letters: V vertices, N faces, J = 24 joints, K shape components (betas).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import ComoviError
from ..files import require_file
from .motion import load_arrays
from .parts import NUM_JOINTS, PARENTS, parts_from_segmentation, parts_from_weights
from .smpl import BodyModel
from .smpl_pickle import read_smpl_pickle

ASSETS = Path(__file__).resolve().parents[1] / "assets"
SEGMENTATION_NAME = "smpl_vert_segmentation.json"
_WANTED = ("v_template", "shapedirs", "posedirs", "J_regressor", "J", "weights", "f", "faces", "kintree_table")


def load_mannequin_body() -> BodyModel:
    """The CC0 mannequin with the array shapes of SMPL (assets/mannequin.safetensors)."""
    return read_body_model(ASSETS / "mannequin.safetensors")


def load_nano_body() -> BodyModel:
    """The mannequin with at most 1500 faces, for small pictures (assets/nano_body.safetensors)."""
    return read_body_model(ASSETS / "nano_body.safetensors")


def read_body_model(path: str | Path) -> BodyModel:
    """Reads a body file by its suffix; `smpl_vert_segmentation.json` beside it names the parts exactly."""
    path = Path(path)
    readers = {".pkl": read_smpl_pickle, ".npz": _read_npz, ".safetensors": _read_safetensors}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ComoviError(f"{path}: a body model is a .pkl, .npz or .safetensors file, got suffix {path.suffix!r}.")
    return _body_from_arrays(path, reader(require_file(path, "body model")))


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    return load_arrays(path, "body model", (*_WANTED, "part_of_vertex", "name"))


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            label = (file.metadata() or {}).get("name")
    except (SafetensorError, OSError) as error:
        raise ComoviError(f"{path}: expected a safetensors file ({error}).") from None
    numbers = {name: value.float() if value.is_floating_point() else value for name, value in arrays.items()}
    result = {name: value.numpy() for name, value in numbers.items()}
    return result if label is None else {**result, "name": np.array(label)}


def _body_from_arrays(path: Path, arrays: dict[str, np.ndarray]) -> BodyModel:
    if "f" in arrays:
        arrays = {**arrays, "faces": arrays["f"]}
    for name in ("v_template", "weights", "faces"):
        if name not in arrays:
            raise ComoviError(
                f"{path}: array {name!r} is missing, so this is not a body model; found {sorted(arrays)}."
            )
    num_vertices = _shape(path, arrays, "v_template", (None, 3))[0]
    _check_joints(path, arrays)
    _shape(path, arrays, "weights", (num_vertices, NUM_JOINTS))
    _shape(path, arrays, "faces", (None, 3))
    v_template, weights = _floats(path, arrays, "v_template"), _floats(path, arrays, "weights")
    weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)  # float16 files round them
    faces = torch.from_numpy(arrays["faces"].astype(np.int64))
    if not len(faces) or faces.min() < 0 or faces.max() >= num_vertices:
        raise ComoviError(f"{path}: faces must number vertices 0..{num_vertices - 1}; the file is damaged.")
    return BodyModel(
        v_template=v_template,
        shapedirs=_shapedirs(path, arrays, num_vertices),
        posedirs=_posedirs(path, arrays, num_vertices),
        J_regressor=_regressor(path, arrays, v_template, weights),
        weights=weights,
        faces=faces,
        part_of_vertex=_parts(path, arrays, weights),
        name=str(arrays["name"]) if "name" in arrays else path.stem.lower(),
        closed=is_closed(faces),
    )


def is_closed(faces: Tensor) -> bool:
    """True if every edge of faces (N, 3) is shared by exactly two faces that agree about the outside."""
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    size = int(faces.max()) + 1
    forward, backward = edges[:, 0] * size + edges[:, 1], edges[:, 1] * size + edges[:, 0]
    return bool(torch.equal(forward.sort().values, backward.sort().values) and len(forward.unique()) == len(forward))


def _shape(path: Path, arrays: dict[str, np.ndarray], name: str, expected: tuple[int | None, ...]) -> tuple[int, ...]:
    shape = arrays[name].shape
    fits = len(shape) == len(expected) and all(want in (None, got) for want, got in zip(expected, shape, strict=True))
    if not fits or arrays[name].size == 0 or arrays[name].dtype.kind not in "fiu":
        wanted = tuple("any" if size is None else size for size in expected)
        raise ComoviError(f"{path}: {name} must be numbers of shape {wanted}, got {arrays[name].dtype} {shape}.")
    return shape


def _floats(path: Path, arrays: dict[str, np.ndarray], name: str) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(arrays[name], dtype=np.float32))
    if not torch.isfinite(tensor).all():
        raise ComoviError(f"{path}: {name} holds NaN or infinite numbers; the file is damaged.")
    return tensor


def _check_joints(path: Path, arrays: dict[str, np.ndarray]) -> None:
    count = arrays["weights"].shape[-1] if arrays["weights"].ndim else 0
    if count != NUM_JOINTS:
        known = {52: " (SMPL-H)", 55: " (SMPL-X)"}.get(count, "")
        raise ComoviError(f"{path}: expected the {NUM_JOINTS} joints of SMPL, got {count}{known}; use an SMPL file.")
    if "kintree_table" in arrays:
        table = arrays["kintree_table"]
        if table.shape != (2, NUM_JOINTS) or table[0, 1:].astype(np.int64).tolist() != list(PARENTS[1:]):
            raise ComoviError(f"{path}: kintree_table is not the joint tree of SMPL; use an SMPL file.")


def _shapedirs(path: Path, arrays: dict[str, np.ndarray], num_vertices: int) -> Tensor:
    if "shapedirs" not in arrays or arrays["shapedirs"].size == 0:
        return torch.zeros(num_vertices, 3, 0)
    _shape(path, arrays, "shapedirs", (num_vertices, 3, None))
    return _floats(path, arrays, "shapedirs")


def _posedirs(path: Path, arrays: dict[str, np.ndarray], num_vertices: int) -> Tensor | None:
    if "posedirs" not in arrays:
        return None
    features = 9 * (NUM_JOINTS - 1)
    if arrays["posedirs"].shape == (features, num_vertices * 3):
        return _floats(path, arrays, "posedirs")
    _shape(path, arrays, "posedirs", (num_vertices, 3, features))
    return _floats(path, arrays, "posedirs").reshape(-1, features).T.contiguous()


def _regressor(path: Path, arrays: dict[str, np.ndarray], v_template: Tensor, weights: Tensor) -> Tensor:
    if "J_regressor" in arrays:
        _shape(path, arrays, "J_regressor", (NUM_JOINTS, len(v_template)))
        return _floats(path, arrays, "J_regressor")
    if "J" not in arrays:
        raise ComoviError(
            f"{path}: neither J_regressor nor J is there, so the joints are unknown; use a complete file."
        )
    _shape(path, arrays, "J", (NUM_JOINTS, 3))
    return regressor_for_joints(v_template, weights, _floats(path, arrays, "J"))


def regressor_for_joints(v_template: Tensor, weights: Tensor, joints: Tensor) -> Tensor:
    """The regressor (J, V) nearest to the normalised weights whose rows sum to 1 and give joints (J, 3) exactly."""
    start = (weights / weights.sum(0, keepdim=True).clamp_min(1e-12)).T.double()  # (J, V)
    constraints = torch.cat([v_template, torch.ones(len(v_template), 1)], 1).double()  # (V, 4)
    target = torch.cat([joints, torch.ones(len(joints), 1)], 1).double()
    correction = torch.linalg.lstsq(constraints.T, (target - start @ constraints).T, driver="gelsd").solution.T
    return (start + correction).float()


def _parts(path: Path, arrays: dict[str, np.ndarray], weights: Tensor) -> Tensor:
    segmentation = path.parent / SEGMENTATION_NAME
    if "part_of_vertex" in arrays:
        _shape(path, arrays, "part_of_vertex", (len(weights),))
        parts = torch.from_numpy(arrays["part_of_vertex"].astype(np.int64))
        if parts.min() < 0 or parts.max() >= NUM_JOINTS:
            raise ComoviError(f"{path}: part_of_vertex must hold 0..{NUM_JOINTS - 1}; the file is damaged.")
        return parts
    return (
        parts_from_segmentation(segmentation, len(weights)) if segmentation.is_file() else parts_from_weights(weights)
    )
